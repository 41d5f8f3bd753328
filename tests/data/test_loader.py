"""The loader: order by seed and epoch, resumable, balanced, cached."""

from __future__ import annotations

from itertools import chain, islice

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import GraphSpec
from hambench.data.loader import Loader, Position, balanced
from hambench.errors import ConfigError, DataError

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


def test_wrong_usage():
    with pytest.raises(ConfigError, match="exactly one"):
        loader(Rows([2]), max_edges=4)
    with pytest.raises(ConfigError, match="no molecules"):
        loader(Rows([]))
