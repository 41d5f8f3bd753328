"""HELM as models of the suite: `Helm` predicts Hamiltonians, `HelmEnergy` energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from hambench.chem.blocks import layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.references import element_references
from hambench.data.graph import Batch, GraphSpec, Normalisation, Space
from hambench.helm.backbone import CHARGES, MULTIPLICITIES, Backbone, NodeScalars
from hambench.helm.heads import EnergyHead, HamiltonianHead, LinearEnergyHead, Reductions
from hambench.helm.scaling import Scaling, label_statistics
from hambench.model import Loss, Model, Prediction, Progress, rmse_plus_mse, silent, squared_errors
from hambench.settings import Count, Positive


class _HelmModel(Model):
    """What both adapters share: the backbone and the graph it wants."""

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
        edges: bool,
    ) -> None:
        super().__init__(basis)
        self.cutoff = cutoff
        mixed = node_scalars == "element_charge_spin"
        self._charge = CHARGES if mixed else None
        self._multiplicity = MULTIPLICITIES - 1 if mixed else None
        self.backbone = Backbone(
            layout(basis).lmax,
            channels,
            layers,
            gaussians,
            cutoff,
            gaussian_width,
            node_scalars,
            edges,
        )

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, S, C) normalised atom features of the backbone."""
        return self.backbone(batch)[0]


class Helm(_HelmModel):
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
        label_scaling: ``none``, ``shift`` (per-element mean of on-site scalars removed) or
            ``standardize`` (and divided by their standard deviation), from the training set.
        loss_space: ``coupled`` or ``uncoupled``; the coupled space weighs degree L by 2L+1.
        loss_mask: ``unpadded`` counts the entries an element pair has, ``padded`` also the
            empty places.
    """

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
        label_scaling: Scaling = "shift",
        loss_space: Space = "coupled",
        loss_mask: Literal["padded", "unpadded"] = "unpadded",
    ) -> None:
        super().__init__(
            basis,
            channels=channels,
            layers=layers,
            gaussians=gaussians,
            gaussian_width=gaussian_width,
            cutoff=cutoff,
            node_scalars=node_scalars,
            edges=True,
        )
        self.label_scaling, self.loss_space = label_scaling, loss_space
        self.padded = loss_mask == "padded"
        self._graph: tuple[tuple[Any, ...], GraphSpec] | None = None
        blocks = layout(basis)
        self.head = HamiltonianHead(
            blocks, channels, Reductions(reduce_node, reduce_node_intra, reduce_edge)
        )
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
            spec = GraphSpec(
                self.basis,
                self.cutoff,
                self.loss_space,
                self.dtype,
                scaling,
                largest_charge=self._charge,
                largest_multiplicity=self._multiplicity,
            )
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
        return squared_errors(prediction, batch, padded=self.padded)


class HelmEnergy(_HelmModel):
    """HELM's backbone without edge blocks, and a head for what energies are beyond references.

    Args: as `Helm`, and
        head: ``convolution`` (the public code's, one more edge convolution and a network) or
            ``linear`` (the paper's, on scalars of the atoms).
    """

    references: Tensor

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
        head: Literal["convolution", "linear"] = "convolution",
    ) -> None:
        super().__init__(
            basis,
            channels=channels,
            layers=layers,
            gaussians=gaussians,
            gaussian_width=gaussian_width,
            cutoff=cutoff,
            node_scalars=node_scalars,
            edges=False,
        )
        self.head = (
            LinearEnergyHead(channels)
            if head == "linear"
            else EnergyHead(self.backbone.lmax, channels, 2 * channels + gaussians)
        )
        size = max(basis.elements) + 1
        self.register_buffer("references", torch.zeros(size, dtype=torch.float64))

    @property
    def graph(self) -> GraphSpec:
        """Edges within the cutoff, and total energies."""
        return GraphSpec(
            self.basis,
            self.cutoff,
            dtype=self.dtype,
            energy=True,
            largest_charge=self._charge,
            largest_multiplicity=self._multiplicity,
        )

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Energies of the elements by least squares, over the training set."""
        found = element_references(progress(molecules, "references"), len(self.references))
        self.references.copy_(torch.from_numpy(found))

    def energy(self, batch: Batch) -> Tensor:
        """(B,) total energies in Eh, float64: a total energy has more digits than float32."""
        x, _, geometry = self.backbone(batch)
        found: Tensor = self.head(x, geometry, batch).double()
        return found.index_add(0, batch.batch, self.references[batch.numbers])

    def forward(self, batch: Batch) -> Prediction:
        """Predict the energies of a batch."""
        return Prediction(batch, self.graph, energies=self.energy(batch))

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """RMSE + MSE of the molecules' energies."""
        assert prediction.energies is not None
        error = (prediction.energies - batch.energies)[: batch.real.molecules]
        return Loss(error.square().sum()[None], error.new_full((1,), len(error)), rmse_plus_mse)
