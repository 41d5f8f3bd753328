"""The course of a training in another interpreter, told and logged as that of any model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from hambench.external.process import Event
from hambench.learn import FitResult
from hambench.learn.reporters import JsonLog, Reporter, Row
from hambench.units import HARTREE_EV


class Course:
    """Hears the events of a worker that trains, and tells `reporters` and ``log.jsonl``.

    The worker sends ``start`` once it begins or goes on (``step``, ``seconds``), ``step`` after
    every step (``step``, ``epoch``, ``seconds``, ``loss``, ``molecules``), ``validation``
    (``step``, ``epoch``, ``seconds``, ``mae`` in eV, ``loss``), and at the end ``done``: ``step``,
    ``epoch``, ``seconds``, ``training_seconds``, ``molecules``, ``best`` in eV, ``best_step``,
    ``stopped_by``, ``restarts``, ``parameters``, ``device``, ``memory`` in bytes. Losses are the
    worker's own, in its units; other events are passed over.

    Args:
        log: of the run; rows behind the step of ``start`` are cut off.
        log_every: steps between rows.
        reporters: told besides.
    """

    def __init__(self, log: Path, log_every: int, reporters: Sequence[Reporter]) -> None:
        self._log, self._every, self._others = log, log_every, reporters
        self._reporters: list[Reporter] = []
        self._last: Event = {}
        self.end: Event = {}

    def hear(self, event: Event) -> None:
        """Tell an event."""
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
        """No more will come."""
        for reporter in self._reporters:
            reporter.close()

    def result(self) -> FitResult:
        """What ``done`` said."""
        end, seconds = self.end, self.end["training_seconds"]
        return FitResult(
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

    def _start(self, event: Event) -> None:
        kept = _bytes_until(self._log, event["step"])
        self._reporters = [JsonLog(self._log, kept), *self._others]
        for reporter in self._reporters:
            reporter.start(event["step"], event["seconds"])

    def _step(self, event: Event) -> None:
        for reporter in self._reporters:
            reporter.step(event["step"], event["seconds"])
        if not self._last:
            self._last = event
        elif event["step"] - self._last["step"] >= self._every:
            seconds = event["seconds"] - self._last["seconds"]
            molecules = event["molecules"] - self._last["molecules"]
            speed = molecules / seconds if seconds > 0 else None
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
