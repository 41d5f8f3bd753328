"""The smallest model that learns: a constant block per element and per pair of elements."""

from __future__ import annotations

import torch
from torch import nn

from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.losses import squared_errors
from hambench.model import Loss, Model, Prediction


class Toy(Model):
    """Mean blocks in the frame of the file.

    Args:
        cutoff: Angstrom, pairs beyond have no block.
        start: initial spread of the parameters.
    """

    def __init__(self, basis: OrbitalBasis, *, cutoff: float = 5.0, start: float = 0.1) -> None:
        super().__init__(basis)
        self.cutoff = cutoff
        size, elements = GraphSpec(basis).layout.size, max(basis.elements) + 1
        self.node = nn.Parameter(start * torch.randn(elements, size))
        self.edge = nn.Parameter(start * torch.randn(elements, elements, size))
        self.embedding_size = 8

    @property
    def graph(self) -> GraphSpec:
        return GraphSpec(self.basis, self.cutoff, "uncoupled", self.dtype)

    def forward(self, batch: Batch) -> Prediction:
        i, j = batch.numbers[batch.edge_index]
        return Prediction(batch, self.graph, node=self.node[batch.numbers], edge=self.edge[i, j])

    def embeddings(self, batch: Batch) -> torch.Tensor:
        """Its first block entries: an atom's own, and those of its pairs the more the closer."""
        i, j = batch.edge_index
        far = (batch.positions[i] - batch.positions[j]).norm(dim=-1, keepdim=True)
        own = self.node[batch.numbers][:, : self.embedding_size]
        pairs = self.edge[batch.numbers[i], batch.numbers[j]][:, : self.embedding_size]
        return own.index_add(0, j, pairs * torch.exp(-far))

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        return squared_errors(prediction, batch)
