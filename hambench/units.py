"""Constants and conversion factors (CODATA 2018, NIST SP 961); no other file states one.

Inside the house: Hartree for energies and Hamiltonians, Angstrom for lengths.
"""

from __future__ import annotations

from typing import Final

BOHR: Final = 0.529177210903
"""Angstrom per bohr (CODATA 2018)."""

HARTREE_EV: Final = 27.211386245988
"""Electronvolt per Hartree (CODATA 2018)."""

KCAL_MOL: Final = 627.5094740631
"""kcal/mol per Hartree (CODATA 2018, thermochemical calorie)."""

HARTREE_KELVIN: Final = 315775.02480407
"""Kelvin per Hartree (Hartree over the Boltzmann constant, CODATA 2018)."""

DEBYE: Final = 2.541746473
"""Debye per e bohr (CODATA 2018)."""

REPORT: Final[dict[str, tuple[str, float]]] = {
    "Eh": ("uEh", 1e6),
    "Eh^2": ("uEh^2", 1e12),
    "D": ("D", 1.0),
    "1": ("", 1.0),
}
"""How a table prints a stored unit: (label, factor). ``uEh`` is 1e-6 Hartree."""

MEV: Final = ("meV", 1e3 * HARTREE_EV)
"""The same for errors of total energies stored in Eh."""

PERCENT: Final = ("%", 1e2)
"""The same for what the field prints in 1e-2."""
