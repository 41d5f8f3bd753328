"""Times of several functions, taken in turns so that a busy machine slows all alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

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


def interleaved(calls: Mapping[str, Callable[[int], object]], repeats: int) -> dict[str, Timing]:
    """Each function timed ``repeats`` times, one after the other, after a first untimed round.

    Args:
        calls: functions by name; they get the number of the repeat.
        repeats: how often each is timed.
    """
    for call in calls.values():
        call(0)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for repeat in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call(repeat)
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing.of(times) for name, times in seconds.items()}
