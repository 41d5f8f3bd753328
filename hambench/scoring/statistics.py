"""Percentile bootstrap over molecules (Efron, Ann. Statist. 7, 1, 1979), random swaps, Holm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interval = tuple[float, float]

RESAMPLES: Final = 10_000
LEVEL: Final = 0.95
PERCENTILES: Final = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)
"""Of the resampled values: the ends of an interval."""
_BUFFER: Final = 1 << 20  # indices drawn at a time: 8 MB, whatever the size of the test set


def ratio_intervals(
    numerators: Array,
    denominators: Array,
    *,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Array:
    """95 % intervals of ``sum(numerators) / sum(denominators)`` of k statistics at once.

    Whole molecules are drawn with replacement, the same ones for all statistics. A resample in
    which a denominator is zero does not count for that statistic.

    Args:
        numerators: (G, k), a row per molecule.
        denominators: (G, k).
        groups: (G,) cluster of each row, e.g. the molecule its conformers belong to; whole
            clusters are drawn then. None: every row by itself.
        resamples: bootstrap samples.
        seed: of the draws; the same seed gives the same interval.

    Returns:
        (k, 2) lower and upper ends.
    """
    k = numerators.shape[1]
    sums = np.concatenate([numerators, denominators], axis=1)
    if groups is not None:
        sums = cluster_sums(sums, groups)
    total = resampled_sums(sums, resamples=resamples, seed=seed)
    with np.errstate(invalid="ignore"):
        ratios = total[:, :k] / total[:, k:]
    return np.nanpercentile(ratios, PERCENTILES, axis=0).T


def interval(draws: Array) -> Interval:
    """The 95 % percentile interval of resampled values (R,); NaN among them do not count."""
    low, high = np.nanpercentile(draws, PERCENTILES)
    return float(low), float(high)


def cluster_sums(rows: Array, groups: ArrayLike) -> Array:
    """Sums of ``rows`` (G, k) over each of the C clusters, in the order of their sorted names.

    Returns:
        (C, k)
    """
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((place.max() + 1, rows.shape[1]))
    np.add.at(sums, place, rows)
    return sums


def resampled_sums(sums: Array, *, resamples: int = RESAMPLES, seed: int = 0) -> Array:
    """Column sums of samples with replacement from the n rows of ``sums`` (n, k), n rows each.

    Returns:
        (resamples, k)
    """
    n = len(sums)
    rng = np.random.default_rng(seed)
    parts = []
    for size in _pieces(n, resamples):
        drawn = rng.integers(n, size=(size, n))
        drawn += n * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * n)
        parts.append(times.reshape(-1, n).astype(np.float64) @ sums)
    return np.concatenate(parts)


def random_halves(n: int, *, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[Array]:
    """Pieces (r, n) of ``resamples`` rows of zeros and ones, each as likely as the other."""
    rng = np.random.default_rng([seed, 2])  # not those of the bootstrap
    for size in _pieces(n, resamples):
        noise = np.frombuffer(rng.bytes(-(-size * n // 8)), dtype=np.uint8)
        yield np.unpackbits(noise, count=size * n).reshape(size, n).astype(np.float64)


def holm(p: ArrayLike) -> Array:
    """p-values (m,) corrected for their number (Holm, Scand. J. Statist. 6, 65, 1979).

    The chance that any of the true hypotheses is rejected is kept, whatever ties the tests
    together. NaN, a test that cannot be made, stays and does not count.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values)[: np.isfinite(values).sum()]
    raised = values[order] * np.arange(len(order), 0, -1)
    corrected = np.full_like(values, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return corrected


def _pieces(n: int, resamples: int) -> Iterator[int]:
    """How many resamples of n rows to draw at a time."""
    rows = max(1, _BUFFER // n)
    for start in range(0, resamples, rows):
        yield min(rows, resamples - start)
