"""`SPHNet` as a model of Hamiltonians, and `SPHNetEnergy`, its backbone for energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from hambench.baselines.sphnet.backbone import Backbone, NormLayout
from hambench.baselines.sphnet.head import Head, PairOrder
from hambench.baselines.sphnet.sparsity import Choice, Clock, GateForm, GateScope
from hambench.baselines.sphnet.unused import unused_shapes
from hambench.baselines.sphnet.vectorial import Lengths, UnitVectors, VectorialStage
from hambench.chem.blocks import layout
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.data.groups import Grouping, Rule
from hambench.data.guess import GuessName, guess_of
from hambench.energy_model import EnergyModel, HeadName, atom_sums, scalar_head
from hambench.errors import ConfigError
from hambench.losses import Errors, label_errors, mse_plus_mae
from hambench.model import Loss, Model, Prediction
from hambench.settings import Count, Degree, Fraction, Positive, checked
from hambench.unused import UnusedWeights

LossBlocks = Literal["all", "published"]


class SPHNet(Model):
    """SPHNet (arXiv 2502.01171; public code microsoft/SPHNet; names of ours).

    The public code's hidden defects are options here, with what mends them as default. It is
    equivariant to proper rotations. As published, messages along short edges and from groups do not
    vanish where these end (3 and 9 Angstrom), so that the prediction jumps there.

    Args:
        basis: orbital basis; twice its largest l is the largest degree.
        channels: C, width of all features; a multiple of ``heads``.
        bottleneck: channels that are expanded to orbitals.
        radial: size of the radial bases of the convolutions and of the pairs.
        short_layers, long_layers: of the first stage, over short edges and over groups.
        heads: of its attentions.
        short_reach: Angstrom; short edges are shorter.
        short_cutoff, long_cutoff: of the radial bases of the first stage, Angstrom.
        grouping: how atoms are grouped, see `Grouping`: ``heavy``, or ``kmeans`` as published (of
            another implementation, so its groups may differ).
        group_size: atoms in a group of ``kmeans``.
        group_reach: Angstrom; atoms see groups whose centre is closer.
        cutoff: Angstrom; edges of the convolutions are shorter ...
        neighbours: ... and at most so many end at an atom. The shortest do; which ones is left
            to the neighbour search in the public code.
        pair_cutoff: Angstrom; reach of the radial basis of pairs; all pairs are computed.
        norm_layout: ``corrected``, or ``published``: see `EquivariantNorm`.
        unit_vectors: ``exact``, or ``published``: see `VectorialStage`.
        vector_lengths: ``fading``, or ``published``: see `rescaled`.
        pair_order: ``symmetric``, or ``published``: see `Head`.
        sparse: leave out paths and pairs; without it all are computed.
        sparsity: share of them that is left out.
        random_steps, adaptive_steps: of the choice of paths, see `Clock`.
        gate_form: ``fading``, or ``hard`` as published: see `PairGate`.
        gate_scope: ``molecule``, or ``batch`` as published: see `PairGate`.
        loss_blocks: ``all``: MSE + MAE over the whole matrices; ``published``: over on-site blocks
            and one block of each pair, so that pairs count half.
        initial_guess: what is predicted is the Hamiltonian less this: ``minao``, the Fock matrix of
            PySCF's guess, as published, or ``none``.
        theory: level of theory of the labels, and so of the initial guess, whose functional the
            public code fixes whatever the labels are.
        unused_weights: carry the weights the public code has without effect.

    Raises:
        ConfigError: heads do not divide the channels.
    """

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        bottleneck: Count = 32,
        radial: Count = 16,
        short_layers: Count = 4,
        long_layers: Count = 4,
        heads: Count = 8,
        short_reach: Positive = 3.0,
        short_cutoff: Positive = 5.0,
        long_cutoff: Positive = 15.0,
        grouping: Rule = "heavy",
        group_size: Count = 4,
        group_reach: Positive = 9.0,
        cutoff: Positive = 15.0,
        neighbours: Count = 32,
        pair_cutoff: Positive = 30.0,
        norm_layout: NormLayout = "corrected",
        unit_vectors: UnitVectors = "exact",
        vector_lengths: Lengths = "fading",
        pair_order: PairOrder = "symmetric",
        sparse: bool = True,
        sparsity: Fraction = 0.7,
        random_steps: Degree = 2000,
        adaptive_steps: Degree = 1000,
        gate_form: GateForm = "fading",
        gate_scope: GateScope = "molecule",
        loss_blocks: LossBlocks = "all",
        initial_guess: GuessName = "none",
        theory: str | dict[str, Any] | None = None,
        unused_weights: bool = False,
    ) -> None:
        super().__init__(basis)
        self._guess = guess_of(initial_guess, theory, basis, "sphnet")
        self.backbone = make_backbone(
            basis,
            channels=channels,
            radial=radial,
            short_layers=short_layers,
            long_layers=long_layers,
            heads=heads,
            short_cutoff=short_cutoff,
            long_cutoff=long_cutoff,
            cutoff=cutoff,
            norm_layout=norm_layout,
            unit_vectors=unit_vectors,
            vector_lengths=vector_lengths,
            sparsity=sparsity if sparse else None,
            gate_form=gate_form,
            gate_scope=gate_scope,
        )
        self.head = Head(
            layout(basis), self.backbone.lmax, channels, radial, bottleneck, pair_cutoff,
            sparsity if sparse else None, gate_form, gate_scope, pair_order,
        )  # fmt: skip
        self.embedding_size = channels
        self.clock = Clock(random_steps, adaptive_steps) if sparse else None
        self.loss_blocks = loss_blocks
        self._groups = Grouping(grouping, group_size, group_reach)
        self._reach = short_reach, (cutoff, neighbours)
        self.dead = unused_shapes(
            self.backbone.lmax, channels, radial, short_layers, long_layers, sparse
        )
        self.unused = UnusedWeights(self.dead) if unused_weights else None

    @property
    def graph(self) -> GraphSpec:
        """All pairs; short edges, edges of the convolutions, groups; matrix elements."""
        return replace(graph_of(self.basis, self._reach, self._groups, self), guess=self._guess)

    def forward(self, batch: Batch) -> Prediction:
        """Predict; in training this may begin another step of the `Clock`."""
        choice = self.choice()
        h, x1, x2 = self.backbone(batch)
        node, edge = self.head(h, (x1, x2), batch, choice)
        spec = self.graph
        blocks = spec.layout
        return Prediction(batch, spec, node=blocks.uncouple(node), edge=blocks.uncouple(edge))

    @property
    def capturable(self) -> bool:
        """Once its paths are fixed: before, every step chooses others."""
        return self.clock is None or self.clock.ended

    def choice(self) -> Choice | None:
        """How paths are chosen in a pass that begins now; None: all are taken."""
        if self.clock is None:
            return None
        if self.training and not torch.is_grad_enabled():
            self.clock.look_ahead()
        elif self.training and self.clock.advance():
            for product in self.head.products():
                product.freeze()
        return self.clock.choice(self.training)

    def freeze(self) -> None:
        """Fix the paths as their weights are now.

        Raises:
            ConfigError: all paths are taken.
        """
        if self.clock is None:
            raise ConfigError("this sphnet takes all paths; build it with sparse=true to fix some")
        self.clock.finish()
        for product in self.head.products():
            product.freeze()

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """MSE + MAE of the matrix elements."""
        node, edge = label_errors(prediction, batch)
        if self.loss_blocks == "published":  # both blocks of a pair are one behind the other
            edge = Errors(edge.values[: len(edge.values) // 2], edge.count // 2)
        return mse_plus_mae([node, edge])

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, S, C) features of the backbone."""
        features: Tensor = self.backbone(batch)[2]
        return features

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EnergyModel:
        """`SPHNetEnergy` with the backbone of these settings."""
        body = {key: settings[key] for key in settings if key not in _HEAD}
        chosen = checked(_energy_options, options, "sphnet's energy head", "model.energy")
        return SPHNetEnergy(basis, **body, **chosen)


