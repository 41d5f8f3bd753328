"""Batches built ahead of their use, in order, by a thread or by processes."""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, Final, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from hambench.data.packed import Packed
from hambench.errors import HambenchError, RunError

P = TypeVar("P")
Built = Generator[tuple[Packed, int, P], None, None]
"""Batches, the number of their molecules, and what came with their rows."""
Build = Callable[[Sequence[int], int], Packed]
"""From rows and the number of their epoch to a batch."""
Place = tuple[list[int], int, P]
"""Rows of a batch, their epoch, and what comes with them."""

_AHEAD: Final = 2  # batches (of each worker) being built while one is used


def built_by_thread(build: Build, places: Iterator[Place[P]]) -> Built[P]:
    """Batches of the rows of each place, the next two being built by a thread."""
    with ThreadPoolExecutor(1, thread_name_prefix="hambench-loader") as pool:
        waiting: deque[tuple[Future[Packed], int, P]] = deque()
        try:
            while True:
                for rows, epoch, after in islice(places, _AHEAD - len(waiting)):
                    waiting.append((pool.submit(build, rows, epoch), len(rows), after))
                if not waiting:
                    return
                future, size, after = waiting.popleft()
                yield future.result(), size, after
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def built_by_processes(
    build: Build, places: Iterator[Place[P]], workers: int, pinned: bool = False
) -> Built[P]:
    """As `built_by_thread`, by processes; batches come through shared memory.

    Where they are to be ``pinned``, a thread of this process copies them into such memory. The
    processes leave interruptions to this one, and end with the generator.

    Raises:
        HambenchError: what building raised, as it was; RunError: a process died.
    """
    context = multiprocessing.get_context("forkserver")  # forks from a process without threads
    context.set_forkserver_preload([__name__])
    loader: DataLoader[Any] = DataLoader(
        _Places(build),
        sampler=_Once(places),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        multiprocessing_context=context,
        worker_init_fn=_settle,
        pin_memory=pinned,
    )
    stream = iter(loader)
    try:
        while (item := _next(stream)) is not None:
            built, size, after = item
            if isinstance(built, HambenchError):
                raise built
            yield built, size, after
    finally:
        del stream  # its end is that of the processes; a traceback must not keep it


def _next(stream: Iterator[Any]) -> Any:
    """The next item, None at the end; RunError where a process has died."""
    try:
        return next(stream, None)
    except (RuntimeError, ConnectionError, EOFError) as error:  # noticed by PyTorch, or on reading
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RunError(
            f"a process that builds batches died ({reason}); it may have had "
            "too little memory: use fewer workers, or smaller batches"
        ) from error


class _Places(Dataset[Any]):
    """What a worker does: the batch of a place, or the error that it met."""

    def __init__(self, build: Build) -> None:
        self.build = build

    def __getitem__(self, place: Place[Any]) -> tuple[Packed | HambenchError, int, Any]:
        rows, epoch, after = place
        try:
            return self.build(rows, epoch), len(rows), after
        except HambenchError as error:
            return error, len(rows), after


class _Once:
    """An iterator as the sampler that a `DataLoader` wants."""

    def __init__(self, places: Iterator[Any]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[Any]:
        return self.places


def _settle(worker: int) -> None:
    """Called in a new worker."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):  # the main process decides
        signal.signal(number, signal.SIG_IGN)
