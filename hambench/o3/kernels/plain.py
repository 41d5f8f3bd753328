"""The passes in PyTorch: a bmm per degree, and views per |m|."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hambench.o3.frames import EdgeFrames, rows_per_m


def pairs(
    nodes: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
) -> tuple[list[Tensor], list[Tensor]]:
    """See `Passes`."""
    edges, channels, degrees = len(weights), nodes.shape[-1], range(frames.lmax + 1)
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
    return [part.flatten(3) for part in parts], [weights, nodes, *turned]


def pairs_backward(
    grads: Sequence[Tensor], kept: Sequence[Tensor], frames: EdgeFrames, mmax: int
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See `Passes`."""
    weights, nodes, *turned = kept
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
        if frames.turning:
            outer = nodes.new_zeros(edges, 2 * l + 1, 2 * l + 1)
            moved = torch.bmm(grad_turned, _gathered(nodes, l, frames.ends.both).transpose(1, 2))
            outer[:, l - wide : l + wide + 1] = moved[:edges] + moved[edges:]
            grad_packed.append(outer.flatten(1))
    turning = torch.cat(grad_packed, 1) if frames.turning else None
    return torch.cat(grad_nodes, 1), turning, grad_weights


def to_space(
    parts: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor, list[Tensor]]:
    """See `Passes`."""
    out = []
    for l, block in enumerate(frames.blocks):
        turned = torch.bmm(block.transpose(1, 2), _of_degree(parts, l))
        out.append(frames.ends.added_at_target(turned) if summed else turned)
    return torch.cat(out, 1), list(parts) if frames.turning else []


def to_space_backward(
    grad: Tensor, kept: Sequence[Tensor], frames: EdgeFrames, summed: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """See `Passes`."""
    edges, channels, degrees = len(frames.packed), grad.shape[-1], range(frames.lmax + 1)
    grads = [grad.new_empty(1 if m == 0 else 2, edges, len(degrees) - m, channels) for m in degrees]
    grad_packed = []
    for l, block in enumerate(frames.blocks):
        arrived = (
            _gathered(grad, l, frames.ends.target) if summed else grad[:, l * l : (l + 1) ** 2]
        )
        framed = torch.bmm(block, arrived)
        for m in range(l + 1):
            grads[m][0, :, l - m] = framed[:, l + m]
            if m:
                grads[m][1, :, l - m] = framed[:, l - m]
        if frames.turning:
            outer = torch.bmm(_of_degree(kept, l), arrived.transpose(1, 2))
            grad_packed.append(outer.flatten(1))
    return torch.cat(grad_packed, 1) if frames.turning else None, grads


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


def _gathered(nodes: Tensor, l: int, atoms: Tensor) -> Tensor:
    """(R, 2l+1, C) degree l of the features (N, S, C) of chosen atoms."""
    rows = nodes[:, l * l : (l + 1) ** 2]
    return rows.flatten(1).index_select(0, atoms).unflatten(1, rows.shape[1:])


def _of_degree(parts: Sequence[Tensor], l: int) -> Tensor:
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
