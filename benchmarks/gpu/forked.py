"""Commands as forks of this process: they start at once, and a crash is theirs alone.

The process that forks has the libraries loaded and must never touch a GPU, as CUDA does not survive
a fork.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from entries import Words

GRACE: Final = 30.0
"""Seconds for a checkpoint, from asking a command to stop until it is killed."""

_HOMES: Final = {
    "first_light": "first_light",
    "hambench": "hambench.cli",
    "oracles": "oracles",
}
"""Modules of the programs; that of the oracles is a folder up."""
sys.path.append(str(Path(__file__).resolve().parents[1]))

_FORK: Final = multiprocessing.get_context("fork")


def run(command: Words, seconds: float, place: Path) -> tuple[int | None, bool]:
    """Run a command, within a time.

    Args:
        command: see `Words`.
        seconds: after which it is gone; it is asked to stop `GRACE` before.
        place: its output goes to this name with ``.out`` and ``.err``.

    Returns:
        Its exit code, and whether it had to be stopped.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    process = _FORK.Process(target=_become, args=(command, place))
    process.start()
    try:
        process.join(max(seconds - GRACE, GRACE))
        stopped = process.is_alive()
        if stopped:
            process.terminate()  # a training writes a checkpoint
            process.join(GRACE)
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid or 0, signal.SIGKILL)  # it, and whatever it started
        process.join()
    return process.exitcode, stopped


def call(function: Callable[..., object], *words: Any) -> None:
    """Call a function in a fork, to its end."""
    process = _FORK.Process(target=function, args=words)
    process.start()
    process.join()


def _become(command: Words, place: Path) -> None:
    """Run a command in this process, which leads a group of its own."""
    os.setsid()
    sys.stdout, sys.stderr = (
        _redirected(stream, f"{place}.{suffix}") for stream, suffix in ((1, "out"), (2, "err"))
    )
    while "=" in command[0]:
        name, _, value = command[0].partition("=")
        os.environ[name], command = value, command[1:]
    program, *words = command
    sys.argv = [program, *words]
    if program == "pytest":
        import pytest

        sys.exit(pytest.main(words))
    importlib.import_module(_HOMES[program]).main(words)


def _redirected(stream: int, path: str) -> Any:
    """The stream of a number, from here on a file."""
    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), stream)
    return os.fdopen(stream, "w", buffering=1, closefd=False)
