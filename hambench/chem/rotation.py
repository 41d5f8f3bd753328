"""How molecules and their matrices turn: ``x -> R x``, ``A(R x) = D(R) A(x) D(R)^T``."""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    return _turned_rows(np.eye(basis.nao(numbers)), _shells(numbers, basis, rotation))


def turned_matrix(
    matrix: NDArray[np.float64], numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike
) -> NDArray[np.float64]:
    """``D A D^T`` of a (nao, nao) matrix, D as `ao_rotation`, without making D."""
    return _turned_both(matrix, _shells(numbers, basis, rotation))


def turned(molecule: Molecule, basis: OrbitalBasis, rotation: ArrayLike) -> Molecule:
    """A molecule turned about the origin, with all its labels.

    Args:
        molecule: with or without labels.
        basis: of its matrices.
        rotation: (3, 3) proper rotation R; positions turn as ``x @ R.T``.
    """
    turn = np.asarray(rotation, dtype=np.float64)
    shells = _shells(molecule.numbers, basis, turn)
    matrices: dict[str, Any] = {
        name: _turned_both(matrix, shells)
        for name in ("hamiltonian", "overlap")
        if (matrix := getattr(molecule, name)) is not None
    }
    forces = None if molecule.forces is None else molecule.forces @ turn.T
    return replace(molecule, positions=molecule.positions @ turn.T, forces=forces, **matrices)


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) proper rotation, uniform over SO(3) (from a random unit quaternion)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def scoring_rotation(molecule: Molecule) -> NDArray[np.float64]:
    """The (3, 3) rotation a molecule is turned by to measure what a model makes of it.

    Drawn from the seed 0 and the CRC-32 of its id, so that it is the same in every split and run.
    """
    return random_rotation(np.random.default_rng([0, zlib.crc32(molecule.id.encode())]))


_Shells = list[tuple[NDArray[np.int64], NDArray[np.float64]]]
"""Per degree l: (shells, 2l+1) orbitals, and what turns each shell."""


def _shells(numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike) -> _Shells:
    degrees = np.array([l for z in np.asarray(numbers, dtype=int) for l in basis.shells[int(z)].l])
    starts = np.cumsum(2 * degrees + 1) - (2 * degrees + 1)
    return [
        (starts[degrees == l, None] + np.arange(2 * l + 1), harmonic_rotation(int(l), rotation))
        for l in np.unique(degrees)
    ]


def _turned_rows(matrix: NDArray[np.float64], shells: _Shells) -> NDArray[np.float64]:
    """``D A``."""
    out = np.empty(matrix.shape)
    for orbitals, turn in shells:
        out[orbitals] = turn @ matrix[orbitals]
    return out


def _turned_both(matrix: NDArray[np.float64], shells: _Shells) -> NDArray[np.float64]:
    """``D A D^T``."""
    return _turned_rows(_turned_rows(matrix, shells).T, shells).T
