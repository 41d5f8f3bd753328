"""Several processes for tests: functions that run in all of them, as torchrun would start them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_PRELOAD = ["torch", "lightning_fabric", "hambench.experiment", "toy_model"]


class Crowd:
    """Processes that each call ``function(*arguments)``; gloo on the CPU.

    Args:
        size: how many; their imports are done once, in a fork server.
        function: of a module that can be imported by name.
    """

    def __init__(self, size: int, function: Callable[..., Any], *arguments: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(_PRELOAD)
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # of the fork server
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []
        for rank in range(size):
            ours, theirs = context.Pipe(duplex=False)
            child = context.Process(
                target=_work, args=(rank, size, port, theirs, function, arguments)
            )
            child.start()
            theirs.close()
            self.processes.append(child)
            self._pipes.append(ours)
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before

    def results(self, seconds: float = 120) -> list[Any]:
        """What each returned, or the exception it raised; None of one that was killed."""
        found: list[Any] = []
        try:
            for child, pipe in zip(self.processes, self._pipes, strict=True):
                try:
                    assert pipe.poll(seconds), "a process hangs"
                    found.append(pipe.recv())
                except EOFError:
                    found.append(None)
                child.join(seconds)
                assert child.exitcode is not None, "a process hangs"
        finally:
            for child in self.processes:
                child.kill()
                child.join()
        return found


def together(size: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What a function returns in each of ``size`` processes; what one raised is raised here."""
    results = Crowd(size, function, *arguments).results()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _work(
    rank: int,
    size: int,
    port: int,
    pipe: Connection,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> None:
    import torch

    torch.set_num_threads(1)
    if size > 1:
        os.environ |= {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    try:
        result = function(*arguments)
    except BaseException as error:
        traceback.print_exc()
        result = error
    pipe.send(result)
    pipe.close()
