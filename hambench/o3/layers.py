"""Equivariant layers on features (rows, (L+1)^2, C), index l^2 + l + m, channels last.

Norm, per-degree linear map, gate, radial network and distance basis as HELM and the eSEN family
use them (HELM, arXiv 2510.00224, and its public code).
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def degree_rows(lmax: int) -> Tensor:
    """(S,) degree l of every row of the l-major layout, S = (lmax+1)^2."""
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])


def per_row(by_degree: Tensor, first: int = 0) -> list[Tensor]:
    """Entries of degrees ``first``, first + 1, ... along axis 0, each as a view of 2l+1 copies.

    Their concatenation is an ``index_select`` by `degree_rows`, whose backward torch would do by
    scattering; this one sums.
    """
    return [
        entry[None].expand(2 * l + 1, *entry.shape)
        for l, entry in enumerate(by_degree.unbind(0), start=first)
    ]


def gated(scalars: Tensor, rest: list[Tensor], gates: Tensor) -> Tensor:
    """Scalars (rows, 1, C), and every degree l >= 1 (rows, 2l+1, C) times its (rows, L*C) gates."""
    if not rest:
        return scalars
    factors = gates.unflatten(-1, (len(rest), 1, -1)).unbind(1)
    return torch.cat([scalars, *(r * f for r, f in zip(rest, factors, strict=True))], dim=1)


class EquivariantRMSNorm(nn.Module):
    """Root-mean-square norm over degrees and channels, each degree of equal weight.

    The l = 0 channels are centred first; then ``y = x / sqrt(s + eps) * scale[l]`` with
    ``s = mean_c sum_l mean_m x^2 / (L+1)``, and ``shift`` is added to l = 0.
    """

    rows: Tensor
    share: Tensor
    scalar: Tensor

    def __init__(self, lmax: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(lmax + 1, channels))
        self.shift = nn.Parameter(torch.zeros(channels))
        rows = degree_rows(lmax)  # integers, so that a change of floating type rounds nothing
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("share", (2 * rows + 1) * (lmax + 1), persistent=False)
        self.register_buffer("scalar", (rows == 0)[:, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, S, C)."""
        x = x - x[:, :1].mean(-1, keepdim=True) * self.scalar
        power = (x.square().mean(-1) / self.share).sum(-1)
        x = x * (power + self.eps).rsqrt()[:, None, None]
        return torch.addcmul(self.scalar * self.shift, x, self.scale.index_select(0, self.rows))


class SO3Linear(nn.Module):
    """One matrix per degree, shared by its m; bias on l = 0. Acts on row-major features."""

    scalar: Tensor

    def __init__(self, lmax: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(lmax + 1, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.register_buffer("scalar", (degree_rows(lmax) == 0)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(S, rows, inputs) -> (S, rows, outputs), in one batched product."""
        weight = torch.cat(per_row(self.weight)).transpose(1, 2)
        return torch.baddbmm(self.scalar * self.bias, x, weight)


class FeedForward(nn.Module):
    """Atomwise (or edgewise) network: per-degree linear, gate, per-degree linear.

    The gate is ``silu`` on l = 0 and ``tanh(silu(linear(x_0)))`` times every higher degree.
    """

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        self.gates = nn.Linear(channels, lmax * channels)
        self.linear1 = SO3Linear(lmax, channels, channels)
        self.linear2 = SO3Linear(lmax, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, S, C)."""
        gates = functional.silu(self.gates(x[:, 0])).tanh().unflatten(-1, (-1, x.shape[-1]))
        hidden = self.linear1(x.transpose(0, 1))
        factors = per_row(gates.transpose(0, 1), first=1)
        hidden = hidden * torch.cat([hidden[:1].sigmoid(), *factors])
        return self.linear2(hidden).transpose(0, 1)


class RadialMLP(nn.Sequential):
    """Linear, LayerNorm, SiLU for every width but the last, which is linear alone."""

    def __init__(self, *widths: int) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths[:-1]):
            layers += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.SiLU()]
        super().__init__(*layers, nn.Linear(widths[-2], widths[-1]))


class GaussianBasis(nn.Module):
    """Gaussians of the distance: centres evenly from 0 to ``cutoff`` (Angstrom), fixed.

    ``g_k(d) = exp(-(d - mu_k)^2 / (2 (width * spacing)^2))``.
    """

    steps: Tensor

    def __init__(self, count: int, cutoff: float, width: float = 1.0) -> None:
        super().__init__()
        self.spacing = cutoff / (count - 1)
        self.exponent = -0.5 / (width * self.spacing) ** 2  # 1/Angstrom^2
        self.register_buffer("steps", torch.arange(count), persistent=False)

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Angstrom -> (E, count)."""
        centres = self.spacing * self.steps.to(distance.dtype)
        return (self.exponent * (distance[:, None] - centres).square()).exp()
