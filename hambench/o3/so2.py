"""Convolutions in the frame of an edge, where SO(3) equivariance reduces to SO(2).

In an edge's own frame a turn about the edge mixes only +m with -m, so a linear map per |m| is the
most general equivariant one (eSCN; here with mmax = lmax, which keeps it exact). Features in the
frame are *m-major*: m = 0 for l = 0..L, then for every m >= 1 all +m rows (l = m..L) and all -m
rows. Rotating and reordering is one pass per degree, in both directions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.o3.layers import RadialMLP
from hambench.o3.wigner import edge_wigner, packed_offsets, wigner_blocks


def m_major(lmax: int) -> list[int]:
    """l-major index l^2 + l + m of every m-major row; ``[0, 2, 6, 3, 7, 1, 5, 8, 4]`` for 2."""
    order = [l * l + l for l in range(lmax + 1)]
    for m in range(1, lmax + 1):
        for sign in (m, -m):
            order += [l * l + l + sign for l in range(m, lmax + 1)]
    return order


def m_sizes(lmax: int) -> list[int]:
    """Rows of each |m| in the m-major layout: L+1, then 2 (L+1-m)."""
    return [lmax + 1] + [2 * (lmax + 1 - m) for m in range(1, lmax + 1)]


class EdgeFrames:
    """Rotations into the frames of a batch's edges, shared by all layers of a network.

    Attributes:
        lmax: largest degree.
        packed: (E, sum (2l+1)^2) Wigner matrices, see `edge_wigner`.
    """

    def __init__(self, vectors: Tensor, lmax: int) -> None:
        """Frames of (E, 3) edge vectors in the network's axes (y, z, x of space)."""
        self.lmax = lmax
        self.packed = edge_wigner(vectors, lmax)
        place = torch.empty((lmax + 1) ** 2, dtype=torch.long)
        place[m_major(lmax)] = torch.arange(len(place))
        places = place.to(vectors.device, non_blocking=True)
        self._rows = list(places.split([2 * l + 1 for l in range(lmax + 1)]))

    def to_frame(self, x: Tensor) -> Tensor:
        """l-major (E, S, C) features of space -> m-major features of the edge frames."""
        return _ToFrame.apply(x, self.packed, self._rows)

    def to_space(self, x: Tensor) -> Tensor:
        """m-major (E, S, C) features of the edge frames -> l-major features of space."""
        return _ToSpace.apply(x, self.packed, self._rows)

    def axial_to_space(self, coefficients: Tensor) -> Tensor:
        """m = 0 coefficients (E, L+1, C) of the frames -> l-major (E, S, C) features of space."""
        offsets, degrees = packed_offsets(self.lmax), range(self.lmax + 1)
        middle = [
            self.packed[:, offsets[l] + l * (2 * l + 1) : offsets[l] + (l + 1) * (2 * l + 1)]
            for l in degrees
        ]
        parts = coefficients.unbind(1)
        return torch.cat(
            [m[:, :, None] * c[:, None] for m, c in zip(middle, parts, strict=True)], 1
        )


class _ToFrame(torch.autograd.Function):
    """``y[rows_l] = D_l x_l`` for every l; written out: backward fills nothing with zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, packed: Tensor, rows: list[Tensor]) -> Tensor:
        ctx.save_for_backward(x, packed)
        ctx.rows = rows
        blocks = wigner_blocks(packed, len(rows) - 1)
        parts = x.split([len(r) for r in rows], dim=1)
        out = torch.empty_like(x)
        for block, part, row in zip(blocks, parts, rows, strict=True):
            out.index_copy_(1, row, torch.bmm(block, part))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x, packed = ctx.saved_tensors
        grad_x = _ToSpace.apply(grad, packed, ctx.rows) if ctx.needs_input_grad[0] else None
        grad_packed = _outer(grad, x, ctx.rows) if ctx.needs_input_grad[1] else None
        return grad_x, grad_packed, None


class _ToSpace(torch.autograd.Function):
    """``x_l = D_l^T y[rows_l]``: the transpose, and inverse, of `_ToFrame`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, packed: Tensor, rows: list[Tensor]) -> Tensor:
        ctx.save_for_backward(y, packed)
        ctx.rows = rows
        blocks = wigner_blocks(packed, len(rows) - 1)
        out = torch.empty_like(y)
        parts = out.split([len(r) for r in rows], dim=1)
        for block, part, row in zip(blocks, parts, rows, strict=True):
            part.copy_(torch.bmm(block.transpose(1, 2), y.index_select(1, row)))
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        y, packed = ctx.saved_tensors
        grad_y = _ToFrame.apply(grad, packed, ctx.rows) if ctx.needs_input_grad[0] else None
        grad_packed = _outer(y, grad, ctx.rows) if ctx.needs_input_grad[1] else None
        return grad_y, grad_packed, None


