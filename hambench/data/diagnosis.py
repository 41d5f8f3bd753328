"""Which unit and AO order a file has, if not those it is read with.

Every combination is tried on one row. Where the file has an overlap, that decides. Where it has
none, the Hamiltonian is compared with the Fock matrix of an atomic guess density: that is some
0.02 Eh off on average, a wrong order four times as much; the best one must then reproduce itself
as the Fock matrix of its own density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any, Final, get_args, get_type_hints

import numpy as np
from numpy.typing import NDArray

from hambench.chem import dft, functional
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import ORDERS, to_canonical
from hambench.chem.theory import Theory
from hambench.data.conventions import LENGTHS, MAX_OVERLAP_ERROR, Conventions
from hambench.data.rows import Rows

AS_DELIVERED: Final = Conventions("angstrom", "canonical")
"""Of rows whose format states its unit and order."""

MAX_FOCK_ERROR: Final = 1e-3
"""Eh, mean ``|F[D] - H|``; grids and density fitting stay well below, a wrong order gives 0.08."""


def current(rows: Rows) -> Conventions:
    """The conventions that rows are read with."""
    return getattr(rows, "conventions", AS_DELIVERED)


def of_overlap(rows: Rows, place: int, basis: OrbitalBasis) -> str:
    """What would make the overlap of a row fit its positions, as words for a message."""
    fitting = []
    for conventions, molecule in _candidates(rows, place, basis):
        expected = dft.overlap(molecule.numbers, molecule.positions, basis.name)
        assert molecule.overlap is not None  # or no check of it had failed
        if np.abs(molecule.overlap - expected).max() <= MAX_OVERLAP_ERROR:
            fitting.append(conventions)
    return _said(fitting, current(rows))


def of_hamiltonian(rows: Rows, place: int, basis: OrbitalBasis, theory: Theory) -> str:
    """What would make the Hamiltonian of a row fit its positions, as words for a message."""
    guesses: dict[str, NDArray[np.float64]] = {}
    found: list[tuple[float, Conventions, Molecule]] = []
    for conventions, molecule in _candidates(rows, place, basis):
        assert molecule.hamiltonian is not None  # or no check of it had failed
        if conventions.unit not in guesses:
            guesses[conventions.unit] = dft.initial_fock(molecule, theory)
        error = np.abs(molecule.hamiltonian - guesses[conventions.unit]).mean()
        found.append((float(error), conventions, molecule))
    least = min(error for error, _, _ in found)
    best = [(c, molecule) for error, c, molecule in found if error == least]
    if fock_error(best[0][1], theory) <= MAX_FOCK_ERROR:
        return _said([c for c, _ in best], current(rows))
    charge = charge_that_fits(rows[place], basis, theory)
    return _said([], current(rows)) if charge is None else f"it would fit with charge {charge}"


def charge_that_fits(molecule: Molecule, basis: OrbitalBasis, theory: Theory) -> int | None:
    """A charge near the stated one, of a closed shell, whose ``F[D]`` is the Hamiltonian."""
    for change in (1, -1, 2, -2):
        charge = molecule.charge + change
        electrons = basis.electrons(molecule.numbers, charge)
        if electrons <= 0 or electrons % 2:
            continue
        if fock_error(replace(molecule, charge=charge), theory) <= MAX_FOCK_ERROR:
            return charge
    return None


def fock_error(molecule: Molecule, theory: Theory) -> float:
    """Mean ``|F[D] - H|`` in Eh, D the density of H itself."""
    hamiltonian = molecule.hamiltonian
    assert hamiltonian is not None  # as callers made sure
    rebuilt = functional.fock_of(hamiltonian, molecule, theory)
    return float(np.abs(rebuilt - hamiltonian).mean())


def _candidates(
    rows: Rows, place: int, basis: OrbitalBasis
) -> Iterator[tuple[Conventions, Molecule]]:
    """A row as read under every unit and order."""
    delivered = None if hasattr(rows, "with_conventions") else rows[place]
    units = get_args(get_type_hints(Conventions)["unit"])
    for unit, order in product(units, ORDERS):
        conventions = Conventions(unit, order)
        if delivered is None:
            yield conventions, rows.with_conventions(conventions)[place]  # type: ignore[attr-defined]
        else:
            yield conventions, _converted(delivered, conventions, basis)


def _converted(molecule: Molecule, conventions: Conventions, basis: OrbitalBasis) -> Molecule:
    matrices: dict[str, Any] = {
        name: to_canonical(matrix, molecule.numbers, basis, conventions.order)
        for name in ("hamiltonian", "overlap")
        if (matrix := getattr(molecule, name)) is not None
    }
    positions = molecule.positions * LENGTHS[conventions.unit]
    return replace(molecule, positions=positions, **matrices)


def _said(fitting: list[Conventions], read_with: Conventions) -> str:
    """The candidates that fit, compared with those of the reader."""
    fitting = [c for c in fitting if c.unit == fitting[0].unit]
    if not fitting:
        return (
            "no known unit of length and order of orbitals would make it fit, so the row is "
            "damaged, or of other positions, another charge or level of theory than stated"
        )
    said = []
    if fitting[0].unit != read_with.unit:
        said.append(f"the positions are in {fitting[0].unit}")
    orders = [c.order for c in fitting]
    if read_with.order not in orders:
        said.append(f"the orbitals are in {' or '.join(orders)} order")
    if not said:
        return "its unit and order are right, so it is damaged, or of another level of theory"
    expected = f"{read_with.unit} and {read_with.order} order"
    return f"it would fit if read differently: {', '.join(said)} (read as {expected})"
