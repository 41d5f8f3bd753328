"""The passes as Triton kernels, one each. A backward pass turns what it needs again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hambench.o3.frames import EdgeFrames
from hambench.o3.kernels import device

_TILE_BYTES = 512  # of channels: 16 bytes a thread, and up to lmax = 6 all stays in registers


def pairs(
    nodes: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
) -> tuple[list[Tensor], list[Tensor]]:
    """See `Passes`."""
    nodes, weights = nodes.contiguous(), weights.contiguous()
    parts = _into_frames(nodes, frames.ends.both, weights, frames, mmax)
    return parts, [nodes, weights]


def pairs_backward(
    grads: Sequence[Tensor], kept: Sequence[Tensor], frames: EdgeFrames, mmax: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See `Passes`."""
    nodes, weights = kept
    grad_weights = torch.zeros_like(weights) if mmax < frames.lmax else torch.empty_like(weights)
    grad_nodes = torch.empty_like(nodes)
    bags = frames.ends.at_both
    _into_space(grads, weights, nodes, bags, grad_nodes, grad_weights, frames)
    return grad_nodes, None, grad_weights


def to_space(
    parts: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `Passes`."""
    bags = frames.ends.at_target if summed else None
    rows = len(frames.packed) if bags is None else len(bags[1]) - 1
    out = parts[0].new_empty(rows, (frames.lmax + 1) ** 2, parts[0].shape[-1])
    _into_space(parts, None, None, bags, out, None, frames)
    return out, []


def to_space_backward(
    grad: Tensor, kept: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """See `Passes`."""
    atoms = frames.ends.target if summed else None
    return None, _into_frames(grad.contiguous(), atoms, None, frames, frames.lmax)


def gate(parts: Sequence[Tensor], gates: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """See `Passes`."""
    parts, gates = [part.contiguous() for part in parts], gates.contiguous()
    out = [torch.empty_like(part) for part in parts]
    _launch(device.gate, len(gates), parts, gates, out, len(gates), **_sizes(parts))
    return out, [gates, *parts]


def gate_backward(grads: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """See `Passes`."""
    gates, *parts = kept
    grads = [grad.contiguous() for grad in grads]
    out, slopes = [torch.empty_like(part) for part in parts], torch.empty_like(gates)
    _launch(
        device.gate_backward, len(gates), grads, parts, gates, out, slopes, len(gates),
        **_sizes(parts),
    )  # fmt: skip
    return slopes, out


def _into_frames(
    nodes: Tensor, atoms: Tensor | None, weights: Tensor | None, frames: EdgeFrames, mmax: int
) -> list[Tensor]:
    """Per |m| features of both ends, times weights, or of one."""
    edges, channels = len(frames.packed), nodes.shape[-1]
    ends = 1 if weights is None else 2
    parts = [
        nodes.new_empty(1 if m == 0 else 2, edges, frames.lmax + 1 - m, ends * channels)
        for m in range(mmax + 1)
    ]
    _launch(
        device.into_frames, ends * edges,
        nodes, atoms, frames.packed.contiguous(), weights, parts, edges,
        L=frames.lmax, M=mmax, C=channels, ENDS=ends,
    )  # fmt: skip
    return parts


def _into_space(
    parts: Sequence[Tensor],
    weights: Tensor | None,
    nodes: Tensor | None,
    bags: tuple[Tensor, Tensor] | None,
    out: Tensor,
    slopes: Tensor | None,
    frames: EdgeFrames,
) -> None:
    """Writes ``out``, and ``slopes`` of weights."""
    order, starts = (None, None) if bags is None else bags
    parts = [part.contiguous() for part in parts]
    _launch(
        device.into_space, len(out) * (frames.lmax + 1),
        parts, frames.packed.contiguous(), weights, nodes, order, starts, out, slopes,
        len(frames.packed),
        L=frames.lmax, M=len(parts) - 1, C=out.shape[-1], ENDS=1 if weights is None else 2,
    )  # fmt: skip


def _sizes(parts: Sequence[Tensor]) -> dict[str, int]:
    *_, degrees, channels = parts[0].shape
    return {"L": degrees - 1, "M": len(parts) - 1, "C": channels}


def _launch(kernel: Any, rows: int, first: Any, *others: Any, C: int, **sizes: int) -> None:
    """Run a program of one warp for every row and tile of channels."""
    like = first[0] if isinstance(first, list) else first
    tile = tile_of(C, like.dtype)
    if programs := rows * -(-C // tile):
        arguments = [tuple(a) if isinstance(a, list) else a for a in (first, *others)]
        with torch.cuda.device_of(like):
            kernel[(programs,)](*arguments, C=C, TILE=tile, num_warps=1, **sizes)


def tile_of(channels: int, dtype: torch.dtype) -> int:
    """Channels of a program, a power of two."""
    return min(1 << (channels - 1).bit_length(), _TILE_BYTES // dtype.itemsize)
