"""Batches padded to few shapes, so that what was compiled for one serves the next.

A compiled or captured graph holds for one number of molecules, atoms and edges. Batches of
molecules of many sizes have hundreds of these; `bucket` rounds them up to a few, and `padded`
fills the difference with molecules that have no labels. Models do not mix molecules, so what they
compute of the others stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt, sqrt

import numpy as np
import torch
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.data.graph import (
    LABELS,
    Batch,
    GraphSpec,
    MoleculeGraph,
    Shape,
    adjacent,
    batch_graphs,
    build_graph,
)

_SPACING = 1.5  # Angstrom between neighbours, unless the cutoff is too small for it
_EDGE_STEPS, _ATOM_STEPS = 8, 4  # numbers between one and its double; atoms cost little


def padded(graphs: Sequence[MoleculeGraph], spec: GraphSpec, max_edges: int | None) -> Batch:
    """Graphs joined to one batch of the shape of their `bucket`.

    Args:
        graphs: of one or more molecules, built for ``spec``.
        max_edges: of a batch; see `bucket`.

    Returns:
        A batch that begins with the graphs; `MoleculeGraph.real` says where they end.
    """
    real = Shape(len(graphs), sum(g.num_nodes for g in graphs), sum(g.num_edges for g in graphs))
    fillers = _fillers(real, bucket(real, max_edges), spec, like=graphs[0])
    batch = batch_graphs([*graphs, *fillers])
    batch.unpadded = real
    return batch


def bucket(shape: Shape, max_edges: int | None) -> Shape:
    """The shape that batches of this one are padded to.

    Edges become ``max_edges``, which edge balancing has nearly filled. Without that limit, or for
    a single molecule above it, they become the next of 8 numbers between powers of two, atoms the
    next of 4, and molecules a power of two.
    """
    most = 0 if max_edges is None else max_edges - max_edges % 2  # edges come in pairs
    edges = most if shape.edges <= most else _stepped(shape.edges, _EDGE_STEPS)
    missing = _fewest_atoms(edges - shape.edges)
    fits = missing == 0 and shape.atoms == _stepped(shape.atoms, _ATOM_STEPS)
    molecules = 1 << (shape.molecules + (not fits) - 1).bit_length()
    added = molecules - shape.molecules
    least = max(missing, 1) + added - 1 if added else 0
    return Shape(molecules, _stepped(shape.atoms + least, _ATOM_STEPS), edges)


def _stepped(number: int, steps: int) -> int:
    """The next of ``steps`` even numbers between one power of two and the next."""
    step = max(2 ** (number.bit_length() - 1) // steps, 2)
    return -(-number // step) * step


def _fewest_atoms(edges: int) -> int:
    """The smallest n with n (n - 1) >= edges, an even number; 0 for none."""
    return (1 + isqrt(4 * edges - 3)) // 2 + 1 if edges else 0


def _fillers(
    real: Shape, whole: Shape, spec: GraphSpec, like: MoleculeGraph
) -> list[MoleculeGraph]:
    """Molecules of the first element that make up the difference: one large, the others atoms."""
    molecules = whole.molecules - real.molecules
    if not molecules:
        return []
    atoms = whole.atoms - real.atoms - (molecules - 1)
    positions = _positions(atoms, spec.cutoff)
    edges, pairs = _edges(positions, whole.edges - real.edges)
    large = _filler(positions, edges, pairs, spec, like)
    nothing = np.empty((2, 0), dtype=np.int64)
    single = _filler(positions[:1], nothing, nothing, spec, like)
    return [large] + [single] * (molecules - 1)


def _positions(atoms: int, cutoff: float | None) -> NDArray[np.float64]:
    """(atoms, 3) Angstrom on a grid, all closer to each other than the cutoff."""
    side = next(n for n in range(1, atoms + 1) if n**3 >= atoms)
    diagonal = sqrt(3) * (side - 1)
    spacing = _SPACING
    if cutoff is not None and diagonal:
        spacing = min(spacing, 0.9 * cutoff / diagonal)
    return spacing * np.indices((side, side, side)).reshape(3, -1).T[:atoms].astype(np.float64)


def _edges(
    positions: NDArray[np.float64], count: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``count`` directed edges between the closest atoms and their pairs, as `neighbour_pairs`."""
    first, second = np.triu_indices(len(positions), 1)
    distance = np.linalg.norm(positions[first] - positions[second], axis=1)
    chosen = np.argsort(distance, kind="stable")[: count // 2]
    near = np.zeros((len(positions), len(positions)), dtype=bool)
    near[first[chosen], second[chosen]] = near[second[chosen], first[chosen]] = True
    return adjacent(near)


def _filler(
    positions: NDArray[np.float64],
    edges: NDArray[np.int64],
    pairs: NDArray[np.int64],
    spec: GraphSpec,
    like: MoleculeGraph,
) -> MoleculeGraph:
    """A molecule with these edges and as many kinds of labels as ``like``, but no label."""
    numbers = np.full(len(positions), min(spec.basis.elements))
    graph = build_graph(Molecule(numbers, positions), replace(spec, cutoff=1e-3))
    graph.edge_index, graph.pair_index = torch.from_numpy(edges), torch.from_numpy(pairs)
    for field in LABELS:
        if field in like:
            graph[field] = like[field][..., :0]
    if "energies" in like:
        graph.energies = torch.zeros_like(like.energies)
    return graph
