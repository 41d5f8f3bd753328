"""Times as powers of a size, and what they say of sizes that were not measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats

from hambench.errors import ConfigError

LEAST = 3
"""Sizes; through two of them a power law always goes, and says nothing of its error."""


@dataclass(frozen=True)
class Estimate:
    """Seconds at a size beyond the measured ones.

    Attributes:
        exponent: of the size, by least squares of logarithms.
        exponent_error: half the 95 % interval of it.
        value: seconds.
        low, high: 95 % prediction interval: of a measurement, if the power law holds. Nothing in it
            tells whether it does.
    """

    exponent: float
    exponent_error: float
    value: float
    low: float
    high: float


def extrapolate(sizes: Sequence[float], seconds: Sequence[float], size: float) -> Estimate:
    """The power law ``seconds = c size^k`` of measurements, at another size.

    Raises:
        ConfigError: fewer than `LEAST` different sizes.
    """
    if len(set(sizes)) < LEAST:
        raise ConfigError(
            f"a power law with an error needs {LEAST} different sizes, there are {len(set(sizes))}"
        )
    x, y = np.log(sizes), np.log(seconds)
    line = scipy.stats.linregress(x, y)
    free = len(x) - 2
    quantile = float(scipy.stats.t.ppf(0.975, free))
    rest = y - (line.intercept + line.slope * x)
    spread = np.sqrt(rest @ rest / free)
    away = np.log(size) - x.mean()
    error = quantile * spread * np.sqrt(1 + 1 / len(x) + away**2 / ((x - x.mean()) ** 2).sum())
    value = line.intercept + line.slope * np.log(size)
    low, middle, high = np.exp([value - error, value, value + error]).tolist()
    return Estimate(float(line.slope), quantile * float(line.stderr), middle, low, high)
