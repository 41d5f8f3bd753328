"""The course of a training in another interpreter, told and logged as that of any model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hambench.external.process import Event, run_worker
from hambench.learn import FitResult
from hambench.learn.loop import LOG
from hambench.learn.reporters import JsonLog, Reporter, Row, Terminal
from hambench.units import HARTREE_EV


@dataclass(frozen=True)
class Trained:
    """How it ended, and the number of parameters that were trained."""

    result: FitResult
    parameters: int


def train(
    name: str,
    script: Path,
    job: Mapping[str, Any],
    folder: Path,
    log: Path,
    *,
    log_every: int,
    reporters: Sequence[Reporter],
) -> Trained:
    """Let a worker train and tell `reporters` and ``log.jsonl`` what it says.

    The worker sends ``start`` once it begins or goes on (``step``, ``seconds``), ``step`` after
    every step (``step``, ``epoch``, ``seconds``, ``loss``, ``molecules``), ``validation``
    (``step``, ``epoch``, ``seconds``, ``mae`` in eV, ``loss``), and ``done`` at the end with what
    `FitResult` asks for. The losses are the worker's own, in its units.

    Args:
        name, script, job, folder: see `run_worker`.
        log: of the run.
        log_every: steps between rows of the log.
        reporters: told about every row besides.

    Raises:
        ConfigError, RunError, Interrupted: see `run_worker`.
    """
    course = _Course(log, log_every, reporters)
    try:
        run_worker(name, script, job, folder, course.hear)
    finally:
        course.close()
    assert course.end is not None, "the worker ended well and did not say how"
    return _summed_up(course.end)


class _Course:
    """What was heard so far."""

    def __init__(self, log: Path, log_every: int, reporters: Sequence[Reporter]) -> None:
        self._log, self._every, self._others = log, log_every, reporters
        self._reporters: list[Reporter] = []
        self._last: Event = {}
        self.end: Event | None = None

    def hear(self, event: Event) -> None:
        match event["event"]:
            case "start":
                self._start(event)
            case "step":
                self._step(event)
            case "validation":
                mae = event["mae"] / HARTREE_EV
                self._report(event, {"val_e_mae": mae, "val_loss": event["loss"]})
            case "done":
                self.end = event

    def close(self) -> None:
        for reporter in self._reporters:
            reporter.close()

    def _start(self, event: Event) -> None:
        kept = _bytes_until(self._log, event["step"])
        self._reporters = [JsonLog(self._log, kept), *self._others]
        for reporter in self._reporters:
            reporter.start(event["step"], event["seconds"])

    def _step(self, event: Event) -> None:
        for reporter in self._reporters:
            reporter.step(event["step"], event["seconds"])
        last = self._last
        if not last:
            self._last = event
        elif event["step"] - last["step"] >= self._every:
            seconds = event["seconds"] - last["seconds"]
            speed = (event["molecules"] - last["molecules"]) / seconds if seconds > 0 else None
            self._report(event, {"train_loss": event["loss"], "molecules_per_s": speed})
            self._last = event

    def _report(self, event: Event, values: Row) -> None:
        row: Row = {"step": event["step"], "epoch": event["epoch"], "elapsed_s": event["seconds"]}
        for reporter in self._reporters:
            reporter.row(row | values)


def _bytes_until(log: Path, step: int) -> int:
    """Bytes of the log whose rows are not behind a step."""
    size = 0
    if log.is_file():
        for line in log.read_bytes().splitlines(keepends=True):
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            size += len(line)
    return size


def _summed_up(end: Event) -> Trained:
    seconds = end["training_seconds"]
    result = FitResult(
        steps=end["step"],
        epochs=float(end["epoch"]),
        metric="e_mae",
        best_value=end["best"] / HARTREE_EV,
        best_step=end["best_step"],
        wall_s=end["seconds"],
        steps_per_s=end["step"] / seconds if seconds > 0 else None,
        molecules_per_s=end["molecules"] / seconds if seconds > 0 else None,
        peak_memory=end["memory"],
        stopped_by=end["stopped_by"],
        restarts=end["restarts"],
    )
    return Trained(result, end["parameters"])


def terminal(max_steps: int | None, max_minutes: float | None, progress: bool) -> list[Reporter]:
    """The reporter for the user, if progress is to be shown."""
    return [Terminal(max_steps, max_minutes)] if progress else []
