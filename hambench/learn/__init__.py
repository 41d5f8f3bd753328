"""Training: the loop, optimisers, schedules, checkpoints. ``fit`` and ``Recipe`` are the door.

Names are imported on first use, so that checking a recipe needs no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hambench.learn.interrupts import Interrupted
    from hambench.learn.loop import FitResult, fit
    from hambench.learn.recipe import Recipe
    from hambench.learn.weights import load_weights

__all__ = ["FitResult", "Interrupted", "Recipe", "fit", "load_weights"]

_HOMES = {
    "FitResult": "loop",
    "Interrupted": "interrupts",
    "Recipe": "recipe",
    "fit": "loop",
    "load_weights": "weights",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hambench.learn' has no attribute '{name}'")
    return getattr(import_module(f"hambench.learn.{_HOMES[name]}"), name)
