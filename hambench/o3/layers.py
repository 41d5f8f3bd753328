"""Equivariant layers on features (rows, (L+1)^2, C), index l^2 + l + m, channels last.

Norm, per-degree linear map, gate, radial network and distance basis as HELM and the eSEN family
use them (HELM, arXiv 2510.00224, and its public code).
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def degree_rows(lmax: int) -> Tensor:
    """(S,) degree l of every row of the l-major layout, S = (lmax+1)^2."""
    return torch.tensor([l for l in range(lmax + 1) for _ in range(2 * l + 1)])


def degree_sizes(degrees: int) -> list[int]:
    """Rows 2l+1 of each of the first ``degrees`` degrees."""
    return [2 * l + 1 for l in range(degrees)]


class _Rows(NamedTuple):
    """Which rows belong to which degrees, as constants on a device.

    Attributes:
        degrees: (rows,) place of the degree of each row among the degrees.
        sums: (degrees, rows) ones and zeros that add up the rows of each degree.
    """

    degrees: Tensor
    sums: Tensor

    @classmethod
    def of(cls, by_degree: Tensor, first: int = 0) -> _Rows:
        """Of the degrees of a tensor (degrees, ...), which begin with ``first``, in its type."""
        return _rows(first, len(by_degree), by_degree.dtype, by_degree.device)


@lru_cache
def _rows(first: int, count: int, dtype: torch.dtype, device: torch.device) -> _Rows:
    degrees = degree_rows(first + count - 1)[first**2 :] - first
    sums = functional.one_hot(degrees, count).T.to(dtype)
    return _Rows(degrees.to(device), sums.contiguous().to(device))


def per_row(by_degree: Tensor, first: int = 0) -> Tensor:
    """Entries (degrees, ...) of degrees ``first``, first + 1, ..., each 2l+1 times: (rows, ...)."""
    entries: Tensor = _PerRow.apply(by_degree, first)
    return entries


class _PerRow(torch.autograd.Function):
    """An ``index_select`` whose backward torch would do by scattering; this one sums."""

    @staticmethod
    def forward(ctx: Any, by_degree: Tensor, first: int) -> Tensor:
        rows = _Rows.of(by_degree, first)
        ctx.sums = rows.sums
        return by_degree.index_select(0, rows.degrees)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (ctx.sums @ grad.flatten(1)).unflatten(1, grad.shape[1:]), None


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

    def __init__(self, lmax: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scale = nn.Parameter(torch.ones(lmax + 1, channels))
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, S, C)."""
        normed: Tensor = _RMSNorm.apply(x, self.scale, self.shift, self.eps)
        return normed


class _RMSNorm(torch.autograd.Function):
    """As `EquivariantRMSNorm`, in the fewest passes over x; row 0 is centred apart."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        shares = _shares(*scale.shape, scale.dtype, scale.device)
        centred = x[:, 0] - x[:, 0].mean(-1, keepdim=True)
        norms = torch.linalg.vector_norm(x, dim=-1)
        torch.linalg.vector_norm(centred, dim=-1, out=norms[:, 0])
        inverse = (norms.square_() @ shares + eps).rsqrt_()
        out = x * inverse[:, None, None]
        torch.mul(centred, inverse[:, None], out=out[:, 0])
        out.mul_(scale.index_select(0, _Rows.of(scale).degrees))
        out[:, 0].add_(shift)
        ctx.save_for_backward(x, centred, inverse, scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, centred, inverse, scale = ctx.saved_tensors
        rows = _Rows.of(scale)
        wide = scale.index_select(0, rows.degrees)
        slopes = torch.mul(grad, x, out=x.new_empty(x.shape))
        torch.mul(grad[:, 0], centred, out=slopes[:, 0])
        along = slopes.flatten(1) @ wide.flatten()  # of the sum of squares, but for what it shares
        grad_scale = rows.sums @ (inverse @ slopes.flatten(1)).view_as(wide)
        out = torch.mul(grad, wide, out=slopes)
        shares = _shares(*scale.shape, scale.dtype, scale.device)
        pull = (along * inverse.square())[:, None] * shares
        out[:, 0].addcmul_(centred, pull[:, :1], value=-1)
        out[:, 1:].addcmul_(x[:, 1:], pull[:, 1:, None], value=-1)
        out.mul_(inverse[:, None, None])
        out[:, 0].sub_(out[:, 0].mean(-1, keepdim=True))
        return out, grad_scale, grad[:, 0].sum(0), None


@lru_cache
def _shares(degrees: int, channels: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(S,) weight of an entry in the mean over channels and degrees, of means over m."""
    widths = 2 * degree_rows(degrees - 1) + 1
    return (1 / (degrees * channels * widths).to(dtype)).to(device)


class SO3Linear(nn.Module):
    """One matrix per degree, shared by its m; bias on l = 0. Acts on row-major features."""

    def __init__(self, lmax: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(lmax + 1, outputs, inputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(S, rows, inputs) -> (S, rows, outputs), in one batched product."""
        return self.with_scalars(x)[0]

    def with_scalars(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Also the scalars ``x[0]`` (rows, inputs), whose gradient is added where it belongs."""
        mapped, scalars = _SO3Linear.apply(x, self.weight, self.bias)
        return mapped, scalars


class _SO3Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        ctx.set_materialize_grads(False)
        wide = weight.index_select(0, _Rows.of(weight).degrees)
        out = torch.bmm(x, wide.transpose(1, 2))
        out[0].add_(bias)
        return out, x[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_scalars: Tensor | None) -> tuple[Tensor, ...]:
        x, weight = ctx.saved_tensors
        rows = _Rows.of(weight)
        grad_x = torch.bmm(grad, weight.index_select(0, rows.degrees))
        if of_scalars is not None:
            grad_x[0].add_(of_scalars)
        by_row = torch.bmm(grad.transpose(1, 2), x)
        grad_weight = (rows.sums @ by_row.flatten(1)).view_as(weight)
        return grad_x, grad_weight, grad[0].sum(0)


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
        mapped, scalars = self.linear1.with_scalars(x.transpose(0, 1))
        gates = functional.silu(self.gates(scalars)).tanh().unflatten(-1, (-1, x.shape[-1]))
        return self.linear2(_Gate.apply(mapped, gates)).transpose(0, 1)


class _Gate(torch.autograd.Function):
    """silu of the first row (S, rows, C), and every higher degree times its gates (rows, L, C)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, gates)
        out = torch.empty_like(x)
        sizes = degree_sizes(gates.shape[1] + 1)
        first, *parts = out.split(sizes)
        torch.mul(x[:1], x[:1].sigmoid(), out=first)
        for part, own, gate in zip(parts, x.split(sizes)[1:], gates.unbind(1), strict=True):
            torch.mul(own, gate, out=part)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gates = ctx.saved_tensors
        out, grad_gates = torch.empty_like(x), torch.empty_like(gates)
        sizes = degree_sizes(gates.shape[1] + 1)
        sigmoid = x[:1].sigmoid()
        first, *parts = out.split(sizes)
        torch.mul(grad[:1], sigmoid * (1 + x[:1] * (1 - sigmoid)), out=first)
        higher = zip(parts, x.split(sizes)[1:], grad.split(sizes)[1:], strict=True)
        for l, (part, own, arrived) in enumerate(higher):
            torch.sum(torch.mul(own, arrived, out=part), 0, out=grad_gates[:, l])
            torch.mul(arrived, gates[:, l], out=part)
        return out, grad_gates


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
