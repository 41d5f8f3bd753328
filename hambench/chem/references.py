"""Energies of atoms in molecules: what is left of total energies is what a network has to learn."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.errors import DataError


def element_references(
    molecules: Iterable[Molecule], size: int
) -> tuple[NDArray[np.float64], bool]:
    """Per element the energy (Eh) whose sums over atoms are nearest to the total energies.

    Least squares without intercept on the numbers of atoms of each element, as the public code of
    HELM does; of several solutions (elements that always come in one ratio) the smallest.

    Args:
        molecules: with energies; read one at a time.
        size: one more than the largest atomic number.

    Returns:
        (size,) by atomic number, 0 for elements that do not occur; and whether there are several
        solutions, so that sums in other ratios mean nothing.

    Raises:
        DataError: no molecules, or one without an energy.
    """
    counts, energies = [], []
    for molecule in molecules:
        if molecule.energy is None:
            raise DataError(
                f"molecule '{molecule.id}' has no energy to fit atomic references to; train on "
                "molecules that have one"
            )
        counts.append(np.bincount(molecule.numbers, minlength=size))
        energies.append(molecule.energy)
    if not counts:
        raise DataError("there are no molecules to fit atomic references to")
    matrix = np.array(counts, dtype=np.float64)
    found, _, rank, _ = np.linalg.lstsq(matrix, np.array(energies))
    return found, bool(rank < np.count_nonzero(matrix.any(0)))
