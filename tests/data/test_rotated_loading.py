"""Batches of molecules turned at random: by seed, epoch and row, whoever builds them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import turned
from hambench.data.conventions import Conventions
from hambench.data.graph import Batch, GraphSpec, build_graph
from hambench.data.loader import Loader, Position
from hambench.data.rows import Rows
from hambench.registry import load_task
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians

FIXTURES = Path(__file__).parent.parent / "fixtures"
LABELS = ("node_values", "pair_values", "overlap_node_values", "overlap_pair_values")


@pytest.fixture(scope="module")
def rows() -> Rows:
    return Nabla2dftHamiltonians(
        FIXTURES / "nabla_mini.db", conventions=Conventions("bohr", "psi4")
    )


def spec(basis: OrbitalBasis, *labels: str) -> GraphSpec:
    return GraphSpec(basis, space="uncoupled", rotate=True, labels=("hamiltonian", *labels))


def loader(rows: Rows, *labels: str, **options: object) -> Loader:
    settings = {"batch_size": 1, "seed": 3, "rotate": True, **options}
    return Loader(rows, spec(rows.basis, *labels), **settings)


def epochs(data: Loader, count: int) -> list[dict[int, Batch]]:
    """Batches of one molecule, by row, epoch after epoch."""
    found: list[dict[int, Batch]] = []
    with closing(data.stream()) as stream:
        for epoch in range(count):
            found.append({})
            for (row,), loaded in zip(data.plan(epoch), stream, strict=False):
                found[-1][row] = loaded.batch
                if len(found[-1]) == len(data.molecules):
                    break
    return found


def same(one: Iterator, other: Iterator) -> int:
    pairs = list(zip(one, other, strict=True))
    for a, b in pairs:
        left, right = a.batch.to_dict(), b.batch.to_dict()
        assert left.keys() == right.keys()
        assert all(torch.equal(v, right[k]) for k, v in left.items() if torch.is_tensor(v))
    return len(pairs)


@pytest.mark.parametrize("labels", [(), ("overlap",)], ids=["H", "H and S"])
def test_labels_are_those_of_the_turned_molecules(rows: Rows, labels: tuple[str, ...]) -> None:
    """The rotation is found from the positions."""
    first, second = epochs(loader(rows, *labels), 2)
    for row, molecule in enumerate(rows):
        turns = []
        for batch in (first[row], second[row]):
            turn = np.linalg.lstsq(molecule.positions, batch.positions.numpy(), rcond=None)[0].T
            assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-10)
            assert np.linalg.det(turn) > 0
            expected = build_graph(turned(molecule, rows.basis, turn), spec(rows.basis, *labels))
            for field in LABELS[: 2 + 2 * len(labels)]:
                # entries of a file's order and of the canonical one stand in other places
                assert (batch[field] - expected[field]).abs().max() < 1e-9
            turns.append(turn)
        assert np.abs(turns[0] - turns[1]).max() > 0.1


def test_the_same_seed_and_epoch_give_the_same_turns(rows: Rows) -> None:
    assert same(islice(loader(rows).stream(), 9), islice(loader(rows).stream(), 9)) == 9
    one, other = (epochs(loader(rows, seed=seed), 1)[0] for seed in (3, 4))
    for row in one:
        assert (one[row].positions - other[row].positions).abs().max() > 0.1


def test_a_stream_that_begins_anywhere_has_the_turns_it_would_have_had(rows: Rows) -> None:
    whole = list(islice(loader(rows).stream(), 10))
    for start in (0, 2, 3, 6):
        assert same(islice(loader(rows).stream(whole[start].after), 9 - start), whole[start + 1 :])
    assert whole[3].after == Position(1, 0)


def test_processes_turn_as_the_thread_does(rows: Rows) -> None:
    expected = list(islice(loader(rows).stream(), 6))
    with closing(loader(rows, workers=2).stream()) as stream:
        assert same(islice(stream, 6), expected) == 6


def test_molecules_stand_as_they_are_unless_asked(rows: Rows) -> None:
    plain = Loader(rows, spec(rows.basis), batch_size=1, shuffle=False)
    for molecule, loaded in zip(rows, plain.once(), strict=True):
        assert np.array_equal(loaded.batch.positions.numpy(), molecule.positions)


def test_turned_graphs_are_not_kept() -> None:
    task = load_task("water_mini")
    part = task.split("train")[:4]
    data = Loader(part, spec(task.basis), batch_size=4, rotate=True)
    data_plain = Loader(part, spec(task.basis), batch_size=4)
    for one, kept in ((data, 0), (data_plain, 4)):
        list(one.once())
        assert len(one._assembler._graphs) == kept
