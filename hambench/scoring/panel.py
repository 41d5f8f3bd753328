"""`Panel`: score tables of several models and seeds, brought to the same molecules and metrics."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hambench.errors import ConfigError, DataError, VerificationError
from hambench.scoring.metrics import FAILURES, Metric, find_metric
from hambench.scoring.score_table import ScoreTable
from hambench.scoring.statistics import Array

Tables = Mapping[str, ScoreTable]
"""Score tables of one model, a seed each, by what its run is called in messages."""


_DATA: Final = {
    "task": "task", "task_version": "version of the task", "split": "split",
    "fingerprint": "data with fingerprint",
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Panel:
    """Models scored on the same molecules.

    Attributes:
        metrics: K of them.
        ids: (n,) molecules, sorted; a model may lack some.
        clusters: (n,) place of the cluster of each, from 0.
        terms: for each model (S, n, K, 2), a seed each; zeros where a metric has no entry.
        failed: for each model (S, n), where a prediction could not be used.
    """

    metrics: tuple[Metric, ...]
    ids: tuple[str, ...]
    clusters: NDArray[np.int64]
    terms: tuple[Array, ...]
    failed: tuple[NDArray[np.bool_], ...]

    @cached_property
    def entered(self) -> tuple[NDArray[np.bool_], ...]:
        """For each model (n, K), where every seed has an entry."""
        return tuple(np.all(terms[..., 1] > 0, axis=0) for terms in self.terms)


def panel(models: Sequence[Tables], metrics: Sequence[str]) -> Panel:
    """Bring tables together.

    Raises:
        RegistryError: an unknown metric.
        ConfigError: a metric that a table has not.
        VerificationError: tables of another task, version, data or split, with other settings of a
            metric, or molecules in other clusters.
        DataError: numbers that are not finite.
    """
    asked = tuple(find_metric(name) for name in metrics)
    tables = {name: table for model in models for name, table in model.items()}
    for name, table in tables.items():
        _check(name, table, *next(iter(tables.items())), metrics)
    groups = _groups(tables)
    ids = tuple(sorted(groups))
    place = {molecule: k for k, molecule in enumerate(ids)}
    _, clusters = np.unique([groups[molecule] for molecule in ids], return_inverse=True)
    found = [[_placed(table, place, metrics) for table in model.values()] for model in models]
    return Panel(
        metrics=asked,
        ids=ids,
        clusters=clusters.astype(np.int64),
        terms=tuple(np.stack([terms for terms, _ in seeds]) for seeds in found),
        failed=tuple(np.stack([failed for _, failed in seeds]) for seeds in found),
    )


def _check(
    name: str, table: ScoreTable, other: str, first: ScoreTable, metrics: Iterable[str]
) -> None:
    """Refuse a table that cannot stand beside the first."""
    for field, said in _DATA.items():
        mine, its = str(getattr(table, field)), str(getattr(first, field))
        if mine != its:
            raise VerificationError(
                f"{name} and {other} cannot be compared: {said} {mine:.24} against {its:.24}; give "
                "runs that were scored on the same data"
            )
    for metric in metrics:
        if metric not in table.settings:
            if find_metric(metric).of not in {find_metric(known).of for known in table.settings}:
                raise ConfigError(
                    f"'{metric}' is not of what {name} predicts; choose from what it has: "
                    f"{', '.join(table.settings)}"
                )
            raise ConfigError(
                f"{name} has no '{metric}' (it has {', '.join(table.settings)}); "
                f"`hambench evaluate RUN_DIR --metrics {metric}` computes it"
            )
        if table.settings[metric] != first.settings[metric]:
            raise VerificationError(
                f"{metric} of {name} and {other} cannot be compared: "
                f"{_differences(table.settings[metric], first.settings[metric])}; compute it with "
                "the same settings by `hambench evaluate RUN_DIR`"
            )
        if not np.isfinite(table.of(metric)).all():
            bad = table.ids[int(np.argmin(np.isfinite(table.of(metric)).all(1)))]
            raise DataError(
                f"{metric} of molecule '{bad}' in {name} is not finite; make its scores anew with "
                "`hambench evaluate`"
            )


def _differences(mine: Mapping[str, Any], its: Mapping[str, Any]) -> str:
    """In which settings two tables differ, the first few of them."""
    keys = [key for key in {**mine, **its} if mine.get(key) != its.get(key)]
    return ", ".join(
        f"{key} {json.dumps(mine.get(key)):.40} against {json.dumps(its.get(key)):.40}"
        for key in keys[:3]
    )


def _groups(tables: Tables) -> dict[str, str]:
    """The cluster of every molecule that any table has."""
    groups: dict[str, str] = {}
    for name, table in tables.items():
        for molecule, group in zip(table.ids, table.groups, strict=True):
            if groups.setdefault(molecule, group) != group:
                raise VerificationError(
                    f"molecule '{molecule}' is in cluster '{group}' in {name}, in "
                    f"'{groups[molecule]}' elsewhere; make the scores anew with `hambench evaluate`"
                )
    return groups


def _placed(
    table: ScoreTable, place: Mapping[str, int], metrics: Sequence[str]
) -> tuple[Array, NDArray[np.bool_]]:
    """Terms (n, K, 2) and failures (n,) of a table, molecules at their places."""
    rows = [place[molecule] for molecule in table.ids]
    terms = np.zeros((len(place), len(metrics), 2))
    terms[rows] = np.stack([table.of(metric) for metric in metrics], axis=1)
    failed = np.zeros(len(place), dtype=bool)
    if FAILURES in table.settings:
        failed[rows] = table.of(FAILURES)[:, 0] > 0
    return terms, failed
