"""Percentile bootstrap over molecules (Efron, Ann. Statist. 7, 1, 1979)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES: Final = 10_000
LEVEL: Final = 0.95
PERCENTILES: Final = (100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2)
"""Of the resampled values: the ends of an interval."""
_BUFFER: Final = 1 << 20  # indices drawn at a time: 8 MB, whatever the size of the test set


def ratio_intervals(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    *,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
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


def cluster_sums(rows: NDArray[np.float64], groups: ArrayLike) -> NDArray[np.float64]:
    """Sums of ``rows`` (G, k) over each of the C clusters, in the order of their sorted names.

    Returns:
        (C, k)
    """
    _, place = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.zeros((place.max() + 1, rows.shape[1]))
    np.add.at(sums, place, rows)
    return sums


def resampled_sums(
    sums: NDArray[np.float64], *, resamples: int = RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Column sums of samples with replacement from the n rows of ``sums`` (n, k), n rows each.

    Returns:
        (resamples, k)
    """
    n, k = sums.shape
    rng = np.random.default_rng(seed)
    total = np.empty((resamples, k))
    rows = max(1, _BUFFER // n)
    for start in range(0, resamples, rows):
        stop = min(start + rows, resamples)
        drawn = rng.integers(n, size=(stop - start, n))
        drawn += n * np.arange(stop - start)[:, None]
        times = np.bincount(drawn.ravel(), minlength=(stop - start) * n)
        total[start:stop] = times.reshape(-1, n).astype(np.float64) @ sums
    return total
