"""The atoms at the two ends of edges: features gathered from them, sums over edges at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class Ends:
    """Both atoms of every edge, and the order in which edges are added up at an atom.

    The order is fixed: sums have the same bits in every run, on a GPU too.

    Attributes:
        source, target: (E,) atom at either end; messages arrive at the target.
        both: (2E,) sources, then targets.
        at_target: edges by target, and (N + 1,) where those of each atom begin.
        at_both: the same of the rows of ``both``.
    """

    def __init__(self, source: Tensor, target: Tensor, atoms: int) -> None:
        self.source, self.target = source, target
        self.both = torch.cat([source, target])
        self.at_target = _bags(target, atoms)
        self.at_both = _bags(self.both, atoms)

    def sum_at_target(self, rows: Tensor) -> Tensor:
        """(E, ...) -> (N, ...): at every atom the sum over the edges that arrive."""
        summed: Tensor = _SumAtTarget.apply(rows, self)
        return summed

    def added_at_target(self, rows: Tensor) -> Tensor:
        """The same without a derivative."""
        return _sums(rows, self.at_target)

    def added_at_both(self, rows: Tensor) -> Tensor:
        """(2E, ...) in the order of ``both`` -> (N, ...), without a derivative."""
        return _sums(rows, self.at_both)


class _SumAtTarget(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, ends: Ends) -> Tensor:
        ctx.target = ends.target
        return ends.added_at_target(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad.index_select(0, ctx.target), None


def _bags(atoms_of: Tensor, atoms: int) -> tuple[Tensor, Tensor]:
    """Rows by atom, and (N + 1,) where those of each atom begin; found without a wait for a GPU."""
    of_rows, order = atoms_of.sort(stable=True)
    return order, torch.searchsorted(of_rows, torch.arange(atoms + 1, device=order.device))


def _sums(rows: Tensor, bags: tuple[Tensor, Tensor]) -> Tensor:
    # what sums embeddings of words gathers and adds in one pass over the memory
    order, starts = bags
    if not len(rows):
        return rows.new_zeros(len(starts) - 1, *rows.shape[1:])
    flat = rows.reshape(len(rows), -1)
    sums = functional.embedding_bag(order, flat, starts, mode="sum", include_last_offset=True)
    return sums.view(len(sums), *rows.shape[1:])
