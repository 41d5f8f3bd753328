"""From what every molecule adds to every metric to numbers with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from hambench.errors import DataError, RunError
from hambench.scoring.metrics import (
    CONVERGENCE,
    FAILURES,
    METRICS,
    Metric,
    Score,
    find_metric,
)
from hambench.scoring.score_table import ScoreTable
from hambench.scoring.statistics import RESAMPLES, ratio_intervals


def alarms(metrics: Sequence[Metric]) -> list[Metric]:
    """The metrics that count what can go wrong with these."""
    spectrum = any(metric.needs_spectrum for metric in metrics)
    return [m for m in METRICS.values() if m.alarm and (spectrum or not m.needs_spectrum)]


def with_convergence(names: Sequence[str]) -> list[str]:
    """Names of metrics, each once, and `CONVERGENCE` where one of them is of SCFs."""
    scf = any(find_metric(name).sample == "scf" for name in names)
    return list(dict.fromkeys([*names, *([CONVERGENCE] if scf else [])]))


def scores_of(
    table: ScoreTable, metrics: Sequence[str], *, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Score]:
    """Scores of metrics that a table has; the other arguments, and errors, as of `summarise`.

    Raises:
        RegistryError: an unknown metric.
    """
    names = with_convergence(metrics)
    asked = [find_metric(name) for name in names]
    beside = [m for m in alarms(asked) if m not in asked and m.name in table.settings]
    columns = [*asked, *beside]
    terms = np.stack([table.of(metric.name) for metric in columns], axis=1)
    return summarise(columns, terms, table.groups, asked=names, resamples=resamples, seed=seed)


def summarise(
    metrics: Sequence[Metric],
    terms: NDArray[np.float64],
    groups: Sequence[str],
    *,
    asked: Sequence[str],
    strict: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Score]:
    """Values, intervals and numbers of molecules of k metrics over G molecules.

    Args:
        metrics: of the columns, ``failure_rate`` among them.
        terms: (G, k, 2) numerators and denominators.
        groups: of the molecules, see `ratio_intervals`.
        asked: names of the metrics to give in any case; alarms not asked for are given where they
            are not zero.
        strict: whether a metric without any entry is an error, unless an alarm says why. One of
            SCFs is left out then: `CONVERGENCE` says that none converged.
        resamples: bootstrap samples of the intervals.
        seed: of the bootstrap, not of a run: intervals are the same at every call.

    Returns:
        By name, in the order of ``metrics``.

    Raises:
        DataError: no molecules, or, if ``strict``, a metric without an entry.
        RunError: every prediction is a failure.
    """
    if not len(terms):
        raise DataError("there is nothing to score; give at least one molecule")
    numerators, denominators = np.moveaxis(terms, 2, 0)
    raised = {m.name: numerators[:, k].sum() for k, m in enumerate(metrics) if m.alarm}
    if raised[FAILURES] == len(terms):
        raise RunError(
            f"all {len(terms)} predictions are not finite, or too large to be squared; there is "
            "nothing to score; if a training diverged, lower its learning rate or clip gradients"
        )
    present = (denominators > 0).any(axis=0)
    missing = ~present & [metric.sample != "scf" for metric in metrics]
    if strict and missing.any() and not any(raised.values()):
        empty = metrics[int(np.argmax(missing))]
        raise DataError(
            f"{empty.name} has no entry in any of the {len(terms)} molecules "
            f"({empty.description}); leave this metric out"
        )
    shown = present & [m.name in asked or raised.get(m.name, 0) > 0 for m in metrics]
    numerators, denominators = numerators[:, shown], denominators[:, shown]
    intervals = ratio_intervals(
        numerators, denominators, groups=groups, resamples=resamples, seed=seed
    )
    lone = len(set(groups)) == 1
    return {
        metric.name: _score(metric, numerators[:, k], denominators[:, k], intervals[k], lone)
        for k, metric in enumerate(compress(metrics, shown))
    }


def _score(
    metric: Metric,
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    interval: NDArray[np.float64],
    lone: bool,
) -> Score:
    """One metric; a lone molecule, or a maximum, has no interval."""
    entered = denominators > 0
    value, ends = numerators.sum() / denominators.sum(), interval
    match metric.aggregate:
        case "rms":
            value, ends = np.sqrt(value), np.sqrt(interval)
        case "max":
            value = numerators[entered].max()
    ci95 = None if lone or metric.aggregate == "max" else (float(ends[0]), float(ends[1]))
    std = float((numerators[entered] / denominators[entered]).std()) if metric.spread else None
    return Score(float(value), metric.unit, ci95, int(entered.sum()), std)
