"""Models of runs against each other, pair by pair: what ``hambench compare`` shows."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hambench.errors import ConfigError, DataError
from hambench.leaderboard.ranking import Entry, entries_of, primary
from hambench.leaderboard.runs import Run, read_runs
from hambench.leaderboard.table import (
    Cell,
    Column,
    Table,
    metric_column,
    score_cell,
    spread_cell,
)
from hambench.leaderboard.tables import TIES
from hambench.results import RESULT, STATUS, Result
from hambench.scoring.metrics import METRICS, Metric
from hambench.scoring.pairs import (
    Difference,
    Differences,
    Estimate,
    Standing,
    differences,
    estimates,
    standings,
)
from hambench.scoring.panel import Panel, panel


@dataclass(frozen=True)
class Model:
    """One model in one metric.

    Attributes:
        label: its name, with what tells it from others of that name.
        seeds: which were run.
        failures: for each seed, molecules without a usable prediction.
        estimate: its value.
        standing: rank and ties; None for a model that failed on some molecules, whose mean over the
            others is not that of all.
    """

    label: str
    seeds: tuple[int, ...]
    failures: tuple[int, ...]
    estimate: Estimate
    standing: Standing | None


@dataclass(frozen=True)
class Contest:
    """All models in one metric.

    Attributes:
        result: of one of the runs; it tells task and data.
        metric: the metric.
        molecules: how many were scored.
        models: best first, those that failed on some molecules last.
        pairs: (label, label, first minus second), in the order of the models.
    """

    result: Result
    metric: Metric
    molecules: int
    models: tuple[Model, ...]
    pairs: tuple[tuple[str, str, Difference], ...]


@dataclass(frozen=True)
class Contests:
    """A contest for each metric, and the runs that are in none as (run, reason)."""

    contests: tuple[Contest, ...]
    left_out: tuple[tuple[str, str], ...]


def compare(
    paths: Iterable[str | os.PathLike[str]], metrics: Sequence[str] | None = None
) -> Contests:
    """Compare the models of all runs at or below ``paths``.

    Runs that differ in nothing but the seed are one model.

    Args:
        paths: run directories, or folders above them.
        metrics: names; None: the primary metric of the task.

    Raises:
        DataError: a path that does not exist, no finished run, or a run without scores of every
            molecule.
        ConfigError: a single model, or a metric that a run has no scores of.
        VerificationError: runs that cannot be compared; see `hambench.scoring.panel.panel`.
    """
    runs, left_out = _read(paths)
    entries, superseded = _entries(runs)
    if len(entries) < 2:
        those = f"these {len(runs)} runs are" if len(runs) > 1 else "this one run is"
        lost = "".join(f"; left out is {name}: {why}" for name, why in left_out[:1])
        raise ConfigError(
            f"{those} of a single model, {entries[0].label}; give runs of two models or more{lost}"
        )
    asked = list(dict.fromkeys(metrics or [primary(runs)]))
    models = panel([{run.name: run.usable_scores for run in e.runs} for e in entries], asked)
    labels = _labels(entries)
    found = zip(models.metrics, differences(models), strict=True)
    values = estimates(models)
    contests = [
        _contest(entries, labels, models, metric, [row[k] for row in values], pairs)
        for k, (metric, pairs) in enumerate(found)
    ]
    return Contests(tuple(contests), tuple(sorted(left_out + superseded)))


def tables(contests: Iterable[Contest]) -> list[Table]:
    """Two tables for each contest: the models, and their pairs."""
    return [made for one in contests for made in (_models_table(one), _pairs_table(one))]


def remarks(contests: Contests) -> list[str]:
    """What a reader has to know about the numbers."""
    models = contests.contests[0].models
    said = []
    if single := [model.label for model in models if len(model.seeds) == 1]:
        said.append(
            f"one seed of {', '.join(single)}: how much training anew would change is not in the "
            "intervals and tests"
        )
    if failing := [model.label for model in models if any(model.failures)]:
        said.append(
            f"{', '.join(failing)} failed on some molecules: not ranked, and compared on the others"
        )
    return said


def records(contests: Contests) -> dict[str, Any]:
    """Everything as JSON knows it, in the units that results have."""
    first = contests.contests[0].result
    return {
        "task": first.task,
        "task_version": first.task_version,
        "split": first.split,
        "source": first.source,
        "fingerprint": first.fingerprint,
        "metrics": {one.metric.name: _record(one) for one in contests.contests},
        "remarks": remarks(contests),
        "left_out": [{"run": name, "reason": why} for name, why in contests.left_out],
    }


def _read(
    paths: Iterable[str | os.PathLike[str]],
) -> tuple[tuple[Run, ...], list[tuple[str, str]]]:
    """Runs, and those that cannot be read; one that was itself given is an error."""
    given = [Path(path) for path in paths]
    for path in given:
        if (path / STATUS).is_file() and not (path / RESULT).is_file():
            raise DataError(
                f"{path} has no {RESULT}: the run is not finished; finish or leave it out"
            )
    found = read_runs(given)
    for name, reason in found.left_out:
        if name.count("/") == 1 and name.endswith((RESULT, STATUS)):  # its own folder was given
            raise DataError(reason.replace(RESULT, name, 1))
    if not found.runs:
        several = [*found.left_out, *((one.name, "it is not finished") for one in found.unfinished)]
        name, reason = several[0]
        raise DataError(f"none of {len(several)} results can be read; the first, {name}: {reason}")
    return found.runs, list(found.left_out)


def _entries(runs: Iterable[Run]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Models of all runs; one that was trained on another training set is another model."""
    sets: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        sets[r.task, r.source, r.fingerprint, r.split, r.training_split].append(run)
    entries, superseded = [], []
    for _, members in sorted(sets.items()):
        some, earlier = entries_of(members)
        entries += some
        superseded += earlier
    return entries, superseded