_HEAD = (
    "bottleneck",
    "pair_cutoff",
    "pair_order",
    "random_steps",
    "adaptive_steps",
    "loss_blocks",
    "initial_guess",
    "theory",
    "unused_weights",
)
"""Hyperparameters without effect on the backbone."""


def _energy_options(*, head: HeadName = "linear") -> None:
    """Options of a preset's ``energy`` section."""


class SPHNetEnergy(EnergyModel):
    """SPHNet's backbone, and a head on its scalars.

    Args: as `SPHNet`, and
        head: ``linear`` or ``network``, see `hambench.energy_model`.
    """

    left_out: ClassVar[tuple[str, ...]] = ("head.", "clock.", "unused.")

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        radial: Count = 16,
        short_layers: Count = 4,
        long_layers: Count = 4,
        heads: Count = 8,
        short_reach: Positive = 3.0,
        short_cutoff: Positive = 5.0,
        long_cutoff: Positive = 15.0,
        grouping: Rule = "heavy",
        group_size: Count = 4,
        group_reach: Positive = 9.0,
        cutoff: Positive = 15.0,
        neighbours: Count = 32,
        norm_layout: NormLayout = "corrected",
        unit_vectors: UnitVectors = "exact",
        vector_lengths: Lengths = "fading",
        sparse: bool = True,
        sparsity: Fraction = 0.7,
        gate_form: GateForm = "fading",
        gate_scope: GateScope = "molecule",
        head: HeadName = "linear",
    ) -> None:
        super().__init__(basis)
        self.backbone = make_backbone(
            basis,
            channels=channels,
            radial=radial,
            short_layers=short_layers,
            long_layers=long_layers,
            heads=heads,
            short_cutoff=short_cutoff,
            long_cutoff=long_cutoff,
            cutoff=cutoff,
            norm_layout=norm_layout,
            unit_vectors=unit_vectors,
            vector_lengths=vector_lengths,
            sparsity=sparsity if sparse else None,
            gate_form=gate_form,
            gate_scope=gate_scope,
        )
        self.head = scalar_head(head, channels)
        self.embedding_size = channels
        self._groups = Grouping(grouping, group_size, group_reach)
        self._reach = short_reach, (cutoff, neighbours)

    @property
    def graph(self) -> GraphSpec:
        """As that of `SPHNet`, and total energies."""
        return graph_of(self.basis, self._reach, self._groups, self).for_energies()

    def embed(self, batch: Batch, context: Any) -> Tensor:
        """(N, S, C) features of the backbone."""
        features: Tensor = self.backbone(batch)[2]
        return features

    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """(B,) energies in Eh beyond the references."""
        return atom_sums(self.head, embeddings, batch)


