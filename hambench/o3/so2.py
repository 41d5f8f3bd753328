"""Convolutions in the frame of an edge: the most general equivariant linear maps there.

In an edge's own frame a turn about the edge mixes only +m with -m, so a linear map per |m| is the
most general equivariant one (eSCN; here with mmax = lmax, which keeps it exact). Features are per
|m|, as `hambench.o3.frames` has them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hambench.o3 import kernels
from hambench.o3.frames import rows_per_m
from hambench.o3.layers import RadialMLP


class SO2Convolution(nn.Module):
    """One linear map per |m|, with optional gate scalars, and radial weights for its inputs.

    m = 0: ``(L+1) inputs -> extra + (L+1) outputs`` with bias; the first ``extra`` outputs are
    scalars apart. m >= 1: one bias-free map to halves (r, i), ``out+ = r(x+) - i(x-)``,
    ``out- = r(x-) + i(x+)``.

    Args:
        lmax: largest degree.
        inputs: channels in.
        outputs: channels out.
        extra: scalars returned beside the features.
        radial: widths of the network from edge invariants to the weights that multiply the
            inputs, without the last one; None: no radial weights.
    """

    def __init__(
        self, lmax: int, inputs: int, outputs: int, extra: int = 0, radial: list[int] | None = None
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.extra = inputs, outputs, extra
        counts = rows_per_m(lmax)
        self.axial = nn.Linear((lmax + 1) * inputs, extra + (lmax + 1) * outputs)
        self.maps = nn.ModuleList()
        for count in counts[1:]:
            linear = nn.Linear(count * inputs, 2 * count * outputs, bias=False)
            with torch.no_grad():
                linear.weight.mul_(2**-0.5)
            self.maps.append(linear)
        self.radial = RadialMLP(*radial, inputs * sum(counts)) if radial else None

    def weights(self, invariants: Tensor) -> Tensor:
        """Factors of the inputs (E, sum of the L+1-m, inputs) from edge invariants (E, ...)."""
        assert self.radial is not None
        factors: Tensor = self.radial(invariants).unflatten(1, (-1, self.inputs))
        return factors

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        """Convolve.

        Args:
            x: per |m| the features (signs, E, L+1-m, inputs), already times their weights; of the
                first |m| alone, where no more is wanted: no |m| depends on another.

        Returns:
            Per |m| features (signs, E, L+1-m, outputs), and the ``extra`` scalars (E, extra).
        """
        scalars, axial = _Axial.apply(
            x[0].flatten(2)[0], self.axial.weight, self.axial.bias, self.extra
        )
        out = [axial[None]]
        out += [
            _Turning.apply(part.flatten(2), linear.weight)
            for part, linear in zip(x[1:], self.maps, strict=False)
        ]
        return [part.unflatten(2, (-1, self.outputs)) for part in out], scalars


class _Axial(torch.autograd.Function):
    """A linear map of (E, in), its first outputs apart from the others; both contiguous."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, extra: int
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, weight)
        first = torch.addmm(bias[:extra], x, weight[:extra].t())
        return first, torch.addmm(bias[extra:], x, weight[extra:].t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        extra = first.shape[1]
        grad_x = torch.mm(second, weight[extra:]).addmm_(first, weight[:extra])
        grad_weight = torch.empty_like(weight)
        torch.mm(first.t(), x, out=grad_weight[:extra])
        torch.mm(second.t(), x, out=grad_weight[extra:])
        return grad_x, grad_weight, torch.cat([first.sum(0), second.sum(0)]), None


class _Turning(torch.autograd.Function):
    """The map of one |m| >= 1: (2, E, in) -> (2, E, out), weight (2 out, in).

    Of many edges, four products are added up where they belong, as passes over the features cost
    most; of few edges, one product has all parts, as passes over the weights do.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        (plus, minus), half = x, len(weight) // 2
        out = x.new_empty(2, x.shape[1], half)
        if _few(x):
            parts = torch.mm(x.flatten(0, 1), weight.t()).unflatten(0, (2, -1))
            torch.sub(parts[0, :, :half], parts[1, :, half:], out=out[0])
            torch.add(parts[1, :, :half], parts[0, :, half:], out=out[1])
            return out
        real, imaginary = weight.t().chunk(2, dim=1)
        torch.mm(plus, real, out=out[0]).addmm_(minus, imaginary, alpha=-1)
        torch.mm(minus, real, out=out[1]).addmm_(plus, imaginary)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        (plus, minus), (grad_plus, grad_minus) = x, grad
        if _few(x):
            parts = grad.new_empty(*grad.shape[:2], 2, grad.shape[2])
            parts[:, :, 0] = grad
            parts[0, :, 1] = grad_minus
            torch.neg(grad_plus, out=parts[1, :, 1])
            rows = parts.view(2 * len(plus), -1)
            grad_x = torch.mm(rows, weight).view_as(x)
            return grad_x, torch.mm(rows.t(), x.flatten(0, 1))
        real, imaginary = weight.chunk(2)
        grad_x, grad_weight = torch.empty_like(x), torch.empty_like(weight)
        torch.mm(grad_plus, real, out=grad_x[0]).addmm_(grad_minus, imaginary)
        torch.mm(grad_minus, real, out=grad_x[1]).addmm_(grad_plus, imaginary, alpha=-1)
        of_real, of_imaginary = grad_weight.chunk(2)
        torch.mm(grad.flatten(0, 1).t(), x.flatten(0, 1), out=of_real)
        torch.mm(grad_minus.t(), plus, out=of_imaginary)
        of_imaginary.addmm_(grad_plus.t(), minus, alpha=-1)
        return grad_x, grad_weight


def _few(x: Tensor) -> bool:
    """Whether (2, E, in) are fewer numbers than the weights they meet."""
    return x.shape[1] < x.shape[2]


def gate_m(parts: list[Tensor], gates: Tensor) -> list[Tensor]:
    """Gate of features per |m|: silu on l = 0, tanh of the (E, L*C) gate scalars on l >= 1."""
    return list(_Gate.apply(gates, *parts))


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gates: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        ctx.passes = kernels.chosen(gates)
        out, kept = ctx.passes.gate(parts, gates)
        ctx.save_for_backward(*kept)
        return tuple(out)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        of_gates, of_parts = ctx.passes.gate_backward(grads, ctx.saved_tensors)
        return of_gates, *of_parts
