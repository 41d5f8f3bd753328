"""From features to blocks of matrices: PhiSNet's heads, and its overlaps without surroundings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hambench.baselines.phisnet.columns import Columns, Kinds, Tiles
from hambench.baselines.phisnet.layers import (
    SelfMix,
    Swish,
    directed,
    halves,
    orthogonal,
    residual_stack,
)
from hambench.baselines.phisnet.network import Edges, Size
from hambench.o3.products import HarmonicProduct, triangle_paths


@dataclass(frozen=True)
class Rows:
    """Kinds of the blocks of a batch.

    Attributes:
        kinds: (N,) of the atoms.
        atoms, pairs: tiles of the atoms and of the edges.
    """

    kinds: Tensor
    atoms: Tiles
    pairs: Tiles


class KindTable(nn.Module):
    """Finds the kind of every block of a batch."""

    atoms: Tensor
    pairs: Tensor

    def __init__(self, kinds: Kinds) -> None:
        super().__init__()
        self.counts = len(kinds.atoms), len(kinds.pairs)
        width = 1 + max(z for z, _ in kinds.atoms)
        atoms, pairs = torch.zeros(width, dtype=torch.long), torch.zeros(width, width).long()
        for k, (z, _) in enumerate(kinds.atoms):
            atoms[z] = k
        for k, pair in enumerate(kinds.pairs):
            pairs[pair] = k
        self.register_buffer("atoms", atoms, persistent=False)
        self.register_buffer("pairs", pairs, persistent=False)

    def forward(self, numbers: Tensor, edges: Edges) -> Rows:
        """Kinds of atoms and edges; a pair there is none for gets the first."""
        atoms, pairs = self.atoms[numbers], self.pairs[numbers[edges.i], numbers[edges.j]]
        return Rows(atoms, Tiles.of(atoms, self.counts[0]), Tiles.of(pairs, self.counts[1]))


class Head(nn.Module):
    """Residual blocks, activation, and a linear map to the irreps of each row's kind of block.

    ``x[ab, L] = sqrt(2L+1) W[kind, ab, L] SelfMix(features)_L + bias at L = 0``, the coupled form
    of `hambench.chem.blocks`. Of the columns of all kinds only a row's own are computed.

    Args:
        size: of the network.
        columns: of all kinds.
    """

    places: Tensor
    roots: Tensor
    outputs: Tensor

    def __init__(self, size: Size, columns: Columns) -> None:
        super().__init__()
        self.columns = columns
        self.residual = residual_stack(size.lmax, size.features, size.head_blocks)
        self.activation = Swish(size.features)
        self.mixing = SelfMix(size.lmax, size.features, columns.top)
        self.weight = nn.Parameter(torch.zeros(len(columns.places), size.features))
        self.bias = nn.Parameter(torch.zeros(columns.counts[0]))
        for name, table in (
            ("places", columns.places),
            ("roots", 2 * columns.degrees + 1),
            ("outputs", columns.outputs),
        ):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def forward(self, features: Tensor, tiles: Tiles) -> Tensor:
        """(R, S, F) -> (R, K^2) coupled vectors."""
        x = self.mixing(self.activation(self.residual(features)))
        x = x.new_zeros(len(tiles.kinds) * tiles.size, *x.shape[1:]).index_copy(0, tiles.places, x)
        weights, bias = self._of_tiles(tiles)
        parts = x.split([2 * l + 1 for l in range(len(weights))], dim=1)
        terms = []
        for l, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            rows = part.reshape(len(weight), tiles.size * (2 * l + 1), x.shape[-1])
            term = torch.bmm(rows, weight.transpose(1, 2))
            term = term if l else term + bias
            terms.append(term.reshape(len(x), (2 * l + 1) * weight.shape[1]))
        values = torch.cat(terms, dim=1).index_select(0, tiles.places)
        return values.new_zeros(len(values), self.columns.size).index_copy(1, self.outputs, values)

    def _of_tiles(self, tiles: Tiles) -> tuple[list[Tensor], Tensor]:
        """Per degree (tiles, n_l, F) weights, zero where a kind has no such shells; (tiles, 1, n_0)
        biases.
        """
        kinds, irreps = len(self.columns.kinds), self.columns.irreps
        scaled = self.weight * self.roots.to(self.weight.dtype).sqrt()[:, None]
        table = scaled.new_zeros(kinds * sum(irreps), scaled.shape[1])
        table = table.index_copy(0, self.places, scaled).view(kinds, -1)
        chosen = table.index_select(0, tiles.kinds).view(-1, sum(irreps), scaled.shape[1])
        bias = scattered(self.bias, self.places, self.columns).index_select(0, tiles.kinds)
        return list(chosen.split(irreps, dim=1)), bias[:, None]


class Overlap(nn.Module):
    """Overlaps from the two elements and their distance alone; on-site ones are constants.

    Args:
        size: of the network.
        atoms: columns of on-site blocks, of scalar irreps.
        pairs: those of pairs.
    """

    places: Tensor
    outputs: Tensor

    def __init__(self, size: Size, atoms: Columns, pairs: Columns) -> None:
        super().__init__()
        self.atoms = atoms
        self.scale = nn.Parameter(orthogonal(size.lmax, size.features, 1)[..., 0].detach().clone())
        self.mixing = orthogonal(size.lmax + 1, size.features, size.basis)
        self.product = HarmonicProduct(triangle_paths(size.lmax, left=0))
        self.head = Head(size, pairs)
        self.bias = nn.Parameter(torch.zeros(atoms.counts[0]))
        self.register_buffer("places", torch.from_numpy(atoms.places), persistent=False)
        self.register_buffer("outputs", torch.from_numpy(atoms.outputs), persistent=False)

    def features(self, elements: Tensor, edges: Edges) -> Tensor:
        """(E, S, F) products of e_i with (e_j, s_1 Y_1, s_2 Y_2, ...).

        Args:
            elements: (N, F) embeddings e.
            edges: of the batch.
        """
        factors = torch.cat([torch.ones_like(self.scale[:1]), self.scale])
        weights = directed(self.mixing * factors[..., None], edges.radial)
        first, others = elements.index_select(0, edges.i), elements.index_select(0, edges.j)
        scalar, rest = halves(weights, 1)
        weights = torch.cat([scalar * others[:, None], rest], dim=1)
        product: Tensor = self.product(first[:, None], edges.frames, weights)
        return product

    def forward(self, elements: Tensor, edges: Edges, rows: Rows) -> tuple[Tensor, Tensor]:
        """(N, K^2) and (E, K^2) coupled vectors of embeddings (N, F), not yet symmetric."""
        pairs = self.head(self.features(elements, edges), rows.pairs)
        scalars = scattered(self.bias, self.places, self.atoms).index_select(0, rows.kinds)
        node = scalars.new_zeros(len(scalars), self.atoms.size)
        return node.index_copy(1, self.outputs, scalars), pairs


def scattered(bias: Tensor, places: Tensor, columns: Columns) -> Tensor:
    """(kinds, n_0) biases of the L = 0 irreps of each kind, zero where it has no such shells."""
    kinds, irreps = len(columns.kinds), columns.irreps
    table = bias.new_zeros(kinds * sum(irreps)).index_copy(0, places[: len(bias)], bias)
    return table.view(kinds, -1)[:, : irreps[0]]
