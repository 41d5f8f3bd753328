"""Models of total energies: what element energies leave over, read from embeddings of atoms.

`EnergyModel` is their base. `EmbeddingEnergy` puts a head on the embeddings of any Hamiltonian
model that offers them, so that each can be asked whether its pretraining pays.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.references import element_references
from hambench.data.counts import Counts, as_tensor, counted
from hambench.data.graph import Batch, GraphSpec
from hambench.errors import CheckpointError
from hambench.losses import rmse_plus_mse
from hambench.model import Loss, Model, Prediction, Progress, silent
from hambench.settings import checked

HeadName = Literal["linear", "network"]


class EnergyModel(Model):
    """Base of the models of energies: a body that embeds atoms, and a head, called ``head``.

    ``E = head(embeddings) + sum of element references``, the references by least squares on the
    training set (arXiv 2510.00224; `hambench.chem.references`), a float64 buffer that is stored
    with the weights.

    Attributes:
        references: (Z,) Eh per atom, Z the largest atomic number of the basis plus one.
        references_loose: whether other references would fit the training set as well.
        fresh: beginnings of the names of parameters and buffers that no pretrained model has.
        left_out: beginnings of those of a Hamiltonian model that energies have no use for.
        frozen: whether the head alone is trained.
    """

    checkpoint_version: ClassVar[int] = 2
    exact: ClassVar[tuple[str, ...]] = ("references",)
    fresh: ClassVar[tuple[str, ...]] = ("head.", "references")
    left_out: ClassVar[tuple[str, ...]] = ()
    references: Tensor
    references_loose: Tensor
    head: nn.Module

    def __init__(self, basis: OrbitalBasis) -> None:
        super().__init__(basis)
        self.frozen = False
        size = max(basis.elements) + 1
        self.register_buffer("references", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("references_loose", torch.tensor(False))

    def context(self, batch: Batch) -> Any:
        """What body and head both need of a batch beside the embeddings, e.g. edge frames."""
        return None

    @abstractmethod
    def embed(self, batch: Batch, context: Any) -> Tensor:
        """(N, ...) embeddings of the atoms."""

    @abstractmethod
    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """(B,) energies in Eh beyond the references."""

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, ...) embeddings of the atoms, which the energies are read from."""
        return self.embed(batch, self.context(batch))

    def energy(self, batch: Batch) -> Tensor:
        """(B,) total energies in Eh, float64: a total energy has more digits than float32.

        Embeddings that the batch brings along (those of a frozen body, kept from an earlier pass)
        are used as they are.
        """
        context = self.context(batch)
        kept = "embeddings" in batch
        embeddings = batch.embeddings if kept else self.embed(batch, context)
        beyond = self.read_out(embeddings, batch, context).double()
        return beyond.index_add(0, batch.batch, self.references[batch.numbers])

    def forward(self, batch: Batch) -> Prediction:
        """Predict the energies of a batch."""
        return Prediction(batch, self.graph, energies=self.energy(batch))

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """RMSE + MSE of the energies of the molecules (Eh, not per atom)."""
        assert prediction.energies is not None
        molecules = Counts.of(batch).molecules
        square = counted(prediction.energies - batch.energies, molecules).square().sum()
        return Loss(square[None], as_tensor(molecules, square)[None], rmse_plus_mse)

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Energies of the elements by least squares, over the training set."""
        found, loose = element_references(progress(molecules, "references"), len(self.references))
        self.references.copy_(torch.from_numpy(found))
        self.references_loose.fill_(loose)

    def remarks(self) -> list[str]:
        """That the training set does not determine the energies of all elements, if so."""
        known = self.references.cpu()
        absent = [SYMBOLS[z] for z in self.basis.elements if known[z] == 0]
        if not absent and not bool(self.references_loose):
            return []
        what = f"has no {', '.join(absent)}" if absent else "does not give one energy per element"
        return [
            f"the training set {what}: energies of molecules of other composition will be far off"
        ]

    def freeze(self) -> None:
        """Let the head alone be trained; the body stays as it is, in evaluation mode for good."""
        self.frozen = True
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith("head."))
        self.train(self.training)

    def train(self, mode: bool = True) -> EnergyModel:
        """Training mode, in which a frozen body takes no part."""
        super().train(mode)
        if self.frozen:
            for name, child in self.named_children():
                if name != "head":
                    child.eval()
        return self

    def adopt(self, weights: Mapping[str, Tensor], source: str) -> dict[str, list[str]]:
        """Take the body of a pretrained Hamiltonian model, in place.

        Strict, except for what is known to differ: `fresh` parts stay as they are, `left_out`
        parts are not read.

        Args:
            weights: the Hamiltonian model's state by name.
            source: where they are from, for messages.

        Returns:
            ``{"fresh": names not read here, "left_out": names not used there}``.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        own = {k: v for k, v in self.state_dict().items() if not k.startswith(self.fresh)}
        given = {
            self.place(k): v
            for k, v in weights.items()
            if not (self.left_out and k.startswith(self.left_out))
        }
        for problem, names in (
            ("lacks", own.keys() - given.keys()),
            ("has, beyond what energies need,", given.keys() - own.keys()),
            (
                "has another size of",
                {k for k in own if k in given and own[k].shape != given[k].shape},
            ),
        ):
            if names:
                raise CheckpointError(
                    f"{source} {problem} {', '.join(sorted(names)[:3])} ({len(names)} in all); "
                    "pretrain with the preset and hyperparameters of the energy model"
                )
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(given[name])
        taken = {name for name in weights if self.place(name) in own}
        return {
            "fresh": sorted(self.state_dict().keys() - own.keys()),
            "left_out": sorted(weights.keys() - taken),
        }

    def place(self, name: str) -> str:
        """Name here of a tensor of the Hamiltonian model."""
        return name


