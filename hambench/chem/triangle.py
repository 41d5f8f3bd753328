"""Symmetric matrices as their upper triangles, row by row: how files keep them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

_BY_INDEX: Final = 200
"""Above this size rows are copied one by one: faster than index arrays, which grow as n^2."""


def triangle_size(n: NDArray[np.int64]) -> NDArray[np.int64]:
    """Numbers in the upper triangles of (n, n) matrices, diagonals included."""
    return n * (n + 1) // 2


def pack_triangle(matrix: NDArray[Any]) -> NDArray[Any]:
    """(n (n+1) / 2,) upper triangle of an (n, n) matrix, row-major."""
    if len(matrix) > _BY_INDEX:
        return np.concatenate([row[i:] for i, row in enumerate(matrix)])
    return np.ascontiguousarray(matrix[_upper(len(matrix))])


def unpack_triangle(packed: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric (n, n) matrix with that upper triangle; exact inverse of `pack_triangle`."""
    n = int((np.sqrt(8 * len(packed) + 1) - 1) / 2 + 0.5)
    matrix = np.empty((n, n))
    if n > _BY_INDEX:
        start = 0
        for i in range(n):
            matrix[i, i:] = matrix[i:, i] = packed[start : start + n - i]
            start += n - i
        return matrix
    matrix[_upper(n)] = packed
    matrix.T[_upper(n)] = packed
    return matrix


@lru_cache(maxsize=64)
def _upper(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    return np.triu_indices(n)
