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
    "seeds' intervals), sd the sample standard deviation over seeds. Where all runs kept their "
    "scores of every molecule, a rank is 1 + the number of models that are significantly better, "
    "and models that share a letter under ties do not differ significantly: paired permutation "
    "tests on the same molecules, seeds counted, corrected for the number of pairs (Holm, 5 %); so "
    "a model of few seeds, of which little is known, can rank above one whose mean is better. "
    "Two seeds tell little of others, one tells nothing. Elsewhere entries whose intervals overlap "
    "that of the first of their rank share it. A model that failed on some molecules is listed "
    "unranked. 1 uEh = 1e-6 Hartree."
)


TIES = "models that share a letter do not differ significantly"


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
    ties = ranking.ties
    columns = [
        Column("rank"),
        *([Column("ties", numeric=False, hint=TIES)] if ties is not None else []),
        Column("model", numeric=False),
        metric_column(ranking.metric),
        Column("sd", hint="sample standard deviation over seeds, in the unit of the metric"),
        *(metric_column(name) for name in others),
        *([Column("failed", hint=METRICS[FAILURES].description)] if failures else []),
        Column("seeds"),
        Column("molecules", hint="test molecules scored"),
        Column("parameters"),
        Column("steps"),
        Column("time", hint="wall time of training, mean over seeds"),
        Column("device", numeric=False),
        Column("settings", numeric=False, hint="tells settings of one preset apart"),
    ]
    rows = []
    for k, (place, entry) in enumerate(ranking.entries):
        primary = entry.summary(ranking.metric)
        assert primary is not None
        cost = [result.cost for result in entry.results]
        rows.append(
            (
                Cell("-" if place is None else str(place), place),
                *([Cell(ties[k])] if ties is not None else []),
                Cell(entry.label, details=_details(entry)),
                score_cell(primary.value, primary.ci95, ranking.metric),
                spread_cell(primary.spread, ranking.metric),
                *(_score(entry.summary(name), name) for name in others),
                *([_failed(entry)] if failures else []),
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
        f"{ranking.source} data {ranking.fingerprint[:12]}"
        + (f"; ranked by overlap of intervals: {ranking.untested}" if ranking.untested else ""),
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


def metric_column(name: str, heading: str = "") -> Column:
    """The column of a metric, or of something else in its unit."""
    label, _ = reporting_unit(METRICS[name].unit, name)
    heading = heading or name
    return Column(
        f"{heading} / {label}" if label else heading,
        hint=f"{METRICS[name].description}; {METRICS[name].direction} is better",
    )


def score_cell(value: float, ci95: tuple[float, float] | None, name: str) -> Cell:
    """A value of a metric with its interval."""
    _, factor = reporting_unit(METRICS[name].unit, name)
    ends = ci95 and (ci95[0] * factor, ci95[1] * factor)
    number, interval = format_numbers(value * factor, ends)
    return Cell(f"{number} {interval}".strip(), value * factor)


def spread_cell(spread: float | None, name: str) -> Cell:
    """A standard deviation over seeds; empty where there is none."""
    if spread is None:
        return Cell("")
    value = spread * reporting_unit(METRICS[name].unit, name)[1]
    return Cell(f"{value:.2g}", value)


def _score(summary: Summary | None, name: str) -> Cell:
    return Cell("") if summary is None else score_cell(summary.value, summary.ci95, name)


def _failed(entry: Entry) -> Cell:
    """How many molecules of how many, over seeds."""
    low, high = min(entry.failures), max(entry.failures)
    found = [result.metrics[FAILURES].n for result in entry.results if FAILURES in result.metrics]
    some = f"{low} to {high}" if low < high else str(low)
    return Cell(f"{some} of {max(found)}" if found else some, entry.failure_rate)


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
