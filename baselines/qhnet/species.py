"""Networks that see elements alone, evaluated once for each element, or pair, of the basis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Species:
    """The elements of a batch as rows of one small table.

    Which elements occur is known without a look at the batch: those of the basis. So nothing waits
    for the device, and where the table would be longer than the batch, the batch is taken.

    Attributes:
        table: (n, C) embedding of each element of the basis.
        atoms: (N,) row of each atom in the table.
    """

    table: Tensor
    atoms: Tensor

    def embeddings(self) -> Tensor:
        """(N, C) embeddings of the atoms."""
        return self.table.index_select(0, self.atoms)

    def of_atoms(self, network: Callable[[Tensor], Tensor]) -> Tensor:
        """``network(e_i)`` for every atom."""
        if len(self.table) < len(self.atoms):
            return network(self.table).index_select(0, self.atoms)
        return network(self.embeddings())

    def of_pairs(
        self, network: Callable[[Tensor], Tensor], rows: Tensor, columns: Tensor
    ) -> Tensor:
        """``network([e_i, e_j])`` for every pair of atoms i of ``rows`` and j of ``columns``."""
        first, second = self.atoms.index_select(0, rows), self.atoms.index_select(0, columns)
        n, channels = self.table.shape
        if n * n < len(rows):
            pairs = (
                self.table[:, None].expand(n, n, channels),
                self.table[None].expand(n, n, channels),
            )
            return network(torch.cat(pairs, -1).flatten(0, 1)).index_select(0, first * n + second)
        ends = (self.table.index_select(0, index) for index in (first, second))
        return network(torch.cat(tuple(ends), -1))
