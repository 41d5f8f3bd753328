"""`QHNet` as a model of the suite, and `QHNetEnergy`, energies read from its atom features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from hambench.baselines.qhnet.head import BlockHead
from hambench.baselines.qhnet.layers import (
    Convolution,
    Edges,
    FirstConvolution,
    PairLayer,
    SecondScalars,
    SelfLayer,
)
from hambench.baselines.qhnet.species import Species
from hambench.baselines.qhnet.unused import Edition, unused_shapes
from hambench.chem.blocks import layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec, collate
from hambench.energy_model import EmbeddingEnergy, HeadName
from hambench.errors import ConfigError
from hambench.losses import label_errors, molecule_mse_plus_mae, mse_plus_mae, rmse_plus_mae
from hambench.model import Loss, Model, Prediction, Progress, silent
from hambench.o3.frames import EdgeFrames
from hambench.o3.radial import BernsteinBasis
from hambench.o3.wigner import POLAR
from hambench.settings import Count, Degree, Positive
from hambench.units import BOHR
from hambench.unused import UnusedWeights

SAMPLE = 3
"""Training molecules whose first predictions are looked at."""

CALM = 1.0
"""Eh; an untrained QHNet that predicts larger matrix elements has blown up (usual: below 0.2)."""


class QHNet(Model):
    """QHNet (arXiv 2306.04922; parameter names are ours), equivariant to proper rotations.

    Products of all degrees with all admit paths of odd l1 + l2 + l3, so mirror images do not get
    mirrored Hamiltonians.

    Args:
        basis: orbital basis; its slots set the output, twice its largest l is the largest degree
            of the features unless ``lmax`` says otherwise.
        channels: C, of every degree.
        bottleneck: channels that are expanded to blocks.
        layers: convolutions.
        start_layer: convolutions of larger index (from 0) are followed by a self and a pair layer.
        lmax: largest degree of the features and harmonics; None: twice the largest l of the basis.
        cutoff: Angstrom; messages and pair products fade to zero there. Pairs further apart have
            blocks that depend on their elements alone.
        radial_functions: K, exponential Bernstein polynomials of the distance.
        radial_hidden: hidden width of the weight networks of the convolutions.
        alpha: (initial) exponent of the radial basis, per ``alpha_unit``.
        alpha_unit: ``bohr`` or ``angstrom``.
        learn_alpha: alpha is trained.
        second_scalars: what a message's weights see beside the scalars of the atom where it
            arrives: those of its ``source``, or of its ``target`` once more, as most of the public
            codes have it by mistake (divelab/AIRS issue 23).
        loss: MSE + MAE over all entries of the batch (``matrix``), or over those of a molecule and
            then over molecules (``molecule``); or RMSE + MAE over all entries (``rmse_mae``).
        embedding_rows: of the embedding, by atomic number; None: as the basis needs.
        unused_weights: carry what this public code has and never uses, for its parameter count:
            ``airs``, ``nabladft``; None: nothing.
    """

    elements: Tensor
    row: Tensor

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        bottleneck: Count = 32,
        layers: Annotated[int, Field(ge=2)] = 5,
        start_layer: Degree = 2,
        lmax: Count | None = None,
        cutoff: Positive = 15 * BOHR,
        radial_functions: Annotated[int, Field(ge=2)] = 16,
        radial_hidden: Count = 32,
        alpha: Positive = 1.0,
        alpha_unit: Literal["bohr", "angstrom"] = "bohr",
        learn_alpha: bool = False,
        second_scalars: SecondScalars = "source",
        loss: Literal["matrix", "molecule", "rmse_mae"] = "matrix",
        embedding_rows: Count | None = None,
        unused_weights: Edition | None = None,
    ) -> None:
        super().__init__(basis)
        rows = embedding_rows or max(basis.elements) + 1
        if layers < start_layer + 2:
            raise ConfigError(
                f"no layer is left for the blocks: layers is {layers}, start_layer {start_layer}; "
                "set layers to start_layer + 2 at least"
            )
        if rows <= max(basis.elements):
            raise ConfigError(
                f"embedding_rows is {rows}, element {max(basis.elements)} of the basis needs "
                f"{max(basis.elements) + 1}; set it to null"
            )
        blocks = layout(basis)
        self.lmax = lmax or max(blocks.lmax, 1)
        if self.lmax < blocks.lmax:
            raise ConfigError(
                f"lmax is {lmax}, blocks of {basis!r} have degrees up to {blocks.lmax}; set it to "
                "null, or to that at least"
            )
        self.cutoff, self.start_layer, self.loss_kind = cutoff, start_layer, loss
        self.embedding_size = channels
        self.largest, self.largest_in = 0.0, ""

        elements = torch.tensor(basis.elements)
        row = torch.zeros(max(basis.elements) + 1, dtype=torch.long)
        row[elements] = torch.arange(len(elements))
        self.register_buffer("elements", elements, persistent=False)
        self.register_buffer("row", row, persistent=False)

        self.embedding = nn.Embedding(rows, channels)
        self.radial = BernsteinBasis(
            radial_functions, cutoff, alpha,
            unit=BOHR if alpha_unit == "bohr" else 1.0, learn=learn_alpha, rounded=True,
        )  # fmt: skip
        convolution = (self.lmax, channels, radial_functions, radial_hidden, second_scalars)
        self.first = FirstConvolution(*convolution)
        self.convolutions = nn.ModuleList(Convolution(*convolution) for _ in range(1, layers))
        products = range(start_layer + 1, layers)
        self.self_layers = nn.ModuleList(SelfLayer(self.lmax, channels) for _ in products)
        self.pair_layers = nn.ModuleList(
            PairLayer(self.lmax, channels, radial_functions) for _ in products
        )
        self.on_site = BlockHead(blocks, self.lmax, channels, bottleneck, elements=1)
        self.pair = BlockHead(blocks, self.lmax, channels, bottleneck, elements=2)
        if unused_weights is not None:
            self.unused = UnusedWeights(unused_shapes(self, unused_weights))

    @property
    def graph(self) -> GraphSpec:
        """All pairs, those within the cutoff listed, and matrix elements as labels."""
        return GraphSpec(self.basis, None, "uncoupled", self.dtype, reach=self.cutoff)

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Predict a few training molecules before training, to see whether that is sane.

        Sums over neighbours and products of features are not normalised, and for some seeds they
        run away, the more so the larger a molecule is.
        """
        places = sorted({k * (len(molecules) - 1) // (SAMPLE - 1) for k in range(SAMPLE)})
        spec = replace(self.graph, labels=())
        self.largest = 0.0
        for molecule in progress([molecules[k] for k in places], "first predictions"):
            with torch.no_grad():
                batch = collate([molecule], spec).to(self.elements.device)
                largest = float(self(batch).matrices()[0].abs().max())
            if math.isnan(largest):
                largest = math.inf
            if largest > self.largest:
                self.largest, self.largest_in = largest, molecule.id

    def remarks(self) -> list[str]:
        """That the initial weights have blown up, if so."""
        if self.largest <= CALM:
            return []
        size = f"{self.largest:.3g} Eh" if math.isfinite(self.largest) else "not finite"
        return [
            f"QHNet has blown up before training: the largest |H| it predicts for molecule "
            f"'{self.largest_in}' is {size}, where below 0.2 Eh is usual; it may not train: take "
            "another seed, and keep recipe.clip_norm and the warm-up"
        ]

    def edges(self, batch: Batch) -> Edges:
        """The edges within reach."""
        target, source = batch.edge_index
        if not all_are_near(batch):
            target, source = (e.index_select(0, batch.near_index) for e in (target, source))
        ends = (batch.positions.index_select(0, index) for index in (target, source))
        vectors = torch.sub(*ends)
        frames = EdgeFrames(vectors[:, POLAR], self.lmax)
        return Edges(target, source, self.radial(vectors.norm(dim=1)), frames)

    def species(self, batch: Batch) -> Species:
        """Embeddings of the elements of the basis."""
        return Species(self.embedding(self.elements), self.row.index_select(0, batch.numbers))

    def atom_features(self, species: Species, edges: Edges) -> list[Tensor]:
        """(N, S, C) after each convolution."""
        features = [self.first(species, edges)]
        for layer in self.convolutions:
            features.append(layer(features[-1], edges))
        return features

    def forward(self, batch: Batch) -> Prediction:
        """Predict; blocks are matrix elements, and symmetric."""
        species, edges = self.species(batch), self.edges(batch)
        features = self.atom_features(species, edges)[self.start_layer + 1 :]
        on_site = added(self.self_layers, features)
        node = self.on_site(self.on_site.reduce(on_site), species.of_atoms)

        pairs = self.pair.reduce(added(self.pair_layers, features, edges))
        row, column = batch.edge_index
        if not all_are_near(batch):
            beyond = torch.cat([cast(PairLayer, layer).beyond() for layer in self.pair_layers])
            everywhere = self.pair.reduce(beyond.sum(0, keepdim=True)).expand(len(row), -1, -1)
            pairs = everywhere.index_copy(0, batch.near_index, pairs)
        edge = self.pair(pairs, lambda network: species.of_pairs(network, row, column))

        spec = self.graph
        blocks = spec.layout
        node = node + blocks.flip(node)
        edge = edge + blocks.flip(edge).index_select(0, reverses(batch))
        return Prediction(batch, spec, node=blocks.uncouple(node), edge=blocks.uncouple(edge))

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """Of matrix elements in Eh, as ``loss`` says."""
        if self.loss_kind == "molecule":
            return molecule_mse_plus_mae(prediction, batch)
        loss = mse_plus_mae(label_errors(prediction, batch))
        return replace(loss, finish=rmse_plus_mae) if self.loss_kind == "rmse_mae" else loss

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, S, C) what the on-site blocks are made of."""
        features = self.atom_features(self.species(batch), self.edges(batch))
        return added(self.self_layers, features[self.start_layer + 1 :])

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> QHNetEnergy:
        """`QHNetEnergy` of these settings."""
        model = QHNetEnergy.checked(cls(basis, **settings), options)
        assert isinstance(model, QHNetEnergy)
        return model


class QHNetEnergy(EmbeddingEnergy):
    """A head on QHNet's on-site features; what only Hamiltonians need is not built.

    Args:
        body: a `QHNet`, which loses its pair layers and block heads.
        head: as `EmbeddingEnergy`.
    """

    left_out: ClassVar[tuple[str, ...]] = ("pair_layers.", "on_site.", "pair.", "unused.")

    def __init__(self, body: Model, *, head: HeadName = "linear") -> None:
        super().__init__(body, head=head)
        for name, _ in list(body.named_children()):
            if f"{name}." in self.left_out:
                delattr(body, name)


def added(layers: nn.ModuleList, features: Sequence[Tensor], *more: Any) -> Tensor:
    """Sum of what each of the layers makes of its features."""
    parts = [layer(x, *more) for layer, x in zip(layers, features, strict=True)]
    return sum(parts[1:], start=parts[0])


def all_are_near(batch: Batch) -> bool:
    """Whether the list of edges within reach is that of all edges; of a padded batch it repeats."""
    return "unpadded" not in batch and batch.near_index.shape[0] == batch.edge_index.shape[1]


def reverses(batch: Batch) -> Tensor:
    """(E,) number of the edge (j, i) for every edge (i, j)."""
    pairs = batch.pair_index
    reverse = torch.empty_like(batch.edge_index[0])
    return reverse.index_copy_(0, pairs.reshape(-1), pairs.flip(0).reshape(-1))
