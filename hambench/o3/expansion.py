"""From features to the irreps of orbital blocks, with weights of their own for every row."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class OrbitalExpansion(nn.Module):
    """Coupled block vectors ``x[ab, l] = (sum_w A[w, ab, l] f_l[w] + B[ab] at l = 0) / W``.

    a, b are slots of the orbital table, A and B come from a network on the elements of a row
    (QHNet, arXiv 2306.04922, section 3; SPHNet, arXiv 2502.01171). The order of the weights is l
    outer, then the degrees (la, lb) of row and column slots, then w, a, b.

    Args:
        slots: degree of each slot.
        lmax: largest degree of the features; higher ones of the blocks stay zero.
        channels: W, channels of the features.
    """

    def __init__(self, slots: Sequence[int], lmax: int, channels: int) -> None:
        super().__init__()
        self.slots, self.channels = tuple(slots), channels
        self.lmax = min(lmax, 2 * max(slots))
        columns, _ = _order(self.slots, self.lmax, channels)
        self.weights, self.biases = sum(map(len, columns)), len(columns[0]) // channels
        self.size = sum(2 * l + 1 for l in slots) ** 2

    def forward(self, features: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
        """Expand.

        Args:
            features: (R, (lmax+1)^2, W).
            weights: (R, ``self.weights``), A.
            biases: (R, ``self.biases``), B of the pairs of slots of equal degree.

        Returns:
            (R, K^2) coupled vectors, of unit prefactor before the Wigner 3j symbols.
        """
        order, inverse, widths, places = _moved(
            self.slots, self.lmax, self.channels, features.device
        )
        matrices = _Permuted.apply(weights, order, inverse).split(widths, dim=1)
        parts = features[:, : (self.lmax + 1) ** 2].split(
            [2 * l + 1 for l in range(self.lmax + 1)], dim=1
        )
        terms = [
            torch.bmm(part, matrix.unflatten(1, (self.channels, -1)))
            for part, matrix in zip(parts, matrices, strict=True)
        ]
        terms[0] = terms[0] + biases[:, None]
        values = torch.cat([term.flatten(1) for term in terms], dim=1) / self.channels
        out = values.new_zeros(len(values), self.size)
        return out.index_copy(1, places, values)


class _Permuted(torch.autograd.Function):
    """``x[:, order]``; backward, which knows the inverse, adds nothing up."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(order, inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, inverse = ctx.saved_tensors
        return _Permuted.apply(grad, inverse, order), None, None


@lru_cache
def _moved(
    slots: tuple[int, ...], lmax: int, channels: int, device: torch.device
) -> tuple[Tensor, Tensor, list[int], Tensor]:
    """On the device: columns of all degrees, their inverse, number of each, places."""
    columns, places = _order(slots, lmax, channels)
    order = np.concatenate(columns)
    tensors = [torch.from_numpy(x).to(device) for x in (order, np.argsort(order), places)]
    return tensors[0], tensors[1], [len(column) for column in columns], tensors[2]


@lru_cache
def _order(
    slots: tuple[int, ...], lmax: int, channels: int
) -> tuple[list[NDArray[np.int64]], NDArray[np.int64]]:
    """Per degree the columns of A as (W, pairs of slots); places of all terms in the K^2 vector,
    degree by degree, m outer.
    """
    degrees = np.array(slots)
    widths = 2 * degrees + 1
    areas = np.outer(widths, widths)
    start = (np.cumsum(areas) - areas.ravel()).reshape(areas.shape)
    columns, places = [], []
    used = 0
    for l in range(lmax + 1):
        here, where = [], []
        for la in sorted(set(slots)):
            for lb in sorted(set(slots)):
                if not abs(la - lb) <= l <= la + lb:
                    continue
                pairs = start[np.ix_(degrees == la, degrees == lb)].ravel()
                count = channels * len(pairs)
                here.append((used + np.arange(count)).reshape(channels, -1))
                where.append(pairs + l * l - (la - lb) ** 2)  # degrees below l come first
                used += count
        columns.append(np.concatenate(here, axis=1).ravel())
        first = np.concatenate(where)
        places.append((first[None] + np.arange(2 * l + 1)[:, None]).ravel())
    return columns, np.concatenate(places)
