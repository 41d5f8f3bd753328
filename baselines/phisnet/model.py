"""PhiSNet as a model of the suite (Unke et al., NeurIPS 2021, arXiv 2106.02347)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from hambench.baselines.phisnet.columns import (
    Columns,
    block_kinds,
    cancels,
    check_size,
    on_diagonal,
)
from hambench.baselines.phisnet.energy import BODY, PhiSNetEnergy, PooledEnergy, energy_options
from hambench.baselines.phisnet.heads import Head, KindTable, Overlap
from hambench.baselines.phisnet.network import AtomFeatures, Edges, PairFeatures, Size, Trunk
from hambench.baselines.phisnet.published import unused_weights_of
from hambench.chem.blocks import layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec, check_lone
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError
from hambench.losses import label_errors, mse_plus_mae, total
from hambench.model import Loss, Model, Prediction, Progress, silent
from hambench.settings import Count, Degree, NonNegative, Positive, checked


class PhiSNet(Model):
    """PhiSNet: SO(3)-equivariant features of atoms and all pairs, a head for each pair of elements.

    Equivariant to proper rotations only: all couplings of degrees are used, as published, so that
    mirror images are no mirror images for it. Messages fade out at the cutoff, but every pair of
    atoms has a block, however far apart.

    The head of pairs has weights of its own for every ordered pair of elements, so it grows with
    the square of their number: 0.6 million for the 8 elements of nabla2DFT in def2-SVP, 193
    million for 60 elements in def2-TZVPD. Beyond ``largest_head`` the build is refused.

    Args:
        basis: orbital basis, of elements up to radon.
        order: L, largest degree of the features; None: twice the largest l of the basis, as many
            as blocks can have. Higher irreps of the blocks than L stay zero.
        features: F, width of all features.
        basis_functions: K, size of the radial basis.
        modules: modular blocks.
        residual_blocks: of every stack but those of the heads.
        head_blocks: residual blocks of the heads.
        cutoff: of the radial functions, Angstrom; published is 15 bohr.
        molecule: symbols of the atoms of a molecule, e.g. [O, H, H]: the model has the pairs of
            elements this molecule has, and their columns in the order of its atoms, as the public
            code builds them; a molecule with another pair is refused. None: all pairs.
        overlap: predict the overlap too, and train on it.
        hamiltonian_weight, overlap_weight: of their losses, MSE + MAE each.
        loss_guard: adds so many times the loss of the overlap once more. The public code does so
            with the weight of an energy whose error is beyond its limit, as it is wherever
            Hamiltonians alone are predicted (0.1 in nablaDFT's configuration for water).
        rounded_configurations: electron configurations are rounded to float32 in a float64 model
            too, as in the public code (1e-8 in the Hamiltonian).
        unused_weights: carry the weights of the public code that no prediction depends on: its
            branch of core Hamiltonians, paths of features that are zero, columns of no shells.
        energy_layer: carry those of the energy layer of nablaDFT's variant, too.
        largest_head: parameters that a head of pairs may have.

    Raises:
        ConfigError: see `phisnet.columns`; an order below the largest l of the basis, an element
            beyond radon, or ``energy_layer`` without ``unused_weights``.
    """

    _diagonal: Tensor

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
        molecule: list[str] | None = None,
        overlap: bool = False,
        hamiltonian_weight: Positive = 1.0,
        overlap_weight: NonNegative = 1.0,
        loss_guard: NonNegative = 0.0,
        rounded_configurations: bool = False,
        unused_weights: bool = False,
        energy_layer: bool = False,
        largest_head: Count = 100_000_000,
    ) -> None:
        super().__init__(basis)
        size = Size.of(
            basis, order=order, features=features, basis_functions=basis_functions,
            modules=modules, residual_blocks=residual_blocks, head_blocks=head_blocks,
            cutoff=cutoff,
        )  # fmt: skip
        kinds = block_kinds(basis, molecule)
        check_size(basis, kinds, size.lmax, features, largest_head)
        if energy_layer and not unused_weights:
            raise ConfigError(
                "energy_layer adds to the unused weights of a PhiSNet, which it has none of; set "
                "model.hyperparameters.unused_weights=true too, or energy_layer=false"
            )
        self.size, self.kinds = size, kinds
        self.embedding_size = features
        self.weights = hamiltonian_weight, overlap_weight + loss_guard
        atoms = Columns(basis, kinds.atoms, size.lmax, cancels)
        pairs = Columns(basis, kinds.pairs, size.lmax)
        self.trunk = Trunk(size, rounded_configurations)
        self.atoms = AtomFeatures(size)
        self.pairs = PairFeatures(size)
        self.table = KindTable(kinds)
        self.node_head, self.edge_head = Head(size, atoms), Head(size, pairs)
        self.overlap: Overlap | None = None
        if overlap:
            scalars = Columns(basis, kinds.atoms, 0, on_diagonal)
            self.overlap = Overlap(size, scalars, pairs)
        self.register_buffer("_diagonal", layout(basis).square.diagonal(), persistent=False)
        self.energy_layer = energy_layer
        self.unused = unused_weights_of(self) if unused_weights else None

    @property
    def graph(self) -> GraphSpec:
        """All pairs; labels are matrix elements."""
        return GraphSpec(
            self.basis,
            space="uncoupled",
            dtype=self.dtype,
            labels=("hamiltonian", "overlap") if self.overlap is not None else ("hamiltonian",),
            lone=self.kinds.lone,
        )

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Check that the model has all pairs of elements of the training set.

        Raises:
            ConfigError: a molecule with a pair it lacks.
        """
        if self.kinds.lone:
            for molecule in progress(molecules, "pairs of elements"):
                check_lone(molecule, self.kinds.lone)

    def forward(self, batch: Batch) -> Prediction:
        """Predict the Hamiltonian, and the overlap where the model has one."""
        edges = self.trunk.edges(batch)
        central, neighbour = self.trunk(batch.numbers, edges)
        rows = self.table(batch.numbers, edges)
        node, edge = self._matrix_elements(
            self.node_head(self.atoms(central, neighbour, edges), rows.atoms),
            self.edge_head(self.pairs(central, neighbour, edges), rows.pairs),
            edges,
        )
        overlap = None
        if self.overlap is not None:
            elements = self.trunk.embedding(batch.numbers)
            node_over, edge_over = self.overlap(elements, edges, rows)
            node_over, edge_over = self._matrix_elements(node_over, edge_over, edges)
            overlap = node_over.index_fill(1, self._diagonal, 1.0), edge_over
        return Prediction(batch, self.graph, node=node, edge=edge, overlap=overlap)

    def _matrix_elements(self, node: Tensor, edge: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """On-site and pair blocks of ``M + M^T`` in the order of the batch, uncoupled."""
        blocks = layout(self.basis)
        first, second = edge.chunk(2)
        upper = first + blocks.flip(second)
        both = torch.cat([upper, blocks.flip(upper)])
        sorted_ = torch.empty_like(both).index_copy(0, edges.places, both)
        return blocks.uncouple(node + blocks.flip(node)), blocks.uncouple(sorted_)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """MSE + MAE over all matrix elements of the batch, of H and of S with their weights."""
        errors = [label_errors(prediction, batch)]
        if self.overlap is not None:
            errors.append(label_errors(prediction, batch, "overlap"))
        weighted = zip(errors, self.weights, strict=False)
        return total([mse_plus_mae(parts, weight) for parts, weight in weighted])

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, S, F) features that on-site blocks are read from."""
        edges = self.trunk.edges(batch)
        features: Tensor = self.atoms(*self.trunk(batch.numbers, edges), edges)
        return features

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EnergyModel:
        """`PhiSNetEnergy` with the network of these settings."""
        body = {key: settings[key] for key in BODY}
        chosen = checked(energy_options, options, "PhiSNet's energy head", "model.energy")
        if chosen["head"] == "pooled":
            return PooledEnergy(basis, **body)
        return PhiSNetEnergy(basis, **body, **chosen)
