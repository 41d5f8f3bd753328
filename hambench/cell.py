"""`Cell`: what the configuration of a run names, built and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hambench import models, registry
from hambench.chem.engine import is_installed
from hambench.chem.theory import Theory
from hambench.config import RunConfig, ScoreOptions
from hambench.data.task import Task
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError, RegistryError, nearest
from hambench.external import ExternalModel
from hambench.learn import Recipe
from hambench.learn.captured import check_cuda_graph
from hambench.learn.device import open_fabric
from hambench.learn.training import check_recipe
from hambench.model import Model
from hambench.scoring import ROTATION_ERROR, Scorer, find_metric
from hambench.scoring.metrics import Sampled
from hambench.scoring.sampling import Sample, drawn
from hambench.scoring.score_table import ScoreTable

Scoring = dict[Sampled, dict[str, Any]]
"""What metrics depend on that are computed on samples of the molecules, by kind of metric."""


@dataclass(frozen=True)
class Cell:
    """What a configuration names, built: everything that can be wrong in it was checked."""

    config: RunConfig
    task: Task
    model: Model | ExternalModel
    recipe: Recipe

    @classmethod
    def build(cls, config: RunConfig) -> Cell:
        """Task, model (initialised by the seed) and recipe of a configuration.

        Raises:
            ConfigError: an option, hyperparameter, metric or device that is not there.
            DataError: the data of the task are missing.
        """
        recipe = Recipe.parse(config.training)
        if recipe.max_steps is None and recipe.max_minutes is None:
            raise ConfigError(
                f"recipe '{recipe.name}' sets no budget; add max_steps=N or max_minutes=M"
            )
        check_recipe(recipe, energies=config.strategy is not None)
        device = open_fabric(config.device).device
        if config.cuda_graph:
            check_cuda_graph(device, recipe, config.nodes * config.gpus)
        task = open_task(config)
        task.check_given()
        metrics = config.score.metrics or task.metrics
        Scorer(metrics, theory=theory_of(task, metrics))
        check_kind(metrics, task, energies=config.strategy is not None)
        for split in _used(config, task):
            task.split(split)
        torch.manual_seed(config.seed)
        name, settings = config.model["name"], config.model.get("hyperparameters", {})
        if not models.is_external(name):
            return cls(config, task, model_of(config, task), recipe)
        if config.strategy != "direct":
            raise ConfigError(
                f"model '{name}' is trained on energies and nothing else; choose a task of them "
                "(hambench list tasks), and leave out strategy="
            )
        if config.cuda_graph:
            raise ConfigError(
                f"model '{name}' trains in an environment of its own, without CUDA graphs; leave "
                "out cuda_graph"
            )
        return cls(config, task, models.build_external(name, task.basis, **settings), recipe)

    def check_guesses(self) -> None:
        """See whether the model's initial guesses are there or can be computed, if it has any.

        Raises:
            ConfigError: as `hambench.data.guess.Guess.check`.
        """
        if isinstance(self.model, ExternalModel) or (guess := self.model.graph.guess) is None:
            return
        for split in _used(self.config, self.task):
            guess.check(self.task.split(split))

    def check_overlaps(self) -> None:
        """See whether metrics of the spectrum can be computed, if there are any to compute.

        Raises:
            ConfigError: the data have no overlaps, and PySCF, which computes them, is missing.
        """
        if not any(find_metric(name).needs_spectrum for name in self.metrics):
            return
        if self.task.split(self.config.score.split)[0].overlap is None and not is_installed():
            raise ConfigError(
                f"the data of task '{self.task.name}' have no overlaps, which its metrics of the "
                "spectrum need; install what computes them, pip install 'hambench[pyscf]', or "
                "leave these metrics out: score.metrics=[h_mae,h_mae_diag,h_mae_offdiag]"
            )

    @property
    def training_split(self) -> str:
        """The split to train on."""
        return training_split(self.task, self.config.train_on)

    @property
    def energies(self) -> bool:
        """Whether energies are predicted, not Hamiltonians."""
        return self.config.strategy is not None

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics to compute.

        Where none were named, those of the task, and the rotation error of a model that says it is
        not equivariant.
        """
        if self.config.score.metrics:
            return self.config.score.metrics
        if self.energies or isinstance(self.model, ExternalModel) or self.model.equivariant:
            return self.task.metrics
        return [*self.task.metrics, ROTATION_ERROR]

    @property
    def needs_turned(self) -> bool:
        """Whether a metric to compute needs predictions for the molecules turned."""
        return any(find_metric(name).needs_turned for name in self.metrics)

    @property
    def theory(self) -> Theory | None:
        """Level of theory of the labels, where a metric to compute needs it."""
        return theory_of(self.task, self.metrics)

    @property
    def scoring(self) -> Scoring:
        """What the metrics to compute depend on, by kind: see `hambench.results.Result`."""
        return scoring_of(self.metrics, self.config.score, self.theory)

    @property
    def samples(self) -> dict[Sampled, Sample]:
        """Molecules of the scored split that each kind of metrics is computed on."""
        return samples_of(self.scoring, self.task.split(self.config.score.split).ids)

    @property
    def cutoff(self) -> float | None:
        """Angstrom, of ``h_mae_in_cutoff``: the one asked for, else the model's."""
        asked = self.config.score.cutoff
        if asked is not None or isinstance(self.model, ExternalModel):
            return asked
        return self.model.graph.cutoff


