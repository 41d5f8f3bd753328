"""A result made of another code's predictions, so that it can stand on the leaderboard."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import Field

from hambench import registry
from hambench.cell import training_split
from hambench.config import ScoreOptions
from hambench.data.splits import clusters
from hambench.data.task import Task
from hambench.domain import domain_of
from hambench.errors import ConfigError
from hambench.files import atomic_write
from hambench.leaderboard.submitted import SUBMISSION, Submission, read_record
from hambench.prediction import as_metrics, primary_of
from hambench.provenance import provenance
from hambench.rescore import Array, Request, Rescored, of_energies, predicted_of, score_file
from hambench.results import RESULT, Cost, Count, DataFile, Record, Result, now, write_result
from hambench.rundir import PREDICTIONS
from hambench.scoring.energy_table import ENERGIES, EnergyRow, write_energies
from hambench.scoring.predictions import write_predictions
from hambench.scoring.score_table import SCORES, write_scores


class Trained(Record):
    """What training took, as far as it is known: see `hambench.results.Cost`."""

    device: str
    wall_s: Annotated[float, Field(ge=0, le=1e12)]
    steps: Count
    epochs: Annotated[float, Field(ge=0, le=1e12)] = 0.0
    peak_memory: Count | None = None
    stopped_by: str = "not stated"


class Description(Submission):
    """What the authors say of a model: a YAML file.

    Attributes:
        task: what was predicted; ``split`` a variant of its splits, ``scored`` the split.
        model: name of the model, shown as it is.
        parameters: trainable numbers.
        seed: of the training.
        hyperparameters, recipe: anything that tells settings apart and can be said in JSON.
        train_on: part of the training split that it was trained on; None: the whole.
        strategy: on tasks of energies.
        cost: what training took.
        command: what was run.
    """

    task: str
    split: str | None = None
    scored: str = "test"
    model: str = Field(min_length=1, max_length=100)
    parameters: Count
    seed: Count
    hyperparameters: dict[str, Any] = Field(default={})
    recipe: dict[str, Any] = Field(default={})
    train_on: str | None = None
    strategy: Literal["direct", "frozen", "finetuned"] | None = None
    cost: Trained
    command: str = Field(default="", max_length=2000)


def pack(predictions: Path, description: Path, out: Path, data: Path | None = None) -> Path:
    """Score predictions, and write result, scores, predictions and `SUBMISSION` into a folder.

    Args:
        predictions: see `hambench.rescore.score_file`.
        description: YAML, see `Description`.
        out: the folder, which is made.
        data: where the data of the task are; None: where it looks by itself.

    Returns:
        The ``result.json``.

    Raises:
        ConfigError: a task or training set that is not there, or ``out`` holds a result.
        DataError: the description cannot be read, or does not follow the schema; and, like
            VerificationError, as `score_file`.
        RunError: the folder cannot be written.
    """
    said = read_record(description, Description)
    if said.model in registry.MODELS.names:
        raise ConfigError(
            f"'{said.model}' is the name of a model of hambench; run that, or choose another name"
        )
    if (out / RESULT).exists():
        raise ConfigError(f"{out} holds a result already; choose another folder")
    request = Request(
        task=said.task, data=data, split=said.split, score=ScoreOptions(split=said.scored)
    )
    done = score_file(predictions, request)
    energies = of_energies(done.task)
    result = _result(said, done, hashlib.sha256(predictions.read_bytes()).hexdigest(), energies)
    found = predicted_of(predictions, done.task, done.split)
    if energies:
        _keep_energies(out / ENERGIES, done.task, done.split, found)
    else:
        _keep_hamiltonians(out / PREDICTIONS, done.task, done.split, found)
    write_scores(out / SCORES, done.table)
    with atomic_write(out / SUBMISSION) as file:
        kept = {key: getattr(said, key) for key in Submission.model_fields}
        yaml.safe_dump(kept | {"authors": list(said.authors)}, file, allow_unicode=True)
    return write_result(out, result)


def _result(said: Description, done: Rescored, digest: str, energies: bool) -> Result:
    """The result; its run id is over description and predictions."""
    task = done.task
    if energies != (said.strategy is not None):
        raise ConfigError(
            f"task '{task.name}' is of {'energies' if energies else 'Hamiltonians'}: "
            f"{'say which strategy' if energies else 'leave out strategy'}"
        )
    trained = training_split(task, said.train_on)
    rows = task.split(trained)
    content = json.dumps([said.model_dump(mode="json"), digest], sort_keys=True)
    metrics = as_metrics(done.scores)
    more: dict[str, Any] = {}
    if energies:
        molecules = set(clusters(rows.ids).values())
        more = {"training_rows": len(rows), "training_molecules": len(molecules)}
    return Result(
        run_id=hashlib.sha256(content.encode()).hexdigest(),
        task=task.name,
        task_version=task.version,
        fingerprint=task.fingerprint,
        source=task.source,
        data=tuple(DataFile(**file) for file in task.files()),
        variant=task.spec.variant,
        split=done.split,
        training_split=trained,
        domain=domain_of(rows),
        model=said.model,
        preset=said.model,
        hyperparameters=said.hyperparameters,
        parameters=said.parameters,
        recipe=said.recipe,
        seed=said.seed,
        metrics=metrics,
        primary=primary_of(task, metrics),
        step_budget=task.protocol.max_steps,
        strategy=said.strategy,
        **more,
        cost=Cost(**said.cost.model_dump(), steps_per_s=None, molecules_per_s=None),
        provenance=provenance(now(), 0, registry.plugins()).model_copy(
            update={"command": said.command}
        ),
    )


def _keep_hamiltonians(path: Path, task: Task, split: str, found: Iterable[Array]) -> None:
    with write_predictions(
        path, task=task.name, task_version=task.version, fingerprint=task.fingerprint
    ) as writer:
        for name, matrix in zip(task.split(split).ids, found, strict=True):
            writer.add(name, matrix)


def _keep_energies(path: Path, task: Task, split: str, found: Iterable[Array]) -> None:
    molecules = task.split(split)
    groups = clusters(molecules.ids)
    rows = (
        EnergyRow(split, m.id, groups[m.id], len(m), m.energy or 0.0, float(np.asarray(value)))
        for m, value in zip(molecules, found, strict=True)
    )
    write_energies(path, rows)
