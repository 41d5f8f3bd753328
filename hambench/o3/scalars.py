"""Scalars of features and what is made of them: linear maps, norms, gates, weight networks.

Features are (rows, (L+1)^2, C), degree l at l^2. Maps are scaled in the forward pass, with weights
drawn from a unit normal distribution, as e3nn does and QHNet (arXiv 2306.04922) and SPHNet (arXiv
2502.01171) are trained.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from hambench.o3.columns import wide
from hambench.o3.paths import components

SSP_SCALE: Final = 1.878204668541552
"""e3nn's estimate of E[ssp(z)^2]^(-1/2) for normal z, from samples (exact: 1.87559626)."""


def shifted_softplus(x: Tensor) -> Tensor:
    """``softplus(x) - ln 2``, zero at zero (SchNet)."""
    return functional.softplus(x) - 0.6931471805599453


class DegreeLinear(nn.Module):
    """One matrix per degree, scaled by the root of its inputs; optional bias on l = 0."""

    def __init__(self, lmax: int, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(lmax + 1, inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, inputs) -> (rows, S, outputs). Can be differentiated once."""
        return _DegreeLinear.apply(x, self.weight, self.bias)


class _DegreeLinear(torch.autograd.Function):
    """Component by component, as the outputs then lie in memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        weight = weight * weight.shape[1] ** -0.5
        out = x.new_empty(x.shape[1], x.shape[0], weight.shape[2])
        for l, (part, result) in enumerate(zip(_by_degree(x), _split(out, 0), strict=True)):
            torch.bmm(part, weight[l].expand(2 * l + 1, -1, -1), out=result)
        if bias is not None:
            out[0].add_(bias)
        return out.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        scale = weight.shape[1] ** -0.5
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            back = weight.mT * scale
            grad_x = x.new_empty(x.shape[1], x.shape[0], x.shape[2])
            for l, (part, result) in enumerate(
                zip(_by_degree(grad), _split(grad_x, 0), strict=True)
            ):
                torch.bmm(part, back[l].expand(2 * l + 1, -1, -1), out=result)
            grad_x = grad_x.transpose(0, 1)
        if ctx.needs_input_grad[1]:
            grad_weight = torch.empty_like(weight)
            pairs = zip(_by_degree(x), _by_degree(grad), grad_weight, strict=True)
            for part, slope, result in pairs:
                torch.mm(part.flatten(0, 1).T, slope.flatten(0, 1), out=result)
            grad_weight *= scale
        if ctx.needs_input_grad[2]:
            grad_bias = grad[:, 0].sum(0)
        return grad_x, grad_weight, grad_bias


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
        """(rows, S, C) -> (rows, S, C). Can be differentiated once."""
        gates = self.network(_Invariants.apply(x).flatten(1)).unflatten(1, (-1, x.shape[-1]))
        return _Gate.apply(x, gates)


class _Gate(torch.autograd.Function):
    """Scalars replaced by the first of (rows, L+1, C) gates, other degrees multiplied by theirs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gates: Tensor) -> Tensor:
        ctx.save_for_backward(x, gates)
        out = torch.empty_like(x)
        out[:, :1] = gates[:, :1]
        _scale(x, gates[:, 1:], out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, gates = ctx.saved_tensors
        grad_x, grad_gates = torch.empty_like(x), torch.empty_like(gates)
        grad_x[:, :1] = 0
        _scale(grad, gates[:, 1:], grad_x)
        grad_gates[:, :1] = grad[:, :1]
        _add_up(grad, x, grad_gates[:, 1:])
        return grad_x, grad_gates


class _Invariants(torch.autograd.Function):
    """(rows, L+1, C): scalars, and norms of the other degrees, whose gradient at zero is zero."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        lmax = math.isqrt(x.shape[1]) - 1
        out = x.new_empty(x.shape[0], lmax + 1, x.shape[2])
        out[:, :1] = x[:, :1]
        _add_up(x, x, out[:, 1:])
        out[:, 1:].sqrt_()
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        grad_x = torch.empty_like(x)
        grad_x[:, :1] = grad[:, :1]
        norms = out[:, 1:]
        _scale(x, torch.where(norms > 0, grad[:, 1:] / norms, 0), grad_x)
        return grad_x


class _InnerProducts(torch.autograd.Function):
    """(rows, L, C): of degrees 1..L the sums over m of a b, divided by 2l+1."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        out = a.new_empty(a.shape[0], math.isqrt(a.shape[1]) - 1, a.shape[2])
        _add_up(a, b, out)
        return out.div_(_widths(out))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        grad = grad / _widths(grad)
        grads = []
        for x in reversed(ctx.saved_tensors):
            grads.append(torch.empty_like(x))
            grads[-1][:, :1] = 0
            _scale(x, grad, grads[-1])
        return grads[0], grads[1]


def _widths(x: Tensor) -> Tensor:
    """(L, 1) numbers 2l+1 of degrees 1..L, for (rows, L, C)."""
    return torch.arange(3, 2 * x.shape[1] + 2, 2, dtype=x.dtype, device=x.device)[:, None]


def _scale(x: Tensor, factors: Tensor, out: Tensor) -> None:
    """Degrees l >= 1 of (rows, S, C) times their (rows, L, C) factors."""
    parts = zip(higher_degrees(x), factors.unbind(1), higher_degrees(out), strict=True)
    for part, factor, result in parts:
        torch.mul(part, factor[:, None], out=result)


def _add_up(a: Tensor, b: Tensor, out: Tensor) -> None:
    """(rows, L, C) sums over m of a b, of degrees l >= 1."""
    if wide(a.device):
        for part, result in zip(higher_degrees(a * b), out.unbind(1), strict=True):
            torch.sum(part, 1, out=result)
        return
    for l, result in enumerate(out.unbind(1), start=1):
        (x, y), *rest = zip(
            a[:, components(l)].unbind(1), b[:, components(l)].unbind(1), strict=True
        )
        torch.mul(x, y, out=result)
        for x, y in rest:
            result.addcmul_(x, y)


def _split(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    """Degrees of features, as views."""
    lmax = math.isqrt(x.shape[dim]) - 1
    return x.split([2 * l + 1 for l in range(lmax + 1)], dim=dim)


def _by_degree(x: Tensor) -> tuple[Tensor, ...]:
    """(2l+1, rows, C) of features (rows, S, C), as views."""
    return _split(x.transpose(0, 1), 0)


def higher_degrees(x: Tensor) -> tuple[Tensor, ...]:
    """Degrees 1..L of features, as views."""
    return _split(x, 1)[1:]


def degree_norms(x: Tensor) -> Tensor:
    """(rows, L, C) norms of degrees 1..L; their gradient at zero is zero.

    Can be differentiated once.
    """
    return _Invariants.apply(x)[:, 1:]


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """(rows, L, C) products of degrees 1..L, ``sum_m a b / (2l+1)``. Can be differentiated once."""
    return _InnerProducts.apply(a, b)
