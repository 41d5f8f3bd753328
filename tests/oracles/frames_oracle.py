"""HELM's layers written plainly: dense matrices, one full feature tensor, gradients of torch.

Features (rows, S, C) are l-major; in an edge's frame they are m-major, as the public code has them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.o3.layers import EquivariantRMSNorm, FeedForward, SO3Linear
from hambench.o3.so2 import SO2Convolution
from hambench.o3.wigner import wigner_blocks


def m_major(lmax: int) -> list[int]:
    """l-major index of every m-major row."""
    order = [l * l + l for l in range(lmax + 1)]
    for m in range(1, lmax + 1):
        for signed in (m, -m):
            order += [l * l + l + signed for l in range(m, lmax + 1)]
    return order


def dense(packed: Tensor, lmax: int) -> Tensor:
    """(E, S, S) block-diagonal matrices, rows m-major."""
    blocks = wigner_blocks(packed, lmax)
    whole = torch.stack([torch.block_diag(*(b[e] for b in blocks)) for e in range(len(packed))])
    return whole[:, m_major(lmax)]


def pairs(nodes: Tensor, packed: Tensor, weights: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """m-major (E, S, 2C): both atoms' features, rotated and weighted."""
    lmax = int(nodes.shape[1] ** 0.5) - 1
    rotated = dense(packed, lmax) @ torch.cat([nodes[source], nodes[target]], -1)
    by_m = weights.split([lmax + 1 - m for m in range(lmax + 1)], 1)
    both_signs = [by_m[0], *(part for m in range(1, lmax + 1) for part in (by_m[m], by_m[m]))]
    return rotated * torch.cat(both_signs, 1)


def to_space(framed: Tensor, packed: Tensor) -> Tensor:
    """m-major (E, S, C) of the frames -> l-major of space."""
    return dense(packed, int(framed.shape[1] ** 0.5) - 1).transpose(1, 2) @ framed


def summed(messages: Tensor, target: Tensor, atoms: int) -> Tensor:
    """(E, ...) -> (N, ...) by a dense matrix of zeros and ones."""
    arrives = functional.one_hot(target, atoms).to(messages.dtype)
    return torch.einsum("en,e...->n...", arrives, messages)


def convolved(conv: SO2Convolution, x: Tensor) -> tuple[Tensor, Tensor]:
    """m-major (E, S, in) -> m-major (E, S, out), and the extra scalars."""
    lmax = int(x.shape[1] ** 0.5) - 1
    axial = conv.axial(x[:, : lmax + 1].flatten(1))
    out = [axial[:, conv.extra :].unflatten(1, (lmax + 1, -1))]
    start = lmax + 1
    for m, linear in enumerate(conv.maps, start=1):
        count = lmax + 1 - m
        plus, minus = (
            x[:, start + k * count : start + (k + 1) * count].flatten(1) for k in range(2)
        )
        start += 2 * count
        real, imaginary = linear.weight.chunk(2)
        for part in (plus @ real.T - minus @ imaginary.T, minus @ real.T + plus @ imaginary.T):
            out.append(part.unflatten(1, (count, -1)))
    return torch.cat(out, 1), axial[:, : conv.extra]


def gated(x: Tensor, gates: Tensor) -> Tensor:
    """silu on l = 0, tanh of the gates of l on all others; m-major."""
    lmax, channels = int(x.shape[1] ** 0.5) - 1, x.shape[-1]
    degrees = torch.tensor([int(i**0.5) for i in m_major(lmax)])
    factors = torch.cat([torch.ones_like(x[:, :1]), gates.tanh().unflatten(1, (-1, channels))], 1)
    return torch.cat([functional.silu(x[:, :1]), (x * factors[:, degrees])[:, 1:]], 1)


def normed(norm: EquivariantRMSNorm, x: Tensor) -> Tensor:
    """As the class says, with the mean over m, then over degrees, then over channels."""
    lmax = int(x.shape[1] ** 0.5) - 1
    x = torch.cat([x[:, :1] - x[:, :1].mean(-1, keepdim=True), x[:, 1:]], 1)
    squares = x.square().split([2 * l + 1 for l in range(lmax + 1)], 1)
    power = torch.stack([part.mean(1) for part in squares]).mean(0).mean(-1)
    degrees = [int(i**0.5) for i in range(x.shape[1])]
    y = x / (power + norm.eps).sqrt()[:, None, None] * norm.scale[degrees]
    return torch.cat([y[:, :1] + norm.shift, y[:, 1:]], 1)


def linear(layer: SO3Linear, x: Tensor) -> Tensor:
    """(rows, S, in) -> (rows, S, out)."""
    degrees = [int(i**0.5) for i in range(x.shape[1])]
    out = torch.einsum("rsi,soi->rso", x, layer.weight[degrees])
    return torch.cat([out[:, :1] + layer.bias, out[:, 1:]], 1)


def fed(layer: FeedForward, x: Tensor) -> Tensor:
    """(rows, S, C) -> (rows, S, C)."""
    gates = nn.functional.silu(layer.gates(x[:, 0])).unflatten(1, (-1, x.shape[-1])).tanh()
    hidden = linear(layer.linear1, x)
    degrees = [int(i**0.5) - 1 for i in range(1, x.shape[1])]
    hidden = torch.cat([functional.silu(hidden[:, :1]), hidden[:, 1:] * gates[:, degrees]], 1)
    return linear(layer.linear2, hidden)
