"""Tensor products path by path, weighted per row and channel, without mixing channels.

``y_l3[u] = sum over paths p = (l1, l2, l3) of c_p w_p[u] sum_m1m2 W[m1, m2, m3] a_l1[u, m1]
b_l2[u, m2]`` with e3nn's real Wigner 3j symbols W (Frobenius norm 1). PhiSNet, QHNet and SPHNet
are built of it; they differ in the paths they take and in where the weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from typing import NamedTuple

import torch
from e3nn import o3
from torch import Tensor, nn

from hambench.o3.so2 import EdgeFrames


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


class PathProduct(nn.Module):
    """The product of two features along paths.

    Args:
        paths: in the order of the weights.
        coefficients: c_p of each; None: 1.
    """

    def __init__(self, paths: Sequence[Path], coefficients: Sequence[float] | None = None) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self.coefficients = tuple(coefficients or [1.0] * len(self.paths))
        self.lmax = max(p.l3 for p in self.paths)

    def forward(self, a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
        """Multiply.

        Args:
            a: (R, S1, C) left factor, degree l at l^2.
            b: (R, S2, C) right factor.
            weights: (R, P, C), or (1, P, C) shared by all rows.

        Returns:
            (R, (lmax+1)^2, C), lmax the largest l3; degrees no path leads to are zero.
        """
        symbols = _symbols(self.paths, self.coefficients, a.dtype, a.device)
        parts: list[Tensor | None] = [None] * (self.lmax + 1)
        for k, (path, symbol) in enumerate(zip(self.paths, symbols, strict=True)):
            left, right = degree(a, path.l1), degree(b, path.l2)
            outer = (left[:, :, None] * right[:, None]).flatten(1, 2)
            term = weights[:, k, None] * torch.matmul(symbol, outer)
            before = parts[path.l3]
            parts[path.l3] = term if before is None else before + term
        empty = [
            part if part is not None else a.new_zeros(len(a), 2 * l + 1, a.shape[-1])
            for l, part in enumerate(parts)
        ]
        return torch.cat(empty, dim=1)


class HarmonicProduct(nn.Module):
    """`PathProduct` with the spherical harmonics of edges as right factor, alike in all channels.

    They are normalised so that the squares of a degree add up to 2l+1.

    Args: as `PathProduct`.
    """

    def __init__(self, paths: Sequence[Path], coefficients: Sequence[float] | None = None) -> None:
        super().__init__()
        self.product = PathProduct(paths, coefficients)

    def forward(self, a: Tensor, frames: EdgeFrames, weights: Tensor) -> Tensor:
        """Left factors (E, S1, C), weights (E, P, C) -> (E, (lmax+1)^2, C)."""
        return self.product(a, harmonics(frames, a.dtype), weights)


def harmonics(frames: EdgeFrames, dtype: torch.dtype) -> Tensor:
    """(E, S, 1) spherical harmonics of edges, of squares that add up to 2l+1 in each degree."""
    squares = torch.arange(1, 2 * frames.lmax + 2, 2, dtype=dtype, device=frames.packed.device)
    return frames.axial_to_space(squares.sqrt()[None, :, None])


def degree(x: Tensor, l: int) -> Tensor:
    """The part of degree l of features (R, S, C)."""
    return x[:, l * l : (l + 1) ** 2]


@lru_cache
def _symbols(
    paths: tuple[Path, ...],
    coefficients: tuple[float, ...],
    dtype: torch.dtype,
    device: torch.device,
) -> list[Tensor]:
    """Of each path c_p W as (2l3+1, (2l1+1)(2l2+1)); made in float64."""
    return [
        (c * o3.wigner_3j(*path, dtype=torch.float64))
        .reshape(-1, 2 * path.l3 + 1)
        .T.to(device, dtype)
        for path, c in zip(paths, coefficients, strict=True)
    ]
