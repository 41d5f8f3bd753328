"""Empirical dispersion of Chai and Head-Gordon, the "-D" of wB97X-D (PCCP 10, 6615, 2008).

It depends on nuclei alone: it adds to energies and forces, never to H, S or orbitals. Coefficients
and radii are those of Grimme's D2 (J. Comput. Chem. 27, 1787, 2006); scale factor 1.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.theory import Theory
from hambench.errors import ConfigError

_HARTREE_J_MOL: Final = 2625499.6394799  # J/mol per Hartree (CODATA 2018)
_C6_UNIT: Final = 1e6 / _HARTREE_J_MOL  # J nm^6 mol^-1 in Eh Angstrom^6
_DAMPING: Final = 6.0
_D2: Final[dict[int, tuple[float, float]]] = {
    1: (0.14, 1.001),
    6: (1.75, 1.452),
    7: (1.23, 1.397),
    8: (0.70, 1.342),
    9: (0.75, 1.287),
    16: (5.57, 1.683),
    17: (5.07, 1.639),
    35: (12.47, 1.749),
}
"""C6 (J nm^6 mol^-1) and van der Waals radius (Angstrom) by atomic number."""


def chai_head_gordon(numbers: ArrayLike, positions: ArrayLike) -> tuple[float, NDArray[np.float64]]:
    """``E = -sum_{i<j} C6_ij / R^6 / (1 + 6 (R/R0_ij)^-12)`` and its forces.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Angstrom.

    Returns:
        Energy in Eh and forces (N, 3) in Eh/Angstrom.

    Raises:
        ConfigError: an element without parameters.
    """
    numbers = np.asarray(numbers, dtype=np.int64)
    missing = sorted({int(z) for z in numbers} - set(_D2))
    if missing:
        raise ConfigError(
            f"no wB97X-D dispersion parameters for {', '.join(SYMBOLS[z] for z in missing)}; "
            f"they exist for {', '.join(SYMBOLS[z] for z in _D2)}"
        )
    c6, radius = np.array([_D2[int(z)] for z in numbers]).T
    i, j = np.triu_indices(len(numbers), k=1)
    vector = np.asarray(positions, dtype=np.float64)[i] - np.asarray(positions, dtype=np.float64)[j]
    distance = np.linalg.norm(vector, axis=1)
    damping = _DAMPING * (distance / (radius[i] + radius[j])) ** -12
    switch = 1 / (1 + damping)
    pair = -np.sqrt(c6[i] * c6[j]) * _C6_UNIT * distance**-6 * switch
    slope = pair / distance * (12 * damping * switch - 6)  # dE/dR of each pair
    pull = -(slope / distance)[:, None] * vector
    forces = np.zeros((len(numbers), 3))
    np.add.at(forces, i, pull)
    np.add.at(forces, j, -pull)
    return float(pair.sum()), forces


def dispersion(molecule: Molecule, theory: Theory) -> tuple[float, NDArray[np.float64]]:
    """Energy (Eh) and forces (N, 3) in Eh/Angstrom that a theory adds; zeros where it adds none."""
    if theory.dispersion:
        return chai_head_gordon(molecule.numbers, molecule.positions)
    return 0.0, np.zeros((len(molecule), 3))
