"""The interface every model implements, and what it predicts.

A model is one folder with an adapter class (a subclass of `Model`) and one YAML per preset. It
knows `chem`, `o3` and the batch, never a task and never the training loop.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.data.matrices import matrix_map
from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.energy_model import EnergyModel

Progress = Callable[[Sequence[Molecule], str], Any]
"""Wraps a sequence with a progress display: ``for molecule in progress(molecules, "label")``."""


def silent(molecules: Sequence[Molecule], label: str) -> Sequence[Molecule]:
    """A `Progress` that shows nothing."""
    return molecules


@dataclass(frozen=True)
class Loss:
    """A loss as sums, so that it adds exactly over micro-batches and processes.

    Attributes:
        terms: (k,) differentiable sums over the batch, e.g. of squared errors.
        counts: (k,) number of entries in each sum.
        finish: (terms, counts) -> scalar loss.
    """

    terms: Tensor
    counts: Tensor
    finish: Callable[[Tensor, Tensor], Tensor]

    def value(self) -> Tensor:
        """The scalar loss of this batch alone."""
        return self.finish(self.terms, self.counts)

    def plus(self, other: Loss, weight: float) -> Loss:
        """This loss and a multiple of another, each exact over micro-batches as before."""
        first, one, two = len(self.terms), self.finish, other.finish

        def finish(terms: Tensor, counts: Tensor) -> Tensor:
            added = two(terms[first:], counts[first:])
            return one(terms[:first], counts[:first]) + weight * added

        terms = torch.cat([self.terms, other.terms.to(self.terms)])
        return Loss(terms, torch.cat([self.counts, other.counts.to(self.counts)]), finish)


@dataclass(frozen=True)
class Prediction:
    """What a network put out for a batch: Hamiltonians as block vectors, energies, or both.

    Attributes:
        batch: what was predicted for.
        spec: the graph the model asked for.
        node: (N, K^2) on-site vectors, in the space and normalisation of ``spec``, of what is
            beyond its initial guess.
        edge: (E, K^2) pair vectors, in the space of ``spec``, likewise.
        energies: (B,) total energies in Eh, where the model predicts them.
        overlap: node and edge vectors of the overlap, in the space of ``spec``, from a model that
            learns it too; no normalisation.
    """

    batch: Batch
    spec: GraphSpec
    node: Tensor | None = None
    edge: Tensor | None = None
    energies: Tensor | None = None
    overlap: tuple[Tensor, Tensor] | None = None

    def blocks(self) -> tuple[Tensor, Tensor]:
        """Uncoupled float64 vectors in Eh, (N, K^2) and (E, K^2), normalisation undone.

        They are what was learned: an initial guess is in the matrices alone.

        Raises:
            ConfigError: the model predicted energies alone.
        """
        if self.node is None or self.edge is None:
            raise ConfigError("this model predicts energies, not Hamiltonians; use one that does")
        blocks, node, edge = self.spec.layout, self.node.double(), self.edge.double()
        scaling = self.spec.normalisation
        if scaling is not None:
            coupled = node if self.spec.space == "coupled" else blocks.couple(node)
            z = self.batch.numbers
            node = coupled * scaling.std.to(node.device)[z] + scaling.mean.to(node.device)[z]
        if self.spec.space == "coupled":
            edge = blocks.uncouple(edge)
        if self.spec.space == "coupled" or scaling is not None:
            node = blocks.uncouple(node)
        return node, edge

    def raw_matrices(self) -> list[Tensor]:
        """Per molecule the (nao, nao) float64 matrix in Eh before it is made symmetric.

        Raises:
            ConfigError: the model predicts energies alone, or beyond initial guesses that the
                batch does not carry.
        """
        node, edge = self.blocks()
        sizes = self.batch.nao.tolist()
        areas = [n * n for n in sizes]
        where = matrix_map(self.batch, self.spec.layout)
        parts = where.matrix(node, edge, sum(areas)).split(areas)
        matrices = [part.view(n, n) for part, n in zip(parts, sizes, strict=True)]
        matrices = matrices[: self.batch.real.molecules]
        if self.spec.guess is None:
            return matrices
        if "guess" not in self.batch:
            raise ConfigError(
                "the batch carries no initial guesses, which this model's output is added to; make "
                "it with collate(molecules, model.graph)"
            )
        triangles = self.batch.guess.split([n * (n + 1) // 2 for n in map(len, matrices)])
        return [h + _full(t, len(h)) for h, t in zip(matrices, triangles, strict=True)]

    def matrices(self) -> list[Tensor]:
        """Per molecule its (nao, nao) Hamiltonian in Eh: float64, symmetric, canonical order.

        Blocks beyond the model's cutoff are zero, or those of the initial guess.
        """
        return [(h + h.T) / 2 for h in self.raw_matrices()]

    def outputs(self) -> list[Tensor]:
        """Per molecule its `matrices`; of a model of energies alone, these, in Eh of shape ()."""
        if self.node is not None or self.energies is None:
            return self.matrices()
        return list(self.energies.double()[: self.batch.real.molecules])


def _full(triangle: Tensor, size: int) -> Tensor:
    """The symmetric (size, size) matrix of an upper triangle."""
    row, column = torch.triu_indices(size, size, device=triangle.device)
    full = triangle.new_empty(size, size)
    full[row, column] = full[column, row] = triangle
    return full


class Model(nn.Module, ABC):
    """Base of every adapter; the harness sees a model only through this.

    Attributes:
        embedding_size: channels of the invariant embeddings, 0 for a model that offers none.
        basis: orbital basis it was built for.
        hyperparameters: what it was built with, JSON-able; set by the registry.
        checkpoint_version: raised when old weights no longer fit.
        exact: names of its buffers that are float64 whatever its parameters are.
        equivariant: whether its Hamiltonians turn with the molecule. Of a model that says they do
            not, every score tells how far they are from it (``h_rotation_mae``).
    """

    checkpoint_version: ClassVar[int] = 1
    exact: ClassVar[tuple[str, ...]] = ()
    equivariant: ClassVar[bool] = True
    embedding_size: int = 0
    basis: OrbitalBasis
    hyperparameters: dict[str, Any]

    def __init__(self, basis: OrbitalBasis) -> None:
        super().__init__()
        self.basis = basis
        self.hyperparameters = {}

    @property
    @abstractmethod
    def graph(self) -> GraphSpec:
        """What the model wants of its input, in the floating type of its parameters."""

    @abstractmethod
    def forward(self, batch: Batch) -> Prediction:
        """Predict the Hamiltonians of a batch made with `graph`."""

    @abstractmethod
    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """Training loss of a prediction against the batch's packed labels."""

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """One pass over the training set before training, for label statistics kept as buffers."""

    def remarks(self) -> list[str]:
        """What a user should know of the training set, in sentences; after `prepare`."""
        return []

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, C) or (N, S, C) features of the atoms, of the latter the first of S is l = 0.

        They are what a model of energies stands on.

        Raises:
            ConfigError: the model offers none.
        """
        raise ConfigError(f"{type(self).__name__} offers no embeddings; choose a model that does")

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EnergyModel:
        """The model of energies that stands on this model's embeddings.

        By default this model itself with a head on its embeddings, `EmbeddingEnergy`; a model that
        need not build all of itself for energies says so here.

        Args:
            basis: orbital basis.
            settings: the model's hyperparameters, checked.
            options: those of the head, the section ``energy`` of a preset; to be checked.

        Raises:
            ConfigError: the model offers no embeddings, or an option there is not.
        """
        from hambench.energy_model import EmbeddingEnergy

        if cls.embeddings is Model.embeddings:
            raise ConfigError(
                f"{cls.__name__} offers no embeddings to predict energies from; choose a model "
                "that does, or a task of Hamiltonians (hambench list)"
            )
        return EmbeddingEnergy.checked(cls(basis, **settings), options)

    def energy(self, batch: Batch) -> Tensor:
        """(B,) total energies in Eh; ConfigError where a model offers none."""
        raise ConfigError(f"{type(self).__name__} predicts no energies; choose a model that does")

    def energy_and_forces(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(B,) total energies in Eh and (N, 3) forces ``-dE/dR`` in Eh/Angstrom, detached.

        Raises:
            ConfigError: the model predicts no energies.
        """
        with torch.enable_grad():
            moved = copy.copy(batch)
            moved.positions = batch.positions.detach().requires_grad_()
            energies = self.energy(moved)
            (gradient,) = torch.autograd.grad(energies.sum(), moved.positions)
        return energies.detach(), -gradient

    @property
    def capturable(self) -> bool:
        """Whether from now on a CUDA graph may stand for a training step.

        It may where forward pass and loss depend on parameters, buffers and the tensors of the
        batch alone, with as many kernels on the same sizes whatever these hold: no random numbers
        or counters of the host, and nothing asked of the device. Then they also need not wait.
        """
        return True

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters (float64 for a model without any)."""
        return next((p.dtype for p in self.parameters()), torch.float64)

    def count_parameters(self) -> int:
        """Trainable parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