class EmbeddingEnergy(EnergyModel):
    """A Hamiltonian model's embeddings, and a head on what of them no rotation touches.

    Args:
        body: the model; (N, C) embeddings, or (N, S, C) of which the first of S is l = 0.
        head: ``linear``, ``E = sum_i w^T z_i`` (arXiv 2510.00224), or ``network``, one hidden
            layer of twice the width.
    """

    def __init__(self, body: Model, *, head: HeadName = "linear") -> None:
        super().__init__(body.basis)
        self.body, self.embedding_size = body, body.embedding_size
        self.head = scalar_head(head, body.embedding_size)

    @classmethod
    def checked(cls, body: Model, options: Mapping[str, Any]) -> EmbeddingEnergy:
        """The model with options of a user; ConfigError for one there is not."""
        return cls(
            body,
            **checked(cls, options, f"the energy head of {type(body).__name__}", "model.energy"),
        )

    @property
    def graph(self) -> GraphSpec:
        """The body's, for total energies."""
        return self.body.graph.for_energies()

    @property
    def capturable(self) -> bool:
        """As the body."""
        return self.body.capturable

    def embed(self, batch: Batch, context: Any) -> Tensor:
        """The body's embeddings."""
        return self.body.embeddings(batch)

    def read_out(self, embeddings: Tensor, batch: Batch, context: Any) -> Tensor:
        """Sum of the head over the atoms of each molecule."""
        return atom_sums(self.head, embeddings, batch)

    def place(self, name: str) -> str:
        """Names of the Hamiltonian model, below ``body``."""
        return f"body.{name}"


def scalar_head(name: HeadName, channels: int) -> nn.Module:
    """A head (N, C) -> (N, 1); ``linear`` has no bias, which the references make good."""
    if name == "linear":
        return nn.Linear(channels, 1, bias=False)
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, 1))


def atom_sums(head: nn.Module, embeddings: Tensor, batch: Batch) -> Tensor:
    """(B,) sums over atoms of a head on the invariant part of (N, S, C) or (N, C) embeddings."""
    scalars = embeddings if embeddings.ndim == 2 else embeddings[:, 0]
    atoms = head(scalars)[:, 0]
    return atoms.new_zeros(len(batch.nao)).index_add(0, batch.batch, atoms)
