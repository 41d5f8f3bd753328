"""`Minao`: the Fock matrix of PySCF's default guess density; what a model gets without learning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from hambench.chem.dft import initial_fock
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import of_labels
from hambench.data.graph import Batch, GraphSpec
from hambench.data.matrices import matrix_map
from hambench.losses import squared_errors
from hambench.model import Loss, Model, Prediction


class Minao(Model):
    """One Fock build from the projected minimal-basis atomic densities; no parameters.

    Needs PySCF, and computes on the CPU.

    Args:
        basis: orbital basis of the labels.
        theory: level of theory of the labels: the settings of a `Theory`, as a task gives them, or
            the name of one in ``chem.THEORIES``.

    Raises:
        ConfigError: a theory in another basis, or none.
        RegistryError: an unknown name of a theory.
    """

    def __init__(self, basis: OrbitalBasis, *, theory: str | Mapping[str, Any]) -> None:
        super().__init__(basis)
        self.theory = of_labels(theory, basis, "minao")

    @property
    def graph(self) -> GraphSpec:
        """All pairs, float64 matrix elements."""
        return GraphSpec(self.basis, None, "uncoupled", torch.float64)

    def forward(self, batch: Batch) -> Prediction:
        """Build the Fock matrices of the batch, one after another."""
        atoms = torch.bincount(batch.batch).tolist()
        columns = zip(
            batch.numbers.cpu().split(atoms),
            batch.positions.cpu().split(atoms),
            batch.charge.tolist(),
            batch.multiplicity.tolist(),
            strict=True,
        )
        focks = [
            initial_fock(Molecule(z.numpy(), x.numpy(), charge, multiplicity), self.theory)
            for z, x, charge, multiplicity in columns
        ]
        flat = torch.cat([torch.from_numpy(fock).reshape(-1) for fock in focks])
        flat = flat.to(batch.positions)
        blocks = self.graph.layout
        where = matrix_map(batch, blocks)
        node, edge = where.vectors(flat, batch.num_nodes, batch.num_edges, blocks.size)
        return Prediction(batch, self.graph, node=node, edge=edge)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """RMSE + MSE over all entries, for the log: there is nothing to train."""
        return squared_errors(prediction, batch)
