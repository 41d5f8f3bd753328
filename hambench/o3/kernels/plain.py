"""The passes in PyTorch: a product per degree, and one gather of rows between the two orders."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from hambench.o3.frames import EdgeFrames, rows_per_m


def pairs(
    nodes: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
) -> tuple[list[Tensor], list[Tensor]]:
    """See `Passes`."""
    channels = nodes.shape[-1]
    order = frames.order(mmax, ends=2)[0]
    turned = _turned(_rows_of(nodes, frames.ends.both), _blocks(frames.twice, mmax))
    framed = turned.view(-1, channels).index_select(0, order)
    factors = _by_m(weights, frames.lmax, channels)
    parts = zip(_split(framed, frames, mmax, ends=2), factors, strict=False)
    return [(part * factor).flatten(3) for part, factor in parts], [weights, nodes, framed]


def pairs_backward(
    grads: Sequence[Tensor], kept: Sequence[Tensor], frames: EdgeFrames, mmax: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See `Passes`."""
    weights, nodes, framed = kept
    channels = nodes.shape[-1]
    inverse = frames.order(mmax, ends=2)[1]
    grad_framed, grad_weights = torch.empty_like(framed), torch.empty_like(weights)
    if mmax < frames.lmax:
        grad_weights.zero_()
    factors, grad_factors = (_by_m(own, frames.lmax, channels) for own in (weights, grad_weights))
    was, out = (_split(own, frames, mmax, ends=2) for own in (framed, grad_framed))
    for m, grad in enumerate(grads):
        arrived = grad.unflatten(3, (2, channels))
        torch.mul(arrived, factors[m], out=out[m])
        torch.mul(arrived[0], was[m][0], out=grad_factors[m])
        if m:
            grad_factors[m].addcmul_(arrived[1], was[m][1])
    blocks = _blocks(frames.twice, mmax)
    count = sum(block.shape[1] for block in blocks)
    rows = grad_framed.index_select(0, inverse).view(2 * len(weights), count, channels)
    back = _turned(rows, [block.transpose(1, 2) for block in blocks])
    turning = None
    if frames.turning:
        turning = _outer(rows, _rows_of(nodes, frames.ends.both), blocks)
        turning = turning[: len(weights)] + turning[len(weights) :]
    return frames.ends.added_at_both(back), turning, grad_weights


def to_space(
    parts: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `Passes`."""
    channels = parts[0].shape[-1]
    inverse = frames.order(frames.lmax, ends=1)[1]
    framed = torch.cat([part.reshape(-1, channels) for part in parts])
    rows = framed.index_select(0, inverse).view(
        len(frames.packed), (frames.lmax + 1) ** 2, channels
    )
    out = _turned(rows, [block.transpose(1, 2) for block in frames.blocks])
    return frames.ends.added_at_target(out) if summed else out, [rows] if frames.turning else []


def to_space_backward(
    grad: Tensor, kept: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """See `Passes`."""
    order = frames.order(frames.lmax, ends=1)[0]
    arrived = _rows_of(grad, frames.ends.target) if summed else grad
    turned = _turned(arrived, frames.blocks).view(-1, grad.shape[-1])
    parts = _split(turned.index_select(0, order), frames, frames.lmax, ends=1)
    turning = _outer(kept[0], arrived, frames.blocks) if frames.turning else None
    return turning, [part[..., 0, :] for part in parts]


def gate(parts: Sequence[Tensor], gates: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """See `Passes`."""
    channels = parts[0].shape[-1]
    factors = gates.new_empty(len(gates), parts[0].shape[2], channels)
    torch.sigmoid(parts[0][0, :, 0], out=factors[:, 0])
    torch.tanh(gates.unflatten(1, (-1, channels)), out=factors[:, 1:])
    return [part * factors[:, m:] for m, part in enumerate(parts)], [factors, *parts]


def gate_backward(grads: Sequence[Tensor], kept: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """See `Passes`."""
    factors, *parts = kept
    out = [grad * factors[:, m:] for m, grad in enumerate(grads)]
    slopes = torch.mul(grads[0][0], parts[0][0])
    for m, (grad, part) in enumerate(zip(grads[1:], parts[1:], strict=True), start=1):
        for sign in range(2):
            slopes[:, m:].addcmul_(grad[sign], part[sign])
    sigmoid, tanh = factors[:, 0], factors[:, 1:]
    # of x sigmoid(x): the factor, and x times its slope
    out[0][0, :, 0].addcmul_(slopes[:, 0], sigmoid - sigmoid.square())
    return (slopes[:, 1:] * (1 - tanh.square())).flatten(1), out


def _rows_of(nodes: Tensor, atoms: Tensor) -> Tensor:
    """(R, S, C) features of chosen atoms."""
    return nodes.flatten(1).index_select(0, atoms).unflatten(1, nodes.shape[1:])


def _blocks(blocks: Sequence[Tensor], mmax: int) -> list[Tensor]:
    """Of the matrices of each degree the rows of |m| <= mmax."""
    return [block[:, max(l - mmax, 0) : l + min(l, mmax) + 1] for l, block in enumerate(blocks)]


def _turned(rows: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Rows (R, T, C), degree after degree, times a matrix of each degree."""
    parts = rows.split([block.shape[2] for block in blocks], 1)
    return torch.cat([torch.bmm(*pair) for pair in zip(blocks, parts, strict=True)], 1)


def _outer(framed: Tensor, spatial: Tensor, blocks: Sequence[Tensor]) -> Tensor:
    """Gradient of the packed matrices: of each degree framed rows times rows in space."""
    left = framed.split([block.shape[1] for block in blocks], 1)
    right = spatial.split([block.shape[2] for block in blocks], 1)
    out = []
    for one, other in zip(left, right, strict=True):
        missing = (other.shape[1] - one.shape[1]) // 2  # rows of larger |m|
        outer = torch.bmm(one, other.transpose(1, 2))
        out.append(functional.pad(outer, (0, 0, missing, missing)).flatten(1))
    return torch.cat(out, 1)


def _split(framed: Tensor, frames: EdgeFrames, mmax: int, ends: int) -> list[Tensor]:
    """Rows (., C) in the order of `EdgeFrames.order` as (signs, E, L+1-m, ends, C) per |m|."""
    edges, counts = len(frames.packed), rows_per_m(frames.lmax)[: mmax + 1]
    signs = [1 if m == 0 else 2 for m in range(mmax + 1)]
    sizes = [sign * edges * count * ends for sign, count in zip(signs, counts, strict=True)]
    parts = zip(framed.split(sizes), signs, counts, strict=True)
    return [part.view(sign, edges, count, ends, framed.shape[-1]) for part, sign, count in parts]


def _by_m(weights: Tensor, lmax: int, channels: int) -> list[Tensor]:
    """Views (E, L+1-m, 2, C) of weights (E, sum of the L+1-m, 2C)."""
    return list(weights.unflatten(2, (2, channels)).split(rows_per_m(lmax), 1))
