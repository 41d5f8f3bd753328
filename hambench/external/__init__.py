"""Models that train and predict under an interpreter of their own: see `ExternalModel`."""

from __future__ import annotations

from hambench.external.exchange import write_molecules
from hambench.external.model import ExternalModel
from hambench.external.training import train
from hambench.learn import FitResult, Recipe
from hambench.learn.reporters import Reporter

__all__ = ["ExternalModel", "FitResult", "Recipe", "Reporter", "train", "write_molecules"]