def make_backbone(
    basis: OrbitalBasis,
    *,
    channels: int,
    radial: int,
    short_layers: int,
    long_layers: int,
    heads: int,
    short_cutoff: float,
    long_cutoff: float,
    cutoff: float,
    norm_layout: NormLayout,
    unit_vectors: UnitVectors,
    vector_lengths: Lengths,
    sparsity: float | None,
    gate_form: GateForm,
    gate_scope: GateScope,
) -> Backbone:
    """The backbone both models share; ConfigError where heads do not divide the channels."""
    if channels % heads:
        raise ConfigError(
            f"sphnet has {channels} channels for {heads} heads; choose channels that are a "
            f"multiple of heads, such as {-(-channels // heads) * heads}"
        )
    stage = VectorialStage(
        channels,
        short_layers,
        long_layers,
        heads,
        short_cutoff,
        long_cutoff,
        unit_vectors,
        vector_lengths,
    )
    lmax = max(layout(basis).lmax, 1)
    return Backbone(
        lmax, channels, radial, cutoff, stage, norm_layout, sparsity, gate_form, gate_scope
    )


def graph_of(
    basis: OrbitalBasis, reach: tuple[float, tuple[float, int]], groups: Grouping, model: Model
) -> GraphSpec:
    """All pairs, both lists of edges, groups, labels as matrix elements."""
    return GraphSpec(
        basis,
        None,
        "uncoupled",
        model.dtype,
        reach=reach[0],
        nearest=reach[1],
        groups=groups,
    )
