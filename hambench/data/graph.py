"""Graphs and batches: many molecules as one torch_geometric graph, labels packed.

Edges are ordered atom pairs (i, j) within the cutoff, both directions, sorted by j then i; row
``edge_index[0] = i`` is the row atom of the pair's block, ``edge_index[1] = j`` its column atom,
where messages arrive. Labels hold the real entries alone (`chem.blocks`), in the form and scaling
that the model asks for by its `GraphSpec`.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch_geometric.data import Batch as GraphBatch
from torch_geometric.data import Data

from hambench.chem.blocks import BlockLayout, layout
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.stored import StoredMatrix
from hambench.errors import ConfigError, DataError

_MAPS = ["node_places", "edge_places", "node_matrix", "edge_matrix"]

Space = Literal["coupled", "uncoupled"]
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
        energy: whether batches carry total energies.
        largest_charge, largest_multiplicity: of a molecule the model can take; None: any.
    """

    basis: OrbitalBasis
    cutoff: float | None = None
    space: Space = "coupled"
    dtype: torch.dtype = torch.float64
    normalisation: Normalisation | None = None
    energy: bool = False
    largest_charge: int | None = None
    largest_multiplicity: int | None = None

    @property
    def layout(self) -> BlockLayout:
        """Places of the block vectors of this basis."""
        return layout(self.basis)


class MoleculeGraph(Data):
    """One molecule, or by collation many, as the models see it.

    Attributes:
        numbers (N,), positions (N, 3) Angstrom, charge (B,), multiplicity (B,), nao (B,);
        edge_index (2, E); pair_index (2, E/2): each pair's edge (i, j), i < j, and its reverse;
        node_places, edge_places: real entries in the flat (N, K^2) and (E, K^2) vectors;
        node_matrix, edge_matrix: their places in the flat matrices, joined over molecules;
        node_values, edge_values: the labels at those places (absent without a Hamiltonian);
        energies (B,): total energies in Eh, float64 (where the spec asks for them);
        batch (N,): molecule of each atom (after collation).
    """

    def __inc__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """What collation adds to an index when it appends this molecule."""
        match key:
            case "edge_index":
                return self.num_nodes
            case "pair_index":
                return self.edge_index.shape[1]
            case "node_places":
                return self.num_nodes * int(self.block_size)
            case "edge_places":
                return self.edge_index.shape[1] * int(self.block_size)
            case "node_matrix" | "edge_matrix":
                return int(self.nao) ** 2
        return 0

    def __cat_dim__(self, key: str, value: Any, *args: Any, **kwargs: Any) -> Any:
        """Axis along which collation joins a field."""
        return 1 if key in ("edge_index", "pair_index") else 0


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
            what the model takes.
        DataError: labels unfit for training (`Molecule.checked`), or in another basis.
    """
    if molecule.basis is not None and molecule.basis != spec.basis.name:
        raise DataError(
            f"molecule '{molecule.id}' has matrices in {molecule.basis}, the model was built for "
            f"{spec.basis.name}; choose data or a model of the same basis"
        )
    molecule = molecule.checked(spec.basis.nao(molecule.numbers))
    for name, value, largest in (
        ("charge", abs(molecule.charge), spec.largest_charge),
        ("multiplicity", molecule.multiplicity, spec.largest_multiplicity),
    ):
        if largest is not None and value > largest:
            raise ConfigError(
                f"molecule '{molecule.id}' has a {name} of {getattr(molecule, name)}, the model "
                f"takes at most {largest} in size; leave it out, or use a model that ignores it"
            )
    edges, pairs = neighbour_pairs(molecule.positions, spec.cutoff)
    where = spec.layout.block_map(molecule.numbers, edges)
    graph = MoleculeGraph(
        numbers=torch.from_numpy(molecule.numbers),
        positions=torch.from_numpy(molecule.positions).to(spec.dtype),
        charge=torch.tensor([molecule.charge]),
        multiplicity=torch.tensor([molecule.multiplicity]),
        nao=torch.tensor([where.nao]),
        edge_index=torch.from_numpy(edges),
        pair_index=torch.from_numpy(pairs),
        node_places=where.node_places,
        edge_places=where.edge_places,
        node_matrix=where.node_matrix,
        edge_matrix=where.edge_matrix,
        block_size=spec.layout.size,
        num_nodes=len(molecule),
    )
    if hamiltonian is None and molecule.hamiltonian is not None:
        flat = molecule.hamiltonian.reshape(-1)
        hamiltonian = StoredMatrix(flat, molecule.numbers, spec.basis, "canonical")
    if hamiltonian is not None:
        graph.node_values, graph.edge_values = _labels(hamiltonian, spec, graph)
    if spec.energy and molecule.energy is not None:
        graph.energies = torch.tensor([molecule.energy], dtype=torch.float64)
    return graph


def batch_graphs(graphs: Sequence[MoleculeGraph]) -> Batch:
    """Graphs joined to one batch (torch_geometric).

    Raises:
        DataError: some have a label that others lack.
    """
    for field, label in (("node_values", "a Hamiltonian"), ("energies", "an energy")):
        having = sum(field in graph for graph in graphs)
        if having not in (0, len(graphs)):
            raise DataError(
                f"only {having} of {len(graphs)} molecules of a batch have {label}; put molecules "
                "with and without it into batches of their own"
            )
    batch = GraphBatch.from_data_list(list(graphs), exclude_keys=_MAPS)
    for field in _MAPS:  # the bulk of a batch: joined without a second copy
        batch[field] = _joined(graphs, field)
    return batch


def _joined(graphs: Sequence[MoleculeGraph], field: str) -> Tensor:
    """An index map of many graphs, each moved behind those before it."""
    out = torch.empty(sum(len(graph[field]) for graph in graphs), dtype=torch.long)
    start = moved = 0
    for graph in graphs:
        part = graph[field]
        torch.add(part, moved, out=out[start : start + len(part)])
        start += len(part)
        moved += graph.__inc__(field, part)
    return out


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


def neighbour_pairs(
    positions: NDArray[np.float64], cutoff: float | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges (2, E) of atoms closer than ``cutoff`` Angstrom, and their reverse pairs (2, E/2).

    Args:
        positions: (N, 3) Angstrom.
        cutoff: None connects all atoms.
    """
    n = len(positions)
    near = neighbours(positions, cutoff)
    return _complete(n) if near.sum() == n * (n - 1) else _edges(near)


