"""Wigner matrices of the rotations that bring edges to the polar axis, packed by degree.

``D_l = J_l X(-beta) J_l X(-alpha)`` with the frame angles of an edge and gamma = 0 (the networks
that use them are exactly invariant to a turn about the edge). ``X(t)`` has cos(f t) on its
diagonal and sin(f t) on its anti-diagonal, f = l..-l; ``J_l`` is a constant. ``J X(-beta) J`` is
linear in cos(f beta), sin(f beta): one matrix product gives it for all degrees and entries at
once, and X(-alpha) only mixes columns k and 2l-k. So there is no loop over m, and only the
sum of (2l+1)^2 block-diagonal numbers are ever formed (165 at lmax = 4; the dense matrix has 625).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hambench.harmonics import harmonic_rotation

POLAR = (1, 2, 0)
"""Columns of (x, y, z) the networks see, (y, z, x): e3nn's polar axis becomes the physical z."""


def packed_offsets(lmax: int) -> list[int]:
    """Start of each degree's (2l+1)^2 numbers in the packed form, and the total as last entry."""
    offsets = [0]
    for l in range(lmax + 1):
        offsets.append(offsets[-1] + (2 * l + 1) ** 2)
    return offsets


def swap_matrix(l: int) -> Tensor:
    """The constant (2l+1, 2l+1) float64 ``J_l``: ``(-1)^l D_l`` of a half turn about (1, 1, 0).

    The axis is in the network's axes, so (0, 1, 1) in space. J is symmetric, and its own inverse.
    """
    half_turn = np.array([[-1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    matrix = (-1) ** l * harmonic_rotation(l, half_turn)
    matrix[np.abs(matrix) < 1e-14] = 0  # entries that vanish exactly
    return torch.from_numpy((matrix + matrix.T) / 2)


@lru_cache
def _tables(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, ...]:
    """Constants of `edge_wigner`, made in float64 and kept per dtype and device.

    Returns ``polar`` (2 lmax + 1, packed): the entries of J X(-beta) J as a linear map of
    [cos(0..lmax beta), sin(1..lmax beta)]; ``mirror`` (packed,): place of column 2l-k in the same
    row; ``frequency`` (packed,): f of a column, to pick cos(|f| alpha) and sin(f alpha).
    """
    offsets = packed_offsets(lmax)
    polar = torch.zeros(2 * lmax + 1, offsets[-1], dtype=torch.float64)
    mirror = torch.zeros(offsets[-1], dtype=torch.long)
    frequency = torch.zeros(offsets[-1], dtype=torch.long)
    for l in range(lmax + 1):
        span, width = slice(offsets[l], offsets[l + 1]), 2 * l + 1
        swap, column = swap_matrix(l), torch.arange(width)
        for k in range(width):  # J X J = sum over rows k of J[:, k] X[k, :] J
            f = l - k
            polar[abs(f), span] += torch.outer(swap[:, k], swap[k]).reshape(-1)
            if f != 0:  # sin(f t) at t = -beta
                sine = torch.outer(swap[:, k], swap[2 * l - k]).reshape(-1)
                polar[lmax + abs(f), span] += -sine if f > 0 else sine
        mirror[span] = (offsets[l] + torch.arange(width)[:, None] * width + column.flip(0)).view(-1)
        frequency[span] = (l - column).repeat(width)
    return polar.to(device, dtype), mirror.to(device), frequency.to(device)


def edge_wigner(vectors: Tensor, lmax: int) -> Tensor:
    """Packed matrices that rotate features into the frames of edges.

    With vectors that require gradients these are finite everywhere, and those of whatever does not
    change with a turn about the edge are exact, along the polar axis too.

    Args:
        vectors: (E, 3) edge vectors in the *network's* axes, (y, z, x) of space, not zero.
        lmax: largest degree.

    Returns:
        (E, sum (2l+1)^2), degree l's matrix row-major at ``packed_offsets(lmax)[l]``; it maps
        the edge onto the polar axis (HELM's public code; e3nn's J matrices).
    """
    if not vectors.requires_grad:
        return _from_angles(vectors, lmax)
    # at the poles the angles have no derivative; the matrices have, in another gauge
    across = vectors[:, ::2] / vectors.norm(dim=-1, keepdim=True)
    near = across.detach().square().sum(-1, keepdim=True) < torch.finfo(vectors.dtype).eps
    elsewhere = torch.where(near, vectors.new_tensor([1.0, 1.0, 1.0]), vectors)
    north, south = _poles(lmax, vectors.dtype, vectors.device)
    pole = torch.where((vectors[:, 1] > 0)[:, None, None], north, south)
    tilted = pole[:, 0] + across[:, :1] * pole[:, 1] + across[:, 1:] * pole[:, 2]
    return torch.where(near, tilted, _from_angles(elsewhere, lmax))


@lru_cache
def _poles(lmax: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """At both ends of the polar axis the packed matrices, and their two derivatives: (3, P) each.

    These are along the first and the third component of a unit vector, in the gauge that is smooth
    there: ``D(alpha, 0)^T D`` at one end, ``D(alpha, 0) D`` at the other.
    """
    zero, quarter = (torch.tensor([a], dtype=torch.float64) for a in (0.0, np.pi / 2))

    def blocks(packed: Tensor) -> list[Tensor]:
        return [block[0] for block in wigner_blocks(packed[None], lmax)]

    def packed(alpha: Tensor, beta: Tensor) -> Tensor:
        return _by_angles(alpha, beta, lmax)[0]

    turn = blocks(packed(quarter, zero))
    found = []
    for beta, sign in ((zero, 1.0), (zero + np.pi, -1.0)):
        slopes = [
            torch.autograd.functional.jacobian(lambda b, a=alpha: packed(a, b), beta)[:, 0]
            for alpha in (quarter, zero)
        ]
        turned = [
            (g.T if sign > 0 else g) @ d for g, d in zip(turn, blocks(slopes[0]), strict=True)
        ]
        first = torch.cat([block.reshape(-1) for block in turned])
        rows = torch.stack([packed(zero, beta), sign * first, sign * slopes[1]])
        found.append(rows.to(device, dtype))
    return found[0], found[1]


def _from_angles(vectors: Tensor, lmax: int) -> Tensor:
    first, second, third = vectors.unbind(-1)
    # atan2 is well conditioned at the poles, where arccos of the cosine is not
    beta = torch.atan2(torch.hypot(first, third), second)
    return _by_angles(torch.atan2(first, third), beta, lmax)


def _by_angles(alpha: Tensor, beta: Tensor, lmax: int) -> Tensor:
    polar, mirror, frequency = _tables(lmax, alpha.dtype, alpha.device)
    orders = torch.arange(lmax + 1, device=alpha.device, dtype=alpha.dtype)
    turns = beta[:, None] * orders
    tilted = torch.cat([turns.cos(), turns[:, 1:].sin()], 1) @ polar
    turns = alpha[:, None] * orders
    cosine, sine = turns.cos(), turns.sin()
    # column k of D: tilted_k cos(f alpha) + tilted_{2l-k} sin(f alpha), f = l - k
    sine = torch.cat([sine, -sine[:, 1:].flip(1)], 1)  # also for negative f, by index f
    return tilted * cosine[:, frequency.abs()] + tilted[:, mirror] * sine[:, frequency]


def wigner_blocks(packed: Tensor, lmax: int) -> list[Tensor]:
    """The matrices of a packed (E, P) tensor as views, degree l as (E, 2l+1, 2l+1)."""
    sizes = [(2 * l + 1) ** 2 for l in range(lmax + 1)]
    parts = packed.split(sizes, dim=1)
    return [part.reshape(-1, 2 * l + 1, 2 * l + 1) for l, part in enumerate(parts)]
