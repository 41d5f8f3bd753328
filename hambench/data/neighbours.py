"""Edges of molecules: which ordered pairs of atoms are close, in NumPy."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

_TIE: Final = 1e-9
"""Part of their square by which equal distances differ in float64, at most."""


def neighbour_pairs(
    positions: NDArray[np.float64], cutoff: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges (2, E) of atoms closer than ``cutoff`` Angstrom, and their reverse pairs (2, E/2).

    Args:
        positions: (N, 3) Angstrom.
        cutoff: None connects all atoms.
    """
    n = len(positions)
    near = neighbours(positions, cutoff)
    return _complete(n) if near.sum() == n * (n - 1) else adjacent(near)


def neighbours(positions: NDArray[np.float64], cutoff: float | None) -> NDArray[np.bool_]:
    """(N, N) whether two different atoms are closer than ``cutoff`` Angstrom; None: all are."""
    if cutoff is None:
        return ~np.eye(len(positions), dtype=bool)
    difference = positions[:, None] - positions[None]
    near: NDArray[np.bool_] = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference)) < cutoff
    np.fill_diagonal(near, False)
    return near


def within(
    positions: NDArray[np.float64], edges: NDArray[np.int64], reach: float
) -> NDArray[np.int64]:
    """Which of the edges (2, E) are shorter than ``reach`` Angstrom, (E',) ascending."""
    vectors = positions[edges[0]] - positions[edges[1]]
    return np.flatnonzero(np.einsum("ij,ij->i", vectors, vectors) < reach**2)


def shortest(
    positions: NDArray[np.float64], edges: NDArray[np.int64], reach: float, most: int
) -> NDArray[np.int64]:
    """As `within`, and at most ``most`` of the edges that end at an atom, the shortest.

    More where several are as long as the last of them, which no order of the atoms tells apart.
    """
    vectors = positions[edges[0]] - positions[edges[1]]
    squares = np.einsum("ij,ij->i", vectors, vectors)
    order = np.lexsort((squares, edges[1]))  # by end, then by length
    target, sorted_squares = edges[1][order], squares[order]
    first, end = np.searchsorted(target, target), np.searchsorted(target, target, "right")
    longest = sorted_squares[np.minimum(first + most, end) - 1] * (1 + _TIE)
    return np.sort(order[(sorted_squares <= longest) & (sorted_squares < reach**2)])


@lru_cache(maxsize=256)
def _complete(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return adjacent(~np.eye(n, dtype=bool))


def adjacent(near: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of a symmetric (N, N) adjacency, sorted by target then source, and pair indices."""
    target, source = np.nonzero(near)
    number = np.zeros(near.shape, dtype=np.int64)
    number[source, target] = np.arange(len(source))
    up = source < target
    pairs = np.stack([number[source[up], target[up]], number[target[up], source[up]]])
    return np.stack([source, target]), pairs
