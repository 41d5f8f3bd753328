"""Batches padded to few shapes, so that what was compiled for one serves the next.

A compiled or captured step holds for one number of molecules, atoms, edges and labels. Batches of
molecules of many sizes have hundreds of these. `bucket` rounds up what a model computes on, and
`padded` fills the difference with molecules; models do not mix molecules, so what they compute of
the others stays as it is. Lists of edges and of pairs with groups repeat their last entry, one of
these molecules'. Labels are repeated as well, and errors at more than there are do not count
(`hambench.data.counts`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from hambench.chem.molecule import Molecule
from hambench.data.graph import (
    LABELS,
    Batch,
    GraphSpec,
    MoleculeGraph,
    Shape,
    batch_graphs,
    build_graph,
    list_edges,
)
from hambench.data.neighbours import adjacent

LISTS = ("near_index", "nearest_index", "group_pairs")
"""Fields of which a batch of one shape can have more and fewer entries."""
_SPACING = 1.5  # Angstrom between neighbours, unless the cutoff is too small for their edges
_NEIGHBOURS = 24  # edges of an atom, so that these are short and atoms need not be close
_EDGE_STEPS, _ATOM_STEPS = 8, 4  # numbers between one and its double; atoms cost little ...
_LABEL_STEPS, _ORBITAL_STEPS = 2, 4  # ... labels less


def padded(graphs: Sequence[MoleculeGraph], spec: GraphSpec, max_edges: int | None) -> Batch:
    """Graphs joined to one batch of the shape of their `bucket`.

    Args:
        graphs: of one or more molecules, built for ``spec``.
        max_edges: of a batch; see `bucket`.

    Returns:
        A batch that begins with the graphs; `MoleculeGraph.real` says where they end.
    """
    real = Shape(len(graphs), sum(g.num_nodes for g in graphs), sum(g.num_edges for g in graphs))
    lists = [field for field in LISTS if field in graphs[0]]
    whole = bucket(real, max_edges, spare=bool(lists))
    batch = batch_graphs([*graphs, *_fillers(real, whole, spec, like=graphs[0])])
    labels = [batch[f].shape[-1] if f in batch else 0 for f in ("node_places", "pair_places")]
    batch.unpadded = torch.tensor([*real, *labels])
    for field in lists:
        count = _stepped(batch[field].shape[-1], _EDGE_STEPS)
        batch[field] = _lengthened(batch[field], count, last=True)
    for field in LABELS:
        if field in batch:
            batch[field] = _lengthened(batch[field], label_bucket(batch[field].shape[-1]))
    if "orbitals" in batch:
        _fill_orbitals(batch, whole.molecules)
    return batch


def bucket(shape: Shape, max_edges: int | None, *, spare: bool = False) -> Shape:
    """The shape that batches of this one are padded to.

    Edges become ``max_edges``, which edge balancing has nearly filled, and two more where they are
    to be spared. Without that limit, or for a single molecule above it, they become the next of 8
    numbers between powers of two, atoms the next of 4, and molecules a power of two.

    Args:
        shape: of a batch.
        max_edges: of a batch, or None.
        spare: whether padding must have edges.
    """
    least_edges = shape.edges + 2 * spare  # edges come in pairs
    most = 0 if max_edges is None else max_edges - max_edges % 2 + 2 * spare
    edges = most if least_edges <= most else _stepped(least_edges, _EDGE_STEPS)
    missing = _fewest_atoms(edges - shape.edges)
    fits = missing == 0 and shape.atoms == _stepped(shape.atoms, _ATOM_STEPS)
    molecules = 1 << (shape.molecules + (not fits) - 1).bit_length()
    added = molecules - shape.molecules
    least = max(missing, 1) + added - 1 if added else 0
    return Shape(molecules, _stepped(shape.atoms + least, _ATOM_STEPS), edges)


def label_bucket(labels: int) -> int:
    """The number that labels are padded to, one of two between powers of two."""
    return _stepped(labels, _LABEL_STEPS)


def _lengthened(values: Tensor, count: int, *, last: bool = False) -> Tensor:
    """So many values (..., count) for (..., n), of which there are at least half.

    More of them are the first ones, which spreads what is added up at their places, or the last.
    """
    missing = count - values.shape[-1]
    repeated = values[..., -1:].expand(*values.shape[:-1], missing) if last else values
    return torch.cat([values, repeated[..., :missing]], -1)


def _fill_orbitals(batch: Batch, molecules: int) -> None:
    """Give molecules of padding no orbitals, and all of them few sizes."""
    sets = batch.orbital_sets
    more, wider = molecules - len(sets), _stepped(sets.shape[1], _ORBITAL_STEPS) - sets.shape[1]
    batch.orbitals = functional.pad(batch.orbitals, (0, wider, 0, wider, 0, more))
    batch.orbital_sets = functional.pad(sets, (0, wider, 0, more), value=-1)
    batch.low_sets = functional.pad(batch.low_sets, (0, more))


def _stepped(number: int, steps: int) -> int:
    """The next of ``steps`` even numbers between one power of two and the next."""
    step = max(2 ** (number.bit_length() - 1) // steps, 2)
    return -(-number // step) * step


def _fewest_atoms(edges: int) -> int:
    """Atoms for an even number of directed edges; 0 for none."""
    complete = (1 + isqrt(4 * edges - 3)) // 2 + 1 if edges else 0  # n (n - 1) >= edges
    return max(complete, -(-edges // _NEIGHBOURS))


def _fillers(
    real: Shape, whole: Shape, spec: GraphSpec, like: MoleculeGraph
) -> list[MoleculeGraph]:
    """Molecules of the first element that make up the difference: one large, the others atoms."""
    molecules = whole.molecules - real.molecules
    if not molecules:
        return []
    atoms = whole.atoms - real.atoms - (molecules - 1)
    large = _filler(atoms, whole.edges - real.edges, spec, like)
    single = _filler(1, 0, spec, like)
    return [large] + [single] * (molecules - 1)


def _filler(atoms: int, edges: int, spec: GraphSpec, like: MoleculeGraph) -> MoleculeGraph:
    """Atoms on a grid with so many edges, and as many kinds of labels as ``like``, but no label."""
    side = next(n for n in range(1, atoms + 1) if n**3 >= atoms)
    places = np.indices((side, side, side)).reshape(3, -1).T[:atoms].astype(np.float64)
    near, longest = _nearest(places, edges)
    spacing = _SPACING
    if spec.cutoff is not None and edges:
        spacing = min(spacing, 0.9 * spec.cutoff / longest)
    reaches = [spec.reach, None if spec.nearest is None else spec.nearest[0]]
    spacing = min([spacing, *(0.9 * reach for reach in reaches if reach is not None)])
    numbers = np.full(atoms, min(spec.basis.elements))
    alone = replace(spec, cutoff=spacing / 2, guess=None, groups=None, lone=())
    graph = build_graph(Molecule(numbers, spacing * places), alone)
    graph.edge_index, graph.pair_index = map(torch.from_numpy, adjacent(near))
    list_edges(graph, spacing * places, spec)
    if spec.groups is not None:  # one group, seen by all: few pairs
        graph.group_index = torch.zeros(atoms, dtype=torch.long)
        graph.group_pairs = torch.stack([torch.arange(atoms), graph.group_index])
    for field in (*LABELS, "guess"):
        if field in like:
            graph[field] = like[field][..., :0]
    if "energies" in like:
        graph.energies = torch.zeros_like(like.energies)
    if "embeddings" in like:
        graph.embeddings = like.embeddings.new_zeros(atoms, *like.embeddings.shape[1:])
    return graph


def _nearest(places: NDArray[np.float64], edges: int) -> tuple[NDArray[np.bool_], float]:
    """(N, N) adjacency of the closest pairs, ``edges`` directed edges, and the longest of them."""
    first, second = np.triu_indices(len(places), 1)
    distance = np.linalg.norm(places[first] - places[second], axis=1)
    chosen = np.argsort(distance, kind="stable")[: edges // 2]
    near = np.zeros((len(places), len(places)), dtype=bool)
    near[first[chosen], second[chosen]] = near[second[chosen], first[chosen]] = True
    return near, float(distance[chosen].max(initial=0))
