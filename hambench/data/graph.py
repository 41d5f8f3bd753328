"""Graphs and batches: many molecules as one torch_geometric graph, labels packed.

Edges are ordered atom pairs (i, j) within the cutoff, both directions, sorted by j then i; row
``edge_index[0] = i`` is the row atom of the pair's block, ``edge_index[1] = j`` its column atom,
where messages arrive. Labels hold the real entries alone (`chem.packing`), in the form and scaling
that the model asks for by its `GraphSpec`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Data

from hambench.chem.blocks import BlockLayout, layout
from hambench.chem.molecule import Molecule, symbol
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.packing import LabelMap, label_map
from hambench.chem.stored import StoredMatrix
from hambench.data.groups import Grouping, group_labels, group_pairs
from hambench.data.guess import Guess
from hambench.data.neighbours import neighbour_pairs, shortest, within
from hambench.data.orbital_labels import orbital_labels
from hambench.errors import ConfigError, DataError

OVERLAPS = ("overlap_node_values", "overlap_pair_values")
LABELS = ("node_places", "node_values", "pair_places", "pair_values", "pair_signs", *OVERLAPS)
"""Fields of a graph that it has with a Hamiltonian (or an overlap) only."""
_IN_COLUMNS = ("edge_index", "pair_index", "group_pairs", "pair_places", "pair_signs")
_PLACES_END = 2**31  # of int32

Space = Literal["coupled", "uncoupled"]
Label = Literal["hamiltonian", "overlap", "energy", "orbitals"]
ORBITALS = ("orbitals", "orbital_sets", "low_sets")
"""Fields of a graph with orbitals of its label."""
# the bytes of a SQLite file are read-only, and only read
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")


@dataclass(frozen=True, eq=False)
class Normalisation:
    """Scale and shift of on-site labels per element, in coupled form.

    Attributes:
        mean: (Z, K^2) float64 subtracted from the coupled on-site label of element Z (Eh).
        std: (Z, K^2) float64 it is then divided by.
    """

    mean: Tensor
    std: Tensor


@dataclass(frozen=True, eq=False)
class GraphSpec:
    """What a model wants of its input.

    Attributes:
        basis: orbital basis of the labels.
        cutoff: pairs closer than this (Angstrom) get edges; None: all pairs.
        space: form of the packed labels.
        dtype: floating type of positions and labels.
        normalisation: applied to on-site labels in float64 before the cast, so that a float32
            model does not lose the digits beside a large mean.
        labels: what batches carry of what their molecules have: Hamiltonians, overlaps beside
            them (in the same form, and never scaled), total energies, and orbitals of the
            Hamiltonians, which the alignment loss compares in.
        guess: what the model's output is added to; Hamiltonian labels are what is left beyond it,
            and batches carry it, labelled or not.
        reach: edges closer than this (Angstrom) are listed in ``near_index``, for models whose
            messages go less far than their pairs; None: there is no such list.
        nearest: (reach, most): of the edges that arrive at an atom and are shorter than the reach
            (Angstrom), at most so many, the shortest, are listed in ``nearest_index``; more where
            the last ones are equally long. None: there is no such list.
        groups: how atoms are put into ``group_index``, with ``group_pairs``; None: not at all.
        largest_charge, largest_multiplicity: of a molecule the model can take; None: any.
        lone: elements of which a molecule may have one atom at most, see `check_lone`.
        rotate: train on every molecule turned at random, labels and all, anew in every epoch, for
            models that are not equivariant; nothing else sees turned molecules.
    """

    basis: OrbitalBasis
    cutoff: float | None = None
    space: Space = "coupled"
    dtype: torch.dtype = torch.float64
    normalisation: Normalisation | None = None
    labels: tuple[Label, ...] = ("hamiltonian",)
    guess: Guess | None = None
    reach: float | None = None
    nearest: tuple[float, int] | None = None
    groups: Grouping | None = None
    largest_charge: int | None = None
    largest_multiplicity: int | None = None
    lone: tuple[int, ...] = ()
    rotate: bool = False

    @property
    def layout(self) -> BlockLayout:
        """Places of the block vectors of this basis."""
        return layout(self.basis)

    def bare(self) -> GraphSpec:
        """The same graph without anything that has to do with matrices or energies."""
        return replace(self, labels=(), normalisation=None, guess=None)

    def for_energies(self) -> GraphSpec:
        """The same graph with total energies as its only labels."""
        return replace(self.bare(), labels=("energy",))


class Shape(NamedTuple):
    """Size of a batch; edges are directed."""

    molecules: int
    atoms: int
    edges: int


class MoleculeGraph(Data):
    """One molecule, or by collation many, as the models see it.

    Attributes:
        numbers (N,), positions (N, 3) Angstrom, charge (B,), multiplicity (B,), nao (B,);
        edge_index (2, E); pair_index (2, E/2): each pair's edge (i, j), i < j, and its reverse;
        node_values, node_places: on-site labels, and where they stand in the flat (N, K^2) vectors;
        near_index (E',): edges within reach (where the spec has one), and nearest_index alike;
        group_index (N,): group of each atom, numbers below N with gaps, and group_pairs (2, M):
            atoms, and the groups each of them sees (where the spec groups);
        pair_values (P,), pair_places (2, P) int32, pair_signs (2, P) int8: each label of a pair
            and where it stands, with which sign, in the flat (E, K^2) vectors: once in the block
            (i, j), i < j, once in its transpose (see `pair_labels`);
        overlap_node_values, overlap_pair_values: those of the overlap, at the same places;
            labels are absent without a Hamiltonian;
        guess: upper triangles of the initial guesses in Eh, canonical order, float64, one behind
            the other (where the spec has a guess);
        orbitals (B, n, n), orbital_sets (B, n), low_sets (B,): `OrbitalLabels` of the Hamiltonians,
            padded with zeros, and -1, to n orbitals, those of the largest molecule or more (where
            the spec asks for them);
        energies (B,): total energies in Eh, float64 (where the spec asks for them);
        unpadded (5,): of a padded batch how many molecules, atoms, edges, labels of on-site blocks
            and of pairs come before the padding;
        embeddings (N, ...): of a frozen body, where they were computed before;
        batch (N,): molecule of each atom (after collation).
    """

    @property
    def real(self) -> Shape:
        """Its molecules, atoms and edges that come first and are no padding (`data.padding`).

        Of a padded batch on a GPU this waits; `data.counts` does not.
        """
        if "unpadded" in self:
            return Shape(*self.unpadded[:3].tolist())
        return Shape(len(self.nao), len(self.numbers), self.edge_index.shape[1])


Batch = MoleculeGraph
"""The type models take; a collated batch has the same fields as one graph, and ``batch``."""


def build_graph(
    molecule: Molecule, spec: GraphSpec, hamiltonian: StoredMatrix | None = None
) -> MoleculeGraph:
    """The graph of one molecule, with packed labels where it has a Hamiltonian.

    Args:
        molecule: with or without its Hamiltonian.
        spec: what the model wants.
        hamiltonian: as the file keeps it (see `Rows.stored`), for a molecule without one.

    Raises:
        ConfigError: an element ``spec.basis`` does not cover, or a charge or multiplicity beyond
            what the model takes, or a pair of elements it lacks; or as `Guess.packed`.
        DataError: labels unfit for training (`Molecule.checked`), or in another basis.
    """
    if molecule.basis is not None and molecule.basis != spec.basis.name:
        raise DataError(
            f"molecule '{molecule.id}' has matrices in {molecule.basis}, the model was built for "
            f"{spec.basis.name}; choose data or a model of the same basis"
        )
    nao = spec.basis.nao(molecule.numbers)
    molecule = molecule.checked(nao)
    for name, value, largest in (
        ("charge", abs(molecule.charge), spec.largest_charge),
        ("multiplicity", molecule.multiplicity, spec.largest_multiplicity),
    ):
        if largest is not None and value > largest:
            raise ConfigError(
                f"molecule '{molecule.id}' has a {name} of {getattr(molecule, name)}, the model "
                f"takes at most {largest} in size; leave it out, or use a model that ignores it"
            )
    check_lone(molecule, spec.lone)
    edges, pairs = neighbour_pairs(molecule.positions, spec.cutoff)
    graph = MoleculeGraph(
        numbers=torch.from_numpy(molecule.numbers),
        positions=torch.from_numpy(molecule.positions).to(spec.dtype),
        charge=torch.tensor([molecule.charge]),
        multiplicity=torch.tensor([molecule.multiplicity]),
        nao=torch.tensor([nao]),
        edge_index=torch.from_numpy(edges),
        pair_index=torch.from_numpy(pairs),
        block_size=spec.layout.size,
        num_nodes=len(molecule),
    )
    list_edges(graph, molecule.positions, spec)
    if spec.groups is not None:
        labels = group_labels(molecule.numbers, molecule.positions, spec.groups)
        pairs = group_pairs(molecule.numbers, molecule.positions, labels, spec.groups.reach)
        graph.group_index, graph.group_pairs = torch.from_numpy(labels), torch.from_numpy(pairs)
    if "energy" in spec.labels and molecule.energy is not None:
        graph.energies = torch.tensor([molecule.energy], dtype=torch.float64)
    if spec.guess is not None:
        graph.guess = torch.from_numpy(spec.guess.packed(molecule))
    if "hamiltonian" in spec.labels:
        _label(graph, molecule, spec, hamiltonian)
    return graph


def check_lone(molecule: Molecule, lone: Sequence[int]) -> None:
    """Refuse a molecule with a pair of atoms a model has no block for.

    Args:
        molecule: any.
        lone: elements that the model knows no pair of two atoms of.

    Raises:
        ConfigError: the molecule has two atoms of one of them.
    """
    for z in lone:
        count = int((molecule.numbers == z).sum())
        if count > 1:
            raise ConfigError(
                f"molecule '{molecule.id}' has {count} atoms of {symbol(z)}, the model was built "
                f"without the pair {symbol(z)}-{symbol(z)}; build it for such molecules (its "
                "hyperparameters say for which pairs), or leave this one out"
            )


def batch_graphs(graphs: Sequence[MoleculeGraph]) -> Batch:
    """Graphs joined to one batch.

    Raises:
        DataError: some have a label that others lack.
    """
    contents: list[dict[str, Any]] = [graph.to_dict() for graph in graphs]
    for field, label in (
        ("node_values", "a Hamiltonian"),
        ("overlap_node_values", "an overlap"),
        ("energies", "an energy"),
    ):
        having = sum(field in content for content in contents)
        if having not in (0, len(graphs)):
            raise DataError(
                f"only {having} of {len(graphs)} molecules of a batch have {label}; put molecules "
                "with and without it into batches of their own"
            )
    steps = _steps(contents)
    batch = MoleculeGraph(num_nodes=sum(steps["edge_index"]), block_size=contents[0]["block_size"])
    for field, value in contents[0].items():
        if isinstance(value, Tensor) and field not in ORBITALS:
            parts = [content[field] for content in contents]
            if field in steps:
                batch[field] = joined(parts, steps[field])
            else:
                batch[field] = torch.cat(parts, -1 if field in _IN_COLUMNS else 0)
    batch.batch = torch.from_numpy(np.arange(len(graphs)).repeat(steps["edge_index"]))
    labelled = [content for content in contents if "orbitals" in content]
    if labelled:
        batch.orbitals = _stacked([content["orbitals"] for content in labelled], 0)
        batch.orbital_sets = _stacked([content["orbital_sets"] for content in labelled], -1)
        batch.low_sets = torch.cat([content["low_sets"] for content in labelled])
    return batch


def _steps(contents: Sequence[dict[str, Any]]) -> dict[str, list[int]]:
    """What each graph adds to the indices of those behind it, by field.

    Raises:
        ConfigError: the graphs are too many for places of labels.
    """
    size = contents[0]["block_size"]
    atoms = [len(content["numbers"]) for content in contents]
    edges = [content["edge_index"].shape[1] for content in contents]
    if sum(edges) * size >= _PLACES_END:
        raise ConfigError(
            f"a batch of {sum(edges):,} edges has more than 2^31 places for labels; choose a "
            "smaller batch_size or max_edges"
        )
    return {
        **dict.fromkeys(("edge_index", "group_index", "group_pairs"), atoms),
        **dict.fromkeys(("pair_index", "near_index", "nearest_index"), edges),
        "node_places": [n * size for n in atoms],
        "pair_places": [n * size for n in edges],
    }


def _stacked(parts: Sequence[Tensor], padding: int) -> Tensor:
    """Parts (1, n) or (1, n, n) of any n, stacked to the largest n."""
    first, most = parts[0], max(part.shape[-1] for part in parts)
    out = first.new_full((len(parts), *[most] * (first.ndim - 1)), padding)
    for whole, part in zip(out, parts, strict=True):
        whole[tuple(slice(n) for n in part.shape[1:])] = part[0]
    return out


def joined(parts: Sequence[Tensor], steps: Sequence[int]) -> Tensor:
    """Parts one behind the other; to each is added the sum of the ``steps`` before it."""
    first = parts[0]
    out = first.new_empty(*first.shape[:-1], sum(part.shape[-1] for part in parts))
    start = moved = 0
    for part, step in zip(parts, steps, strict=True):
        torch.add(part, moved, out=out[..., start : start + part.shape[-1]])
        start += part.shape[-1]
        moved += step
    return out


def pair_labels(batch: Batch, field: str = "pair_values") -> tuple[Tensor, Tensor]:
    """Places in the flat (E, K^2) pair vectors, and the labels there, of both blocks of a pair.

    Args:
        batch: with labels.
        field: those of the Hamiltonian, or ``overlap_pair_values``.
    """
    return batch.pair_places.reshape(-1).long(), (batch.pair_signs * batch[field]).reshape(-1)


def collate(molecules: Sequence[Molecule], spec: GraphSpec) -> Batch:
    """Molecules as one batch.

    Raises:
        ConfigError: no molecules, or a single one that is in no list; and as `build_graph`.
        DataError: as `build_graph` and `batch_graphs`.
    """
    listed = [] if isinstance(molecules, Molecule | str) or molecules is None else list(molecules)
    if not listed or not all(isinstance(molecule, Molecule) for molecule in listed):
        raise ConfigError(
            "collate takes a list of molecules, at least one: collate([molecule], spec)"
        )
    if not isinstance(spec, GraphSpec):
        raise ConfigError(f"spec is a {type(spec).__name__}, expected a GraphSpec: model.graph")
    return batch_graphs([build_graph(molecule, spec) for molecule in listed])


def list_edges(graph: MoleculeGraph, positions: NDArray[np.float64], spec: GraphSpec) -> None:
    """Give a graph the lists of its edges that the spec asks for."""
    edges = graph.edge_index.numpy()
    if spec.reach is not None:
        graph.near_index = torch.from_numpy(within(positions, edges, spec.reach))
    if spec.nearest is not None:
        graph.nearest_index = torch.from_numpy(shortest(positions, edges, *spec.nearest))


def _label(
    graph: MoleculeGraph, molecule: Molecule, spec: GraphSpec, hamiltonian: StoredMatrix | None
) -> None:
    """Give a graph its labels in the model's form, as far as there are matrices.

    What is computed is computed in float64; entries that are only moved keep their precision.
    """
    if molecule.hamiltonian is not None:
        hamiltonian = canonical(molecule.hamiltonian, molecule, spec)
    if hamiltonian is None:
        return
    if "orbitals" in spec.labels:
        found = orbital_labels(molecule, hamiltonian.canonical(), spec.basis)
        graph.orbitals = torch.from_numpy(found.coefficients).to(spec.dtype)[None]
        graph.orbital_sets = torch.from_numpy(found.sets)[None]
        graph.low_sets = torch.tensor([found.low_sets], dtype=torch.int32)
    if "guess" in graph:
        hamiltonian = hamiltonian.less(graph.guess.numpy())
    where = _places(graph, hamiltonian, spec)
    graph.node_places, graph.pair_places = where.node_places, where.pair_places
    graph.pair_signs = where.signs
    graph.node_values = _on_site(where.node_values(hamiltonian), spec, spec.normalisation, graph)
    graph.pair_values = where.pair_values(hamiltonian, spec.dtype)
    if "overlap" in spec.labels and molecule.overlap is not None:
        # in canonical order both have the same map, so they share their places
        overlap = canonical(molecule.overlap, molecule, spec)
        where = _places(graph, overlap, spec)
        assert where.pair_places is graph.pair_places, "read molecules as a whole for overlaps"
        graph.overlap_node_values = _on_site(where.node_values(overlap), spec, None, graph)
        graph.overlap_pair_values = where.pair_values(overlap, spec.dtype)


def canonical(matrix: NDArray[np.float64], molecule: Molecule, spec: GraphSpec) -> StoredMatrix:
    """A (nao, nao) matrix of a molecule as what labels are taken from."""
    return StoredMatrix(matrix.reshape(-1), molecule.numbers, spec.basis, "canonical")


def _places(graph: MoleculeGraph, matrix: StoredMatrix, spec: GraphSpec) -> LabelMap:
    """Where the labels of a matrix stand."""
    return label_map(
        spec.layout,
        matrix.numbers,
        graph.edge_index.numpy(),
        order=matrix.order,
        packed=matrix.packed,
        coupled=spec.space == "coupled",
    )


def _on_site(
    values: Tensor, spec: GraphSpec, scaling: Normalisation | None, graph: MoleculeGraph
) -> Tensor:
    """On-site labels in the model's form and scaling."""
    if spec.space == "uncoupled" and scaling is None:
        return values.to(spec.dtype)
    size = spec.layout.size
    node = values.new_zeros(len(graph.numbers) * size, dtype=torch.float64)
    node[graph.node_places] = values.double()
    node = spec.layout.couple(node.view(-1, size))
    if scaling is not None:
        mean, std = (t[graph.numbers] for t in (scaling.mean, scaling.std))
        node = (node - mean) / std
        if spec.space == "uncoupled":
            node = spec.layout.uncouple(node)
    return node.reshape(-1)[graph.node_places].to(spec.dtype)
