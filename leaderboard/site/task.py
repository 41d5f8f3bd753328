"""The page of a task: what it is, its data, its metrics, its rankings in full."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hambench.leaderboard.about import About
from hambench.leaderboard.collect import Board
from hambench.leaderboard.ranking import Ranking
from hambench.leaderboard.reported import reported_table
from hambench.leaderboard.site.settings import Facts
from hambench.leaderboard.table import Cell, Column, Link, Table, score_cell
from hambench.leaderboard.tables import ranking_table
from hambench.scoring import METRICS
from hambench.scoring.display import reporting_unit


def task_content(board: Board, task: str, about: About | None) -> dict[str, Any]:
    """What the template shows of a task; ``about`` is None where nobody here knows it."""
    rankings = [ranking for ranking in board.rankings if ranking.task == task]
    return {
        "title": task,
        "about": about,
        "data": _data(rankings),
        "metrics": _metrics(rankings, about.metrics if about else ()),
        "rankings": [_ranking(ranking) for ranking in rankings],
        "published": reported_table(task),
    }


def tasks_table(board: Board, tasks: Mapping[str, About]) -> Table:
    """A row per ranking: what it is of, and who leads."""
    rows = []
    for ranking in board.rankings:
        about = tasks.get(ranking.task)
        leaders = [entry for k, entry in enumerate(ranking.entries) if _leads(ranking, k)]
        first = leaders[0] if leaders else None
        tied = max(0, len(leaders) - 1)
        rows.append(
            (
                Cell(ranking.task, links=(Link("task", ranking.task),)),
                Cell(about.title if about else ""),
                Cell(ranking.training_split),
                Cell(ranking.source),
                Cell(str(len(ranking.entries)), len(ranking.entries)),
                Cell(ranking.metric),
                Cell(first.label, links=(Link("model", first.preset),)) if first else Cell(""),
                _best(ranking),
                Cell(str(tied), tied),
            )
        )
    columns = (
        Column("task", numeric=False, filtered=True),
        Column("what it is", numeric=False),
        Column("trained on", numeric=False, hint="split of the task"),
        Column("source", numeric=False, hint="of the labels"),
        Column("entries", hint="models, each with one set of settings"),
        Column("metric", numeric=False, hint="the primary one, by which models are ranked"),
        Column("first", numeric=False, hint="the model of rank 1 with the best value"),
        Column("value", hint="of that model, with its 95 % interval"),
        Column("tied", hint="other models of rank 1"),
    )
    subtitle = "one ranking for each task, training set and source of labels; they are never mixed"
    return Table("Rankings", subtitle, columns, tuple(rows))


def _leads(ranking: Ranking, k: int) -> bool:
    place = ranking.places[k]
    return place is not None and place.rank == 1


def _best(ranking: Ranking) -> Cell:
    """The primary metric of the first entry that is ranked; empty where none is."""
    for k, entry in enumerate(ranking.entries):
        summary = entry.summary(ranking.metric)
        if _leads(ranking, k) and summary is not None:
            unit, _ = reporting_unit(METRICS[ranking.metric].unit, ranking.metric)
            cell = score_cell(summary.value, summary.ci95, ranking.metric)
            return Cell(f"{cell.text} {unit}".strip(), cell.value)
    return Cell("")


def _ranking(ranking: Ranking) -> Table:
    """A ranking under a heading that tells it from the others of its task."""
    table = ranking_table(ranking)
    return replace(table, title=f"{table.title}, trained on {ranking.training_split}")


def _data(rankings: Sequence[Ranking]) -> Table:
    """What the rankings of a task were trained and scored on."""
    rows = tuple(
        (
            Cell(str(ranking.version), ranking.version),
            Cell(ranking.source),
            Cell(ranking.training_split),
            Cell(ranking.split),
            Cell(_molecules(ranking)),
            Cell(ranking.fingerprint),
        )
        for ranking in rankings
    )
    columns = (
        Column("version"),
        Column("source", numeric=False),
        Column("trained on", numeric=False),
        Column("scored on", numeric=False),
        Column("molecules scored", numeric=False),
        Column("fingerprint", numeric=False),
    )
    return Table("Data", "of each ranking on this page", columns, rows)


def _molecules(ranking: Ranking) -> str:
    found = {s.n for entry in ranking.entries if (s := entry.summary(ranking.metric)) is not None}
    return f"{min(found):,}" if len(found) == 1 else f"{min(found):,} to {max(found):,}"


def _metrics(rankings: Sequence[Ranking], known: Iterable[str]) -> Facts:
    """Names and definitions of the metrics of a task."""
    measured = [name for ranking in rankings for name in ranking.contests]
    names = dict.fromkeys(name for name in [*measured, *known] if name in METRICS)
    return tuple((name, _defined(name)) for name in names)


def _defined(name: str) -> str:
    metric = METRICS[name]
    unit, _ = reporting_unit(metric.unit, name)
    return "; ".join(
        filter(None, (metric.description, unit and f"in {unit}", f"{metric.direction} is better"))
    )
