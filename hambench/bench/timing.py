"""Times of several functions, taken in turns so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count

import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Attributes:
        median: over all repeats.
        low, high: quartiles.
    """

    median: float
    low: float
    high: float

    @staticmethod
    def of(seconds: list[float]) -> Timing:
        """Of the times of all repeats."""
        low, median, high = np.percentile(seconds, [25, 50, 75]).tolist()
        return Timing(median, low, high)


def interleaved(
    calls: Mapping[str, Callable[[int], object]], repeats: int, *, warm: bool = False
) -> dict[str, Timing]:
    """Each function timed ``repeats`` times, one after the other, after a first untimed round.

    Args:
        calls: functions by name; they get the number of the call among all, so that none finds in
            the processor's cache what the one before it has read.
        repeats: how often each is timed.
        warm: whether the first round is timed too, as what it would warm up is so already.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    numbers = count()
    for _ in range(repeats + (not warm)):
        for name, call in calls.items():
            number = next(numbers)
            start = time.perf_counter()
            call(number)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing.of(times[-repeats:]) for name, times in seconds.items()}
