"""One table per ranking, made once and rendered three ways."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from hambench.leaderboard.ranking import Entry, Ranking, Summary
from hambench.scoring import FAILURES, METRICS
from hambench.scoring.display import format_numbers, reporting_unit

NOTE = (
    "Mean over seeds. In brackets the 95 % bootstrap interval over test molecules (mean of the "
    "seeds' intervals), sd the sample standard deviation over seeds. Entries whose intervals "
    "overlap that of the first of their rank share it. A model that failed on some molecules is "
    "listed unranked. 1 uEh = 1e-6 Hartree."
)


@dataclass(frozen=True)
class Column:
    """A heading; ``numeric`` columns are aligned right and sort by number."""

    label: str
    numeric: bool = True
    hint: str = ""


@dataclass(frozen=True)
class Cell:
    """What is shown, what it sorts by (None: the text), and what a page may unfold."""

    text: str
    value: float | None = None
    details: str = ""


@dataclass(frozen=True)
class Table:
    """A titled table, free of any markup; all text may come from strangers."""

    title: str
    subtitle: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def printable(text: str) -> str:
    """``text`` on one line, control and direction characters shown as U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in re.sub(r"\s+", " ", text))


def ranking_table(ranking: Ranking) -> Table:
    """The table of a ranking."""
    entries = [entry for _, entry in ranking.entries]
    others = list(
        dict.fromkeys(
            name
            for entry in entries
            for result in entry.results
            for name in result.metrics
            if name in METRICS and name not in (ranking.metric, FAILURES)
        )
    )
    failures = any(entry.failure_rate for entry in entries)
    columns = [
        Column("rank"),
        Column("model", numeric=False),
        _metric_column(ranking.metric),
        Column("sd", hint="sample standard deviation over seeds, in the unit of the metric"),
        *(_metric_column(name) for name in others),
        *([_metric_column(FAILURES)] if failures else []),
        Column("seeds"),
        Column("molecules", hint="test molecules scored"),
        Column("parameters"),
        Column("steps"),
        Column("time", hint="wall time of training, mean over seeds"),
        Column("device", numeric=False),
        Column("settings", numeric=False, hint="tells settings of one preset apart"),
    ]
    rows = []
    for place, entry in ranking.entries:
        primary = entry.summary(ranking.metric)
        assert primary is not None
        cost = [result.cost for result in entry.results]
        rows.append(
            (
                Cell("-" if place is None else str(place), place),
                Cell(entry.label, details=_details(entry)),
                _score(primary, ranking.metric),
                _spread(primary, ranking.metric),
                *(_score(entry.summary(name), name) for name in others),
                *([Cell(f"{entry.failure_rate:.2%}", entry.failure_rate)] if failures else []),
                Cell(str(len(entry.seeds)), len(entry.seeds)),
                Cell(str(primary.n), primary.n),
                _count(result.parameters for result in entry.results),
                _count(c.steps for c in cost),
                duration(fmean(c.wall_s for c in cost)),
                Cell(", ".join(sorted({c.device for c in cost}))),
                Cell(entry.settings),
            )
        )
    return Table(
        title=f"{ranking.task} v{ranking.version}",
        subtitle=f"trained on {ranking.training_split}, scored on {ranking.split}, "
        f"{ranking.source} data {ranking.fingerprint[:12]}",
        columns=tuple(columns),
        rows=tuple(rows),
    )


def duration(seconds: float) -> Cell:
    """Seconds as a reader says them."""
    if seconds < 60:
        return Cell(f"{seconds:.0f} s", seconds)
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return Cell(f"{hours} h {rest:02d} min" if hours else f"{minutes} min", seconds)


def _metric_column(name: str) -> Column:
    label, _ = reporting_unit(METRICS[name].unit, name)
    heading = f"{name} / {label}" if label else name
    return Column(heading, hint=f"{METRICS[name].description}; {METRICS[name].direction} is better")


def _score(summary: Summary | None, name: str) -> Cell:
    if summary is None:
        return Cell("")
    _, factor = reporting_unit(METRICS[name].unit, name)
    ends = summary.ci95 and (summary.ci95[0] * factor, summary.ci95[1] * factor)
    number, interval = format_numbers(summary.value * factor, ends)
    return Cell(f"{number} {interval}".strip(), summary.value * factor)


def _spread(summary: Summary, name: str) -> Cell:
    if summary.spread is None:
        return Cell("")
    value = summary.spread * reporting_unit(METRICS[name].unit, name)[1]
    return Cell(f"{value:.2g}", value)


def _count(values: Iterable[int]) -> Cell:
    """One number, or the range over seeds."""
    low, *_, high = sorted(values) * 2
    return Cell(f"{low:,}" if low == high else f"{low:,} to {high:,}", low)


def _details(entry: Entry) -> str:
    """Everything that distinguishes the model, and which seeds were run."""
    first = entry.results[0]
    lines = [f"model: {first.model}", f"seeds: {', '.join(map(str, entry.seeds))}"]
    lines += [f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in first.hyperparameters.items()]
    lines.append(f"recipe: {json.dumps(first.recipe, ensure_ascii=False)}")
    return "\n".join(map(printable, lines))
