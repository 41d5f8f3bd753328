"""Orbitals of a Hamiltonian label, which the alignment loss (`hambench.losses`) compares in.

They are found once per molecule, in float64, when its graph is built: training takes no
derivative of an eigensolver.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.levels import orbital_levels, overlap_threshold
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.overlaps import cached_overlap
from hambench.errors import ConfigError, DataError

DEGENERATE: Final = 1e-5
"""Eh. Neighbouring levels closer than this form a set: integration grids and float32 files split
levels that symmetry makes equal by up to as much, and mix their orbitals at will."""


@dataclass(frozen=True)
class OrbitalLabels:
    """Orbitals of a label, ascending; n is the number of atomic orbitals.

    Attributes:
        coefficients: (n, n), ``C^T S C = 1``; columns are zero beyond the orbitals there are,
            which is fewer than n where the overlap is near singular.
        sets: (n,) number of the degenerate set of each orbital, from 0; -1 where there is none.
        low_sets: how many sets hold occupied orbitals or the lowest empty one.
    """

    coefficients: NDArray[np.float64]
    sets: NDArray[np.int32]
    low_sets: int


def orbital_labels(
    molecule: Molecule, hamiltonian: NDArray[np.float64], basis: OrbitalBasis
) -> OrbitalLabels:
    """Solve ``H C = S C e`` for a molecule's label.

    Args:
        molecule: with its overlap; without one it is computed, or taken from the cache of
            overlaps.
        hamiltonian: (nao, nao) label in Eh, canonical order.
        basis: of the label.

    Raises:
        DataError: the molecule is no closed shell.
        ConfigError: its overlap has to be computed, and PySCF is not installed.
    """
    electrons = basis.electrons(molecule.numbers, molecule.charge)
    if molecule.multiplicity != 1 or electrons % 2 or electrons < 0:
        raise DataError(
            f"{engine.called(molecule)}: {electrons} electrons outside the cores and multiplicity "
            f"{molecule.multiplicity} are no closed shell, whose orbitals the alignment loss "
            "compares; leave it out, or train without (recipe.alignment=null)"
        )
    levels, found = orbital_levels(
        hamiltonian, _overlap(molecule, basis), overlap_threshold(basis.name)
    )
    n, m = found.shape
    coefficients = np.zeros((n, n))
    coefficients[:, :m] = found
    sets = np.full(n, -1, dtype=np.int32)
    sets[:m] = np.concatenate([[0], np.cumsum(np.diff(levels) > DEGENERATE)])
    lowest_empty = min(electrons // 2, m - 1)
    return OrbitalLabels(coefficients, sets, int(sets[lowest_empty]) + 1)


def _overlap(molecule: Molecule, basis: OrbitalBasis) -> NDArray[np.float64]:
    if molecule.overlap is not None:
        return molecule.overlap
    try:
        return cached_overlap(molecule, basis.name, basis.nao(molecule.numbers))
    except ConfigError as error:
        if engine.is_installed():
            raise
        raise ConfigError(
            f"{engine.called(molecule)} has no overlap in its file, which the alignment loss needs "
            "and PySCF would compute; install it with: pip install 'hambench[pyscf]', or train "
            "without (recipe.alignment=null)"
        ) from error
