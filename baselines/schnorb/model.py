"""`SchNOrb` as a model of the suite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from hambench.baselines.schnorb.energy import EnergyNetwork, SchNOrbEnergy
from hambench.baselines.schnorb.orbitals import PairFactor
from hambench.baselines.schnorb.pairs import Geometry, Radial, pairs_of
from hambench.baselines.schnorb.readout import Places, Readout, slot_orbitals
from hambench.baselines.schnorb.representation import PairState, Representation
from hambench.baselines.schnorb.size import count_parameters, refuse_too_large
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.counts import Counts, as_tensor, counted
from hambench.data.graph import Batch, GraphSpec, Label, Normalisation
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError, DataError
from hambench.losses import label_errors, rmse_plus_mse, sum_of_means
from hambench.model import Loss, Model, Prediction, Progress, silent
from hambench.settings import Count, Degree, Positive, checked


class SchNOrb(Model):
    """SchNOrb (Schuett et al., Nature Communications 2019, arXiv 1906.10033; its public code).

    Blocks depend on directions through products that no symmetry binds: the model is not
    equivariant, and learns by ``rotate`` what turning a molecule does. Its on-site blocks have
    trainable diagonals per element, which begin as the mean diagonal of H over the training set
    (the public code takes the whole data set, test molecules included). Both matrices of a batch
    are masked molecule by molecule, which the public codes leave out; their mode for minimal
    (QUAMBO) bases, cutoffs of other shapes and shared interactions are not here.

    Args:
        basis: orbital basis; the readouts grow with the square of the largest number of orbitals
            of an element.
        width: B, features.
        factors: Q, width of filters and pair states.
        directions: D that pair factors have; 0: the three axes.
        layers: SchNet interactions.
        lmax: there are 2 lmax + 1 orbital blocks.
        gaussians: of the distance, centres from 0 to the cutoff.
        cutoff: Angstrom, where filters end; pairs beyond still have blocks.
        mean_messages: sums over neighbours that update atoms are means.
        overlap: learn the overlap too.
        energies: learn total energies too.
        loss: ``mse``, the sum of the mean squares of H, S (and E); or ``rmse_plus_mse`` of that
            sum, by which small errors still count.
        padded_loss: squares of H and S are divided by the size of a batch of matrices all as large
            as its largest, as the nablaDFT code does; else by their own numbers of entries.
        rotate: turn every training molecule at random, anew in every epoch.
        rounded_gaussians: centres and width in float32, as in the public code.
        elements: rows of the table of elements; null: as many as the basis needs.
        overlap_elements: rows of the table of on-site overlaps; null: the same.

    Raises:
        ConfigError: more than `size.LARGEST` parameters, or too few rows for an element.
    """

    exact: ClassVar[tuple[str, ...]] = ("diagonal_mean", "energy_mean", "energy_std")
    equivariant: ClassVar[bool] = False
    diagonal_mean: Tensor
    energy_mean: Tensor
    energy_std: Tensor
    orbitals: Tensor

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        width: Annotated[int, Field(ge=2)] = 1000,
        factors: Count = 1000,
        directions: Degree = 12,
        layers: Degree = 3,
        lmax: Degree = 2,
        gaussians: Annotated[int, Field(ge=2)] = 50,
        cutoff: Positive = 10.0,
        mean_messages: bool = False,
        overlap: bool = False,
        energies: bool = False,
        loss: Literal["mse", "rmse_plus_mse"] = "rmse_plus_mse",
        padded_loss: bool = False,
        rotate: bool = True,
        rounded_gaussians: bool = False,
        elements: Count | None = None,
        overlap_elements: Count | None = None,
    ) -> None:
        super().__init__(basis)
        tables = {"elements": elements, "overlap_elements": overlap_elements}
        rows, overlap_rows = (max(given or 0, rows_for(basis)) for given in tables.values())
        blocks = 2 * lmax + 1
        parts = count_parameters(
            basis, width=width, factors=factors, directions=directions, layers=layers,
            blocks=blocks, gaussians=gaussians, rows=rows,
            overlap_rows=overlap_rows if overlap else 0, energy=energies,
        )  # fmt: skip
        refuse_too_large(basis, parts)
        for name, given in tables.items():
            check_rows(basis, given, name)
        self.embedding_size = width
        self.finish = sum_of_means if loss == "mse" else rmse_plus_mse
        self.padded_loss, self.rotate = padded_loss, rotate
        self.radial = Radial(gaussians, cutoff, rounded_gaussians)
        # what the last block tells the atoms is of use to energies alone
        self.representation = Representation(
            rows,
            width,
            factors,
            layers,
            blocks if energies else blocks - 1,
            gaussians,
            mean_messages,
        )
        self.last = None if energies else PairState(width, factors, gaussians)
        self.factors = nn.ModuleList(
            PairFactor(width, factors, number > 0, directions) for number in range(blocks)
        )
        self.places = Places(basis)
        n = self.places.orbitals
        self.readout = Readout(1 + overlap, n, blocks, directions or 3, width)
        table = max(basis.elements) + 1, n
        self.diagonal = nn.Parameter(torch.zeros(table))
        self.overlap_diagonal = nn.Parameter(torch.ones(table)) if overlap else None
        self.overlap_on_site = nn.Parameter(torch.zeros(overlap_rows, n, n)) if overlap else None
        self.energies = EnergyNetwork(width) if energies else None
        for name, value in (
            ("diagonal_mean", torch.zeros(table, dtype=torch.float64)),
            ("energy_mean", torch.zeros(1, dtype=torch.float64)),
            ("energy_std", torch.ones(1, dtype=torch.float64)),
        ):
            self.register_buffer(name, value)
        orbitals = torch.zeros(table[0], dtype=torch.long)
        for z, shells in basis.shells.items():
            orbitals[z] = shells.nao
        self.register_buffer("orbitals", orbitals, persistent=False)
        self._graph: tuple[tuple[Any, ...], GraphSpec] | None = None

    @property
    def graph(self) -> GraphSpec:
        """All pairs, labels as matrix elements, those of H less the mean diagonal."""
        state = self.dtype, self.diagonal_mean.data_ptr(), self.diagonal_mean._version
        if self._graph is None or self._graph[0] != state:
            labels: list[Label] = ["hamiltonian"]
            labels += ["overlap"] if self.overlap_diagonal is not None else []
            labels += ["energy"] if self.energies is not None else []
            spec = GraphSpec(
                self.basis,
                None,
                "uncoupled",
                self.dtype,
                self._normalisation(),
                labels=tuple(labels),
                rotate=self.rotate,
            )
            self._graph = state, spec
        return self._graph[1]

    def _normalisation(self) -> Normalisation:
        """The mean diagonals, as the means of on-site vectors."""
        blocks = GraphSpec(self.basis).layout
        diagonals = torch.zeros(len(self.diagonal_mean), blocks.size, dtype=torch.float64)
        for z, shells in self.basis.shells.items():
            at = slot_orbitals(self.basis, z)
            diagonals[z, blocks.square[at, at]] = self.diagonal_mean[z, : shells.nao].cpu().double()
        mean = blocks.couple(diagonals)
        return Normalisation(mean, torch.ones_like(mean))

    def prepare(self, molecules: Sequence[Molecule], progress: Progress = silent) -> None:
        """Mean diagonals of H; mean and standard deviation of the energy per atom.

        Raises:
            DataError: a molecule lacks a label.
        """
        sums, counts = np.zeros(self.diagonal_mean.shape), np.zeros(len(self.diagonal_mean))
        energies = []
        for molecule in progress(molecules, "mean diagonals"):
            hamiltonian, energy = self._labels_of(molecule)
            sizes = self.basis.ao_counts(molecule.numbers)
            for z, values in zip(
                molecule.numbers,
                np.split(hamiltonian.diagonal(), np.cumsum(sizes)[:-1]),
                strict=True,
            ):
                sums[z, : len(values)] += values
                counts[z] += 1
            energies.append(energy / len(molecule))
        self.diagonal_mean.copy_(torch.from_numpy(sums / np.maximum(counts, 1)[:, None]))
        self.energy_mean.fill_(float(np.mean(energies)))
        self.energy_std.fill_(float(np.std(energies)) or 1.0)

    def _labels_of(self, molecule: Molecule) -> tuple[np.ndarray, float]:
        """H, and E or 0; DataError where one of the labels to learn is missing."""
        for name, wanted, option in (
            ("Hamiltonian", True, ""),
            ("overlap", self.overlap_diagonal is not None, "overlap"),
            ("energy", self.energies is not None, "energies"),
        ):
            if wanted and getattr(molecule, name.lower()) is None:
                way = f"set model.hyperparameters.{option}=false" if option else "take another task"
                raise DataError(
                    f"molecule '{molecule.id}' has no {name}, which this model is to learn; {way}"
                )
        assert molecule.hamiltonian is not None
        return molecule.hamiltonian, 0.0 if molecule.energy is None else molecule.energy

    def forward(self, batch: Batch) -> Prediction:
        """Predict; on-site blocks of H are less the mean diagonal, as the labels are."""
        geometry = self._geometry(batch)
        x, states = self.representation(batch.numbers, geometry)
        if self.last is not None:
            states.append(self.last(x, geometry))
        factors = [layer(h, geometry) for layer, h in zip(self.factors, states, strict=True)]
        atom, pair = self.readout(factors, geometry.pairs)
        z = batch.numbers
        node = self.places.vectors(atom + torch.diag_embed(self.diagonal[z]), z, z)
        edges = self._edges(pair, batch, geometry)
        overlap = None
        if self.overlap_diagonal is not None and self.overlap_on_site is not None:
            own = self.overlap_on_site[z]
            own = (own + own.mT) / 2 + torch.diag_embed(self.overlap_diagonal[z])
            overlap = self.places.vectors(own, z, z), edges[1]
        return Prediction(
            batch,
            self.graph,
            node=node,
            edge=edges[0],
            energies=None if self.energies is None else self._energies(x, batch),
            overlap=overlap,
        )

    def _geometry(self, batch: Batch) -> Geometry:
        return self.radial.geometry(batch, pairs_of(batch, self.orbitals, self.places.orbitals))

    def _edges(self, pair: Tensor, batch: Batch, geometry: Geometry) -> tuple[Tensor, ...]:
        """Per quantity the (E, K^2) vectors of the blocks (P, q, n, n) and of their transposes."""
        there_and_back = geometry.pairs.edges.reshape(-1)
        place = torch.empty_like(there_and_back)
        place[there_and_back] = torch.arange(len(place), device=place.device)
        blocks = torch.cat([pair, pair.mT]).index_select(0, place)
        rows, columns = batch.numbers[batch.edge_index]
        return self.places.vectors(blocks, rows, columns).unbind(1)

    def _energies(self, x: Tensor, batch: Batch) -> Tensor:
        """(B,) total energies in Eh, float64."""
        assert self.energies is not None
        atoms = self.energy_std * self.energies(x).double() + self.energy_mean
        return atoms.new_zeros(len(batch.nao)).index_add(0, batch.batch, atoms)

    def energy(self, batch: Batch) -> Tensor:
        """(B,) total energies in Eh; ConfigError of a model that does not learn them."""
        if self.energies is None:
            return super().energy(batch)
        geometry = self.radial.geometry(batch, pairs_of(batch))
        return self._energies(self.representation(batch.numbers, geometry)[0], batch)

    def embeddings(self, batch: Batch) -> Tensor:
        """(N, B) features of the atoms; no rotation touches them."""
        geometry = self.radial.geometry(batch, pairs_of(batch))
        features: Tensor = self.representation(batch.numbers, geometry)[0]
        return features

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """Of the mean squares of H, S and E (Eh), those that are learned, see ``loss``.

        Raises:
            DataError: the batch lacks labels.
        """
        counts, parts = Counts.of(batch), [label_errors(prediction, batch)]
        if prediction.overlap is not None:
            parts.append(label_errors(prediction, batch, "overlap"))
        errors = [torch.cat([node.values, edge.values]) for node, edge in parts]
        molecules = as_tensor(counts.molecules, errors[0])
        node, edge = parts[0]
        entries = as_tensor(node.count + edge.count, errors[0])
        if self.padded_loss:
            largest = counted(batch.nao, counts.molecules).max()
            entries = molecules * largest.to(entries).square()
        numbers = [entries] * len(errors)
        if prediction.energies is not None:
            if "energies" not in batch:
                raise DataError(
                    "the molecules have no energies, which this model is to learn; set "
                    "model.hyperparameters.energies=false"
                )
            beyond = counted(prediction.energies - batch.energies, counts.molecules)
            errors.append(beyond.to(entries))
            numbers.append(molecules)
        terms = torch.stack([e.square().sum() for e in errors])
        return Loss(terms, torch.stack(numbers), self.finish)

    @classmethod
    def for_energies(
        cls, basis: OrbitalBasis, settings: Mapping[str, Any], options: Mapping[str, Any]
    ) -> EnergyModel:
        """`SchNOrbEnergy` with the representation of these settings."""
        chosen = checked(SchNOrbEnergy.options, options, "schnorb's energy head", "model.energy")
        return SchNOrbEnergy(basis, settings, **chosen)


def rows_for(basis: OrbitalBasis) -> int:
    """Rows that a table of elements needs, by atomic number."""
    return max(basis.elements) + 1


def check_rows(basis: OrbitalBasis, rows: int | None, name: str) -> None:
    """ConfigError where a table of elements has too few rows; None: as many as needed."""
    needed = rows_for(basis)
    if rows is not None and rows < needed:
        raise ConfigError(
            f"{basis!r} needs {needed} rows in a table of elements, {name} is {rows}; set "
            f"model.hyperparameters.{name}={needed}, or null"
        )
