"""Tensor products as their equations have them, path by path: what the fast ones are measured by.

They work in any floating type and on any device, and torch differentiates them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from e3nn import o3
from torch import Tensor

Paths = Sequence[tuple[int, int, int]]


def by_products(paths: Paths, coefficients: Sequence[float], a: Tensor, b: Tensor, w: Tensor):
    """One matrix product per path, of symbols and outer products."""

    def term(k: int, path: tuple[int, int, int]) -> Tensor:
        left, right = degree(a, path[0]), degree(b, path[1])
        outer = (left[:, :, None] * right[:, None]).flatten(1, 2)
        symbol = symbols(path, a.dtype, a.device).flatten(0, 1).T
        return coefficients[k] * w[:, k, None] * torch.matmul(symbol, outer)

    return _added(paths, term, a)


def by_broadcasting(paths: Paths, coefficients: Sequence[float], a: Tensor, b: Tensor, w: Tensor):
    """Per path all (2l1+1)(2l2+1)(2l3+1) products in memory, summed twice, as PhiSNet does it."""

    def term(k: int, path: tuple[int, int, int]) -> Tensor:
        left, right = degree(a, path[0]), degree(b, path[1])
        symbol = symbols(path, a.dtype, a.device)[..., None]
        outer = left[:, :, None, None] * right[:, None, :, None]
        return coefficients[k] * w[:, k, None] * (symbol * outer).sum(1).sum(1)

    return _added(paths, term, a)


def _added(paths: Paths, term, a: Tensor) -> Tensor:
    lmax = max(path[2] for path in paths)
    parts: list[Tensor | None] = [None] * (lmax + 1)
    for k, path in enumerate(paths):
        before, here = parts[path[2]], term(k, path)
        parts[path[2]] = here if before is None else before + here
    return torch.cat(
        [
            a.new_zeros(len(a), 2 * l + 1, a.shape[-1]) if part is None else part
            for l, part in enumerate(parts)
        ],
        dim=1,
    )


def degree(x: Tensor, l: int) -> Tensor:
    """The part of degree l of features (R, S, C)."""
    return x[:, l * l : (l + 1) ** 2]


@lru_cache
def symbols(path: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """(2l1+1, 2l2+1, 2l3+1)."""
    return o3.wigner_3j(*path, dtype=torch.float64).to(device, dtype)
