"""What tests of sweeps on a cluster share: the command line, waiting, and comparing of runs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from safetensors.numpy import load_file

from hambench.cli import cli
from hambench.errors import HambenchError
from hambench.launch.manifest import read_manifest
from hambench.launch.scheduler import Scheduler
from hambench.launch.standing import UNDER_WAY, Standing, standing

SECONDS = 240.0  # for whatever is waited for: this machine may be busy

TINY = (
    "task=water_mini", "model=toy", "device=cpu", "max_steps=1500", "recipe.batch_size=1",
    "recipe.validate_every=500", "recipe.checkpoint_every_steps=100", "recipe.log_every=50",
    "score.metrics=[h_mae]",
)  # fmt: skip
"""A real cell of some seconds."""


def hambench(*words: str, cwd: Path, refused: str | None = None) -> str:
    """What a command prints in a folder; with ``refused`` it has to fail, and to say that."""
    with contextlib.chdir(cwd):
        done = CliRunner().invoke(cli, list(words))
    if refused is not None:
        assert isinstance(done.exception, HambenchError), done.output
        assert refused in str(done.exception)
    elif done.exception is not None:
        raise done.exception
    return done.output


def launched(*words: str, cwd: Path) -> Path:
    """The folder of a sweep that was submitted to the cluster."""
    said = hambench("sweep", *words, "cluster=slurm", cwd=cwd)
    line = next(line for line in said.splitlines() if line.startswith("status"))
    return cwd / line.split()[-1]


def cells(sweep: Path) -> list[Standing]:
    """How far every cell is."""
    return standing(read_manifest(sweep), Scheduler())


def runs(sweep: Path) -> list[Path]:
    """The run directories of a sweep."""
    manifest = read_manifest(sweep)
    return [manifest.folder_of(entry.cell) for entry in manifest.entries]


def states(sweep: Path) -> list[str]:
    """The states of all cells, in order."""
    return [cell.state for cell in cells(sweep)]


def until(true: Callable[[], bool], what: str, step: float = 0.2) -> None:
    """Wait for something; an error where it does not come true."""
    end = time.monotonic() + SECONDS
    while not true():
        assert time.monotonic() < end, f"waited in vain: {what}"
        time.sleep(step)


def at_end(sweep: Path) -> list[str]:
    """The states of all cells once none is under way."""
    until(lambda: not set(UNDER_WAY) & set(states(sweep)), "the end of all cells", 0.5)
    return states(sweep)


def status(run: Path) -> dict[str, Any]:
    """The ``status.json`` of a run; empty before there is one."""
    try:
        found: dict[str, Any] = json.loads((run / "status.json").read_text())
    except FileNotFoundError:
        return {}
    return found


def trains(run: Path) -> None:
    """Wait until a run has a checkpoint beyond its first, with some more steps to go."""
    until(lambda: (run / "checkpoints" / "previous.pt").is_file(), f"steps of {run}", 0.05)


def outcome(run: Path) -> tuple[dict[str, bytes], Any]:
    """The bits of the weights that a run ended with, and its metrics."""
    result = json.loads((run / "result.json").read_text())
    weights = load_file(run / "checkpoints" / "best.safetensors")
    return {name: array.tobytes() for name, array in weights.items()}, result["metrics"]


def process_of(run: Path) -> int:
    """The process that holds a run directory, as it has written down."""
    return int(json.loads((run / ".lock").read_text())["pid"])
