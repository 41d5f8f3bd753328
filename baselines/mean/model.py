"""`MeanBlock`: the mean Hamiltonian block of an element, and of a pair in the frame of its bond."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from e3nn import o3
from torch import Tensor

from hambench.chem.blocks import layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec, collate, pair_labels
from hambench.errors import DataError
from hambench.losses import squared_errors
from hambench.model import Loss, Model, Prediction, Progress, silent


class MeanBlock(Model):
    """Label statistics as a model without parameters; exactly equivariant.

    An element's on-site block is the mean of its invariant part, the irreps of L = 0. The block
    of an ordered element pair is the mean over its blocks in a frame whose axis is the bond; what
    survives a turn about the bond is M = 0, what survives a reflection in a plane through it is
    la + lb + L even. With Y_L(u) of unit norm and u from row to column atom::

        c[ab, L] = mean over pairs of sum_M Y_LM(u) x[ab, L, M]     x[ab, L, M] = c[ab, L] Y_LM(u)

    Distances play no role. Elements and pairs the training set lacks are predicted as zero.

    Args:
        basis: orbital basis.

    Attributes:
        on_site: (elements, scalar irreps) means in Eh.
        pair: (ordered element pairs, irreps) means in Eh.
    """

    exact: ClassVar[tuple[str, ...]] = ("on_site", "pair")
    on_site: Tensor
    pair: Tensor
    row: Tensor
    owner: Tensor
    harmonic: Tensor
    even: Tensor
    scalars: Tensor

    def __init__(self, basis: OrbitalBasis) -> None:
        super().__init__(basis)
        blocks = layout(basis)
        elements = torch.tensor(basis.elements)
        row = torch.zeros(int(elements.max()) + 1, dtype=torch.long)
        row[elements] = torch.arange(len(elements))
        owner = torch.cat([torch.full((2 * r.l + 1,), n) for n, r in enumerate(blocks.irreps)])
        harmonic = torch.cat([torch.arange(r.l**2, (r.l + 1) ** 2) for r in blocks.irreps])
        even = [(blocks.slots[r.a] + blocks.slots[r.b] + r.l) % 2 == 0 for r in blocks.irreps]
        constants = {
            "row": row,  # of an element in the tables of means
            "owner": owner,  # irrep that each of the K^2 places belongs to
            "harmonic": harmonic,  # its (L, M) among all harmonics
            "even": torch.tensor(even),
            "scalars": torch.tensor([r.start for r in blocks.irreps if r.l == 0]),
        }
        for name, value in constants.items():
            self.register_buffer(name, value, persistent=False)
        self.lmax = blocks.lmax
        n, float64 = len(elements), torch.float64
        self.register_buffer("on_site", torch.zeros(n, len(self.scalars), dtype=float64))
        self.register_buffer("pair", torch.zeros(n * n, len(blocks.irreps), dtype=float64))

    @property
    def graph(self) -> GraphSpec:
        """All pairs, coupled float64 labels."""
        return GraphSpec(self.basis, None, "coupled", torch.float64)

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Take the means, one molecule at a time.

        Raises:
            DataError: a molecule without a Hamiltonian.
        """
        sums = [torch.zeros_like(table) for table in (self.on_site, self.pair)]
        counts = [torch.zeros(len(table), dtype=torch.long) for table in (self.on_site, self.pair)]
        for molecule in progress(molecules, "mean blocks"):
            if molecule.hamiltonian is None:
                raise DataError(f"molecule '{molecule.id}' has no Hamiltonian to take the mean of")
            batch = collate([molecule], self.graph).to(self.on_site.device)
            size = self.owner.numel()
            node = _filled(batch.num_nodes * size, batch.node_places, batch.node_values)
            edge = _filled(batch.num_edges * size, *pair_labels(batch))
            along = edge.view(-1, size) * self._harmonics(batch)
            invariants = along.new_zeros(len(along), self.pair.shape[1])
            invariants.index_add_(1, self.owner, along)
            for total, count, kinds, values in (
                (sums[0], counts[0], self.row[batch.numbers], node.view(-1, size)[:, self.scalars]),
                (sums[1], counts[1], self._pair_rows(batch), invariants * self.even),
            ):
                total.index_add_(0, kinds, values)
                count += torch.bincount(kinds.cpu(), minlength=len(count))
        for mean, total, count in zip((self.on_site, self.pair), sums, counts, strict=True):
            mean.copy_(total / count.clamp(min=1).to(total)[:, None])

    def forward(self, batch: Batch) -> Prediction:
        """The means, turned to where the bonds point."""
        edge = self.pair[self._pair_rows(batch)][:, self.owner] * self._harmonics(batch)
        node = edge.new_zeros(len(batch.numbers), self.owner.numel())
        node[:, self.scalars] = self.on_site[self.row[batch.numbers]]
        return Prediction(batch, self.graph, node=node, edge=edge)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """RMSE + MSE over all entries, for the log: there is nothing to train."""
        return squared_errors(prediction, batch)

    def _pair_rows(self, batch: Batch) -> Tensor:
        """(E,) row of each ordered element pair in `pair`."""
        first, second = self.row[batch.numbers][batch.edge_index]
        return first * len(self.on_site) + second

    def _harmonics(self, batch: Batch) -> Tensor:
        """(E, K^2) at each place of a block vector the harmonic of the bond's direction."""
        start, end = batch.positions[batch.edge_index]
        degrees = list(range(self.lmax + 1))
        direction = (end - start)[:, [1, 2, 0]]  # e3nn's axes
        values = o3.spherical_harmonics(degrees, direction, normalize=True, normalization="norm")
        return values[:, self.harmonic]


def _filled(size: int, places: Tensor, values: Tensor) -> Tensor:
    """(size,) zeros but for ``values`` at ``places``."""
    return values.new_zeros(size).index_copy_(0, places, values)
