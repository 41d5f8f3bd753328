"""Graphs and batches: edges, packed labels, collation, float32 labels, bad molecules."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import GraphSpec, batch_graphs, build_graph, collate, pair_labels
from hambench.data.matrices import matrix_map
from hambench.data.neighbours import neighbour_pairs
from hambench.errors import ConfigError, DataError

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])


def molecule(rng: np.random.Generator, numbers: list[int], name: str = "m") -> Molecule:
    nao = BASIS.nao(numbers)
    matrix = rng.normal(size=(nao, nao))
    positions = rng.normal(size=(len(numbers), 3)) * 2
    return Molecule(
        np.array(numbers), positions, basis="def2-svp", id=name, hamiltonian=matrix + matrix.T
    )


def test_edges_against_a_double_loop(rng: np.random.Generator) -> None:
    positions = rng.normal(size=(9, 3))
    edges, pairs = neighbour_pairs(positions, 1.7)
    expected = [
        (i, j)
        for j in range(9)
        for i in range(9)
        if i != j and np.linalg.norm(positions[i] - positions[j]) < 1.7
    ]
    assert list(map(tuple, edges.T)) == expected
    assert 0 < len(expected) < 72
    assert (edges[:, pairs[0]] == edges[::-1, pairs[1]]).all()
    assert sorted(pairs.ravel()) == list(range(len(expected)))
    assert neighbour_pairs(positions, None)[0].shape == (2, 72)


def test_a_batch_is_its_molecules_side_by_side(rng: np.random.Generator) -> None:
    mols = [molecule(rng, [8, 1, 1], "a"), molecule(rng, [6]), molecule(rng, [7, 9, 6, 1], "c")]
    spec = GraphSpec(BASIS, cutoff=4.0)
    batch = collate(mols, spec)
    assert batch.batch.tolist() == [0, 0, 0, 1, 2, 2, 2, 2]
    assert batch.nao.tolist() == [BASIS.nao(m.numbers) for m in mols]
    flat = torch.zeros(int(batch.nao.square().sum()), dtype=torch.float64)
    uncoupled = collate(mols, dataclasses.replace(spec, space="uncoupled"))
    where = matrix_map(uncoupled, spec.layout)
    flat[where.node_matrix] = uncoupled.node_values
    edge = torch.zeros(uncoupled.num_edges * spec.layout.size, dtype=torch.float64)
    places, values = pair_labels(uncoupled)
    edge[places] = values
    flat[where.edge_matrix] = edge[where.edge_places]
    for part, m in zip(flat.split(batch.nao.square().tolist()), mols, strict=True):
        inside = np.isin(m.hamiltonian.ravel(), part.numpy()) | (part.numpy() == 0)
        assert inside.all()
        assert np.array_equal(part.view(m.hamiltonian.shape).diagonal(), np.diag(m.hamiltonian))
    assert (
        batch.edge_index[:, batch.pair_index[0]] == batch.edge_index.flip(0)[:, batch.pair_index[1]]
    ).all()
    again = batch_graphs([build_graph(m, spec) for m in mols])
    assert all(
        torch.equal(batch[k], again[k]) for k in ("pair_places", "node_values", "edge_index")
    )


def test_large_molecules_are_coupled_in_pieces(rng: np.random.Generator, monkeypatch) -> None:
    import hambench.chem.packing as packing

    mol, spec = molecule(rng, [8, 6, 7, 1, 1, 9]), GraphSpec(BASIS)
    whole = build_graph(mol, spec).pair_values
    monkeypatch.setattr(packing, "_PRODUCTS", 7)
    torch.testing.assert_close(build_graph(mol, spec).pair_values, whole, rtol=0, atol=1e-13)


def test_molecules_without_labels(rng: np.random.Generator) -> None:
    bare = Molecule(np.array([8, 1]), rng.normal(size=(2, 3)))
    batch = collate([bare], GraphSpec(BASIS, dtype=torch.float32))
    assert "node_values" not in batch
    assert batch.positions.dtype == torch.float32


def test_what_makes_no_batch_is_named(rng: np.random.Generator) -> None:
    spec, labelled = GraphSpec(BASIS), molecule(rng, [8, 1])
    bare = dataclasses.replace(labelled, hamiltonian=None)
    for given in ([], labelled):
        with pytest.raises(ConfigError, match="collate takes a list of molecules"):
            collate(given, spec)
    with pytest.raises(DataError, match="only 1 of 2 molecules of a batch have a Hamiltonian"):
        collate([labelled, bare], spec)
    energies = dataclasses.replace(spec, labels=("energy",))
    with pytest.raises(DataError, match="only 1 of 2 molecules of a batch have an energy"):
        collate([dataclasses.replace(labelled, energy=-1.0), labelled], energies)


@pytest.mark.parametrize("given", [None, "abc", [], [1]])
def test_what_is_no_list_of_molecules_is_named(given: object) -> None:
    with pytest.raises(ConfigError, match="collate takes a list of molecules"):
        collate(given, GraphSpec(OrbitalBasis.load("def2-svp", [1])))


def test_a_spec_is_a_graph_spec() -> None:
    molecule = Molecule([1, 1], [[0, 0, 0], [0, 0, 0.7]])
    with pytest.raises(ConfigError, match=r"spec is a str, expected a GraphSpec: model\.graph"):
        collate([molecule], "helm")
    assert collate(iter([molecule]), GraphSpec(OrbitalBasis.load("def2-svp", [1]))) is not None


def test_bad_molecules_are_named(rng: np.random.Generator) -> None:
    spec, good = GraphSpec(BASIS), molecule(rng, [8, 1], "row 7")
    bad = {
        "holds NaN": {"hamiltonian": np.full_like(good.hamiltonian, np.nan)},
        "not symmetric": {"hamiltonian": good.hamiltonian + np.eye(19)[::-1] * np.arange(19)},
        r"shape \(5, 5\), expected \(19, 19\)": {"hamiltonian": np.eye(5)},
        "are 0.0e\\+00 Angstrom apart": {"positions": np.zeros((2, 3))},
        "has matrices in 6-31g": {"basis": "6-31g"},
    }
    for message, change in bad.items():
        with pytest.raises(DataError, match=message) as error:
            build_graph(dataclasses.replace(good, **change), spec)
        assert "row 7" in str(error.value)
    with pytest.raises(ConfigError, match="no orbitals for S"):
        build_graph(dataclasses.replace(good, numbers=np.array([16, 1])), spec)
    with pytest.raises(DataError, match="atomic numbers must be 1 to 86"):
        dataclasses.replace(good, numbers=np.array([0, 1]))


def test_overlaps_stand_where_hamiltonians_do(rng: np.random.Generator) -> None:
    one = molecule(rng, [8, 1, 6])
    swapped = dataclasses.replace(one, hamiltonian=2 * one.hamiltonian, overlap=one.hamiltonian)
    for space in ("coupled", "uncoupled"):
        spec = GraphSpec(BASIS, labels=("hamiltonian", "overlap"), space=space)
        batch = collate([swapped, swapped], spec)
        assert torch.allclose(batch.node_values, 2 * batch.overlap_node_values, atol=1e-12)
        assert torch.allclose(batch.pair_values, 2 * batch.overlap_pair_values, atol=1e-12)
        assert "overlap_node_values" not in collate([swapped], GraphSpec(BASIS, space=space))
    with pytest.raises(DataError, match="only 1 of 2 molecules of a batch have an overlap"):
        collate([swapped, one], spec)


def test_edges_within_reach(rng: np.random.Generator) -> None:
    mols = [molecule(rng, [8, 1, 1, 6]), molecule(rng, [7]), molecule(rng, [7, 9, 6, 1])]
    batch = collate(mols, GraphSpec(BASIS, reach=2.5))
    i, j = batch.edge_index
    near = (batch.positions[i] - batch.positions[j]).norm(dim=-1) < 2.5
    assert batch.near_index.tolist() == near.nonzero()[:, 0].tolist()
    assert 0 < near.sum() < len(near)
    assert "near_index" not in collate(mols, GraphSpec(BASIS))
