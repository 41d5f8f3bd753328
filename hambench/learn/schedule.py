"""Learning-rate schedules: a factor as a function of the step, the progress and a small state.

``progress`` is the share of the budget that is used up, 0 to 1. With a budget in steps it is
``step / max_steps``, so that a resumed run repeats the learning rates of an uninterrupted one bit
by bit. With a budget in minutes it is ``elapsed / max_minutes``, and with both the larger: the
learning rate then reaches its end when training ends, whatever the speed of the machine.
"""

from __future__ import annotations

import math
from typing import Any

from hambench.learn.recipe import Cosine, Linear, Plateau, Polynomial, ScheduleOptions


class Schedule:
    """Factors on the learning rate, for any of the schedules of the recipe.

    The warm-up raises the factor linearly, ``(step + 1) / warmup_steps``; decay begins where the
    warm-up ends and reaches the schedule's end at progress 1.

    Args:
        options: the recipe's schedule.
        lr: full learning rate, which ``min_lr``, ``end_lr`` and ``stop_lr`` relate to (where an
            optimiser has two, both are scaled by the same factor).
    """

    def __init__(self, options: ScheduleOptions, lr: float) -> None:
        self.options = options
        self.lr = lr
        self._warm = 0.0  # progress at the end of the warm-up
        self._factor = 1.0  # what the plateau has come down to
        self._best = math.inf
        self._bad = 0

    def factor(self, step: int, progress: float) -> float:
        """Factor for the step that follows ``step`` finished ones; to be asked in order."""
        warmup = self.options.warmup_steps
        if step <= warmup:
            self._warm = progress
        if step < warmup:
            return self._factor * (step + 1) / warmup
        rest = 1 - self._warm
        left = min(max((1 - progress) / rest, 0.0), 1.0) if rest > 0 else 0.0
        match self.options:
            case Cosine(end_lr=end):
                shape = 0.5 - 0.5 * math.cos(math.pi * left)
            case Polynomial(end_lr=end, power=power):
                shape = left**power
            case Linear(end_lr=end):
                shape = left
            case _:
                return self._factor
        floor = end / self.lr
        return floor + (1 - floor) * shape

    def validated(self, metric: float, loss: float) -> None:
        """Take note of a validation; the plateau then may lower its factor.

        As torch's ReduceLROnPlateau in mode ``min`` with a relative threshold.
        """
        if not isinstance(self.options, Plateau):
            return
        value = loss if self.options.monitor == "loss" else metric
        if value < self._best * (1 - self.options.threshold):
            self._best, self._bad = value, 0
        else:
            self._bad += 1
        if self._bad > self.options.patience:
            lowered = max(self._factor * self.options.factor, self.options.min_lr / self.lr)
            self._factor = min(self._factor, lowered)
            self._bad = 0

    @property
    def exhausted(self) -> bool:
        """Whether the plateau has come below its ``stop_lr``."""
        return isinstance(self.options, Plateau) and self._factor * self.lr < self.options.stop_lr

    def state_dict(self) -> dict[str, Any]:
        """All that `factor` and `validated` depend on."""
        return {
            "warm": self._warm,
            "factor": self._factor,
            "best": self._best,
            "bad": self._bad,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self._warm, self._factor = state["warm"], state["factor"]
        self._best, self._bad = state["best"], state["bad"]
