"""Models that train and predict under an interpreter of their own: see `ExternalModel`."""

from __future__ import annotations

from hambench.external.exchange import ENERGY, FORCES, write_molecules
from hambench.external.model import ExternalModel
from hambench.learn import FitResult, Recipe
from hambench.learn.reporters import Reporter

__all__ = [
    "ENERGY",
    "FORCES",
    "ExternalModel",
    "FitResult",
    "Recipe",
    "Reporter",
    "write_molecules",
]
