"""How molecules and their matrices turn: ``x -> R x``, ``A(R x) = D(R) A(x) D(R)^T``."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.harmonics import harmonic_rotation


def ao_rotation(
    numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike
) -> NDArray[np.float64]:
    """(nao, nao) block-diagonal action of a proper rotation on a molecule's orbitals.

    Args:
        numbers: (N,) atomic numbers.
        basis: basis set; ConfigError for an element it does not cover.
        rotation: (3, 3) proper rotation R; positions turn as ``x @ R.T``.
    """
    return _turned_rows(np.eye(basis.nao(numbers)), numbers, basis, rotation)


def turned_matrix(
    matrix: NDArray[np.float64], numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike
) -> NDArray[np.float64]:
    """``D A D^T`` of a (nao, nao) matrix, D as `ao_rotation`, without making D."""
    rows = _turned_rows(matrix, numbers, basis, rotation)
    return _turned_rows(rows.T, numbers, basis, rotation).T


def turned(molecule: Molecule, basis: OrbitalBasis, rotation: ArrayLike) -> Molecule:
    """A molecule turned about the origin, with all its labels.

    Args:
        molecule: with or without labels.
        basis: of its matrices.
        rotation: (3, 3) proper rotation R; positions turn as ``x @ R.T``.
    """
    turn = np.asarray(rotation, dtype=np.float64)
    matrices = {
        name: turned_matrix(matrix, molecule.numbers, basis, turn)
        for name in ("hamiltonian", "overlap")
        if (matrix := getattr(molecule, name)) is not None
    }
    forces = None if molecule.forces is None else molecule.forces @ turn.T
    return replace(molecule, positions=molecule.positions @ turn.T, forces=forces, **matrices)


def random_rotation(seed: int, *key: int) -> NDArray[np.float64]:
    """A (3, 3) rotation drawn uniformly from all, the same for the same seed and key."""
    generator = np.random.default_rng([seed, *key])
    return Rotation.from_quat(generator.normal(size=4)).as_matrix()


def scoring_rotation(molecule: Molecule) -> NDArray[np.float64]:
    """The (3, 3) rotation a molecule is turned by to measure what a model makes of it.

    Drawn from the seed 0 and the CRC-32 of its id, so that it is the same in every split and run.
    """
    return random_rotation(0, zlib.crc32(molecule.id.encode()))


def _turned_rows(
    matrix: NDArray[np.float64], numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike
) -> NDArray[np.float64]:
    """``D A``: the rows of every shell turn with its degree."""
    shells = np.array([l for z in np.asarray(numbers, dtype=int) for l in basis.shells[int(z)].l])
    starts = np.cumsum(2 * shells + 1) - (2 * shells + 1)
    out = np.empty(matrix.shape)
    for l in np.unique(shells):
        rows = starts[shells == l, None] + np.arange(2 * l + 1)
        out[rows] = harmonic_rotation(int(l), rotation) @ matrix[rows]
    return out
