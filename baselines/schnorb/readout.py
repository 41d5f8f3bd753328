"""From running products to blocks: the readout, and the places of its entries among block vectors.

The readout has n x n outputs for every pair of atoms, n being the largest number of orbitals of an
element; output (r, c) belongs to orbital r of the row atom and orbital c of the column atom,
counted within the atoms (arXiv 1906.10033, and the public code).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines.schnorb.orbitals import Factor, running_products
from hambench.baselines.schnorb.pairs import Pairs
from hambench.chem.blocks import layout
from hambench.chem.orbitals import OrbitalBasis


class Readout(nn.Module):
    """Affine maps from the running products to blocks of quantities.

    On-site blocks are means over the neighbours; as the mean goes through an affine map, products
    are averaged before. An atom without neighbours has none.

    Args:
        quantities: q matrices that are read from the pairs; on-site blocks are of the first alone.
        orbitals: n.
        blocks, directions, width: L, D and B of the products.
    """

    def __init__(
        self, quantities: int, orbitals: int, blocks: int, directions: int, width: int
    ) -> None:
        super().__init__()
        self.shape = blocks, directions, width
        self.orbitals = orbitals
        inputs, outputs = blocks * directions * width, orbitals**2
        self.pair_weight = nn.Parameter(torch.empty(quantities * outputs, inputs))
        self.pair_bias = nn.Parameter(torch.zeros(quantities * outputs))
        self.atom_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.atom_bias = nn.Parameter(torch.zeros(outputs))
        for weight in (*self.pair_weight.split(outputs), self.atom_weight):
            nn.init.xavier_uniform_(weight.detach())

    def forward(self, factors: Sequence[Factor], pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Symmetric matrices' blocks: on-site (N, n, n), and (P, q, n, n) of the pairs (i, j)."""
        n = self.orbitals
        weight = self.pair_weight.view(-1, n, n, *self.shape)
        rows, sums = running_products(factors, pairs, weight)
        rows = rows + self.pair_bias.view(-1, n, n)
        pair = (rows[0] + rows[1].mT) / 2
        means = [s.expand(-1, *self.shape[1:]) * pairs.share[:, None, None] for s in sums]
        read = functional.linear(torch.stack(means, 1).flatten(1), self.atom_weight)
        atom = (read + self.atom_bias * (pairs.share[:, None] > 0)).view(-1, n, n)
        return (atom + atom.mT) / 2, pair


class Places(nn.Module):
    """Where entries of n x n blocks stand in the K^2 vectors of the basis' slots, uncoupled.

    Attributes:
        order: (Z, n) number, among the outputs of the readout, of every canonical orbital of an
            element; n where there is none. As they are numbered here, unless published weights,
            which have an order of their own, were loaded.
    """

    order: Tensor
    canonical: Tensor
    entry: Tensor

    def __init__(self, basis: OrbitalBasis) -> None:
        super().__init__()
        blocks = layout(basis)
        self.orbitals = largest_nao(basis)
        shape = max(basis.elements) + 1, self.orbitals
        order = np.full((shape[0], shape[1] + 1), self.orbitals)
        canonical = np.full((shape[0], blocks.width), self.orbitals)
        for z, shells in basis.shells.items():
            order[z, : shells.nao] = np.arange(shells.nao)
            canonical[z, slot_orbitals(basis, z)] = np.arange(shells.nao)
        self.register_buffer("order", torch.from_numpy(order))
        # canonical orbital at each place of the slots; and the entry (K x K) of each place
        self.register_buffer("canonical", torch.from_numpy(canonical), persistent=False)
        entry = torch.argsort(blocks.square.reshape(-1))
        self.register_buffer("entry", entry, persistent=False)

    def vectors(self, blocks: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """(R, ..., n, n) blocks of elements ``rows`` and ``columns`` (R,) -> (R, ..., K^2)."""
        at = self.order.gather(1, self.canonical)  # (Z, K) output at each place of the slots
        step = self.orbitals + 1
        index = (at[rows][:, :, None] * step + at[columns][:, None, :]).flatten(1)
        index = index.index_select(1, self.entry)
        filled = functional.pad(blocks, (0, 1, 0, 1)).flatten(-2)
        index = index.view(len(index), *[1] * (filled.ndim - 2), index.shape[1])
        return filled.gather(-1, index.expand(*filled.shape[:-1], index.shape[-1]))


def largest_nao(basis: OrbitalBasis) -> int:
    """n: the largest number of orbitals of an element."""
    return max(shells.nao for shells in basis.shells.values())


def slot_orbitals(basis: OrbitalBasis, z: int) -> list[int]:
    """Place among the K orbitals of the slots, of every canonical orbital of an element."""
    blocks = layout(basis)
    starts = np.cumsum([0] + [2 * l + 1 for l in blocks.slots]).tolist()
    return [
        starts[slot] + m
        for slot, l in zip(blocks.shell_slots[z], basis.shells[z].l, strict=True)
        for m in range(2 * l + 1)
    ]
