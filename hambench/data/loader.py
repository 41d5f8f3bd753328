"""`Loader`: batches of a data set, in an order that depends on seed and epoch alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hambench.chem.molecule import Molecule
from hambench.chem.rotation import random_rotation, turned
from hambench.chem.stored import StoredMatrix
from hambench.data.ahead import Place, built_by_processes, built_by_thread
from hambench.data.edges import count_edges
from hambench.data.graph import Batch, GraphSpec, MoleculeGraph, batch_graphs, build_graph
from hambench.data.heap import give_back
from hambench.data.packed import Packed
from hambench.data.padding import padded
from hambench.data.rows import Rows
from hambench.errors import ConfigError, DataError

CACHE_BYTES = 2**28
"""Graphs kept in memory by default; those beyond it are built again in every epoch."""

_TIDY = 2**31  # bytes of batches built, after which the heap is tidied
_FEWEST = 16  # graphs that have to fit in there, for one to be kept
_OPEN = 16  # batches that edge balancing fills at the same time
_TURNS = 1  # last part of the key of rotations, which sets them apart from what draws the order


@dataclass(frozen=True, order=True)
class Position:
    """A place in the stream of batches: the next one is ``batch`` of ``epoch``."""

    epoch: int = 0
    batch: int = 0


START = Position()


@dataclass(frozen=True)
class Loaded:
    """One batch of the stream.

    Attributes:
        packed: the batch in one piece, in pinned memory if it is to go to a GPU; of a share of no
            molecules, one that is not to count.
        device: where it is to go.
        molecules: how many the whole batch holds, of which this may be a share.
        after: position of the batch that follows.
        rows: of the data set, which the batch holds.
    """

    packed: Packed
    device: torch.device
    molecules: int
    after: Position
    rows: tuple[int, ...]

    @cached_property
    def batch(self) -> Batch:
        """The batch on the device, sent there the first time it is asked for; nothing waits."""
        return self.packed.to(self.device).batch()


class Loader:
    """Batches of ``molecules`` as a model wants them.

    The order is a permutation drawn from (seed, epoch), so a stream can begin at any `Position`
    and goes on as it would have. Batches hold ``batch_size`` molecules (the last of an epoch what
    is left) or up to ``max_edges`` edges; a molecule with more has a batch of its own. Graphs are
    built once and kept as long as they fit into ``cache_bytes``. A thread builds the next batches
    ahead, each in one piece, which travels to a GPU through pinned memory.

    Args:
        molecules: the data set; read by index.
        spec: what the model wants (``model.graph``).
        batch_size: molecules per batch; exactly one of this and ``max_edges``.
        max_edges: directed edges per batch.
        seed: of the order.
        shuffle: False keeps the order of the data set.
        references: batches also carry ``reference``, the Hamiltonians in Eh flattened one behind
            the other (float64), to compare `Prediction.matrices` with.
        device: where batches go.
        cache_bytes: see above.
        workers: processes that build batches; 0: a thread. The stream is the same. They keep no
            graphs: they pay where the data do not fit into ``cache_bytes`` and building is slower
            than the model (`hambench bench data` says so).
        pad: bring batches to few shapes, see `hambench.data.padding`.
        embeddings: (atoms, ...) of each molecule, which batches carry as ``embeddings``.
        guesses: whether batches carry initial guesses, which `Prediction.matrices` needs and a
            loss does not.
        rotate: turn every molecule with its labels by a rotation drawn from (seed, epoch, row), so
            that a stream which begins anywhere has the turns it would have had. Graphs are then
            built anew in every epoch.
        share: (rank, size): of every batch only the part of one of several processes, see
            `shared`.

    Raises:
        ConfigError: no molecules, or not exactly one size.
    """

    def __init__(
        self,
        molecules: Sequence[Molecule],
        spec: GraphSpec,
        *,
        batch_size: int | None = None,
        max_edges: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        references: bool = False,
        device: torch.device | str = "cpu",
        cache_bytes: int = CACHE_BYTES,
        workers: int = 0,
        pad: bool = False,
        embeddings: Sequence[Tensor] | None = None,
        guesses: bool = True,
        rotate: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if (batch_size is None) == (max_edges is None):
            raise ConfigError("exactly one of batch_size and max_edges must be set")
        if len(molecules) == 0:
            raise ConfigError("there are no molecules to load; check the split of the task")
        assert not (rotate and references), "references are of molecules as they stand"
        self.molecules = molecules
        self.spec = spec
        self.batch_size, self.max_edges = batch_size, max_edges
        self.seed, self.shuffle = seed, shuffle
        self.device = torch.device(device)
        self.workers = workers
        self._pinned = self.device.type == "cuda"
        self.rank, self.size = share
        limit = None if max_edges is None else -(-max_edges // self.size)
        self._assembler = Assembler(
            molecules,
            spec,
            references=references,
            pinned=self._pinned and not workers,
            room=0 if workers else cache_bytes,
            join=partial(padded, spec=spec, max_edges=limit) if pad else batch_graphs,
            embeddings=embeddings,
            guesses=guesses,
            turns=seed if rotate else None,
        )
        self._edges: list[int] | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """Rows of every batch of an epoch, in order."""
        n = len(self.molecules)
        generator = np.random.default_rng([self.seed, epoch])
        order = (generator.permutation(n) if self.shuffle else np.arange(n)).tolist()
        if self.batch_size is not None:
            return [order[k : k + self.batch_size] for k in range(0, n, self.batch_size)]
        assert self.max_edges is not None
        batches = balanced(order, self.edges, self.max_edges)
        if self.shuffle:  # the fullest are closed first, the emptiest last
            batches = [batches[k] for k in generator.permutation(len(batches))]
        return batches

    @property
    def edges(self) -> list[int]:
        """Directed edges of every molecule."""
        if self._edges is None:
            self._edges = count_edges(self.molecules, self.spec.cutoff).tolist()
        return self._edges

    def stream(self, start: Position = START) -> Generator[Loaded, None, None]:
        """Batches from ``start`` on, epoch after epoch, without end."""
        return self._prefetched(self._places(start))

    def once(self) -> Generator[Loaded, None, None]:
        """The batches of epoch 0."""
        places = self._places(START)
        return self._prefetched(islice(places, len(self.plan(0))))

    def build(self, rows: Sequence[int]) -> Loaded:
        """The batch of some rows, built now instead of ahead, as the first one of a stream."""
        packed = self._assembler(rows, START.epoch)
        return Loaded(packed, self.device, len(rows), START, tuple(rows))

    def _places(self, start: Position) -> Iterator[Place[_Share]]:
        """Rows of each batch to build, its epoch, and whose share of which batch it is."""
        epoch, first = start.epoch, start.batch
        while True:
            plan = self.plan(epoch)
            for k in range(first, len(plan)):
                last = k + 1 == len(plan)
                after = Position(epoch + 1, 0) if last else Position(epoch, k + 1)
                rows = plan[k]
                if self.size > 1:
                    rows = shared(rows, self.edges, self.size)[self.rank]
                # a process without molecules computes one all the same, to take part in the step
                yield rows or plan[k][:1], epoch, _Share(tuple(rows), len(plan[k]), after)
            epoch, first = epoch + 1, 0

    def _prefetched(self, places: Iterator[Place[_Share]]) -> Generator[Loaded, None, None]:
        if self.workers:
            built = built_by_processes(self._assembler, places, self.workers, self._pinned)
        else:
            built = built_by_thread(self._assembler, places)
        with closing(built):
            for packed, _, (rows, molecules, after) in built:
                # what copies into pinned memory makes lists of tuples
                yield Loaded(packed, self.device, molecules, after, tuple(rows))


class _Share(NamedTuple):
    """What a batch to build is: rows of a batch of so many molecules, and what follows that."""

    rows: tuple[int, ...]
    molecules: int
    after: Position


class Assembler:
    """Builds batches from rows, and keeps graphs as long as they fit into ``room`` bytes.

    Graphs so large that only a few would fit are not kept: it would help no one.
    Index maps that molecules of one composition share count once. It can be pickled; its graphs
    do not travel. With ``turns``, the seed of rotations, no graph serves twice, and none is kept.
    """

    def __init__(
        self,
        molecules: Sequence[Molecule],
        spec: GraphSpec,
        *,
        references: bool,
        pinned: bool,
        room: int,
        join: Callable[[Sequence[MoleculeGraph]], Batch],
        embeddings: Sequence[Tensor] | None = None,
        guesses: bool = True,
        turns: int | None = None,
    ) -> None:
        self.molecules, self.spec, self.turns = molecules, spec, turns
        self.references, self.pinned, self.join = references, pinned, join
        self.embeddings, self.guesses = embeddings, guesses
        self._room, self._largest = room, room // _FEWEST
        self._graphs: dict[int, MoleculeGraph] = {}
        self._counted: set[int] = set()
        self._built = 0

    def __call__(self, rows: Sequence[int], epoch: int) -> Packed:
        """The batch of these rows, as they are in an epoch."""
        batch = self.join([self._graph(row, epoch) for row in rows])
        packed = Packed.of(batch, pinned=self.pinned)
        self._built += packed.memory.nbytes
        if self._built > _TIDY:
            self._built = 0
            give_back()
        return packed

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_graphs": {}, "_counted": set()}

    def _graph(self, row: int, epoch: int) -> MoleculeGraph:
        if row in self._graphs:
            return self._graphs[row]
        if self.turns is not None:
            rng = np.random.default_rng([self.turns, epoch, row, _TURNS])
            graph = self._turned(row, random_rotation(rng))
        else:
            graph = self._referenced(row) if self.references else self._labelled(row)
        if self.embeddings is not None:
            graph.embeddings = self.embeddings[row]
        if not self.guesses and "guess" in graph:
            del graph.guess
        if self.turns is not None:
            return graph
        tensors = [value for value in graph.to_dict().values() if isinstance(value, Tensor)]
        new = {value.data_ptr(): value.nbytes for value in tensors}
        size = sum(bytes_ for start, bytes_ in new.items() if start not in self._counted)
        if size <= min(self._room, self._largest):
            self._room -= size
            self._counted |= new.keys()
            self._graphs[row] = graph
        return graph

    def _labelled(self, row: int) -> MoleculeGraph:
        molecule, hamiltonian = self._read(row)
        return build_graph(molecule, self.spec, hamiltonian)

    def _turned(self, row: int, rotation: NDArray[np.float64]) -> MoleculeGraph:
        molecule, hamiltonian = self._read(row)
        if hamiltonian is not None:
            molecule = replace(molecule, hamiltonian=hamiltonian.canonical())
        return build_graph(turned(molecule, self.spec.basis, rotation), self.spec)

    def _read(self, row: int) -> tuple[Molecule, StoredMatrix | None]:
        """A molecule; its Hamiltonian as the file keeps it, where no overlap is wanted beside."""
        overlaps = {"overlap", "orbitals"} & set(self.spec.labels)
        if isinstance(self.molecules, Rows) and not overlaps:
            return self.molecules.stored(row)
        return self.molecules[row], None

    def _referenced(self, row: int) -> MoleculeGraph:
        molecule = self.molecules[row]
        graph = build_graph(molecule, self.spec)
        if molecule.hamiltonian is None:
            raise DataError(
                f"molecule '{molecule.id}' has no Hamiltonian to compare with; "
                "validate on molecules that have one"
            )
        graph.reference = torch.from_numpy(molecule.hamiltonian).reshape(-1)
        return graph


def balanced(order: Sequence[int], edges: Sequence[int], max_edges: int) -> list[list[int]]:
    """Rows packed into batches of up to ``max_edges`` edges, nearly full ones.

    Rows are taken in ``order``; each goes to the fullest open batch that has room. At most 16
    batches are open, of which the fullest is closed when another is needed.

    Args:
        order: rows to pack.
        edges: edges of every row.
        max_edges: limit; a row above it is alone in its batch.
    """
    closed: list[list[int]] = []
    open_: list[tuple[int, list[int]]] = []
    for row in order:
        room = [k for k, (load, _) in enumerate(open_) if load + edges[row] <= max_edges]
        if room:
            k = max(room, key=lambda k: open_[k][0])
            load, rows = open_[k]
            open_[k] = (load + edges[row], [*rows, row])
            continue
        if len(open_) == _OPEN:
            fullest = max(range(_OPEN), key=lambda k: open_[k][0])
            closed.append(open_.pop(fullest)[1])
        open_.append((edges[row], [row]))
    return closed + [rows for _, rows in open_]


def shared(rows: Sequence[int], edges: Sequence[int], size: int) -> list[list[int]]:
    """The rows of a batch shared out among processes, so that they have equally many edges.

    The largest molecules come first, each to whom has the fewest edges, of equals the fewest
    molecules (R. L. Graham, SIAM J. Appl. Math. 17, 416, 1969): no share is larger than the mean by
    more than one molecule, and molecules of one size are shared equally. Rows of a share keep the
    order of the batch.

    Args:
        rows: of the batch.
        edges: of every row of the data set.
        size: number of shares; some are empty where there are fewer rows.
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    loads = [(0, 0, k) for k in range(size)]
    for place in sorted(range(len(rows)), key=lambda k: -edges[rows[k]]):
        load, count, k = loads[0]
        shares[k].append(place)
        heapq.heapreplace(loads, (load + edges[rows[place]], count + 1, k))
    return [[rows[place] for place in sorted(share)] for share in shares]
