"""Energies from PhiSNet's features: a head on atoms, or the pooled layer of nablaDFT's variant."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hambench.baselines.phisnet.layers import Swish
from hambench.baselines.phisnet.network import AtomFeatures, PairFeatures, Size, Trunk
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.energy_model import EnergyModel, HeadName, atom_sums, scalar_head
from hambench.settings import Count, Degree, Positive

BODY: Final = (
    "order",
    "features",
    "basis_functions",
    "modules",
    "residual_blocks",
    "head_blocks",
    "cutoff",
    "rounded_configurations",
)
"""Hyperparameters that shape the network, which both models share."""

WIDTH: Final = 64
"""Of the pooled layer, for atoms and for pairs."""


class PhiSNetEnergy(EnergyModel):
    """PhiSNet's features of atoms, and a head for what energies are beyond element references.

    Args: as `phisnet.model.PhiSNet`, and
        head: ``linear`` or ``network``, see `hambench.energy_model.scalar_head`.
    """

    left_out: ClassVar[tuple[str, ...]] = (
        "node_head.",
        "edge_head.",
        "overlap.",
        "unused.",
        "pairs.",
    )

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        order: Count | None = None,
        features: Count = 128,
        basis_functions: Annotated[int, Field(ge=2)] = 128,
        modules: Count = 5,
        residual_blocks: Degree = 1,
        head_blocks: Degree = 2,
        cutoff: Positive = 7.937658163545,
        rounded_configurations: bool = False,
        head: HeadName = "linear",
    ) -> None:
        super().__init__(basis)
        self.size = Size.of(
            basis, order=order, features=features, basis_functions=basis_functions,
            modules=modules, residual_blocks=residual_blocks, head_blocks=head_blocks,
            cutoff=cutoff,
        )  # fmt: skip
        self.embedding_size = features
        self.trunk = Trunk(self.size, rounded_configurations)
        self.atoms = AtomFeatures(self.size)
        self.head = scalar_head(head, features)

    @property
    def graph(self) -> GraphSpec:
        """All pairs, and total energies."""
        return GraphSpec(self.basis, dtype=self.dtype).for_energies()

    def embed(self, batch: Batch, context: Any) -> Tensor:
        """(N, S, F) features of the atoms."""
        edges = self.trunk.edges(batch)
        features: Tensor = self.atoms(*self.trunk(batch.numbers, edges), edges)
        return features

    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """(B,) energies in Eh beyond the references."""
        return atom_sums(self.head, embeddings, batch)


class PooledEnergy(PhiSNetEnergy):
    """PhiSNet with the energy layer of nablaDFT's variant, which reads pairs too.

    Args: as `PhiSNetEnergy`, without ``head``.
    """

    left_out: ClassVar[tuple[str, ...]] = ("node_head.", "edge_head.", "overlap.", "unused.")

    def __init__(self, basis: OrbitalBasis, **settings: Any) -> None:
        super().__init__(basis, **settings)
        self.pairs = PairFeatures(self.size)
        self.head = EnergyLayer(self.size.features)

    def context(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(N, S, F) features of atoms, (E, S, F) of pairs, and (E,) the row atoms of these."""
        edges = self.trunk.edges(batch)
        central, neighbour = self.trunk(batch.numbers, edges)
        atoms = self.atoms(central, neighbour, edges)
        return atoms, self.pairs(central, neighbour, edges), edges.i

    def embed(self, batch: Batch, context: Any) -> Tensor:
        """(N, S, F) features of the atoms."""
        features: Tensor = context[0]
        return features

    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """(B,) energies in Eh beyond the references."""
        _, pairs, rows = context
        energies: Tensor = self.head(
            embeddings[:, 0], pairs[:, 0], batch.batch, batch.batch[rows], len(batch.nao)
        )
        return energies


class EnergyLayer(nn.Module):
    """``E = W [mean_i act(A g_i + a), mean_ij act(B g_ij + b)] + w`` (nablaDFT's public code).

    Means are over the atoms of a molecule, and over its ordered pairs (zero where it has none).
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.atoms, self.pairs = nn.Linear(features, WIDTH), nn.Linear(features, WIDTH)
        self.activation = Swish(WIDTH)
        self.out = nn.Linear(2 * WIDTH, 1)
        for layer in (self.atoms, self.pairs, self.out):
            nn.init.orthogonal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self, atoms: Tensor, pairs: Tensor, atom_owners: Tensor, pair_owners: Tensor, count: int
    ) -> Tensor:
        """Energies (count,).

        Args:
            atoms, pairs: (N, F) and (E, F) scalars.
            atom_owners, pair_owners: molecule of each.
            count: molecules.
        """
        means = [
            _means(self.activation.scalars(self.atoms(atoms)), atom_owners, count),
            _means(self.activation.scalars(self.pairs(pairs)), pair_owners, count),
        ]
        energies: Tensor = self.out(torch.cat(means, dim=1))
        return energies[:, 0]


def energy_options(*, head: Literal["linear", "network", "pooled"] = "linear") -> None:
    """Options of a preset's ``energy`` section."""


def _means(rows: Tensor, owners: Tensor, count: int) -> Tensor:
    """(count, C) means of the rows (R, C) of each owner, zero where there are none."""
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, owners, rows)
    numbers = rows.new_zeros(count).index_add(0, owners, torch.ones_like(rows[:, 0]))
    return sums / numbers.clamp(min=1)[:, None]
