"""Where the course of a training run is told: log.jsonl, the terminal."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hambench.chem.molecule import Molecule

Row = dict[str, float | int | None]
"""``step``, ``epoch``, ``elapsed_s`` (over all restarts), and for training ``train_loss``, ``lr``,
``molecules_per_s``; for a validation ``val_h_mae`` (or ``val_e_mae``, in Eh) and ``val_loss``."""

_QUIET = 30.0  # seconds between lines of a log that is no terminal

logger = logging.getLogger("hambench.learn")


class Reporter:
    """Base of the reporters; each method may be left as it is."""

    def start(self, step: int, elapsed_s: float) -> None:
        """Training begins, or goes on behind ``step`` finished steps: later rows are void."""

    def step(self, step: int, elapsed_s: float) -> None:
        """One more step is done. Called often: must be quick."""

    def row(self, row: Row) -> None:
        """A new row of the log."""

    def close(self) -> None:
        """Training stopped, for whatever reason."""


class JsonLog(Reporter):
    """``log.jsonl``, one row per line; rows a resumed run is going to repeat are cut off.

    Args:
        path: the file.
        size: bytes of it that belong to the checkpoint the run goes on from.
    """

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+b")  # noqa: SIM115 (closed by `close`)
        self._file.truncate(min(size, path.stat().st_size))

    def row(self, row: Row) -> None:
        """Append a line."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def sync(self) -> int:
        """Force the rows to the disk; size of the file in bytes."""
        os.fsync(self._file.fileno())
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Terminal(Reporter):
    """A progress bar with rate and remaining time; plain log lines where there is no terminal.

    Args:
        max_steps: budget in steps, or None.
        max_minutes: budget in minutes, or None.
    """

    def __init__(self, max_steps: int | None, max_minutes: float | None) -> None:
        self.max_steps, self.max_minutes = max_steps, max_minutes
        self._bar: Any = None
        self._shown: dict[str, str] = {}
        self._last_line = 0.0

    def start(self, step: int, elapsed_s: float) -> None:
        """Open the bar."""
        if not sys.stderr.isatty():
            return
        total = self.max_steps or round(60 * (self.max_minutes or 0))
        unit, done = ("step", step) if self.max_steps else ("s", round(elapsed_s))
        self._bar = tqdm(total=total, initial=done, unit=unit, desc="train", smoothing=0.05)

    def step(self, step: int, elapsed_s: float) -> None:
        """Move the bar: to the step, or to the seconds where only time is limited."""
        if self._bar is not None:
            done = step if self.max_steps else min(round(elapsed_s), self._bar.total)
            self._bar.update(done - self._bar.n)

    def row(self, row: Row) -> None:
        """Show the newest loss, metric and speed."""
        shown = {k: f"{v:.3g}" for k, v in row.items() if isinstance(v, float) and k != "elapsed_s"}
        self._shown |= shown
        if self._bar is not None:
            self._bar.set_postfix(self._shown)
        elif "val_loss" in row or time.monotonic() - self._last_line > _QUIET:
            self._last_line = time.monotonic()
            total = f"/{self.max_steps}" if self.max_steps else ""
            values = " ".join(f"{k}={v}" for k, v in self._shown.items())
            logger.info("step %s%s, %.0f s: %s", row["step"], total, row["elapsed_s"], values)

    def close(self) -> None:
        """Close the bar."""
        if self._bar is not None:
            self._bar.close()


def bar(molecules: Sequence[Molecule], label: str) -> Any:
    """Molecules with a progress bar on a terminal (`hambench.model.Progress`)."""
    return tqdm(molecules, desc=label, unit="mol", disable=not sys.stderr.isatty(), leave=False)
