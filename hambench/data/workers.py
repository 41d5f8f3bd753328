"""Single-threaded worker processes that end with the process that started them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from itertools import islice
from multiprocessing.connection import wait
from typing import Any, Final, TypeVar

THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

_WORTH: Final = 5.0  # seconds of computing in one process, after which starting others pays

K = TypeVar("K")
R = TypeVar("R")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned workers, one thread each; an exception in the block ends them at once."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read by the children when they start
    others = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield executor
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # results are written atomically: only work under way is lost
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def mapped(
    function: Callable[..., R], jobs: Iterator[tuple[K, tuple[Any, ...]]], workers: int
) -> Generator[tuple[K, R], None, None]:
    """What a function makes of each job, in order; close it to end early.

    By this process at first, then by several, for which a few jobs are drawn ahead.

    Args:
        function: it, the arguments and what it returns can be pickled.
        jobs: of each what to call it by, which stays here, and the arguments.
        workers: processes, once they are worth their start; 1: none.

    Yields:
        What the job is called by, and what the function returned.

    Raises:
        BrokenProcessPool: a process died.
    """
    start = time.monotonic()
    for key, arguments in jobs:
        yield key, function(*arguments)
        if workers > 1 and time.monotonic() - start > _WORTH:
            break
    else:
        return
    waiting: deque[tuple[K, Future[R]]] = deque()
    with pool(workers) as executor:
        while True:
            for key, arguments in islice(jobs, 2 * workers - len(waiting)):
                waiting.append((key, executor.submit(function, *arguments)))
            if not waiting:
                return
            key, future = waiting.popleft()
            yield key, future.result()


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