def _labels(entries: Sequence[Entry]) -> list[str]:
    """Names of models, no two the same: with training set and settings where those differ."""
    sets = {entry.results[0].training_split for entry in entries}
    names = [
        f"{entry.label} on {entry.results[0].training_split}" if len(sets) > 1 else entry.label
        for entry in entries
    ]
    return [
        f"{name} {entry.settings}" if names.count(name) > 1 else name
        for name, entry in zip(names, entries, strict=True)
    ]


def _contest(
    entries: Sequence[Entry],
    labels: Sequence[str],
    models: Panel,
    metric: Metric,
    values: Sequence[Estimate | None],
    found: Differences,
) -> Contest:
    """One metric."""
    known = [estimate for estimate in values if estimate is not None]
    if len(known) < len(values):
        lacking = labels[values.index(None)]
        raise DataError(
            f"{metric.name} has no molecule that all seeds of {lacking} have an entry for; leave "
            "out this metric or model"
        )
    sign = 1.0 if metric.direction == "lower" else -1.0
    failures = [tuple(int(count) for count in failed.sum(1)) for failed in models.failed]
    order = sorted(
        range(len(entries)), key=lambda i: (any(failures[i]), sign * known[i].value, labels[i])
    )
    standing = standings([i for i in order if not any(failures[i])], found, metric)
    pairs = []
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            if (i, j) in found:
                pairs.append((labels[i], labels[j], found[i, j]))
            elif (j, i) in found:
                pairs.append((labels[i], labels[j], found[j, i].reversed()))
    return Contest(
        result=entries[0].results[0],
        metric=metric,
        molecules=len(models.ids),
        models=tuple(
            Model(labels[i], entries[i].seeds, failures[i], known[i], standing.get(i))
            for i in order
        ),
        pairs=tuple(pairs),
    )


def _title(one: Contest) -> str:
    return f"{one.metric.name} on {one.result.task} v{one.result.task_version}"


def _models_table(one: Contest) -> Table:
    name = one.metric.name
    failing = any(any(model.failures) for model in one.models)
    columns = [
        Column("rank"),
        Column("ties", numeric=False, hint=TIES),
        Column("model", numeric=False),
        metric_column(name),
        Column("sd"),
        Column("seeds"),
        Column("molecules"),
        *([Column("failed")] if failing else []),
    ]
    rows = [
        (
            Cell("-" if model.standing is None else str(model.standing.rank)),
            Cell("" if model.standing is None else model.standing.ties),
            Cell(model.label),
            score_cell(model.estimate.value, model.estimate.ci95, name),
            spread_cell(model.estimate.spread, name),
            Cell(str(len(model.seeds))),
            Cell(str(model.estimate.n)),
            *([Cell(", ".join(map(str, model.failures)))] if failing else []),
        )
        for model in one.models
    ]
    where = f"{one.result.split} split, {one.result.source} data {one.result.fingerprint[:12]}"
    return Table(
        _title(one), f"{one.metric.direction} is better, {where}", tuple(columns), tuple(rows)
    )


def _pairs_table(one: Contest) -> Table:
    columns = (
        Column("model", numeric=False),
        Column("minus", numeric=False),
        metric_column(one.metric.name, "difference"),
        Column("p"),
        Column("p (Holm)"),
        Column("", numeric=False),
        Column("molecules"),
        Column("left out"),
    )
    rows = [
        (
            Cell(label),
            Cell(other),
            score_cell(difference.value, difference.ci95, one.metric.name),
            _p(difference.p),
            _p(difference.p_holm),
            Cell(_verdict(difference, one.metric)),
            Cell(str(difference.n)),
            Cell(" + ".join(map(str, difference.left_out))),
        )
        for label, other, difference in one.pairs
    ]
    return Table(f"{_title(one)}, pairs", "on the same molecules", columns, tuple(rows))


def _p(p: float | None) -> Cell:
    return Cell("") if p is None else Cell(f"{p:.2g}", p)


def _verdict(difference: Difference, metric: Metric) -> str:
    """Of the first model."""
    if not difference.significant:
        return "tie"
    return "better" if (difference.value < 0) == (metric.direction == "lower") else "worse"


def _record(one: Contest) -> dict[str, Any]:
    return {
        "unit": METRICS[one.metric.name].unit,
        "direction": one.metric.direction,
        "molecules": one.molecules,
        "models": [
            {
                "model": model.label,
                "rank": model.standing and model.standing.rank,
                "ties": model.standing and model.standing.ties,
                "value": model.estimate.value,
                "ci95": model.estimate.ci95,
                "spread": model.estimate.spread,
                "n": model.estimate.n,
                "seeds": [
                    {"seed": seed, "value": value, "failures": failures}
                    for seed, value, failures in zip(
                        model.seeds, model.estimate.seeds, model.failures, strict=True
                    )
                ],
            }
            for model in one.models
        ],
        "pairs": [
            {"model": label, "minus": other, "verdict": _verdict(difference, one.metric)}
            | difference._asdict()
            for label, other, difference in one.pairs
        ],
    }
