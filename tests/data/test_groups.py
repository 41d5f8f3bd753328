"""Groups of atoms, and lists of the shortest edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import GraphSpec, build_graph, collate
from hambench.data.groups import Grouping, group_labels, group_pairs
from hambench.data.padding import padded

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 8])


def partition(labels: np.ndarray, order: np.ndarray | None = None) -> set[frozenset[int]]:
    """The groups as sets of atoms, which ``order`` renames."""
    names = np.arange(len(labels)) if order is None else order
    return {frozenset(names[labels == k].tolist()) for k in np.unique(labels)}


def molecule(n: int, seed: int = 0) -> Molecule:
    rng = np.random.default_rng(seed)
    return Molecule(rng.choice([1, 6, 8], n), rng.normal(size=(n, 3)) * 2.5)


def test_hydrogens_join_the_nearest_heavy_atom() -> None:
    numbers = np.array([1, 8, 1, 6, 1, 1])
    x = np.array([0.9, 0.0, -0.9, 5.0, 2.5, 5.8])[:, None] * [1, 0, 0]
    labels = group_labels(numbers, x, Grouping())
    assert partition(labels) == {frozenset(g) for g in ([0, 1, 2], [3, 5], [4])}
    alone = group_labels(np.array([1, 1]), x[:2], Grouping())
    assert partition(alone) == {frozenset([0]), frozenset([1])}


def test_heavy_groups_turn_and_reorder_with_the_molecule(rng: np.random.Generator) -> None:
    mol = molecule(20)
    order = rng.permutation(20)
    turn = Rotation.random(rng=1).as_matrix()
    before = group_labels(mol.numbers, mol.positions, Grouping())
    after = group_labels(mol.numbers[order], (mol.positions @ turn.T + 3.0)[order], Grouping())
    assert partition(before) == partition(after, order)


@pytest.mark.parametrize(("n", "groups"), [(1, 1), (3, 3), (5, 1), (9, 2), (23, 5)])
def test_kmeans(n: int, groups: int) -> None:
    mol = molecule(n)
    labels = group_labels(mol.numbers, mol.positions, Grouping("kmeans"))
    assert len(np.unique(labels)) == groups
    assert labels.max() < n
    assert np.array_equal(labels, group_labels(mol.numbers, mol.positions, Grouping("kmeans")))
    if n > 4:  # every atom is in the group of the nearest mean
        means = np.stack([mol.positions[labels == k].mean(0) for k in np.unique(labels)])
        nearest = np.linalg.norm(mol.positions[:, None] - means, axis=-1).argmin(1)
        assert np.array_equal(np.unique(labels)[nearest], labels)


def test_pairs_of_atoms_and_groups() -> None:
    mol = molecule(12)
    labels = group_labels(mol.numbers, mol.positions, Grouping())
    expected = []
    for atom in range(12):
        for group in np.unique(labels):
            here = labels == group
            centre = np.average(mol.positions[here], axis=0, weights=mol.numbers[here])
            if np.linalg.norm(mol.positions[atom] - centre) < 4.0:
                expected.append([atom, group])
    found = group_pairs(mol.numbers, mol.positions, labels, 4.0)
    assert found.T.tolist() == expected


def test_shortest_edges_of_each_atom() -> None:
    spec = GraphSpec(BASIS, nearest=(6.0, 5))
    mol = molecule(20)
    graph = build_graph(mol, spec)
    first, second = graph.edge_index[:, graph.nearest_index].numpy()
    distance = np.linalg.norm(mol.positions[:, None] - mol.positions[None], axis=-1)
    for atom in range(20):
        order = [a for a in distance[atom].argsort() if a != atom and distance[atom, a] < 6.0]
        assert set(first[second == atom]) == set(order[:5])
    everything = build_graph(mol, GraphSpec(BASIS, nearest=(100.0, 19)))
    assert torch.equal(everything.nearest_index, torch.arange(380))


def test_batches_and_padding() -> None:
    spec = GraphSpec(BASIS, reach=3.0, nearest=(5.0, 4), groups=Grouping())
    mols = [molecule(7), molecule(1, 1), molecule(10, 2)]
    graphs = [build_graph(m, spec) for m in mols]
    batch = collate(mols, spec)
    filled = padded(graphs, spec, None)
    atoms = edges = 0
    for field in ("nearest_index", "group_index", "group_pairs"):
        assert torch.equal(filled[field][..., : batch[field].shape[-1]], batch[field])
    for graph in graphs:
        inside = (batch.group_pairs[0] >= atoms) & (batch.group_pairs[0] < atoms + graph.num_nodes)
        assert torch.equal(batch.group_pairs[:, inside] - atoms, graph.group_pairs)
        here = batch.group_index[atoms : atoms + graph.num_nodes]
        assert torch.equal(here - atoms, graph.group_index)
        inside = (batch.nearest_index >= edges) & (batch.nearest_index < edges + graph.num_edges)
        assert torch.equal(batch.nearest_index[inside] - edges, graph.nearest_index)
        atoms, edges = atoms + graph.num_nodes, edges + graph.num_edges
    more = filled.group_index[batch.num_nodes :]
    assert torch.equal(filled.batch[more], filled.batch[batch.num_nodes :])
