"""Models against each other on the same molecules: differences, intervals, tests, ties.

What is random is told apart. *Molecules*: whole clusters (a molecule with all its conformers) are
drawn with replacement for an interval, the same ones for both models, and swapped at random between
the two for a test (the paired permutation test: Fisher, The Design of Experiments, 1935, section
21; exact whatever the distribution). *Seeds*: training anew moves all molecules at once, which no
number of them averages out. The mean over S seeds is off by ``s / sqrt(S)`` times a t-distributed
number with S - 1 degrees of freedom, which is added to every draw of both (the sum of two such is
the law of Behrens and Fisher: Fisher, Ann. Eugenics 6, 391, 1935). A single seed tells nothing of
others: its interval and test are of these very weights.

How good it is: of 100 pairs of equal models (2,000 molecules, seeds that scatter by 10 %), 1 to 5
were called different at the 5 % level with 2, 3 and 5 seeds; drawing seeds with replacement, in
place of the t-distribution, called 47, 26 and 20 of them different. With two seeds intervals are
wide.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, lru_cache
from itertools import combinations
from string import ascii_letters
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hambench.scoring.metrics import Metric
from hambench.scoring.panel import Panel
from hambench.scoring.statistics import (
    LEVEL,
    RESAMPLES,
    Array,
    Interval,
    holm,
    interval,
    random_halves,
    resampled_sums,
)

ALPHA: Final = 1 - LEVEL
"""Differences with a p-value below are significant."""
MOST: Final = int((1 + math.sqrt(1 + 8 * ALPHA * (1 + RESAMPLES))) / 2)
"""Models that tests tell apart: the least p-value, 1 / (1 + resamples), times the number of pairs
of one more would not be significant whatever the models."""
_SAME: Final = 1 - 1e-9  # of two sums of the same numbers in another order
_FIRST, _SECOND = 3, 4  # streams of random numbers, beside those of molecules


class Estimate(NamedTuple):
    """One model in one metric.

    Attributes:
        value: mean over seeds, in the unit of the metric.
        ci95: over molecules and seeds; None for a maximum or fewer than two clusters.
        spread: sample standard deviation over seeds, None for a single one.
        n: molecules with an entry in every seed.
        seeds: the value of each seed.
    """

    value: float
    ci95: Interval | None
    spread: float | None
    n: int
    seeds: tuple[float, ...]


class Difference(NamedTuple):
    """One model minus another in one metric, on molecules where every seed of both has an entry.

    Attributes:
        value: difference of their means over seeds on these molecules.
        ci95: as that of an `Estimate`.
        p: two-sided, of no difference; None for fewer than two clusters.
        p_holm: the same, corrected for the number of pairs.
        n: molecules.
        left_out: molecules with an entry of the first model alone, and of the second alone.
    """

    value: float
    ci95: Interval | None
    p: float | None
    p_holm: float | None
    n: int
    left_out: tuple[int, int]

    @property
    def significant(self) -> bool:
        """Whether the two differ at the 5 % level, corrected for the number of pairs."""
        return self.p_holm is not None and self.p_holm < ALPHA

    def reversed(self) -> Difference:
        """The second model minus the first."""
        ends = None if self.ci95 is None else (-self.ci95[1], -self.ci95[0])
        return self._replace(value=-self.value, ci95=ends, left_out=self.left_out[::-1])


Differences = dict[tuple[int, int], Difference]
"""By the places (i, j) of two models in a panel, i < j."""


class Standing(NamedTuple):
    """Where a model stands among others.

    Attributes:
        rank: 1 + the number of models that are significantly better.
        ties: letters; models that share one do not differ significantly, all others do.
    """

    rank: int
    ties: str


def estimates(
    panel: Panel, *, resamples: int = RESAMPLES, seed: int = 0
) -> list[list[Estimate | None]]:
    """All models in all metrics; None where a metric has no entry in every seed of a model.

    Args:
        panel: the models.
        resamples: bootstrap samples.
        seed: of the draws; the same seed gives the same numbers.

    Returns:
        A list for each model, one estimate per metric.
    """
    samples = [
        [_Sample(panel, model, k, panel.entered[model][:, k]) for k in range(len(panel.metrics))]
        for model in range(len(panel.terms))
    ]
    draws = _bootstrapped([one for row in samples for one in row], resamples, seed)
    return [[_estimate(one, draws.get(one), seed) for one in row] for row in samples]


def differences(
    panel: Panel, *, resamples: int = RESAMPLES, seed: int = 0, intervals: bool = True
) -> list[Differences]:
    """All pairs of models, for each metric; a pair without a common molecule is missing.

    All pairs and metrics share the draws of clusters.

    Args:
        panel: the models.
        resamples: bootstrap samples, and random swaps.
        seed: of the draws; the same seed gives the same numbers.
        intervals: whether to compute them; tests alone take a tenth of the time.
    """
    known: dict[tuple[int, int, bytes], _Sample] = {}

    def sample(model: int, k: int, rows: NDArray[np.bool_]) -> _Sample:
        key = model, k, rows.tobytes()
        if key not in known:
            known[key] = _Sample(panel, model, k, rows)
        return known[key]

    pairs: dict[tuple[int, int, int], tuple[_Sample, _Sample]] = {}
    for k in range(len(panel.metrics)):
        for i, j in combinations(range(len(panel.terms)), 2):
            common = panel.entered[i][:, k] & panel.entered[j][:, k]
            if common.any():
                pairs[k, i, j] = sample(i, k, common), sample(j, k, common)
    draws = _bootstrapped(known.values(), resamples, seed) if intervals else {}
    p = _swap_test(list(pairs.values()), resamples, seed)
    found: list[Differences] = [{} for _ in panel.metrics]
    for ((k, i, j), (one, other)), chance in zip(pairs.items(), p, strict=True):
        entered = [int(panel.entered[model][:, k].sum()) for model in (i, j)]
        found[k][i, j] = Difference(
            value=one.value - other.value,
            ci95=_ends(one, other, draws, seed),
            p=None if np.isnan(chance) else float(chance),
            p_holm=None,
            n=one.n,
            left_out=(entered[0] - one.n, entered[1] - one.n),
        )
    return [_corrected(one) for one in found]


def standings(order: Sequence[int], found: Differences, metric: Metric) -> dict[int, Standing]:
    """Ranks and ties of some models.

    Args:
        order: their places in the panel, best first.
        found: differences of at least these.
        metric: which way is better.
    """
    place = {model: rank for rank, model in enumerate(order)}
    beaten = dict.fromkeys(order, 0)
    different = set()
    for (i, j), difference in found.items():
        if i in place and j in place and difference.significant:
            first_is_better = (difference.value < 0) == (metric.direction == "lower")
            beaten[j if first_is_better else i] += 1
            different.add((min(place[i], place[j]), max(place[i], place[j])))
    letters = tie_letters(len(order), different)
    return {model: Standing(1 + beaten[model], letters[place[model]]) for model in order}


def tie_letters(count: int, different: Iterable[tuple[int, int]]) -> list[str]:
    """Letters of ``count`` things, of which two share one unless they differ.

    By insertion and absorption (Piepho, J. Comput. Graph. Stat. 13, 456, 2004).

    Args:
        count: how many, by place.
        different: pairs of places.
    """
    groups = [frozenset(range(count))]
    for i, j in sorted(different):
        split = [
            part
            for group in groups
            for part in ((group - {i}, group - {j}) if {i, j} <= group else (group,))
        ]
        groups = [g for g in dict.fromkeys(split) if not any(g < other for other in split)]
    groups.sort(key=sorted)
    return ["".join(_letter(k) for k, g in enumerate(groups) if i in g) for i in range(count)]


class _Sample:
    """One model in one metric on some molecules, by cluster."""

    def __init__(self, panel: Panel, model: int, k: int, rows: NDArray[np.bool_]) -> None:
        self.metric = panel.metrics[k]
        self.n = int(rows.sum())
        terms = panel.terms[model][:, rows, k]
        count = panel.clusters.max(initial=-1) + 1
        self.terms = np.zeros((len(terms), count, 2))  # (S, C, 2)
        where = panel.clusters[rows]
        if self.metric.aggregate == "max":
            self.terms[..., 0] = -np.inf
            for row, one in zip(self.terms, terms, strict=True):
                np.maximum.at(row[:, 0], where, one[:, 0])
                row[where, 1] = 1
        else:
            for row, one in zip(self.terms, terms, strict=True):
                np.add.at(row, where, one)
        self.clusters = len(np.unique(where))

    @cached_property
    def seeds(self) -> Array:
        """(S,) the value of each seed."""
        if self.metric.aggregate == "max":
            return self.terms[..., 0].max(1)
        return _value(self.metric, self.terms.sum(1))

    @property
    def value(self) -> float:
        """Mean over seeds."""
        return float(self.seeds.mean())

    @property
    def spread(self) -> float | None:
        """Sample standard deviation over seeds."""
        if len(self.seeds) < 2:
            return None
        if np.ptp(self.seeds) == 0:  # of which rounding would leave 1e-16
            return 0.0
        return float(self.seeds.std(ddof=1))

    @property
    def pooled(self) -> Array:
        """(C, 2) terms, mean over seeds."""
        return self.terms.mean(0)

    @property
    def pooled_value(self) -> float:
        """The value of those."""
        if self.metric.aggregate == "max":
            return float(self.pooled[:, 0].max())
        return float(_value(self.metric, self.pooled.sum(0)))

    def luck(self, resamples: int, stream: tuple[int, int]) -> Array:
        """(resamples,) what the mean over seeds may be off by; 0 for a single seed."""
        count = len(self.seeds)
        if self.spread is None:
            return np.zeros(resamples)
        return self.spread / np.sqrt(count) * _t_distributed(resamples, stream, count)


@lru_cache(maxsize=8)
def _t_distributed(resamples: int, stream: tuple[int, int], count: int) -> Array:
    """(resamples,) draws for means of ``count`` seeds; models with as many share them."""
    return np.random.default_rng([*stream, count]).standard_t(count - 1, size=resamples)


def _value(metric: Metric, totals: Array) -> Array:
    """Values (...) of summed terms (..., 2); NaN where nothing has an entry."""
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = totals[..., 0] / totals[..., 1]
    # rounding may take a sum of squares below zero
    return np.sqrt(np.maximum(ratio, 0)) if metric.aggregate == "rms" else ratio


def _bootstrapped(samples: Iterable[_Sample], resamples: int, seed: int) -> dict[_Sample, Array]:
    """(R,) means over seeds in samples of clusters, of all that have such a thing."""
    able = [s for s in samples if s.metric.aggregate != "max" and s.clusters > 1]
    if not able:
        return {}
    columns = [np.moveaxis(s.terms, 1, 0).reshape(s.terms.shape[1], -1) for s in able]
    totals = resampled_sums(np.concatenate(columns, axis=1), resamples=resamples, seed=seed)
    ends = np.cumsum([column.shape[1] for column in columns])
    return {
        sample: _value(sample.metric, part.reshape(resamples, -1, 2)).mean(1)
        for sample, part in zip(able, np.split(totals, ends[:-1], axis=1), strict=True)
    }


def _estimate(sample: _Sample, draws: Array | None, seed: int) -> Estimate | None:
    if not sample.n:
        return None
    ends = None
    if draws is not None:
        draws = draws + sample.luck(len(draws), (seed, _FIRST))
        if (sample.terms >= 0).all():  # what has no sign is not below zero, whatever seeds say
            draws = np.maximum(draws, 0)
        if sample.metric.percent:  # nor a share beyond the whole
            draws = np.minimum(draws, 1)
        ends = interval(draws)
    return Estimate(
        sample.value, ends, sample.spread, sample.n, tuple(float(v) for v in sample.seeds)
    )


def _ends(
    one: _Sample, other: _Sample, draws: Mapping[_Sample, Array], seed: int
) -> Interval | None:
    if one not in draws:
        return None
    size = len(draws[one])
    luck = one.luck(size, (seed, _FIRST)) - other.luck(size, (seed, _SECOND))
    return interval(draws[one] - draws[other] + luck)


def _swap_test(pairs: Sequence[tuple[_Sample, _Sample]], resamples: int, seed: int) -> list[float]:
    """p of each pair; NaN where there are fewer than two clusters."""
    if not pairs:
        return []
    swapped = _swapped(pairs, resamples, seed)
    found = []
    for (one, other), gaps in zip(pairs, swapped.T, strict=True):
        luck = one.luck(resamples, (seed, _FIRST)) - other.luck(resamples, (seed, _SECOND))
        seen = abs(one.pooled_value - other.pooled_value) * _SAME
        beyond = np.count_nonzero(np.abs(gaps + luck) >= seen)
        found.append((1 + beyond) / (1 + resamples) if one.clusters > 1 else np.nan)
    return found


def _swapped(pairs: Sequence[tuple[_Sample, _Sample]], resamples: int, seed: int) -> Array:
    """(R, P) differences between two models some of whose clusters were swapped at random.

    Of the terms' means over seeds; of a root mean square, before the root is taken.
    """
    pooled = np.stack([[one.pooled, other.pooled] for one, other in pairs])  # (P, 2, C, 2)
    clusters = pooled.shape[2]
    of_sums = [k for k, (one, _) in enumerate(pairs) if one.metric.aggregate != "max"]
    totals = pooled[of_sums].sum(2)
    columns = np.moveaxis(pooled[of_sums, 1] - pooled[of_sums, 0], 1, 0).reshape(clusters, -1)
    parts = []
    for half in random_halves(clusters, resamples=resamples, seed=seed):
        gaps = np.empty((len(half), len(pairs)))
        moved = (half @ columns).reshape(len(half), -1, 2)
        for at, k in enumerate(of_sums):
            metric = pairs[k][0].metric
            one, other = totals[at, 0] + moved[:, at], totals[at, 1] - moved[:, at]
            gaps[:, k] = _value(metric, one) - _value(metric, other)
        for k in sorted(set(range(len(pairs))) - set(of_sums)):
            one, other = pooled[k, :, :, 0]
            gaps[:, k] = np.where(half, other, one).max(1) - np.where(half, one, other).max(1)
        parts.append(gaps)
    return np.concatenate(parts)


def _corrected(found: Differences) -> Differences:
    """With the p-values of all pairs corrected for their number."""
    p = holm([np.nan if d.p is None else d.p for d in found.values()])
    return {
        pair: d._replace(p_holm=None if np.isnan(one) else float(one))
        for (pair, d), one in zip(found.items(), p, strict=True)
    }


def _letter(k: int) -> str:
    return ascii_letters[k] if k < len(ascii_letters) else f"({k})"