def _outer(framed: Tensor, spatial: Tensor, rows: list[Tensor]) -> Tensor:
    """Gradient of the packed matrices: ``framed[rows_l] spatial_l^T`` per degree."""
    parts = spatial.split([len(r) for r in rows], dim=1)
    blocks = [
        torch.bmm(framed.index_select(1, row), part.transpose(1, 2)).flatten(1)
        for row, part in zip(rows, parts, strict=True)
    ]
    return torch.cat(blocks, dim=1)


class SO2Convolution(nn.Module):
    """One linear map per |m| of m-major features, with optional radial weights and gate scalars.

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
        self.lmax, self.outputs, self.extra = lmax, outputs, extra
        self.counts = [lmax + 1 - m for m in range(lmax + 1)]
        self.axial = nn.Linear((lmax + 1) * inputs, extra + (lmax + 1) * outputs)
        self.maps = nn.ModuleList()
        for count in self.counts[1:]:
            linear = nn.Linear(count * inputs, 2 * count * outputs, bias=False)
            with torch.no_grad():
                linear.weight.mul_(2**-0.5)
            self.maps.append(linear)
        self.radial = RadialMLP(*radial, inputs * sum(self.counts)) if radial else None
        self.weights = [inputs * count for count in self.counts]

    def forward(
        self, x: list[Tensor], invariants: Tensor | None = None
    ) -> tuple[list[Tensor], Tensor | None]:
        """Convolve.

        Args:
            x: per |m| the features (E, 1 or 2, rows of l, inputs); of the first |m| alone, where no
                more is wanted: no |m| depends on another.
            invariants: (E, ...) edge invariants for the radial weights.

        Returns:
            Per |m| features (E, 1 or 2, rows of l, outputs), and the ``extra`` scalars (E, extra).
        """
        parts = [part.flatten(2) for part in x]
        if self.radial is not None:
            weights = self.radial(invariants).split(self.weights, dim=-1)
            parts = [p * w[:, None] for p, w in zip(parts, weights, strict=False)]
        axial = self.axial(parts[0])
        scalars, axial = axial.split([self.extra, axial.shape[-1] - self.extra], dim=-1)
        out = [axial.unflatten(-1, (-1, self.outputs))]
        for part, linear in zip(parts[1:], self.maps, strict=False):
            real, imaginary = linear(part).chunk(2, dim=-1)
            (real_plus, real_minus), (imag_plus, imag_minus) = real.unbind(1), imaginary.unbind(1)
            mixed = torch.stack([real_plus - imag_minus, real_minus + imag_plus], dim=1)
            out.append(mixed.unflatten(-1, (-1, self.outputs)))
        return out, (scalars[:, 0] if self.extra else None)


def split_m(x: Tensor, lmax: int) -> list[Tensor]:
    """m-major (E, S, C) as views per |m|: (E, 1, L+1, C), then (E, 2, L+1-m, C)."""
    parts = x.split(m_sizes(lmax), dim=1)
    return [part.unflatten(1, (1 if m == 0 else 2, -1)) for m, part in enumerate(parts)]


def join_m(parts: list[Tensor]) -> Tensor:
    """The inverse of `split_m`."""
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def gate_m(parts: list[Tensor], gates: Tensor) -> list[Tensor]:
    """Gate of features per |m|: silu on l = 0, tanh of the (E, L*C) gate scalars on l >= 1."""
    gates = gates.tanh().unflatten(-1, (-1, parts[0].shape[-1]))[:, None]
    scalars, axial = parts[0].split([1, parts[0].shape[2] - 1], dim=2)
    out = [torch.cat([functional.silu(scalars), axial * gates], dim=2)]
    for m, part in enumerate(parts[1:], start=1):
        out.append(part * gates[:, :, m - 1 :])
    return out
