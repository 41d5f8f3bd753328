"""Batches padded to few shapes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import (
    GraphSpec,
    Shape,
    batch_graphs,
    build_graph,
    collate,
    pair_labels,
)
from hambench.data.loader import Loader, Position
from hambench.data.packed import Form
from hambench.data.padding import bucket, padded
from hambench.losses import label_errors
from hambench.model import Prediction

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 8])


def molecules(sizes: list[int], seed: int = 0) -> list[Molecule]:
    rng = np.random.default_rng(seed)
    found = []
    for row, n in enumerate(sizes):
        numbers = rng.choice([1, 6, 8], n)
        half = rng.normal(size=(BASIS.nao(numbers),) * 2)
        x = rng.normal(size=(n, 3)) * n ** (1 / 3) * 1.2
        found.append(
            Molecule(numbers, x, basis="def2-svp", hamiltonian=half + half.T, energy=-50.0 * n,
                     id=f"m{row}", charge=row % 2)
        )  # fmt: skip
    return found


@pytest.mark.parametrize("energy", [False, True])
@pytest.mark.parametrize("max_edges", [None, 300, 31])
@pytest.mark.parametrize("cutoff", [None, 2.5])
@pytest.mark.parametrize("sizes", [[1], [2], [4, 7, 1], [3, 3, 3, 3], [5, 5, 5, 5, 5, 6]])
def test_padding_comes_last_and_changes_nothing(
    sizes: list[int], cutoff: float | None, max_edges: int | None, energy: bool
) -> None:
    spec = GraphSpec(
        BASIS, cutoff, labels=("energy",) if energy else ("hamiltonian",), reach=2.0, nearest=(3, 2)
    )
    mols = molecules(sizes)
    plain = collate(mols, spec)
    batch = padded([build_graph(m, spec) for m in mols], spec, max_edges)
    assert batch.real == plain.real == Shape(len(sizes), sum(sizes), plain.num_edges)
    assert Shape(len(batch.nao), batch.num_nodes, batch.num_edges) == bucket(
        plain.real, max_edges, spare=True
    )
    for field, value in plain.to_dict().items():
        if isinstance(value, Tensor):
            assert torch.equal(batch[field][tuple(map(slice, value.shape))], value), field
    fillers = batch.batch[batch.edge_index] >= len(sizes)
    for field in ("near_index", "nearest_index"):
        assert fillers[0][batch[field][len(plain[field]) :]].all()
    assert torch.equal(fillers[0], fillers[1])
    assert int(fillers[0].sum()) == batch.num_edges - plain.num_edges
    start, end = batch.positions[batch.edge_index[:, fillers[0]]]
    distance = (start - end).norm(dim=1)
    assert ((distance > 0.2) & (distance < (cutoff or np.inf))).all()
    forth, back = batch.edge_index[:, batch.pair_index[0]], batch.edge_index[:, batch.pair_index[1]]
    assert torch.equal(forth, back.flip(0))
    target = batch.edge_index[1] * batch.num_nodes + batch.edge_index[0]
    assert (target.diff() > 0).all()  # sorted by target, then source; none twice


@pytest.mark.parametrize("sizes", [[1], [4, 7, 1], [5, 5, 5, 5, 5, 6]])
def test_labels_of_padding_do_not_count(sizes: list[int]) -> None:
    spec = GraphSpec(BASIS, 2.5, "uncoupled")
    graphs = [build_graph(m, spec) for m in molecules(sizes)]
    plain, batch = batch_graphs(graphs), padded(graphs, spec, None)
    torch.manual_seed(0)
    node = torch.randn(batch.num_nodes, spec.layout.size, dtype=torch.double, requires_grad=True)
    edge = torch.randn(batch.num_edges, spec.layout.size, dtype=torch.double, requires_grad=True)
    rows = node[: plain.num_nodes], edge[: plain.num_edges]
    expected = label_errors(Prediction(plain, spec, *rows), plain)
    found = label_errors(Prediction(batch, spec, node, edge), batch)
    for one, other in zip(found, expected, strict=True):
        assert int(one.count) == other.count == len(other.values)
        assert int((one.values != 0).sum()) == len(other.values)
        for power in (1, 2):
            slopes = [
                torch.autograd.grad(e.values.abs().pow(power).sum(), (node, edge),
                                    retain_graph=True, materialize_grads=True)
                for e in (one, other)
            ]  # fmt: skip
            assert all(map(torch.equal, *slopes))


def test_predictions_are_those_of_the_molecules() -> None:
    spec, mols = GraphSpec(BASIS, None, "uncoupled"), molecules([4, 7, 3])
    batch = padded([build_graph(m, spec) for m in mols], spec, 200)
    size = spec.layout.size
    node, edge = torch.zeros(batch.num_nodes * size), torch.zeros(batch.num_edges * size)
    places, values = pair_labels(batch)
    node, edge = node.double(), edge.double()
    node[batch.node_places], edge[places] = batch.node_values, values  # repeated ones are the same
    prediction = Prediction(batch, spec, node.view(-1, size), edge.view(-1, size))
    assert len(prediction.matrices()) == 3
    for matrix, molecule in zip(prediction.matrices(), mols, strict=True):
        assert np.array_equal(matrix.numpy(), molecule.hamiltonian)


@pytest.mark.parametrize("shape", [Shape(1, 1, 0), Shape(3, 40, 900), Shape(16, 512, 19_998)])
def test_buckets_hold_their_shape_and_stay(shape: Shape) -> None:
    for max_edges in (None, 20_000, 10):
        found = bucket(shape, max_edges)
        assert all(a >= b for a, b in zip(found, shape, strict=True))
        assert found.edges % 2 == 0
        if max_edges is None:
            assert found.edges <= shape.edges * 1.125 + 2
            assert bucket(found, None) == found


def test_forms_of_an_epoch_are_few() -> None:
    """Of all that a captured step depends on: lists of edges and labels, too."""
    rng = np.random.default_rng(1)
    mols = molecules(rng.integers(5, 25, 200).tolist())

    def forms(pad: bool, reach: float | None) -> list[Form]:
        spec = GraphSpec(BASIS, cutoff=4.0, reach=reach)
        loader = Loader(mols, spec, max_edges=400, seed=3, pad=pad)
        stream = loader.stream()
        found = [next(stream).packed.form for _ in range(4 * len(loader.plan(0)))]
        stream.close()
        return found

    assert len(set(forms(pad=False, reach=None))) > 60
    for reach, most in ((None, 20), (3.0, 45)):
        few = forms(pad=True, reach=reach)
        assert len(set(few)) <= most
        edges = {field.shape for form in few for field in form.fields if field.name == "edge_index"}
        assert len(edges) == 1


def test_a_padded_stream_goes_on_anywhere() -> None:
    mols, spec = molecules([3, 4, 5, 6, 7, 8] * 3), GraphSpec(BASIS, cutoff=4.0)
    loader = Loader(mols, spec, max_edges=90, seed=5, pad=True)
    stream = loader.stream()
    seen = [next(stream) for _ in range(9)]
    stream.close()
    for k in (2, 6):
        other = Loader(mols, spec, max_edges=90, seed=5, pad=True).stream(seen[k].after)
        again = next(other)
        other.close()
        assert again.after == seen[k + 1].after
        assert again.molecules == seen[k + 1].molecules == again.batch.real.molecules
        assert torch.equal(again.batch.positions, seen[k + 1].batch.positions)
    assert seen[0].after == Position(0, 1)
