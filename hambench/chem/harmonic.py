"""Geometries of a molecule at a temperature, in the harmonic approximation about its minima.

The classical canonical distribution of a harmonic potential needs no masses: displacements are
normal with covariance ``kT K^+``, K being the force constants. Displacements are carried out along
bond lengths, angles and torsions, not along straight lines (`along_internals`): a torsion of 30
degrees along a straight line would stretch the bonds of a hydrogen atom by several kT.

What it misses: anharmonic bonds (the mean of a bond is that of the minimum), torsions beyond their
barrier other than as another `Well`, and the coupling of all these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.bonds import bonded
from hambench.chem.rotation import random_rotation
from hambench.units import HARTREE_KELVIN

Array = NDArray[np.float64]

CLASH: Final = 0.7
"""Two atoms may not come nearer than this part of their distance at the minimum."""

_MOST_STEPS: Final = 30
_CONVERGED: Final = 1e-7  # Angstrom, the step after which one stops; convergence is quick then
_CHUNK: Final = 500  # geometries at a time


@dataclass(frozen=True)
class Well:
    """A minimum of the potential and the force constants there.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Angstrom.
        energy: Eh.
        force_constants: (3N, 3N) second derivatives of the energy, Eh/Angstrom^2.
        mirrored: orders of the atoms in which the mirror image of this minimum is another one of
            the same molecule, e.g. gauche- for gauche+.
    """

    numbers: NDArray[np.int64]
    positions: Array
    energy: float
    force_constants: Array
    mirrored: tuple[tuple[int, ...], ...] = ()

    @cached_property
    def stiffness(self) -> tuple[Array, Array]:
        """Positive force constants (Eh/Angstrom^2) and their directions (3N, count).

        Raises:
            ValueError: not a minimum.
        """
        inner = _without_rigid_motion(self.positions)
        values, vectors = np.linalg.eigh(inner.T @ self.force_constants @ inner)
        if values[0] <= 0:
            raise ValueError(f"force constant {values[0]:.2e} Eh/Angstrom^2: this is no minimum")
        return values, inner @ vectors

    def log_weight(self, temperature: float) -> float:
        """Logarithm of the part of the canonical ensemble in this minimum and its mirror images.

        Up to a constant of the molecule; the change of the moments of inertia is neglected.
        """
        values, _ = self.stiffness
        count = np.log(1 + len(self.mirrored))
        return float(count - self.energy * HARTREE_KELVIN / temperature - np.log(values).sum() / 2)


def sample(wells: Sequence[Well], n: int, temperature: float, seed: int) -> Array:
    """(n, N, 3) independent positions, Angstrom, 8 decimals, turned at random.

    Geometries in which two atoms clash (`CLASH`) are drawn again. Sample i depends on the seed and
    i alone, so that the first ones of many are those of few.

    Args:
        wells: the minima of one molecule.
        n: number of samples.
        temperature: Kelvin.
        seed: decides everything.
    """
    rngs = [np.random.default_rng([seed, index]) for index in range(n)]
    log_weights = np.array([well.log_weight(temperature) for well in wells])
    weights = np.exp(log_weights - log_weights.max())
    choice = np.array([rng.choice(len(wells), p=weights / weights.sum()) for rng in rngs])
    positions = np.empty((n, *wells[0].positions.shape))
    for index, well in enumerate(wells):
        mine = np.flatnonzero(choice == index)
        for start in range(0, len(mine), _CHUNK):
            places = mine[start : start + _CHUNK]
            positions[places] = _in_well(well, [rngs[i] for i in places], temperature)
    return positions.round(8)


def _in_well(well: Well, rngs: Sequence[np.random.Generator], temperature: float) -> Array:
    """(len(rngs), N, 3) samples in a minimum or one of its mirror images, one from each rng."""
    values, directions = well.stiffness
    spread = np.sqrt(temperature / HARTREE_KELVIN / values)
    positions = np.empty((len(rngs), *well.positions.shape))
    waiting = np.arange(len(rngs))
    while len(waiting):
        normal = np.array([rngs[i].normal(size=len(values)) for i in waiting.tolist()])
        moves = (normal * spread) @ directions.T
        tried = along_internals(well, moves.reshape(len(waiting), -1, 3))
        positions[waiting] = tried
        waiting = waiting[_clashes(tried, well.positions)]
    for index, rng in enumerate(rngs):
        if copy := rng.integers(1 + len(well.mirrored)):
            order = list(well.mirrored[copy - 1])
            positions[index] = positions[index][order] * [1, 1, -1]
        positions[index] = positions[index] @ random_rotation(rng).T
    return positions


def _clashes(positions: Array, minimum: Array) -> NDArray[np.bool_]:
    """Which of (n, N, 3) positions have atoms too near each other."""
    i, j = np.triu_indices(len(minimum), 1)
    apart = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    usual = np.linalg.norm(minimum[i] - minimum[j], axis=-1)
    near: NDArray[np.bool_] = (apart < CLASH * usual).any(axis=1)
    return near


def along_internals(well: Well, moves: Array) -> Array:
    """(n, N, 3) positions whose internal coordinates are moved as far as ``moves`` say.

    The internal coordinates are the bonds, the angles between them and the torsions about them;
    their changes are linear in the (n, N, 3) Cartesian moves (Angstrom). As there are more of them
    than degrees of freedom, they are met in the least squares (Gauss-Newton).
    """
    internals = _Internals(well.numbers, well.positions)
    x0 = well.positions[None]
    aim = internals.jacobian(x0)[0] @ moves.reshape(len(moves), -1, 1)
    start = internals.values(x0)
    inner = _without_rigid_motion(well.positions)
    x = x0 + moves
    waiting = np.arange(len(x))  # each by itself, so that none depends on the others
    for _ in range(_MOST_STEPS):
        now = x[waiting]
        lack = aim[waiting, :, 0] - internals.change(start, internals.values(now))
        slope = internals.jacobian(now) @ inner
        normal = slope.transpose(0, 2, 1)
        step = inner @ np.linalg.solve(normal @ slope, normal @ lack[..., None])
        x[waiting] = now + step.reshape(now.shape)
        waiting = waiting[np.abs(step).max(axis=(1, 2)) > _CONVERGED]
        if not len(waiting):
            break
    return x


class _Internals:
    """Bonds (Angstrom), angles and torsions (radians) of many geometries at once."""

    def __init__(self, numbers: ArrayLike, positions: Array) -> None:
        of = [np.flatnonzero(row).tolist() for row in bonded(numbers, positions)]
        bonds = [(a, b) for a in range(len(of)) for b in of[a] if a < b]
        angles = [(a, b, c) for b in range(len(of)) for a in of[b] for c in of[b] if a < c]
        torsions = [
            (a, b, c, d) for b, c in bonds for a in of[b] for d in of[c] if len({a, b, c, d}) == 4
        ]
        self._bonds, self._angles, self._torsions = map(np.array, (bonds, angles, torsions))
        self._first_torsion = len(bonds) + len(angles)

    def values(self, x: Array) -> Array:
        """(n, count) values at (n, N, 3) positions."""
        b0, b1 = self._bonds.T
        bonds = np.linalg.norm(x[:, b0] - x[:, b1], axis=-1)
        a0, a1, a2 = self._angles.T
        u, v = x[:, a0] - x[:, a1], x[:, a2] - x[:, a1]
        angles = np.arctan2(np.linalg.norm(np.cross(u, v), axis=-1), (u * v).sum(-1))
        t0, t1, t2, t3 = self._torsions.T
        axis = x[:, t2] - x[:, t1]
        m, k = np.cross(x[:, t0] - x[:, t1], axis), np.cross(x[:, t3] - x[:, t2], axis)
        sine = (np.cross(m, k) * axis).sum(-1) / np.linalg.norm(axis, axis=-1)
        torsions = np.arctan2(sine, (m * k).sum(-1))
        return np.concatenate([bonds, angles, torsions], axis=1)

    def change(self, before: Array, after: Array) -> Array:
        """(n, count) differences, of torsions the shorter way round."""
        change = after - before
        turns = change[:, self._first_torsion :]
        turns -= 2 * np.pi * np.round(turns / (2 * np.pi))
        return change

    def jacobian(self, x: Array, step: float = 1e-5) -> Array:
        """(n, count, 3N) derivatives by (n, N, 3) positions, by central differences."""
        atoms = x.shape[1]
        columns = []
        for coordinate in range(3 * atoms):
            shift = np.zeros((atoms, 3))
            shift.flat[coordinate] = step
            columns.append(self.change(self.values(x - shift), self.values(x + shift)) / (2 * step))
        return np.stack(columns, axis=-1)


def _without_rigid_motion(positions: Array) -> Array:
    """(3N, 3N - 6) orthonormal directions that neither move nor turn a bent molecule."""
    atoms = len(positions)
    axes = np.eye(3)
    shifts = [np.tile(axis, atoms) for axis in axes]
    turns = [np.cross(axis, positions - positions.mean(axis=0)).ravel() for axis in axes]
    rigid = np.linalg.qr(np.array(shifts + turns).T)[0]
    return np.linalg.svd(rigid, full_matrices=True)[0][:, 6:]
