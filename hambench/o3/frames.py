"""Features in the frames of edges, where SO(3) equivariance reduces to SO(2).

Features in the frame come *per |m|*, as a list of tensors (signs, E, L+1-m, C) for m = 0..M: one
row of l = m..L for each sign, + before -, and + alone for m = 0. What a step takes beside its
matrix products goes to passes over such tensors, so rotation and reordering are one pass, in both
directions, and gradients are written out: nothing is padded with zeros, and no (E, (L+1)^2, 2C) is
ever joined.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hambench.o3.ends import Ends
from hambench.o3.wigner import edge_wigner, packed_offsets, wigner_blocks


class EdgeFrames:
    """Rotations into the frames of a batch's edges, shared by all layers of a network.

    What it returns can be differentiated once.

    Attributes:
        lmax: largest degree.
        packed: (E, sum (2l+1)^2) Wigner matrices, see `edge_wigner`.
    """

    def __init__(self, vectors: Tensor, lmax: int, ends: Ends | None = None) -> None:
        """Frames of (E, 3) edge vectors in the network's axes (y, z, x of space).

        ``ends`` are needed for `pairs` and `at_atoms`.
        """
        self.lmax, self._ends = lmax, ends
        self.packed = edge_wigner(vectors, lmax)

    @property
    def ends(self) -> Ends:
        """Atoms of the edges."""
        assert self._ends is not None
        return self._ends

    @cached_property
    def blocks(self) -> list[Tensor]:
        """The matrices of each degree (E, 2l+1, 2l+1), without a derivative."""
        return [block.contiguous() for block in wigner_blocks(self.packed.detach(), self.lmax)]

    @cached_property
    def twice(self) -> list[Tensor]:
        """The same for sources, then for targets: (2E, 2l+1, 2l+1)."""
        return [block.repeat(2, 1, 1) for block in self.blocks]

    def pairs(self, nodes: Tensor, weights: Tensor, mmax: int | None = None) -> list[Tensor]:
        """Both atoms' features in the frame of each edge, times weights.

        Args:
            nodes: (N, S, C) features in space, degree l at l^2.
            weights: (E, sum of the L+1-m, 2C): factors of both signs of every m and l.
            mmax: largest |m| that is wanted; None: all.

        Returns:
            Per |m| (signs, E, L+1-m, 2C): sources' channels, then targets'.
        """
        mmax = self.lmax if mmax is None else mmax
        return list(_Pairs.apply(nodes, self.packed, weights, self, mmax))

    def in_space(self, parts: list[Tensor]) -> Tensor:
        """Per |m| features of the frames -> (E, S, C) in space."""
        turned: Tensor = _ToSpace.apply(self.packed, self, False, *parts)
        return turned

    def at_atoms(self, parts: list[Tensor]) -> Tensor:
        """Per |m| features of the frames -> (N, S, C): their sums in space at the target atoms."""
        summed: Tensor = _ToSpace.apply(self.packed, self, True, *parts)
        return summed

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


def rows_per_m(lmax: int) -> list[int]:
    """Degrees that have each |m|: L+1-m."""
    return [lmax + 1 - m for m in range(lmax + 1)]


class _Pairs(torch.autograd.Function):
    """Gather, rotate, multiply.

    ``part_m[+, e, l-m, end] = w_m[e, l-m, end] (D_l x_end)[l+m]``, and ``[-]`` with ``[l-m]``.
    """

    @staticmethod
    def forward(
        ctx: Any, nodes: Tensor, packed: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
    ) -> tuple[Tensor, ...]:
        edges, channels, degrees = len(packed), nodes.shape[-1], range(frames.lmax + 1)
        factors = _by_m(weights, frames.lmax, channels)
        parts = [
            nodes.new_empty(1 if m == 0 else 2, edges, len(degrees) - m, 2, channels)
            for m in range(mmax + 1)
        ]
        turned = []
        for l in degrees:
            wide = min(l, mmax)
            block = frames.twice[l][:, l - wide : l + wide + 1]
            turned.append(torch.bmm(block, _gathered(nodes, l, frames.ends.both)))
            ends = turned[-1].unflatten(0, (2, edges)).permute(2, 1, 0, 3)  # m, edge, end, channel
            for m in range(wide + 1):
                factor, part = factors[m][:, l - m], parts[m][:, :, l - m]
                torch.mul(ends[wide + m], factor, out=part[0])
                if m:
                    torch.mul(ends[wide - m], factor, out=part[1])
        ctx.frames, ctx.mmax, ctx.turning = frames, mmax, packed.requires_grad
        ctx.save_for_backward(weights, nodes, *turned)
        return tuple(part.flatten(3) for part in parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        frames, mmax = ctx.frames, ctx.mmax
        weights, nodes, *turned = ctx.saved_tensors
        edges, channels = len(weights), nodes.shape[-1]
        grad_weights = torch.empty_like(weights)
        if mmax < frames.lmax:
            grad_weights.zero_()
        factors = _by_m(weights, frames.lmax, channels)
        grad_factors = _by_m(grad_weights, frames.lmax, channels)
        parts = [grad.unflatten(3, (2, channels)) for grad in grads]
        grad_nodes, grad_packed = [], []
        for l, was in enumerate(turned):
            wide = min(l, mmax)
            ends = was.unflatten(0, (2, edges)).permute(2, 1, 0, 3)
            grad_turned = torch.empty_like(was)
            grad_ends = grad_turned.unflatten(0, (2, edges)).permute(2, 1, 0, 3)
            for m in range(wide + 1):
                factor, part = factors[m][:, l - m], parts[m][:, :, l - m]
                grad_factor = grad_factors[m][:, l - m]
                torch.mul(part[0], factor, out=grad_ends[wide + m])
                torch.mul(part[0], ends[wide + m], out=grad_factor)
                if m:
                    torch.mul(part[1], factor, out=grad_ends[wide - m])
                    grad_factor.addcmul_(part[1], ends[wide - m])
            block = frames.twice[l][:, l - wide : l + wide + 1]
            back = torch.bmm(block.transpose(1, 2), grad_turned)
            grad_nodes.append(frames.ends.added_at_both(back))
            if ctx.turning:
                outer = nodes.new_zeros(edges, 2 * l + 1, 2 * l + 1)
                moved = torch.bmm(
                    grad_turned, _gathered(nodes, l, frames.ends.both).transpose(1, 2)
                )
                outer[:, l - wide : l + wide + 1] = moved[:edges] + moved[edges:]
                grad_packed.append(outer.flatten(1))
        turning = torch.cat(grad_packed, 1) if ctx.turning else None
        return torch.cat(grad_nodes, 1), turning, grad_weights, None, None


class _ToSpace(torch.autograd.Function):
    """``x_l = D_l^T y_l`` of each edge, summed at its target if ``summed``."""

    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, frames: EdgeFrames, summed: bool, *parts: Tensor
    ) -> Tensor:
        out = []
        for l, block in enumerate(frames.blocks):
            turned = torch.bmm(block.transpose(1, 2), _of_degree(parts, l))
            out.append(frames.ends.added_at_target(turned) if summed else turned)
        ctx.frames, ctx.summed, ctx.turning = frames, summed, packed.requires_grad
        ctx.save_for_backward(*(parts if ctx.turning else ()))
        return torch.cat(out, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frames, degrees = ctx.frames, range(ctx.frames.lmax + 1)
        edges, channels = len(frames.packed), grad.shape[-1]
        grads = [
            grad.new_empty(1 if m == 0 else 2, edges, len(degrees) - m, channels) for m in degrees
        ]
        grad_packed = []
        for l, block in enumerate(frames.blocks):
            arrived = (
                _gathered(grad, l, frames.ends.target)
                if ctx.summed
                else grad[:, l * l : (l + 1) ** 2]
            )
            framed = torch.bmm(block, arrived)
            for m in range(l + 1):
                grads[m][0, :, l - m] = framed[:, l + m]
                if m:
                    grads[m][1, :, l - m] = framed[:, l - m]
            if ctx.turning:
                outer = torch.bmm(_of_degree(ctx.saved_tensors, l), arrived.transpose(1, 2))
                grad_packed.append(outer.flatten(1))
        return torch.cat(grad_packed, 1) if ctx.turning else None, None, None, *grads


def _gathered(nodes: Tensor, l: int, atoms: Tensor) -> Tensor:
    """(R, 2l+1, C) degree l of the features (N, S, C) of chosen atoms."""
    rows = nodes[:, l * l : (l + 1) ** 2]
    return rows.flatten(1).index_select(0, atoms).unflatten(1, rows.shape[1:])


def _of_degree(parts: tuple[Tensor, ...], l: int) -> Tensor:
    """(E, 2l+1, C) of one degree, m = -l..l, from features per |m|."""
    edges, channels = parts[0].shape[1], parts[0].shape[-1]
    rows = parts[0].new_empty(edges, 2 * l + 1, channels)
    for m in range(l + 1):
        rows[:, l + m] = parts[m][0, :, l - m]
        if m:
            rows[:, l - m] = parts[m][1, :, l - m]
    return rows


def _by_m(weights: Tensor, lmax: int, channels: int) -> list[Tensor]:
    """Views (E, L+1-m, 2, C) of weights (E, sum of the L+1-m, 2C)."""
    return list(weights.unflatten(2, (2, channels)).split(rows_per_m(lmax), 1))
