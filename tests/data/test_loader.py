"""The loader: order by seed and epoch, resumable, balanced, cached."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data import edges as edges_module
from hambench.data import sidecar
from hambench.data.conventions import Conventions
from hambench.data.edges import count_edges
from hambench.data.graph import GraphSpec, build_graph
from hambench.data.loader import Loader, Position, balanced
from hambench.errors import ConfigError, DataError, RunError
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.omol_csh_file import OmolCshFile

FIXTURES = Path(__file__).parent.parent / "fixtures"
BASIS = OrbitalBasis.load("def2-svp", [1, 8])


class Rows:
    """A lazy sequence of chains of hydrogen that counts its reads."""

    def __init__(self, sizes, labels=True):
        self.sizes, self.labels, self.reads = sizes, labels, []

    def __len__(self):
        return len(self.sizes)

    def __getitem__(self, row):
        self.reads.append(row)
        n = self.sizes[row]
        numbers = np.ones(n, dtype=int)
        h = np.full((BASIS.nao(numbers),) * 2, float(row))
        positions = np.arange(3 * n, dtype=float).reshape(n, 3)
        return Molecule(
            numbers,
            positions,
            charge=row,
            basis="def2-svp" if self.labels else None,
            hamiltonian=h if self.labels else None,
            id=f"row{row}",
        )


def order(stream, count):
    return [loaded.batch.charge.tolist() for loaded in islice(stream, count)]


def loader(rows, **options):
    return Loader(rows, GraphSpec(BASIS), **{"batch_size": 3, "seed": 5, **options})


def test_every_epoch_is_a_permutation_of_its_own():
    data = loader(Rows([2] * 10))
    epochs = [data.plan(k) for k in range(3)]
    for plan in epochs:
        assert [len(batch) for batch in plan] == [3, 3, 3, 1]
        assert sorted(chain(*plan)) == list(range(10))
    assert epochs[0] != epochs[1] != epochs[2]
    assert loader(Rows([2] * 10)).plan(1) == epochs[1]
    assert loader(Rows([2] * 10), seed=6).plan(1) != epochs[1]
    assert list(chain(*loader(Rows([2] * 10), shuffle=False).plan(1))) == list(range(10))


def test_a_stream_can_begin_anywhere():
    whole = list(islice(loader(Rows([2] * 10)).stream(), 11))
    rows = [item.batch.charge.tolist() for item in whole]
    assert rows == list(chain(*(loader(Rows([2] * 10)).plan(k) for k in range(3))))[:11]
    assert [item.molecules for item in whole[:5]] == [3, 3, 3, 1, 3]
    assert whole[2].after == Position(0, 3)
    assert whole[3].after == Position(1, 0)
    for start in range(10):
        again = order(loader(Rows([2] * 10)).stream(whole[start].after), 10 - start)
        assert again == rows[start + 1 :]


def test_once_is_one_pass():
    data = loader(Rows([2] * 7), shuffle=False)
    assert order(data.once(), 99) == [[0, 1, 2], [3, 4, 5], [6]]
    assert order(data.once(), 99) == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_batch_can_be_built_at_once():
    rows = Rows([1, 2, 3])
    loader = Loader(rows, GraphSpec(BASIS), batch_size=2, shuffle=False)
    built, streamed = loader.build([0, 1]), next(loader.once())
    assert (built.rows, built.molecules) == ((0, 1), 2)
    assert torch.equal(built.batch.node_values, streamed.batch.node_values)


def test_batches_by_edges_are_nearly_full_and_complete():
    rng = np.random.default_rng(0)
    sizes = rng.integers(2, 9, size=200).tolist()
    edges = [n * (n - 1) for n in sizes]
    data = loader(Rows(sizes), batch_size=None, max_edges=120)
    for epoch in range(2):
        plan = data.plan(epoch)
        assert sorted(chain(*plan)) == list(range(200))
        loads = [sum(edges[row] for row in batch) for batch in plan]
        assert max(loads) <= 120
        assert np.mean(loads) > 0.9 * 120
    assert data.plan(0) != data.plan(1)
    assert data.plan(1) == plan


def test_a_molecule_above_the_limit_is_alone():
    assert balanced([0, 1, 2, 3], [5, 50, 5, 5], 12) == [[0, 2], [1], [3]]


def test_graphs_are_built_once_while_they_fit():
    rows = Rows([2] * 6)
    order(loader(rows).stream(), 6)
    assert sorted(rows.reads) == list(range(6))
    for room, at_least in ((0, 18), (3000, 7)):
        rows = Rows([2] * 6)
        batches = order(loader(rows, cache_bytes=room).stream(), 6)
        assert len(rows.reads) >= at_least
        assert batches == order(loader(Rows([2] * 6)).stream(), 6)
    one = next(iter(loader(Rows([2])).once())).batch
    assert sum(v.nbytes for v in one.to_dict().values() if torch.is_tensor(v)) < 3000


def test_references_are_the_matrices_one_behind_the_other():
    data = loader(Rows([2, 3, 2]), references=True, shuffle=False)
    (item,) = data.once()
    sizes = (item.batch.nao**2).tolist()
    for row, part in enumerate(item.batch.reference.split(sizes)):
        assert part.dtype == torch.float64
        assert torch.equal(part, torch.full_like(part, row))


def test_errors_of_the_thread_reach_the_caller():
    data = loader(Rows([2] * 4, labels=False), references=True)
    with pytest.raises(DataError, match="has no Hamiltonian to compare with"):
        next(data.stream())


def nabla(path=FIXTURES / "nabla_mini.db"):
    return Nabla2dftHamiltonians(path, conventions=Conventions("bohr", "psi4"))


def same(one, other):
    """Whether two streams give the same batches, to the last bit."""
    pairs = list(zip(one, other, strict=True))
    for a, b in pairs:
        assert (a.molecules, a.after) == (b.molecules, b.after)
        left, right = a.batch.to_dict(), b.batch.to_dict()
        assert left.keys() == right.keys()
        for key, value in left.items():
            assert torch.equal(value, right[key]) if torch.is_tensor(value) else value == right[key]
    return len(pairs)


@pytest.mark.parametrize(
    "size", [{"max_edges": 120}, pytest.param({"batch_size": 3}, marks=pytest.mark.slow)], ids=str
)
def test_processes_give_the_stream_of_the_thread(size):
    rows = nabla()
    spec = GraphSpec(rows.basis, cutoff=3.0, dtype=torch.float32)
    expected = list(islice(Loader(rows, spec, seed=3, **size).stream(), 7))
    rows[0]  # the handle is open when the processes start
    workers = Loader(rows, spec, seed=3, workers=2, **size)
    with contextlib.closing(workers.stream()) as stream:
        assert same(islice(stream, 7), expected) == 7
    with contextlib.closing(workers.stream(expected[2].after)) as stream:  # within an epoch
        assert same(islice(stream, 4), expected[3:]) == 4
    assert same(workers.once(), Loader(rows, spec, seed=3, **size).once()) > 1
    assert not multiprocessing.active_children()


def test_errors_of_a_process_are_those_of_the_thread(tmp_path):
    path = Path(shutil.copy(FIXTURES / "omol_csh_mini.h5", tmp_path / "mini.h5"))
    rows = OmolCshFile(path, progress=False)
    with open(path, "r+b") as file:  # the process finds no HDF5 file any more
        file.write(b"\0" * 512)
    spec = GraphSpec(rows.basis, dtype=torch.float32)
    rows.close()
    for workers in (0, 1):
        stream = Loader(rows, spec, batch_size=1, workers=workers).stream()
        with pytest.raises(DataError, match=r"^[^\n]*mini\.h5.*cannot be read as HDF5[^\n]*$"):
            next(stream)
    assert not multiprocessing.active_children()


def test_processes_leave_interruptions_to_the_main_one_and_their_death_is_told():
    rows = nabla()
    spec = GraphSpec(rows.basis, cutoff=3.0, dtype=torch.float32)
    with contextlib.closing(Loader(rows, spec, batch_size=2, workers=1).stream()) as stream:
        next(stream)
        (child,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child.pid, number)
        time.sleep(0.2)
        assert len(list(islice(stream, 6))) == 6
        os.kill(child.pid, signal.SIGKILL)
        with pytest.raises(RunError, match="a process that builds batches died"):
            list(islice(stream, 20))


def test_a_stream_by_edges_goes_on_within_an_epoch():
    sizes = np.random.default_rng(1).integers(2, 9, size=40).tolist()

    def fresh(seed=5):
        return loader(Rows(sizes), batch_size=None, max_edges=100, seed=seed)

    whole = list(islice(fresh().stream(), 30))
    assert whole[-1].after.epoch > 1
    for start in (0, 4, 11, 28):
        assert same(islice(fresh().stream(whole[start].after), 29 - start), whole[start + 1 :])
    assert fresh().plan(1) == fresh().plan(1) != fresh(seed=6).plan(1)


# -- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cutoff", [None, 2.0, 3.5])
def test_edges_are_counted_without_labels(cutoff, tmp_path, monkeypatch):
    monkeypatch.setattr(edges_module, "_WORTH", 0.0)
    path = Path(shutil.copy(FIXTURES / "nabla_mini.db", tmp_path / "mini.db"))
    rows = nabla(path)
    spec = GraphSpec(rows.basis, cutoff=cutoff)
    expected = [build_graph(molecule, spec).edge_index.shape[1] for molecule in rows]
    monkeypatch.setattr(Nabla2dftHamiltonians, "_molecule", None)
    asked = []
    geometry = Nabla2dftHamiltonians.geometry
    monkeypatch.setattr(
        Nabla2dftHamiltonians, "geometry", lambda self, i: asked.append(i) or geometry(self, i)
    )
    assert count_edges(rows[2:], cutoff).tolist() == expected[2:]
    assert count_edges(rows, cutoff).tolist() == expected
    assert count_edges(rows[::-1], cutoff).tolist() == expected[::-1]
    assert asked == [2, 3, 0, 1]  # each once, whatever part was asked for
    os.utime(path, ns=(0, 0))  # another file, for all that is known
    assert count_edges(nabla(path), cutoff).tolist() == expected
    assert len(asked) == 8


def test_few_edges_leave_no_file(tmp_path):
    path = Path(shutil.copy(FIXTURES / "nabla_mini.db", tmp_path / "mini.db"))
    count_edges(nabla(path), 3.0)
    assert [file.name for file in tmp_path.iterdir()] == ["mini.db"]
    sidecar.write(path, ".hambench-edges.json", {"3.0 bohr": [1, 2]})  # not of this many rows
    assert len(count_edges(nabla(path), 3.0)) == 4


def test_wrong_usage():
    with pytest.raises(ConfigError, match="exactly one"):
        loader(Rows([2]), max_edges=4)
    with pytest.raises(ConfigError, match="no molecules"):
        loader(Rows([]))
