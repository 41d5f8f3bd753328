"""`Loader`: batches of a data set, in an order that depends on seed and epoch alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from hambench.chem.molecule import Molecule
from hambench.data.graph import (
    Batch,
    GraphSpec,
    MoleculeGraph,
    batch_graphs,
    build_graph,
    neighbour_pairs,
)
from hambench.errors import ConfigError, DataError

CACHE_BYTES = 4 * 2**30
"""Graphs kept in memory by default; those beyond it are built again in every epoch."""

_OPEN = 16  # batches that edge balancing fills at the same time
_AHEAD = 2  # batches being built while one is used


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
        batch: on the loader's device.
        molecules: how many it holds.
        after: position of the batch that follows.
    """

    batch: Batch
    molecules: int
    after: Position


class Loader:
    """Batches of ``molecules`` as a model wants them.

    The order is a permutation drawn from (seed, epoch), so a stream can begin at any `Position`
    and goes on as it would have. Batches hold ``batch_size`` molecules (the last of an epoch what
    is left) or up to ``max_edges`` edges; a molecule with more has a batch of its own. Graphs are
    built once and kept as long as they fit into ``cache_bytes``. A thread builds the next batches
    ahead; on CUDA they travel through pinned memory.

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
    ) -> None:
        if (batch_size is None) == (max_edges is None):
            raise ConfigError("exactly one of batch_size and max_edges must be set")
        if len(molecules) == 0:
            raise ConfigError("there are no molecules to load; check the split of the task")
        self.molecules = molecules
        self.spec = spec
        self.batch_size, self.max_edges = batch_size, max_edges
        self.seed, self.shuffle = seed, shuffle
        self.references = references
        self.device = torch.device(device)
        self._room = cache_bytes
        self._graphs: dict[int, MoleculeGraph] = {}
        self._edges: list[int] | None = None

    def plan(self, epoch: int) -> list[list[int]]:
        """Rows of every batch of an epoch, in order."""
        n = len(self.molecules)
        generator = np.random.default_rng([self.seed, epoch])
        order = (generator.permutation(n) if self.shuffle else np.arange(n)).tolist()
        if self.batch_size is not None:
            return [order[k : k + self.batch_size] for k in range(0, n, self.batch_size)]
        assert self.max_edges is not None
        if self._edges is None:
            self._edges = [self._count_edges(row) for row in range(n)]
        batches = balanced(order, self._edges, self.max_edges)
        if self.shuffle:  # the fullest are closed first, the emptiest last
            batches = [batches[k] for k in generator.permutation(len(batches))]
        return batches

    def stream(self, start: Position = START) -> Generator[Loaded, None, None]:
        """Batches from ``start`` on, epoch after epoch, without end."""
        return self._prefetched(self._places(start))

    def once(self) -> Generator[Loaded, None, None]:
        """The batches of epoch 0."""
        places = self._places(START)
        return self._prefetched(islice(places, len(self.plan(0))))

    def _places(self, start: Position) -> Iterator[tuple[list[int], Position]]:
        """Rows of each batch, and the position after it."""
        epoch, first = start.epoch, start.batch
        while True:
            plan = self.plan(epoch)
            for k in range(first, len(plan)):
                last = k + 1 == len(plan)
                yield plan[k], Position(epoch + 1, 0) if last else Position(epoch, k + 1)
            epoch, first = epoch + 1, 0

    def _prefetched(
        self, places: Iterator[tuple[list[int], Position]]
    ) -> Generator[Loaded, None, None]:
        with ThreadPoolExecutor(1, thread_name_prefix="hambench-loader") as pool:
            waiting: deque[tuple[Future[Batch], int, Position]] = deque()
            try:
                while True:
                    for rows, after in islice(places, _AHEAD - len(waiting)):
                        waiting.append((pool.submit(self._build, rows), len(rows), after))
                    if not waiting:
                        return
                    future, size, after = waiting.popleft()
                    batch = future.result()
                    yield Loaded(batch.to(self.device, non_blocking=True), size, after)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _build(self, rows: list[int]) -> Batch:
        batch = batch_graphs([self._graph(row) for row in rows])
        return batch.pin_memory() if self.device.type == "cuda" else batch

    def _graph(self, row: int) -> MoleculeGraph:
        if row in self._graphs:
            return self._graphs[row]
        molecule = self.molecules[row]
        graph = build_graph(molecule, self.spec)
        if self.references:
            if molecule.hamiltonian is None:
                raise DataError(
                    f"molecule '{molecule.id}' has no Hamiltonian to compare with; "
                    "validate on molecules that have one"
                )
            graph.reference = torch.from_numpy(molecule.hamiltonian).reshape(-1)
        size = sum(v.nbytes for v in graph.to_dict().values() if isinstance(v, Tensor))
        if size <= self._room:
            self._room -= size
            self._graphs[row] = graph
        return graph

    def _count_edges(self, row: int) -> int:
        return neighbour_pairs(self.molecules[row].positions, self.spec.cutoff)[0].shape[1]


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
