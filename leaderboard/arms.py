"""Learning curves as numbers: errors with intervals, and strategies against direct training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Final, NamedTuple

import numpy as np

from hambench.leaderboard.curves import ErrorMetric, Line, Point, Study
from hambench.leaderboard.gains import (
    Equivalence,
    Gain,
    gain,
    label_equivalence,
    resampled_errors,
)
from hambench.results import Result
from hambench.scoring.statistics import Array, Interval, interval

Arm = tuple["Measured", Array | None]
"""A point, and its errors (R,) in the resamples that all points share, if there are any."""

_FEW: Final = 10
"""Test molecules below which an interval over them is told to be of few."""


class Compute(NamedTuple):
    """What an arm took, mean over seeds: the energy stage and, if any, pretraining, in seconds.

    Every arm pays for its whole pretraining, also where several share one.
    """

    energy_s: float
    energy_steps: float
    pretraining_s: float
    pretraining_steps: float

    @property
    def total_s(self) -> float:
        """Both stages."""
        return self.energy_s + self.pretraining_s


@dataclass(frozen=True)
class Measured:
    """One point of a curve.

    Attributes:
        line, point: which.
        error: test error, mean over seeds, meV.
        ci95: over test molecules and seeds, None where there is a single test molecule.
        spread: sample standard deviation over seeds, None for a single seed.
        train_error: mean over seeds on the training set, None where predictions failed.
        compute: what it took.
        remarks: what a reader has to know about its pretraining.
    """

    line: Line
    point: Point
    error: float
    ci95: Interval | None
    spread: float | None
    train_error: float | None
    compute: Compute
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """A pretrained arm against direct training of the same preset on the same training set.

    Attributes:
        direct, other: the two arms.
        gain: error of direct over that of the other.
        labels: how many times more labelled molecules direct needs for the error of the other.
        fair: whether direct had at least the total compute of the other in wall time; None where
            that cannot be said.
        remarks: why it is not fair or not known to be, and what else limits the comparison.
    """

    direct: Measured
    other: Measured
    gain: Gain
    labels: Equivalence
    fair: bool | None
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Analysis:
    """A study in one metric: the points of all lines, and the comparisons of their arms."""

    study: Study
    metric: ErrorMetric
    points: tuple[Measured, ...]
    comparisons: tuple[Comparison, ...]


def analyse(study: Study, metric: ErrorMetric) -> Analysis:
    """Points and comparisons of a study; the same study gives the same numbers."""
    pairs = [(line, point) for line in study.lines for point in line.points]
    drawn: list[Array | None] = [None] * len(pairs)
    if len(study.rows) > 1:
        draws = resampled_errors([point.arm(metric) for _, point in pairs], study.rows)
        drawn = list(draws.T)
    points = [
        _measured(line, point, metric, draws)
        for (line, point), draws in zip(pairs, drawn, strict=True)
    ]
    comparisons = tuple(_comparisons(list(zip(points, drawn, strict=True))))
    return Analysis(study, metric, tuple(points), comparisons)


def _measured(line: Line, point: Point, metric: ErrorMetric, draws: Array | None) -> Measured:
    errors = [run.error(metric) for run in point.runs]
    return Measured(
        line=line,
        point=point,
        error=fmean(errors),
        ci95=None if draws is None else interval(draws),
        spread=stdev(errors) if len(errors) > 1 else None,
        train_error=point.train_error(metric),
        compute=_compute([run.result for run in point.runs]),
        remarks=tuple(dict.fromkeys(r for run in point.runs for r in _pretraining(run.result))),
    )


def _comparisons(arms: Sequence[Arm]) -> Iterator[Comparison]:
    """Every other strategy against every direct line of its preset, where both have a point."""
    curves: dict[str, list[Arm]] = defaultdict(list)
    for arm in arms:
        if arm[0].line.strategy == "direct":
            curves[arm[0].line.label].append(arm)
    for arm in arms:
        for curve in curves.values():
            line, base = arm[0].line, curve[0][0].line
            if line.strategy != "direct" and line.preset == base.preset:
                yield from _compared(curve, arm)


def _compared(curve: Sequence[Arm], arm: Arm) -> Iterator[Comparison]:
    """An arm against the point of a direct curve with its training set, if there is one."""
    other, other_draws = arm
    trained_on = other.point.runs[0].trained_on
    draws = [d for _, d in curve if d is not None]
    for direct, direct_draws in curve:
        if direct.point.runs[0].trained_on != trained_on:
            continue
        fair, remarks = _fairness(direct, other)
        yield Comparison(
            direct,
            other,
            gain(direct.error, other.error, direct_draws, other_draws),
            label_equivalence(
                [measured.point.molecules for measured, _ in curve],
                np.array([measured.error for measured, _ in curve]),
                np.stack(draws, axis=1) if draws else None,
                other.point.molecules,
                other.error,
                other_draws,
            ),
            fair,
            (*remarks, *_limits(direct, other)),
        )


def _fairness(direct: Measured, other: Measured) -> tuple[bool | None, list[str]]:
    """Whether direct had at least the compute of the other, and what is to be said of it."""
    devices = [sorted({run.result.cost.device for run in m.point.runs}) for m in (direct, other)]
    if any(run.result.pretraining is None for run in other.point.runs):
        return None, []  # `_pretraining` has said so
    if devices[0] != devices[1] or len(devices[0]) > 1:
        said = " and ".join(", ".join(names) for names in devices)
        return None, [f"compute on different devices: {said}"]
    share = direct.compute.total_s / other.compute.total_s if other.compute.total_s else 1.0
    if share >= 1:
        return True, []
    stopped = sorted({run.result.cost.stopped_by for run in direct.point.runs})
    return False, [
        f"direct had less compute: {share:.0%} of the time, stopped by {', '.join(stopped)}"
    ]


def _limits(direct: Measured, other: Measured) -> Iterator[str]:
    """What else a reader has to know."""
    yield from other.remarks
    tested = len({row.group for row in other.point.runs[0].test})
    if tested < _FEW:
        yield f"{tested} test molecule{'s' * (tested > 1)}"
    if direct.point.runs[0].architecture != other.point.runs[0].architecture:
        yield "other hyperparameters"
    single = [m.line.strategy for m in (direct, other) if len(m.point.runs) == 1]
    if single:
        yield f"one seed of {' and '.join(single)}"


def _compute(results: Sequence[Result]) -> Compute:
    before = [result.pretraining for result in results]
    return Compute(
        fmean(result.cost.wall_s for result in results),
        fmean(result.cost.steps for result in results),
        fmean(p.wall_s if p else 0.0 for p in before),
        fmean(p.steps if p else 0.0 for p in before),
    )


def _pretraining(result: Result) -> Iterator[str]:
    """What is wrong with the pretraining of a run, as far as its result says."""
    if result.strategy == "direct":
        return
    before = result.pretraining
    if before is None:
        yield "pretraining not recorded"
        return
    audit = before.audit
    if audit.same_geometries or (audit.same_molecules and audit.unseen == "molecules"):
        yield (
            f"PRETRAINED ON TEST DATA: {audit.same_molecules} of {audit.scored} test rows are of "
            f"molecules in the pretraining data, {audit.same_geometries} are in it themselves"
        )
    elif audit.same_molecules:
        yield (
            f"{audit.same_molecules} of {audit.scored} test rows are other conformers of molecules "
            "in the pretraining data, as the task has it"
        )
