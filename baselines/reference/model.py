"""`ElementReference`: the energy of a molecule as the sum of one number per element."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.energy_model import EnergyModel


class ElementReference(EnergyModel):
    """Element energies by least squares on the training set, and nothing else: no parameters.

    What every model of energies begins with (arXiv 2510.00224); its error is the spread of the
    energies that formulas do not explain, which is what a network is there to learn.

    Args:
        basis: orbital basis of the task; its elements are those that have a reference.
    """

    def __init__(self, basis: OrbitalBasis) -> None:
        super().__init__(basis)
        self.head = nn.Identity()

    @property
    def graph(self) -> GraphSpec:
        """Total energies, and no edges to speak of: distances play no role."""
        return GraphSpec(self.basis, cutoff=1e-3, labels=("energy",))

    def embed(self, batch: Batch, context: Any) -> Tensor:
        """(N, 0): an atom is its element."""
        return batch.positions.new_zeros(len(batch.numbers), 0)

    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """(B,) zeros: nothing beyond the references."""
        return embeddings.new_zeros(len(batch.nao))
