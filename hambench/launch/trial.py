"""A few steps of a cell, in a process of its own: what a step and a validation take.

``python -m hambench.launch.trial CONFIG OUT`` is what `hambench.launch.estimate` starts. What is
known is written after every step, so that a trial that is ended early says what it saw.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch

from hambench.cell import Cell
from hambench.config import RunConfig, read_config
from hambench.data.edges import count_edges
from hambench.data.rows import Part, Rows
from hambench.errors import HambenchError
from hambench.external import ExternalModel
from hambench.files import atomic_write
from hambench.learn import Recipe, fit
from hambench.learn.device import open_fabric, peak_memory
from hambench.learn.reporters import Reporter
from hambench.learn.reporters import Row as LogRow
from hambench.profiling.memory import synchronize

_STEPS: Final = 12  # at most, ...
_SECONDS: Final = 6.0  # ... and no other one after that time
_VALIDATED: Final = 4  # batches of molecules
_SAMPLED: Final = 16  # molecules whose edges say how many fill a batch


@dataclass
class Trial:
    """What is known of a kind of cells.

    Attributes:
        phase: ``start`` before the first step, ``steps``, and ``done``.
        steps: seconds of each, in order; the first ones are slower.
        validation_s: seconds of a pass over the whole validation set, from a part of it.
        parameters: of the model; without any there are no steps.
        memory: most bytes so far: of the GPU, else of the process.
        device: its name.
        reason: why it ended early.
    """

    phase: Literal["start", "steps", "done"] = "start"
    steps: list[float] = field(default_factory=list)
    validation_s: float | None = None
    parameters: int | None = None
    memory: int = 0
    device: str = ""
    reason: str = ""


class _EnoughError(Exception):
    """Ends `fit` before it writes a last checkpoint."""


class _Stopwatch(Reporter):
    """Times the steps and validations of `fit`, and keeps the trial on disk."""

    def __init__(self, trial: Trial, out: Path, device: torch.device, scale: float) -> None:
        self.trial, self.out, self.device, self.scale = trial, out, device, scale

    def start(self, step: int, elapsed_s: float) -> None:
        """The first step comes next."""
        self._keep("steps")

    def step(self, step: int, elapsed_s: float) -> None:
        """Note how long it took."""
        synchronize(self.device)
        self.trial.steps.append(time.perf_counter() - self._last)
        self._keep("steps")

    def row(self, row: LogRow) -> None:
        """Note how long a validation took; the second one, which is no longer slow, is the last."""
        if not any(key.startswith("val_") for key in row):
            return
        again = self.trial.validation_s is not None
        self.trial.validation_s = self.scale * (time.perf_counter() - self._last)
        self._keep("steps")
        if again or len(self.trial.steps) >= _STEPS or time.perf_counter() > self._end:
            raise _EnoughError

    def _keep(self, phase: Literal["steps", "done"]) -> None:
        if self.trial.phase == "start":
            self._end = time.perf_counter() + _SECONDS
        self.trial.phase, self.trial.memory = phase, _peak(self.device)
        _write(self.trial, self.out)
        self._last = time.perf_counter()


def run(config: RunConfig, out: Path) -> Trial:
    """Build the cell and train it for a few steps, in a folder that is removed.

    Args:
        config: of the cell; its budget does not matter.
        out: where the trial stands as JSON, from before the first step on.
    """
    trial = Trial()
    _write(trial, out)
    try:
        _try(config, trial, out)
    except HambenchError as error:
        trial.reason = str(error)
    except torch.OutOfMemoryError:
        trial.reason = "the GPU has too little memory"
    except MemoryError:
        trial.reason = "this machine has too little memory"
    _write(trial, out)
    return trial


def _try(config: RunConfig, trial: Trial, out: Path) -> None:
    cell = Cell.build(config)
    model, recipe = cell.model, cell.recipe
    assert not isinstance(model, ExternalModel)
    device = open_fabric(config.device).device
    trial.device = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    trial.parameters = model.count_parameters()
    if trial.parameters == 0:
        trial.phase, trial.memory = "done", _peak(device)
        return
    size = _batch(cell)
    # none twice: graphs that are kept would make steps on a large training set look fast
    train = _some(cell.task.split(cell.training_split), _STEPS * recipe.accumulate * size)
    whole = cell.task.split(cell.task.protocol.validation_split)
    validation = _some(whole, _VALIDATED * size)
    every = {
        "validate_every": _STEPS // 2,
        "validate_every_minutes": None,
        "checkpoint_every_steps": None,
        "checkpoint_every_seconds": None,
    }
    watch = _Stopwatch(trial, out, device, len(whole) / max(1, len(validation)))
    try:
        with tempfile.TemporaryDirectory(prefix="hambench-") as folder:
            fit(
                model, train, validation, recipe.model_copy(update=every), Path(folder),
                seed=config.seed, device=config.device, workers=config.workers,
                max_steps=_STEPS, max_minutes=_SECONDS / 60, progress=False, reporters=[watch],
                cuda_graph=config.cuda_graph,
            )  # fmt: skip
    except _EnoughError:
        pass
    trial.phase = "done"


def _batch(cell: Cell) -> int:
    """Molecules in a batch, on average where it is filled with edges."""
    recipe: Recipe = cell.recipe
    if recipe.batch_size is not None:
        return recipe.batch_size
    assert recipe.max_edges is not None and not isinstance(cell.model, ExternalModel)
    some = _some(cell.task.split(cell.training_split), _SAMPLED)
    edges = count_edges([some.geometry(k) for k in range(len(some))], cell.model.graph.cutoff)
    return max(1, int(recipe.max_edges / max(1.0, edges.mean())))


def _some(rows: Rows, n: int) -> Rows:
    """Up to ``n`` rows, the same at every call."""
    return Part(rows, np.random.default_rng(0).permutation(len(rows))[:n].tolist())


def _peak(device: torch.device) -> int:
    """Bytes at most: of the GPU, else of this process alone.

    On Linux `resource.getrusage` also counts what the process that started this one had.
    """
    status = Path("/proc/self/status")
    if device.type == "cpu" and status.is_file():
        for line in status.read_text("ascii", "replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return peak_memory(device)


def _write(trial: Trial, out: Path) -> None:
    with atomic_write(out) as file:
        json.dump(asdict(trial), file)


def main(words: Sequence[str]) -> None:
    """Try the cell of a configuration."""
    config, out = map(Path, words)
    run(read_config(config), out)


if __name__ == "__main__":
    main(sys.argv[1:])
