"""Scalars of features and what is made of them: linear maps, norms, gates, weight networks.

Features are (rows, (L+1)^2, C), degree l at l^2. Maps are scaled in the forward pass, with weights
drawn from a unit normal distribution, as e3nn does and QHNet (arXiv 2306.04922) and SPHNet (arXiv
2502.01171) are trained.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.o3.layers import degree_rows, gated, per_row

SSP_SCALE: Final = 1.878204668541552
"""e3nn's estimate of E[ssp(z)^2]^(-1/2) for normal z, from samples (exact: 1.87559626)."""


def shifted_softplus(x: Tensor) -> Tensor:
    """``softplus(x) - ln 2``, zero at zero (SchNet)."""
    return functional.softplus(x) - 0.6931471805599453


class DegreeLinear(nn.Module):
    """One matrix per degree, scaled by the root of its inputs; optional bias on l = 0."""

    scalar: Tensor

    def __init__(self, lmax: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(lmax + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.register_buffer("scalar", (degree_rows(lmax) == 0)[:, None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, inputs) -> (rows, S, outputs)."""
        weight = torch.cat(per_row(self.weight * self.weight.shape[1] ** -0.5))
        rows = x.transpose(0, 1)
        if self.bias is None:
            return torch.bmm(rows, weight).transpose(0, 1)
        return torch.baddbmm(self.scalar * self.bias, rows, weight).transpose(0, 1)


class WeightNetwork(nn.Module):
    """Bias-free layers with a shifted softplus of unit second moment between them (e3nn)."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(i, o) for i, o in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """(..., first width) -> (..., last width)."""
        for k, weight in enumerate(self.weights):
            if k:
                x = SSP_SCALE * shifted_softplus(x)
            x = x @ (weight * weight.shape[0] ** -0.5)
        return x


def perceptron(*widths: int) -> nn.Sequential:
    """Linear layers with bias, SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.SiLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers[1:])


class NormGate(nn.Module):
    """New scalars, and a factor for every other degree, from scalars and norms.

    ``g = W SiLU(W [x_0, |x_1|, ..., |x_L|] + b) + b``; x_0 is replaced by g_0, x_l multiplied by
    g_l. No activation stands after the last map.
    """

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        width = (lmax + 1) * channels
        self.network = perceptron(width, width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, S, C)."""
        invariants = torch.cat([x[:, :1], degree_norms(x)], dim=1).flatten(1)
        scalars, gates = self.network(invariants).tensor_split([x.shape[-1]], dim=1)
        return gated(scalars[:, None], higher_degrees(x), gates)


def higher_degrees(x: Tensor) -> list[Tensor]:
    """Degrees 1..L of features, as views."""
    lmax = round(x.shape[1] ** 0.5) - 1
    return list(x.split([2 * l + 1 for l in range(lmax + 1)], dim=1))[1:]


def degree_norms(x: Tensor) -> Tensor:
    """(rows, L, C) norms of degrees 1..L; their gradient at zero is zero."""
    squares = torch.stack([part.square().sum(1) for part in higher_degrees(x)], dim=1)
    some = squares > 0
    return torch.where(some, squares, 1.0).sqrt() * some


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """(rows, L, C) products of degrees 1..L, ``sum_m a b / (2l+1)``."""
    parts = zip(higher_degrees(a), higher_degrees(b), strict=True)
    return torch.stack([(p * q).mean(1) for p, q in parts], dim=1)
