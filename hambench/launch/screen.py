"""How a launch is shown while it goes on: a line of each cell that ended, and one of all cells."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from hambench.launch.local import End, Progress, Watch
from hambench.launch.plan import Node
from hambench.results import read_result
from hambench.scoring import Score, format_score


class Screen(Watch):
    """The terminal, with a bar below the lines; where there is none, lines alone.

    Args:
        total: cells of the plan; ``done`` of them are done before.
    """

    def __init__(self, total: int, done: int) -> None:
        self._live = sys.stderr.isatty()
        self._bar = tqdm(
            total=total, initial=done, disable=not self._live,
            bar_format="{n_fmt}/{total_fmt} |{bar:20}| {desc}",
        )  # fmt: skip

    def __enter__(self) -> Screen:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def ended(self, node: Node, end: End, progress: Progress) -> None:
        """Say how it ended: its primary metric, or why it failed."""
        said = primary_metric(node.folder) if end.state == "done" else end.reason
        line = f"{end.state}: {node.name}: {said}"
        tqdm.write(line if self._live else f"{line} ({summary(progress)})", file=sys.stdout)
        sys.stdout.flush()

    def tick(self, progress: Progress) -> None:
        """Move the bar."""
        self._bar.n = progress.total - progress.running - progress.waiting
        self._bar.set_description_str(summary(progress))


def summary(progress: Progress) -> str:
    """``"3 done, 2 running, 1 failed, 4 waiting, about 02:10 left"``."""
    states = ("done", "running", "failed", "cancelled", "waiting")
    numbers = [f"{getattr(progress, s)} {s}" for s in states if getattr(progress, s) or s == "done"]
    if progress.seconds_left and progress.seconds_left >= 1:
        numbers.append(f"about {tqdm.format_interval(progress.seconds_left)} left")
    return ", ".join(numbers)


def primary_metric(folder: Path) -> str:
    """Name and value of the primary metric of a finished run: ``"h_mae 58 [49, 70] uEh"``."""
    result = read_result(folder)
    name, metric = result.primary, result.metrics[result.primary]
    return f"{name} {format_score(Score(**metric.model_dump()), name)}"
