"""The tables of a board: its rankings, and the cells that have no result."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from hambench.leaderboard.beside import Beside, beside
from hambench.leaderboard.costs import PRICES, devices, front, price
from hambench.leaderboard.ranking import Entry, Ranking, Summary
from hambench.leaderboard.runs import Unfinished
from hambench.leaderboard.table import (
    Cell,
    Column,
    Link,
    Table,
    count,
    duration,
    metric_column,
    printable,
    score_cell,
    spread_cell,
)
from hambench.scoring import FAILURES, METRICS

NOTE = (
    "Mean over seeds. In brackets the 95 % bootstrap interval over test molecules (mean of the "
    "seeds' intervals), sd the sample standard deviation over seeds. A rank is 1 + the number of "
    "models that are significantly better, and models that share a letter under ties do not differ "
    "significantly: paired permutation tests on the same molecules, from the scores of every "
    "molecule, seeds counted, corrected for the number of pairs (Holm, 5 %); so a model of few "
    "seeds, of which little is known, can rank above one whose mean is better, and models can tie "
    "whose intervals, which are over molecules alone, are far apart. Two seeds tell little of "
    "others, one tells nothing. A model without scores of molecules differs from another if their "
    "intervals do not overlap; where no model has them, entries whose intervals overlap that of "
    "the first of their rank share it. Bold is every model of rank 1 in a metric. A model that "
    "failed on some molecules is listed unranked. Front: no ranked model (of the same device) has "
    "both a smaller error and a smaller cost. 1 uEh = 1e-6 Hartree."
)


TIES = "models that share a letter do not differ significantly"


def ranking_table(ranking: Ranking) -> Table:
    """The table of a ranking."""
    entries, metrics = ranking.entries, list(ranking.contests)
    failures = any(entry.failure_rate for entry in entries)
    fronts = {kind: front(ranking, kind) for kind in PRICES}
    printed = beside(ranking)
    columns = [
        Column("rank"),
        *([Column("ties", numeric=False, hint=TIES)] if _tested(ranking) else []),
        Column("model", numeric=False, filtered=True),
        metric_column(ranking.metric),
        Column("sd", hint="sample standard deviation over seeds, in the unit of the metric"),
        *(metric_column(name, minor=True) for name in metrics[1:]),
        *([Column("failed", hint=METRICS[FAILURES].description)] if failures else []),
        Column("seeds"),
        Column("molecules", hint="test molecules scored", minor=True),
        Column("parameters", hint=PRICES["parameters"].description),
        Column("steps", hint="of training, and of the budget that the task states"),
        Column("time", hint=f"{PRICES['training'].description}, mean over seeds"),
        Column("memory", hint=PRICES["memory"].description, minor=True),
        Column("ms / molecule", hint=PRICES["prediction"].description, minor=True),
        Column("front", numeric=False, hint="costs against which it is on the Pareto front"),
        Column("device", numeric=False, filtered=True),
        Column("settings", numeric=False, hint="tells settings of one preset apart", minor=True),
        *(Column(heading, hint="as published") for heading in printed),
    ]
    rows = tuple(_ranking_row(ranking, k, fronts, failures, printed) for k in range(len(entries)))
    return Table(
        title=_title(ranking),
        subtitle=_where(ranking),
        columns=tuple(columns),
        rows=rows,
        kind="ranking",
        task=ranking.task,
        notes=tuple(note for one in printed.values() for note in one.notes),
    )


def _ranking_row(
    ranking: Ranking,
    k: int,
    fronts: dict[str, frozenset[int]],
    failures: bool,
    printed: dict[str, Beside],
) -> tuple[Cell, ...]:
    entry, place = ranking.entries[k], ranking.places[k]
    primary = entry.summary(ranking.metric)
    assert primary is not None  # or it had been left out
    scores = [
        _score(entry.summary(name), name, bold=contest.is_best(k))
        for name, contest in ranking.contests.items()
    ]
    return (
        Cell("-" if place is None else str(place.rank), place and place.rank),
        *([Cell("" if place is None else place.ties)] if _tested(ranking) else []),
        Cell(entry.label, details=_details(entry), links=(Link("model", entry.preset),)),
        scores[0],
        spread_cell(primary.spread, ranking.metric),
        *scores[1:],
        *([_failed(entry)] if failures else []),
        seeds_cell(entry),
        Cell(str(primary.n), primary.n),
        count(result.parameters for result in entry.results),
        steps_cell(entry),
        duration(fmean(result.cost.wall_s for result in entry.results)),
        memory_cell(price(entry, "memory")),
        prediction_cell(price(entry, "prediction")),
        Cell(", ".join(kind for kind, on_it in fronts.items() if k in on_it)),
        Cell(", ".join(devices(entry))),
        Cell(entry.settings),
        *(one.cell(entry) for one in printed.values()),
    )


def _tested(ranking: Ranking) -> bool:
    return ranking.contests[ranking.metric].tested


def _title(ranking: Ranking) -> str:
    """Task and version, and the training set where it is a part of the whole."""
    part = f", {ranking.training_split}" if ranking.training_split != "train" else ""
    return f"{ranking.task} v{ranking.version}{part}"


def _where(ranking: Ranking) -> str:
    """What a ranking is of, and how ties were found."""
    untested = ranking.contests[ranking.metric].untested
    how = "some ties are" if _tested(ranking) else "ranked"
    return (
        f"trained on {ranking.training_split}, scored on {ranking.split}, "
        f"{ranking.source} data {ranking.fingerprint[:12]}"
    ) + (f"; {how} by overlap of intervals: {untested}" if untested else "")


def unfinished_table(cells: Sequence[Unfinished]) -> Table | None:
    """Cells without a result; None where all have one."""
    if not cells:
        return None
    columns = (
        Column("task", numeric=False, filtered=True),
        Column("model", numeric=False, filtered=True),
        Column("seed"),
        Column("state", numeric=False, filtered=True, hint="as its status.json says"),
        Column("steps"),
        Column("why", numeric=False),
        Column("run", numeric=False),
    )
    rows = tuple(
        (
            Cell(one.said("task")),
            Cell(one.said("model")),
            Cell("" if one.seed is None else str(one.seed)),
            Cell(one.status.state),
            Cell(f"{one.status.step:,}", one.status.step),
            Cell(one.status.reason),
            Cell(one.name),
        )
        for one in cells
    )
    return Table("Not finished", "cells without a result", columns, rows, kind="unfinished")


def _score(summary: Summary | None, name: str, *, bold: bool) -> Cell:
    if summary is None:
        return Cell("")
    return replace(score_cell(summary.value, summary.ci95, name), bold=bold)


def _failed(entry: Entry) -> Cell:
    """How many molecules of how many, over seeds."""
    low, high = min(entry.failures), max(entry.failures)
    found = [result.metrics[FAILURES].n for result in entry.results if FAILURES in result.metrics]
    some = f"{low} to {high}" if low < high else str(low)
    return Cell(f"{some} of {max(found)}" if found else some, entry.failure_rate)


def _details(entry: Entry) -> str:
    """Everything that distinguishes the model, and which seeds were run."""
    first = entry.results[0]
    lines = [f"model: {first.model}", f"seeds: {', '.join(map(str, entry.seeds))}"]
    lines += [f"{k}: {json.dumps(v, ensure_ascii=False)}" for k, v in first.hyperparameters.items()]
    lines.append(f"recipe: {json.dumps(first.recipe, ensure_ascii=False)}")
    return "\n".join(map(printable, lines))


def seeds_cell(entry: Entry) -> Cell:
    """How many, each linked, and what became of the others."""
    links = tuple(Link("run", run.name) for run in entry.runs)
    lost = [f"seed {one.seed} {one.status.state}" for one in entry.unfinished]
    done = len(entry.seeds)
    return Cell(f"{done} ({', '.join(lost)})" if lost else str(done), done, links=links)


def steps_cell(entry: Entry) -> Cell:
    """Steps taken, of those the task allows."""
    taken = count(result.cost.steps for result in entry.results)
    budgets = {result.step_budget for result in entry.results if result.step_budget}
    if not budgets or not taken.value:
        return taken
    return replace(taken, text=f"{taken.text} of {min(budgets):,}")


def memory_cell(found: float | None) -> Cell:
    """Bytes, in GiB; empty where they were not measured."""
    return Cell("") if found is None else Cell(f"{found / 2**30:.3g} GiB", found)


def prediction_cell(seconds: float | None) -> Cell:
    """Seconds per molecule, in ms; empty where they were not measured."""
    return Cell("") if seconds is None else Cell(f"{1e3 * seconds:.3g}", 1e3 * seconds)
