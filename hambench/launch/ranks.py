"""The processes of one cell on this machine, started as torchrun would start them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import IO

from hambench.config import RunConfig
from hambench.data.workers import THREADS, cores
from hambench.errors import ConfigError, HambenchError

_POLL = 0.02  # seconds between looks at the processes
_GRACE = 15.0  # seconds in which the others end by themselves when one has, or when asked to
_TAIL = 20  # lines of a process that left no message
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class _Rank:
    """A process, and what it says; the first one speaks for itself."""

    number: int
    process: subprocess.Popen[bytes]
    output: IO[bytes] | None

    def said(self) -> str:
        """Why it failed, in its own words."""
        code = self.process.returncode
        if code < 0:
            return f"ended by {signal.Signals(-code).name}"
        lines: list[str] = []
        if self.output is not None:
            self.output.seek(0)
            lines = self.output.read().decode(errors="replace").splitlines()
        messages = [line for line in lines if line.startswith(("error: ", "interrupted: "))]
        if messages:
            return messages[-1].partition(": ")[2]
        return "\n".join([f"exit code {code}", *lines[-_TAIL:]])


class _FailedError(HambenchError):
    """A process ended with an exit code of its own."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.exit_code = code


def are_to_start(config: RunConfig) -> bool:
    """Whether a cell wants several processes, and nobody has started them yet."""
    return config.nodes * config.gpus > 1 and int(os.environ.get("WORLD_SIZE") or 1) == 1


def run(config: RunConfig, words: Sequence[str]) -> int:
    """``hambench run`` with these words, in as many processes as the cell wants on this machine.

    What the first one says is shown; of the others only why one failed. Ctrl-C and SIGTERM are
    passed on to all of them. When one fails the others end too.

    Args:
        config: the cell.
        words: behind ``hambench run``.

    Returns:
        The exit code, where the first process has said what there is to say.

    Raises:
        ConfigError: the cell wants several nodes.
        HambenchError: another process failed first; with its exit code.
    """
    if config.nodes > 1:
        raise ConfigError(
            f"nodes={config.nodes}: this machine is one node, several need a cluster; leave out "
            "nodes, or start the processes with `torchrun` on every node"
        )
    ranks: list[_Rank] = []
    try:
        with _passed_on(ranks):
            port = _free_port()
            for number in range(config.gpus):
                ranks.append(_start(number, config.gpus, port, words))
            first = _first_failure(ranks)
    finally:
        _end(ranks)
    if first is None:
        return 0
    code, told = first.process.returncode, ranks[0].process.returncode
    if code > 0 and told > 0:  # the first one knows the reason of another one too
        return told
    raise _FailedError(f"process {first.number} of {config.gpus}: {first.said()}", max(code, 1))


def _start(number: int, size: int, port: int, words: Sequence[str]) -> _Rank:
    environment = os.environ | {
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # nothing of lost connections
    if not any(name in environment for name in THREADS):
        environment |= dict.fromkeys(THREADS, str(max(1, cores() // size)))
    output = None if number == 0 else tempfile.TemporaryFile()  # noqa: SIM115 (closed by `_end`)
    process = subprocess.Popen(
        [sys.executable, "-m", "hambench", "run", *words],
        stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches it through us, once
        preexec_fn=_end_with_parent if sys.platform == "linux" else None,
    )  # fmt: skip
    return _Rank(number, process, output)


def _first_failure(ranks: Sequence[_Rank]) -> _Rank | None:
    """Wait for the end of all; once one has failed, the others have a while left."""
    first: _Rank | None = None
    until = float("inf")
    while time.monotonic() < until:
        codes = [rank.process.poll() for rank in ranks]
        failed = [rank for rank, code in zip(ranks, codes, strict=True) if code]
        if failed and first is None:
            first, until = failed[0], time.monotonic() + _GRACE
        if None not in codes:
            break
        time.sleep(_POLL)
    return first


@contextmanager
def _passed_on(ranks: Sequence[_Rank]) -> Iterator[None]:
    """Signals to stop go to all processes, which end as they see fit."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for rank in ranks:
            rank.process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(ranks: Sequence[_Rank]) -> None:
    """Leave no process behind: ask, wait, and kill."""
    left = [rank.process for rank in ranks if rank.process.poll() is None]
    for process in left:
        process.terminate()
    until = time.monotonic() + _GRACE
    for process in left:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_with_parent() -> None:
    """Called in the new process: SIGTERM reaches it when the one that started it is gone."""
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