def model_of(config: RunConfig, task: Task) -> Model:
    """The model a configuration names, with fresh weights; frozen where its strategy says so.

    Raises:
        ConfigError: a hyperparameter that is not there or does not fit; or a model of energies
            alone for a task of Hamiltonians, or for a strategy that begins with them.
    """
    name, settings = config.model["name"], config.model.get("hyperparameters", {})
    if config.strategy is None:
        model = models.build_model(name, task.basis, **settings)
        if isinstance(model, EnergyModel):
            raise ConfigError(
                f"model '{name}' predicts energies, task '{task.name}' asks for Hamiltonians; "
                "choose a task of energies (hambench list tasks)"
            )
        return model
    staged = models.build_energy_model(name, task.basis, settings, config.model.get("energy", {}))
    if config.strategy != "direct" and "energy" not in config.model:
        raise ConfigError(
            f"model '{name}' has nothing that could be trained on Hamiltonians; leave out "
            f"strategy={config.strategy}"
        )
    if config.strategy == "frozen":
        staged.freeze()
    return staged


def open_task(config: RunConfig) -> Task:
    """The task of a configuration; ConfigError where it is of another version."""
    task = registry.load_task(
        config.task["name"], config.data, split=config.split, energies=config.energies
    )
    if config.task.get("version") != task.version:
        raise ConfigError(
            f"the configuration is of {task.name} v{config.task.get('version')}, this hambench "
            f"has v{task.version}; run the cell anew, or use the hambench it was made with"
        )
    return task


def check_kind(metrics: Sequence[str], task: Task, *, energies: bool) -> None:
    """ConfigError for a metric of another quantity than the task's models predict."""
    predicted = "energy" if energies else "hamiltonian"
    for name in metrics:
        if find_metric(name).of not in (None, predicted):
            raise ConfigError(
                f"metric '{name}' is not of what models of task '{task.name}' predict; take some "
                f"of {', '.join(task.metrics)}, or others of `hambench list metrics`"
            )


def theory_of(task: Task, metrics: Sequence[str]) -> Theory | None:
    """Level of theory of a task, where one of the metrics needs it."""
    return task.level if any(find_metric(name).needs_theory for name in metrics) else None


def _used(config: RunConfig, task: Task) -> tuple[str, str, str]:
    """The splits to score, to validate and to train on."""
    trained = training_split(task, config.train_on)
    return config.score.split, task.protocol.validation_split, trained


def scoring_of(metrics: Sequence[str], options: ScoreOptions, theory: Theory | None) -> Scoring:
    """What metrics computed on samples depend on, by kind: sizes, seeds, settings of SCFs."""
    kinds = dict.fromkeys(find_metric(name).sample for name in metrics)
    found = {kind: getattr(options, kind).model_dump() for kind in kinds if kind}
    if "scf" in found and theory is not None:
        from hambench.chem.scf import settings  # SciPy

        found["scf"] |= settings(theory)
    return found


def samples_of(scoring: Scoring, ids: Sequence[str]) -> dict[Sampled, Sample]:
    """Those of ``ids`` that each kind of metrics is computed on."""
    return {kind: Sample(drawn(ids, one["n"], one["seed"]), one) for kind, one in scoring.items()}


def training_split(task: Task, asked: str | None) -> str:
    """The task's training split, or a part of it; RegistryError for any other."""
    whole = task.protocol.training_split
    allowed = [name for name, split in task.spec.splits.items() if split.within == whole]
    if asked is not None and asked not in (whole, *allowed):
        raise RegistryError(
            f"train_on={asked} is no training set of task '{task.name}'."
            f"{nearest(asked, [whole, *allowed])}"
        )
    return asked or whole


def table_of(scorer: Scorer, task: Task, split: str) -> ScoreTable:
    """What a scorer has of all molecules of a split, in the order of the task."""
    ids = task.split(split).ids
    place = {name: k for k, name in enumerate(scorer.ids)}
    order = [place[name] for name in ids]
    return ScoreTable(
        task.name, task.version, task.fingerprint, split, ids,
        tuple(scorer.groups[k] for k in order), scorer.settings, scorer.terms[order],
    )  # fmt: skip
