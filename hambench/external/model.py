"""`ExternalModel`: what the harness sees of a model that runs under another interpreter."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.environments import environment
from hambench.external.exchange import read_energies, write_molecules
from hambench.external.process import Event, run_worker
from hambench.learn import FitResult, Recipe
from hambench.learn.reporters import Reporter


class ExternalModel(ABC):
    """A model of energies whose libraries fit into no environment but its own.

    It is no network here: a worker script trains it and predicts with it
    (`hambench.external.host`), and files go to and fro (`hambench.external.exchange`).

    Attributes:
        environment: name of the environment; see `hambench.environments`.
        worker: the script.
        basis: orbital basis of the task, whose elements are those to expect.
        hyperparameters: what it was built with, JSON-able; set by the registry.
        parameters: trainable numbers; known after `fit`.
    """

    environment: ClassVar[str]
    worker: ClassVar[Path]

    def __init__(self, basis: OrbitalBasis) -> None:
        self.basis = basis
        self.hyperparameters: dict[str, Any] = {}
        self.parameters = 0

    def check(self, recipe: Recipe) -> None:
        """Raise ConfigError if it cannot run as things are; called before anything is written."""
        environment(self.environment).require()

    @abstractmethod
    def fit(
        self,
        train: Sequence[Molecule],
        validation: Sequence[Molecule],
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        device: str,
        progress: bool,
        reporters: Sequence[Reporter],
    ) -> FitResult:
        """Train it, going on where an earlier call in ``folder`` stopped; see `learn.fit`.

        What `predict` needs is in ``folder`` then, a folder of the model's own.

        Raises:
            ConfigError: the environment is not made, or the recipe cannot be followed.
            RunError: the worker failed.
            Interrupted: Ctrl-C or SIGTERM; the same call goes on.
        """

    @abstractmethod
    def prediction_job(self, folder: Path) -> dict[str, Any]:
        """What the worker's ``predict`` needs to know beside ``molecules``, ``out``, ``device``.

        Raises:
            DataError: `fit` has left no trained model in ``folder``.
        """

    def predict(
        self, molecules: Sequence[Molecule], folder: Path, *, device: str, progress: bool
    ) -> NDArray[np.float64]:
        """(molecules,) total energies in Eh, with what `fit` left in ``folder``.

        Raises:
            DataError: it has left nothing there.
            ConfigError, RunError, Interrupted: as `fit` does.
        """
        given, out = folder / "predict.extxyz", folder / "predicted.csv"
        job = {"action": "predict", "molecules": str(given), "out": str(out), "device": device}
        job |= self.prediction_job(folder)
        write_molecules(given, molecules)
        shown = tqdm(
            total=len(molecules), desc="predict", unit="mol", leave=False,
            disable=not (progress and sys.stderr.isatty()),
        )  # fmt: skip
        with shown:

            def show(event: Event) -> None:
                shown.update(event["molecules"] - shown.n)

            run_worker(self.environment, self.worker, job, folder, show)
        energies = read_energies(out, len(molecules))
        for path in (given, out):
            path.unlink()
        return energies

    def count_parameters(self) -> int:
        """Trainable parameters, once it was trained."""
        return self.parameters
