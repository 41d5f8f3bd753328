"""Energies from SchNOrb's atoms: the published network, and the model of energies by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from hambench.baselines.schnorb.pairs import Geometry, Radial, pairs_of
from hambench.baselines.schnorb.representation import Representation, TwoLayers
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.energy_model import EnergyModel, HeadName, atom_sums, scalar_head


class EnergyNetwork(nn.Module):
    """``e_i``, one hidden layer of half the width; the public code's (SchNet's atomwise output)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = TwoLayers(width, width // 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B) -> (N,)."""
        energies: Tensor = self.layers(x)[:, 0]
        return energies


class SchNOrbEnergy(EnergyModel):
    """SchNOrb's representation without anything that only matrices need, and a head on it.

    Its features know distances alone, so it has no use for rotated molecules.

    Args:
        basis: orbital basis.
        settings: hyperparameters of `SchNOrb`.
        head: ``linear`` or ``network``, as of `hambench.energy_model.EmbeddingEnergy`.
    """

    left_out: ClassVar[tuple[str, ...]] = (
        "last.", "factors.", "places.", "readout.", "diagonal", "overlap_", "energies.", "energy_",
    )  # fmt: skip

    def __init__(
        self, basis: OrbitalBasis, settings: Mapping[str, Any], *, head: HeadName = "linear"
    ) -> None:
        super().__init__(basis)
        self.radial = Radial(
            settings["gaussians"], settings["cutoff"], settings["rounded_gaussians"]
        )
        blocks = 2 * settings["lmax"] + int(settings["energies"])
        self.representation = Representation(
            settings["elements"] or max(basis.elements) + 1,
            settings["width"],
            settings["factors"],
            settings["layers"],
            blocks,
            settings["gaussians"],
            settings["mean_messages"],
        )
        self.embedding_size = settings["width"]
        self.head = scalar_head(head, self.embedding_size)

    @staticmethod
    def options(*, head: HeadName = "linear") -> None:
        """Options of a preset's ``energy`` section."""

    @property
    def graph(self) -> GraphSpec:
        """All pairs, and total energies."""
        return GraphSpec(self.basis, None, dtype=self.dtype).for_energies()

    def context(self, batch: Batch) -> Geometry:
        """Distances of the pairs."""
        return self.radial.geometry(batch, pairs_of(batch))

    def embed(self, batch: Batch, context: Geometry) -> Tensor:
        """(N, B) features of the atoms."""
        features: Tensor = self.representation(batch.numbers, context)[0]
        return features

    def read_out(self, embeddings: Tensor, batch: Batch, context: Geometry) -> Tensor:
        """(B,) energies in Eh beyond the references."""
        return atom_sums(self.head, embeddings, batch)
