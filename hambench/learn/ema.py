"""Exponential moving average of a model's parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """``average <- d average + (1 - d) parameter`` after every step.

    Args:
        model: whose trainable parameters are averaged; buffers are used as they are.
        decay: d.
        ramp: use ``min(d, (1 + n) / (10 + n))`` at the n-th update, so that the first parameters
            are forgotten sooner.
    """

    def __init__(self, model: nn.Module, decay: float, *, ramp: bool = True) -> None:
        self.decay = decay
        self.ramp = ramp
        self.updates = 0
        self._parameters: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self._parameters]

    def next_weight(self) -> float:
        """``1 - d`` of the next update, which is counted as done."""
        self.updates += 1
        if not self.ramp:
            return 1 - self.decay
        return 1 - min(self.decay, (1 + self.updates) / (10 + self.updates))

    @torch.no_grad()
    def update(self, weight: float | Tensor | None = None) -> None:
        """Take in the current parameters.

        Args:
            weight: theirs; None: the next. One makes the average a copy of them. A tensor, of
                shape (), stays where it is.
        """
        if weight is None:
            weight = self.next_weight()
        if not isinstance(weight, Tensor):
            torch._foreach_lerp_(self.average, self._parameters, weight)
            return
        # average - weight (average - parameter): a step of gradient descent, for which there is a
        # kernel over all tensors at once that reads its rate from the device
        torch._fused_sgd_(
            self.average, self._parameters, [], lr=weight, weight_decay=1.0, maximize=True,
            momentum=0.0, dampening=0.0, nesterov=False, is_first_step=True,
        )  # fmt: skip

    @contextmanager
    @torch.no_grad()
    def applied(self) -> Iterator[None]:
        """The model has the averaged parameters while the block runs."""
        current = [p.detach().clone() for p in self._parameters]
        torch._foreach_copy_(self._parameters, self.average)
        try:
            yield
        finally:
            torch._foreach_copy_(self._parameters, current)

    def state_dict(self) -> dict[str, Any]:
        """The average and the number of updates."""
        return {"updates": self.updates, "average": self.average}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict`."""
        self.updates = state["updates"]
        torch._foreach_copy_(self.average, state["average"])
