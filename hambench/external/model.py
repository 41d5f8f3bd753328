"""`ExternalModel`: what the harness sees of a model that runs under another interpreter."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
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
from hambench.external.training import Course
from hambench.learn import FitResult, Recipe
from hambench.learn.loop import LOG
from hambench.learn.reporters import Reporter, Terminal


class ExternalModel(ABC):
    """A model of energies whose libraries fit into no environment but its own.

    It is no network here: a worker script trains it and predicts with it
    (`hambench.external.host`), and files go to and fro (`hambench.external.exchange`).

    Attributes:
        environment: name of the environment; see `hambench.environments`.
        worker: the script.
        basis: orbital basis of the task, whose elements are those to expect.
        hyperparameters: what it was built with, JSON-able; set by the registry.
        parameters, device, memory: trainable numbers, what it ran on, and the most memory used
            there (bytes); known after `fit`.
    """

    environment: ClassVar[str]
    worker: ClassVar[Path]

    def __init__(self, basis: OrbitalBasis) -> None:
        self.basis = basis
        self.hyperparameters: dict[str, Any] = {}
        self.parameters = 0
        self.device = ""
        self.memory = 0

    def check(self, recipe: Recipe, rows: int) -> None:
        """See whether it can run as things are; called before anything is written.

        Args:
            recipe: to be trained with.
            rows: molecules to train on.

        Raises:
            ConfigError: the environment is not made, or the recipe cannot be followed.
        """
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

            def hear(event: Event) -> None:
                if event["event"] == "predicted":
                    shown.update(event["molecules"] - shown.n)
                else:
                    self._note(event)

            run_worker(self.environment, self.worker, job, folder, hear)
        energies = read_energies(out, len(molecules))
        for path in (given, out):
            path.unlink()
        return energies

    def train(
        self,
        job: Mapping[str, Any],
        folder: Path,
        *,
        recipe: Recipe,
        max_steps: int | None,
        progress: bool,
        reporters: Sequence[Reporter],
    ) -> FitResult:
        """Let the worker's ``train`` do a job; see `hambench.external.training` for its events.

        Args:
            job: what it needs to know.
            folder: of the model; the log stands beside it.
            recipe: for its time budget and how often to log.
            max_steps: that the job comes to, for the display.
            progress, reporters: as in `fit`.
        """
        course = Course(
            folder.parent / LOG,
            recipe.log_every,
            [*([Terminal(max_steps, recipe.max_minutes)] if progress else []), *reporters],
        )
        try:
            run_worker(
                self.environment, self.worker, {"action": "train", **job}, folder, course.hear
            )
        finally:
            course.close()
        self._note(course.end)
        return course.result()

    @property
    def libraries(self) -> dict[str, str]:
        """Versions of what it runs with, ``{"mace:torch": "2.13.0"}``."""
        found = environment(self.environment).versions
        return {f"{self.environment}:{name}": version for name, version in found.items()}

    def count_parameters(self) -> int:
        """Trainable parameters, once it was trained."""
        return self.parameters

    def _note(self, event: Event) -> None:
        self.parameters, self.device = event["parameters"], event["device"]
        self.memory = event["memory"]
