"""Radial bases of distances, and the smooth cutoff, shared by PhiSNet, QHNet and SPHNet."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional


def smooth_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """``exp(-r^2 / ((c-r)(c+r)))`` below the cutoff c, zero beyond (PhiSNet, arXiv 2106.02347).

    All derivatives vanish at the cutoff, and are finite everywhere.
    """
    near = distance < cutoff
    inside = torch.where(near, distance, 0.0)
    value = (-inside.square() / ((cutoff - inside) * (cutoff + inside))).exp()
    return torch.where(near, value, 0.0)


class BernsteinBasis(nn.Module):
    """Exponential Bernstein polynomials times the smooth cutoff (PhiSNet, arXiv 2106.02347).

    ``b_v(r) = f(r) C(K-1, v) x^(K-1-v) (1-x)^v`` with ``x = exp(-alpha r)``, v = 0..K-1, computed
    by logarithms.

    Args:
        count: K.
        cutoff: in Angstrom.
        alpha: its (initial) value, per ``unit``.
        unit: length in Angstrom that alpha is per; 0.529... where it was published in Bohr.
        learn: alpha is ``softplus(raw)`` of a trained number; else it is fixed.
        rounded: logarithms of the binomials are rounded to float32, as QHNet and SPHNet keep them
            whatever the type of the model (the effect is about 1e-8).
    """

    def __init__(
        self,
        count: int,
        cutoff: float,
        alpha: float,
        *,
        unit: float = 1.0,
        learn: bool = True,
        rounded: bool = False,
    ) -> None:
        super().__init__()
        self.count, self.cutoff, self.unit, self.rounded = count, cutoff, unit, rounded
        self.fixed = alpha / unit
        self.raw = (
            nn.Parameter(torch.tensor(alpha + math.log(-math.expm1(-alpha)))) if learn else None
        )

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Angstrom, not zero -> (E, K)."""
        alpha = self.fixed if self.raw is None else functional.softplus(self.raw) / self.unit
        powers, logarithms = _binomials(self.count, self.rounded, distance.dtype, distance.device)
        exponent = (-alpha * distance)[:, None]
        rest = torch.log(-torch.expm1(exponent))
        logs = logarithms + powers.flip(0) * exponent + powers * rest
        return smooth_cutoff(distance, self.cutoff)[:, None] * logs.exp()


@lru_cache
def _binomials(
    count: int, rounded: bool, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """v = 0..K-1 and log C(K-1, v)."""
    logarithms = torch.tensor(
        [math.log(math.comb(count - 1, v)) for v in range(count)], dtype=torch.float64
    )
    if rounded:
        logarithms = logarithms.float()
    return torch.arange(count).to(device, dtype), logarithms.to(device, dtype)
