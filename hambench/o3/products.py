"""Tensor products path by path, weighted per row and channel, without mixing channels.

``y_l3[u] = sum over paths p = (l1, l2, l3) of c_p w_p[u] sum_m1m2 W[m1, m2, m3] a_l1[u, m1]
b_l2[u, m2]`` with e3nn's real Wigner 3j symbols W (Frobenius norm 1). PhiSNet, QHNet and SPHNet
are built of it; they differ in the paths they take and in where the weights come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor, nn

from hambench.o3 import contraction, mixing
from hambench.o3.frames import EdgeFrames
from hambench.o3.paths import Path, triangle_paths

__all__ = ["HarmonicProduct", "Path", "PathProduct", "harmonics", "triangle_paths"]


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
        """Multiply. Can be differentiated once.

        Args:
            a: (R, S1, C) left factor, degree l at l^2.
            b: (R, S2, C) right factor.
            weights: (R, P, C), or (1, P, C) shared by all rows.

        Returns:
            (R, (lmax+1)^2, C), lmax the largest l3; degrees no path leads to are zero.
        """
        b = b.expand(-1, -1, a.shape[-1])
        weights = weights.expand(len(a), -1, -1)
        return contraction.contract(a, b, weights, self.paths, self.coefficients)


class HarmonicProduct(nn.Module):
    """`PathProduct` with the spherical harmonics of edges as right factor, alike in all channels.

    They are normalised so that the squares of a degree add up to 2l+1.

    Args: as `PathProduct`.
    """

    def __init__(self, paths: Sequence[Path], coefficients: Sequence[float] | None = None) -> None:
        super().__init__()
        self.paths = tuple(paths)
        self.coefficients = tuple(coefficients or [1.0] * len(self.paths))
        self.lmax = max(p.l3 for p in self.paths)
        self._scalars = list(self.paths) == triangle_paths(self.lmax, left=0)

    def forward(self, a: Tensor, frames: EdgeFrames, weights: Tensor) -> Tensor:
        """Left factors (E, S1, C), weights (E, P, C) -> (E, (lmax+1)^2, C)."""
        if self._scalars:  # the coefficients of harmonics alone
            scale = _column(self.coefficients, a.dtype, a.device)
            return frames.axial_to_space(a[:, :1] * weights * scale)
        weights = weights.expand(len(a), -1, -1)
        return mixing.mix(a, frames.packed, weights, self.paths, self.coefficients)


def harmonics(frames: EdgeFrames, dtype: torch.dtype) -> Tensor:
    """(E, S, 1) spherical harmonics of edges, of squares that add up to 2l+1 in each degree."""
    squares = torch.arange(1, 2 * frames.lmax + 2, 2, dtype=dtype, device=frames.packed.device)
    return frames.axial_to_space(squares.sqrt()[None, :, None])


@lru_cache
def _column(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=dtype, device=device)[:, None]
