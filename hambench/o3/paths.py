"""Paths of tensor products: which degrees of two factors lead to which of the result."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor


class Path(NamedTuple):
    """Degrees of the left factor, the right factor and the result."""

    l1: int
    l2: int
    l3: int


def triangle_paths(lmax: int, *, left: int | None = None, natural: bool = False) -> list[Path]:
    """Paths that triangles allow, l1 outer, l2 middle, l3 inner.

    Args:
        lmax: largest degree of all three.
        left: largest l1; None: as the others.
        natural: only even l1 + l2 + l3, which keep the parity of spherical harmonics.
    """
    firsts = range((lmax if left is None else left) + 1)
    return [
        Path(l1, l2, l3)
        for l1, l2 in product(firsts, range(lmax + 1))
        for l3 in range(abs(l1 - l2), min(l1 + l2, lmax) + 1)
        if not (natural and (l1 + l2 + l3) % 2)
    ]


def symbols(path: Path) -> Tensor:
    """(2l1+1, 2l2+1, 2l3+1) float64 real Wigner 3j symbols as e3nn has them, of norm 1."""
    return o3.wigner_3j(*path, dtype=torch.float64)


def components(l: int) -> slice:
    """Rows of degree l of features."""
    return slice(l * l, (l + 1) ** 2)
