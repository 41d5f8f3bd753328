"""Symmetric matrices as their upper triangles, row by row: how files keep them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def triangle_size(n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in the upper triangles of (n, n) matrices, diagonals included."""
    return n * (n + 1) // 2


def pack_triangle(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n (n+1) / 2,) upper triangle of an (n, n) matrix, row-major."""
    return np.ascontiguousarray(matrix[_upper(len(matrix))])


def unpack_triangle(packed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric (n, n) matrix with that upper triangle; exact inverse of `pack_triangle`."""
    n = int((np.sqrt(8 * len(packed) + 1) - 1) / 2 + 0.5)
    matrix = np.empty((n, n))
    matrix[_upper(n)] = packed
    matrix.T[_upper(n)] = packed
    return matrix


@lru_cache(maxsize=64)
def _upper(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(n)
