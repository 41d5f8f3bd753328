"""Features in the frames of edges, where SO(3) equivariance reduces to SO(2).

Features in the frame come *per |m|*, as a list of tensors (signs, E, L+1-m, C) for m = 0..M: one
row of l = m..L for each sign, + before -, and + alone for m = 0. That is what the linear maps of a
frame multiply. What a step takes beside its matrix products goes to passes over such tensors, so
they are few, and their gradients are written out (`hambench.o3.kernels`).
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from hambench.o3 import kernels
from hambench.o3.ends import Ends
from hambench.o3.wigner import edge_wigner, packed_offsets, wigner_blocks


class EdgeFrames:
    """Rotations into the frames of a batch's edges, shared by all layers of a network.

    What it returns can be differentiated once.

    Attributes:
        lmax: largest degree.
        packed: (E, sum (2l+1)^2) Wigner matrices, see `edge_wigner`.
        turning: whether their gradients are wanted.
    """

    def __init__(self, vectors: Tensor, lmax: int, ends: Ends | None = None) -> None:
        """Frames of (E, 3) edge vectors in the network's axes (y, z, x of space).

        ``ends`` are needed for `pairs` and `at_atoms`.
        """
        self.lmax, self._ends = lmax, ends
        self.packed = edge_wigner(vectors, lmax)
        self.turning = self.packed.requires_grad
        self._orders: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    @property
    def ends(self) -> Ends:
        """Atoms of the edges."""
        assert self._ends is not None
        return self._ends

    @cached_property
    def passes(self) -> kernels.Passes:
        """What reads and writes features."""
        return kernels.plain_passes() if self.turning else kernels.chosen(self.packed)

    @cached_property
    def blocks(self) -> list[Tensor]:
        """The matrices of each degree (E, 2l+1, 2l+1), without a derivative."""
        return [block.contiguous() for block in wigner_blocks(self.packed.detach(), self.lmax)]

    @cached_property
    def twice(self) -> list[Tensor]:
        """The same for sources, then for targets: (2E, 2l+1, 2l+1)."""
        return [block.repeat(2, 1, 1) for block in self.blocks]

    def order(self, mmax: int, ends: int) -> tuple[Tensor, Tensor]:
        """Places of the rows of all parts, one behind the other, among rows by degree; the inverse.

        Args:
            mmax: largest |m|, of the parts and of the rows.
            ends: how many rows of a component each edge has. By degree, all first ends come before
                the second ones; in the parts, the ends of a component are neighbours.
        """
        if (mmax, ends) not in self._orders:
            edges, device = len(self.packed), self.packed.device
            components = _components(self.lmax, mmax, device)
            count = sum(rows.numel() for rows in components)
            starts = count * torch.arange(ends * edges, device=device).view(ends, 1, edges, 1)
            places = [rows[:, None, :, None] + starts.permute(1, 2, 3, 0) for rows in components]
            order = torch.cat([own.flatten() for own in places])
            self._orders[mmax, ends] = (
                order,
                torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=device)),
            )
        return self._orders[mmax, ends]

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


@lru_cache
def _components(lmax: int, mmax: int, device: torch.device) -> list[Tensor]:
    """Per |m| the places (signs, L+1-m) of its components among those by degree, |m| <= mmax."""
    wide = [min(l, mmax) for l in range(lmax + 1)]
    middle = [sum(2 * w + 1 for w in wide[:l]) + wide[l] for l in range(lmax + 1)]
    rows = [
        [[at + sign for at in middle[m:]] for sign in ([m, -m] if m else [0])]
        for m in range(mmax + 1)
    ]
    return [torch.tensor(own, device=device) for own in rows]


class _Pairs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, nodes: Tensor, packed: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
    ) -> tuple[Tensor, ...]:
        parts, kept = frames.passes.pairs(nodes, weights, frames, mmax)
        ctx.frames, ctx.mmax = frames, mmax
        ctx.save_for_backward(*kept)
        return tuple(parts)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, Tensor, None, None]:
        frames, mmax = ctx.frames, ctx.mmax
        of_inputs = frames.passes.pairs_backward(grads, ctx.saved_tensors, frames, mmax)
        return *of_inputs, None, None


class _ToSpace(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, packed: Tensor, frames: EdgeFrames, summed: bool, *parts: Tensor
    ) -> Tensor:
        out, kept = frames.passes.to_space(parts, frames, summed)
        ctx.frames, ctx.summed = frames, summed
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        frames, summed = ctx.frames, ctx.summed
        packed, grads = frames.passes.to_space_backward(grad, ctx.saved_tensors, frames, summed)
        return packed, None, None, *grads