def neighbours(positions: NDArray[np.float64], cutoff: float | None) -> NDArray[np.bool_]:
    """(N, N) whether two different atoms are closer than ``cutoff`` Angstrom; None: all are."""
    if cutoff is None:
        return ~np.eye(len(positions), dtype=bool)
    difference = positions[:, None] - positions[None]
    near: NDArray[np.bool_] = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference)) < cutoff
    np.fill_diagonal(near, False)
    return near


@lru_cache(maxsize=256)
def _complete(n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return _edges(~np.eye(n, dtype=bool))


def _edges(near: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of a symmetric (N, N) adjacency, sorted by target then source, and pair indices."""
    target, source = np.nonzero(near)
    number = np.zeros(near.shape, dtype=np.int64)
    number[source, target] = np.arange(len(source))
    up = source < target
    pairs = np.stack([number[source[up], target[up]], number[target[up], source[up]]])
    return np.stack([source, target]), pairs


def _labels(
    hamiltonian: StoredMatrix, spec: GraphSpec, graph: MoleculeGraph
) -> tuple[Tensor, Tensor]:
    """Packed on-site and pair labels in the model's form.

    What is computed is computed in float64; entries that are only moved keep their precision.
    """
    where = spec.layout.stored_map(
        hamiltonian.numbers, graph.edge_index.numpy(), hamiltonian.order, hamiltonian.packed
    )
    table = torch.from_numpy(hamiltonian.tabled(where.signed))
    node_values, edge_values = (table.index_select(0, p) for p in (where.node, where.edge))
    if spec.space == "coupled" or spec.normalisation is not None:
        node_values = _on_site(node_values.double(), spec, graph)
    if spec.space == "coupled":
        edges = graph.edge_index.numpy()
        edge_values = spec.layout.couple_entries(
            edge_values, hamiltonian.numbers, edges, spec.dtype
        )
    return node_values.to(spec.dtype), edge_values.to(spec.dtype)


def _on_site(values: Tensor, spec: GraphSpec, graph: MoleculeGraph) -> Tensor:
    """On-site labels in the model's form and scaling."""
    size = spec.layout.size
    node = values.new_zeros(len(graph.numbers) * size)
    node[graph.node_places] = values
    node = spec.layout.couple(node.view(-1, size))
    if spec.normalisation is not None:
        mean, std = (t[graph.numbers] for t in (spec.normalisation.mean, spec.normalisation.std))
        node = (node - mean) / std
        if spec.space == "uncoupled":
            node = spec.layout.uncouple(node)
    return node.reshape(-1)[graph.node_places]
