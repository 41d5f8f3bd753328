"""HELM as models of the suite: `Helm` predicts Hamiltonians, `HelmEnergy` energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, Literal

import torch
from pydantic import Field
from torch import Tensor

from hambench.chem.blocks import layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec, Normalisation, Space
from hambench.energy_model import EnergyModel, atom_sums, scalar_head
from hambench.helm.backbone import CHARGES, MULTIPLICITIES, Backbone, Geometry, NodeScalars
from hambench.helm.heads import EnergyHead, HamiltonianHead, PairGates, Reductions
from hambench.helm.scaling import Scaling, label_statistics
from hambench.losses import squared_errors
from hambench.model import Loss, Model, Prediction, Progress, silent
from hambench.settings import Count, NonNegative, Positive, checked


class Helm(Model):
    """HELM with its Hamiltonian head (arXiv 2510.00224; parameter names are ours).

    Args:
        basis: orbital basis; its slots set the output, twice its largest l is lmax = mmax.
        channels: C, width of all features and hidden layers.
        layers: node blocks, and edge blocks.
        gaussians: size of the distance basis.
        gaussian_width: in units of the spacing of the Gaussians.
        cutoff: pairs closer than this (Angstrom) have edges; also the reach of the Gaussians.
        node_scalars: ``element`` (as in the paper) or ``element_charge_spin``.
        reduce_node, reduce_node_intra, reduce_edge: symmetries of H the head builds in.
        pair_gates: with ``reduce_edge``, gates of what is odd under exchange of a pair's atoms:
            ``even`` scalars, or its ``own`` as in the public code, which vanish in symmetric
            molecules (`hambench.helm.heads.Reductions`).
        label_scaling: ``none``, ``shift`` (per-element mean of on-site scalars removed) or
            ``standardize`` (and divided by their standard deviation), from the training set.
        loss_space: ``coupled`` or ``uncoupled``; the coupled space weighs degree L by 2L+1.
        loss_mask: ``unpadded`` counts the entries an element pair has, ``padded`` also the
            empty places.
        node_weight, edge_weight: of the entries of on-site and pair blocks in the loss.
        envelope: let messages fade to zero at the cutoff, so that energies and forces have no jump
            there; the published HELM has none.
    """

    exact: ClassVar[tuple[str, ...]] = ("label_mean", "label_std")
    label_mean: Tensor
    label_std: Tensor

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        layers: Count = 3,
        gaussians: Annotated[int, Field(ge=2)] = 128,
        gaussian_width: Positive = 1.0,
        cutoff: Positive = 12.0,
        node_scalars: NodeScalars = "element_charge_spin",
        reduce_node: bool = True,
        reduce_node_intra: bool = True,
        reduce_edge: bool = True,
        pair_gates: PairGates = "even",
        label_scaling: Scaling = "shift",
        loss_space: Space = "coupled",
        loss_mask: Literal["padded", "unpadded"] = "unpadded",
        node_weight: Positive = 1.0,
        edge_weight: NonNegative = 1.0,
        envelope: bool = False,
    ) -> None:
        super().__init__(basis)
        self.backbone = Backbone(
            layout(basis).lmax, channels, layers, gaussians, cutoff, gaussian_width, node_scalars,
            envelope=envelope,
        )  # fmt: skip
        self.embedding_size = channels
        self.label_scaling, self.loss_space = label_scaling, loss_space
        self.padded = loss_mask == "padded"
        self.weights = node_weight, edge_weight
        self._graph: tuple[tuple[Any, ...], GraphSpec] | None = None
        blocks = layout(basis)
        reductions = Reductions(reduce_node, reduce_node_intra, reduce_edge, pair_gates)
        self.head = HamiltonianHead(blocks, channels, reductions)
        if label_scaling != "none":
            shape = (max(basis.elements) + 1, blocks.size)
            self.register_buffer("label_mean", torch.zeros(shape, dtype=torch.float64))
            self.register_buffer("label_std", torch.ones(shape, dtype=torch.float64))

    @property
    def graph(self) -> GraphSpec:
        """Edges within the cutoff, labels in the loss space and scaling of this model.

        Made anew only after a change of type or of the label statistics: copying these from a
        GPU would stall every step.
        """
        state: tuple[Any, ...] = (self.loss_space, self.dtype)
        if self.label_scaling != "none":
            state += tuple((t.data_ptr(), t._version) for t in (self.label_mean, self.label_std))
        if self._graph is None or self._graph[0] != state:
            scaling = None
            if self.label_scaling != "none":
                scaling = Normalisation(self.label_mean.cpu().clone(), self.label_std.cpu().clone())
            spec = graph_of(self.backbone, self.basis, self.dtype)
            spec = replace(spec, space=self.loss_space, normalisation=scaling)
            self._graph = state, spec
        return self._graph[1]

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Mean and deviation of the on-site scalars per element, over the training set."""
        if self.label_scaling == "none":
            return
        mean, std = label_statistics(progress(molecules, "label statistics"), self.basis)
        self.label_mean.copy_(mean)
        if self.label_scaling == "standardize":
            self.label_std.copy_(std)

    def forward(self, batch: Batch) -> Prediction:
        """Predict; the output stands in the loss space, scaled as the labels are."""
        x, z, _ = self.backbone(batch)
        node, edge = self.head(x, z, batch.pair_index)
        if self.loss_space == "uncoupled":
            blocks = self.graph.layout
            node, edge = blocks.uncouple(node), blocks.uncouple(edge)
        return Prediction(batch, self.graph, node=node, edge=edge)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """RMSE + MSE over all node and edge entries of the batch together."""
        return squared_errors(prediction, batch, padded=self.padded, weights=self.weights)

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, S, C) normalised atom features of the backbone."""
        return self.backbone(batch)[0]

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EnergyModel:
        """`HelmEnergy` with the backbone of these settings."""
        body = {key: settings[key] for key in BODY}
        return HelmEnergy(
            basis, **body, **checked(_energy_options, options, "helm's energy head", "model.energy")
        )


BODY: Final = (
    "channels",
    "layers",
    "gaussians",
    "gaussian_width",
    "cutoff",
    "node_scalars",
    "envelope",
)
"""Hyperparameters that shape the backbone, which both models share."""

EnergyHeadName = Literal["convolution", "linear"]


class HelmEnergy(EnergyModel):
    """HELM's backbone without edge blocks, and a head for what energies are beyond references.

    Args: as `Helm`, and
        head: ``convolution`` (the public code's, one more edge convolution and a network) or
            ``linear`` (the paper's, on scalars of the atoms).
    """

    left_out: ClassVar[tuple[str, ...]] = (
        "backbone.edge_blocks.",
        "head.",
        "label_mean",
        "label_std",
    )

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        layers: Count = 3,
        gaussians: Annotated[int, Field(ge=2)] = 128,
        gaussian_width: Positive = 1.0,
        cutoff: Positive = 12.0,
        node_scalars: NodeScalars = "element_charge_spin",
        envelope: bool = False,
        head: EnergyHeadName = "convolution",
    ) -> None:
        super().__init__(basis)
        self.backbone = Backbone(
            layout(basis).lmax, channels, layers, gaussians, cutoff, gaussian_width, node_scalars,
            edges=False, envelope=envelope,
        )  # fmt: skip
        self.embedding_size = channels
        self.head = (
            scalar_head("linear", channels)
            if head == "linear"
            else EnergyHead(self.backbone.lmax, channels, 2 * channels + gaussians)
        )

    @property
    def graph(self) -> GraphSpec:
        """Edges within the cutoff, and total energies."""
        return graph_of(self.backbone, self.basis, self.dtype).for_energies()

    def context(self, batch: Batch) -> Geometry:
        """Edge frames and invariants."""
        return self.backbone.geometry(batch)

    def embed(self, batch: Batch, context: Geometry) -> Tensor:
        """(N, S, C) normalised atom features of the backbone."""
        return self.backbone.features(batch, context)[0]

    def read_out(self, embeddings: Tensor, batch: Batch, context: Geometry) -> Tensor:
        """(B,) energies in Eh beyond the references."""
        if isinstance(self.head, EnergyHead):
            energies: Tensor = self.head(embeddings, context, batch)
            return energies
        return atom_sums(self.head, embeddings, batch)


def _energy_options(*, head: EnergyHeadName = "convolution") -> None:
    """Options of a preset's ``energy`` section."""


def graph_of(backbone: Backbone, basis: OrbitalBasis, dtype: torch.dtype) -> GraphSpec:
    """Edges within the cutoff; charge and multiplicity as far as there are embeddings of them."""
    mixed = backbone.mixer is not None
    return GraphSpec(
        basis,
        backbone.cutoff,
        dtype=dtype,
        largest_charge=CHARGES if mixed else None,
        largest_multiplicity=MULTIPLICITIES - 1 if mixed else None,
    )
