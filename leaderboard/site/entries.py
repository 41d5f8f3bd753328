"""All entries of all rankings in one table, and those of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from statistics import fmean

from hambench.leaderboard.collect import Board
from hambench.leaderboard.costs import PRICES, devices, front, price
from hambench.leaderboard.ranking import Entry, Ranking, Summary
from hambench.leaderboard.site.settings import Facts
from hambench.leaderboard.table import (
    Cell,
    Column,
    Link,
    Table,
    count,
    duration,
    score_cell,
    spread_cell,
)
from hambench.leaderboard.tables import (
    TIES,
    memory_cell,
    prediction_cell,
    seeds_cell,
    steps_cell,
)
from hambench.scoring import METRICS
from hambench.scoring.display import reporting_unit

_COLUMNS = (
    Column("task", numeric=False, filtered=True),
    Column("trained on", numeric=False, hint="split of the task"),
    Column("model", numeric=False, filtered=True),
    Column("settings", numeric=False, hint="tells settings of one preset apart", minor=True),
    Column("rank", hint="in its ranking, by the primary metric; equal ranks are ties"),
    Column("ties", numeric=False, hint=TIES, minor=True),
    Column("metric", numeric=False, hint="the primary one of the task"),
    Column("value", hint="mean over seeds, with the 95 % interval over test molecules"),
    Column("sd", hint="sample standard deviation over seeds, in the unit of the value", minor=True),
    Column("seeds", hint="how many were run, and the page of each"),
    Column("parameters", hint=PRICES["parameters"].description),
    Column("steps", hint="of training, and of the budget that the task states", minor=True),
    Column("time", hint=f"{PRICES['training'].description}, mean over seeds"),
    Column("memory", hint=PRICES["memory"].description, minor=True),
    Column("ms / molecule", hint=PRICES["prediction"].description, minor=True),
    Column("front", numeric=False, hint="costs whose Pareto front it is on", minor=True),
    Column("device", numeric=False, filtered=True, hint="it was trained on"),
    Column("source", numeric=False, filtered=True, hint="of the labels"),
    Column("scored on", numeric=False, hint="split of the task", minor=True),
    Column("version", hint="of the task", minor=True),
    Column("finished", numeric=False, hint="day (UTC) of the last run", minor=True),
)


@dataclass(frozen=True)
class EntryRow:
    """One entry with its row of the table."""

    ranking: Ranking
    entry: Entry
    cells: tuple[Cell, ...]


def entry_rows(board: Board) -> tuple[EntryRow, ...]:
    """Rows of all entries, in the order of the rankings."""
    return tuple(row for ranking in board.rankings for row in _of_ranking(ranking))


def entries_table(title: str, subtitle: str, rows: Iterable[EntryRow], *shown: str) -> Table:
    """Some rows as a table; ``shown`` names minor columns that are shown at first all the same."""
    columns = (replace(c, minor=False) if c.label in shown else c for c in _COLUMNS)
    return Table(title, subtitle, tuple(columns), tuple(row.cells for row in rows))


def _of_ranking(ranking: Ranking) -> Iterator[EntryRow]:
    fronts = {kind: front(ranking, kind) for kind in PRICES}
    for k, entry in enumerate(ranking.entries):
        on = ", ".join(kind for kind, on_it in fronts.items() if k in on_it)
        yield EntryRow(ranking, entry, _cells(ranking, k, on))


def _cells(ranking: Ranking, k: int, fronts: str) -> tuple[Cell, ...]:
    entry, place = ranking.entries[k], ranking.places[k]
    summary = entry.summary(ranking.metric)
    assert summary is not None  # or it had been left out
    best = ranking.contests[ranking.metric].is_best(k)
    finished = max(result.provenance.finished for result in entry.results)
    return (
        Cell(ranking.task, links=(Link("task", ranking.task),)),
        Cell(ranking.training_split),
        Cell(entry.label, links=(Link("model", entry.preset),)),
        Cell(entry.settings),
        Cell("-" if place is None else str(place.rank), place and place.rank),
        Cell("" if place is None else place.ties),
        Cell(ranking.metric),
        replace(_value(summary, ranking, entry), bold=best),
        spread_cell(summary.spread, ranking.metric),
        seeds_cell(entry),
        count(result.parameters for result in entry.results),
        steps_cell(entry),
        duration(fmean(result.cost.wall_s for result in entry.results)),
        memory_cell(price(entry, "memory")),
        prediction_cell(price(entry, "prediction")),
        Cell(fronts),
        Cell(", ".join(devices(entry))),
        Cell(ranking.source),
        Cell(ranking.split),
        Cell(str(ranking.version), ranking.version),
        Cell(f"{finished:%Y-%m-%d}"),
    )


def _value(summary: Summary, ranking: Ranking, entry: Entry) -> Cell:
    """The primary metric with its unit; what its interval is of and whence it comes, to unfold."""
    metric = ranking.metric
    unit, _ = reporting_unit(METRICS[metric].unit, metric)
    cell = score_cell(summary.value, summary.ci95, metric)
    seeds = ", ".join(map(str, entry.seeds))
    lines = [f"{metric}: {METRICS[metric].description}", f"mean over seeds {seeds}"]
    if summary.ci95 is not None:
        lines.append(f"in brackets the 95 % interval over {summary.n} test molecules")
    if spread := spread_cell(summary.spread, metric).text:
        lines.append(f"standard deviation over seeds: {spread} {unit}")
    lines += [f"{n} test molecules failed with seed {s}" for s, n in _failures(entry)]
    lines += _provenance(ranking, entry)
    return replace(cell, text=f"{cell.text} {unit}".strip(), details="\n".join(lines))


def _failures(entry: Entry) -> Facts:
    pairs = zip(entry.seeds, entry.failures, strict=True)
    return tuple((str(seed), str(failed)) for seed, failed in pairs if failed)


def _provenance(ranking: Ranking, entry: Entry) -> Iterable[str]:
    """Data, and machines and code of all runs, each kind once."""
    lines = [f"data: {ranking.source}, fingerprint {ranking.fingerprint[:16]}"]
    for result in entry.results:
        where = result.provenance
        commit = f", commit {where.commit[:12]}" if where.commit else ""
        changed = " (changed)" if where.dirty else ""
        machine = where.gpu or where.cpu
        lines.append(f"trained on {machine}; hambench {where.package}{commit}{changed}")
    return dict.fromkeys(lines)
