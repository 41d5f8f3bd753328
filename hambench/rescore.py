"""Scores of predictions in a file, of a run or of another code: no model is needed."""

from __future__ import annotations

import csv
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from tqdm import tqdm

from hambench.cell import check_kind, samples_of, scoring_of, table_of, theory_of
from hambench.chem.molecule import Molecule
from hambench.config import GivenPath, ScoreOptions, flatten, said
from hambench.data.energies import read_energies
from hambench.data.rows import Rows
from hambench.data.splits import clusters
from hambench.data.task import Task
from hambench.data.verify import sample
from hambench.data.workers import cores, pool
from hambench.errors import ConfigError, VerificationError, nearest
from hambench.registry import load_task
from hambench.scoring import ROTATION_ERROR, Score, Scorer, energy_table, find_metric
from hambench.scoring.foreign import FAR_BETTER, SAMPLE, ForeignPredictions
from hambench.scoring.predictions import Predictions, check_ids, is_predictions
from hambench.scoring.score_table import ScoreTable
from hambench.units import HARTREE_EV

logger = logging.getLogger(__name__)

Array = NDArray[np.float64]
Given = tuple[Iterable[Array], Iterable[Array] | None]
"""What was predicted for each molecule of a split, and for each turned, where that is known."""


class Request(BaseModel):
    """What a file is scored on; the keys are those of a run, see ``configs/run.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    data: GivenPath | None = None
    split: str | None = None
    energies: GivenPath | None = None
    score: ScoreOptions = ScoreOptions()

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> Request:
        """Check nested keys and values; ConfigError for one that is not there or makes no sense."""
        if "task" not in content:
            raise ConfigError("which task? Add task=NAME, one of those of `hambench list tasks`")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                known = [name for name, _ in flatten(cls.model_construct(task="").model_dump())]
                raise ConfigError(f"unknown key '{key}'.{nearest(key, known)}") from error
            raise ConfigError(f"{key}={first['input']!s:.60}: {said(first)}") from error


@dataclass(frozen=True)
class Rescored:
    """Scores of a file.

    Attributes:
        task, split: what was predicted.
        molecules: of the split.
        scores: as those of a run, failures counted among them.
        table: what every molecule adds to them.
    """

    task: Task
    split: str
    molecules: int
    scores: dict[str, Score]
    table: ScoreTable


def score_file(path: Path, request: Request, *, progress: bool = True) -> Rescored:
    """Compute the metrics of a task from a file of predictions.

    Hamiltonians come from a run's ``predictions.h5`` or a file as docs/predictions.md has it,
    energies from a table with ``id`` and ``energy`` or a run's ``energies.csv``. A file of another
    code that seems to be in another order or unit than it says is warned of.

    Args:
        path: the file.
        request: the task and how to score.
        progress: show a bar on a terminal.

    Raises:
        ConfigError: an unknown task, split or metric, or a metric of another quantity.
        DataError: the file, or the data of the task, are missing or unfit.
        VerificationError: the file is of another task or split, or of other data.
    """
    task = load_task(request.task, request.data, split=request.split, energies=request.energies)
    task.check_given()
    split = request.score.split
    molecules = task.split(split)
    energies = of_energies(task)
    read = _energies if energies else _hamiltonians
    predicted, turned = read(path, task, split)
    metrics = request.score.metrics or [*task.metrics, *([ROTATION_ERROR] if turned else [])]
    check_kind(metrics, task, energies=energies)
    if turned is None and any(find_metric(name).needs_turned for name in metrics):
        raise ConfigError(
            f"{ROTATION_ERROR} needs predictions for turned molecules, which {path} has not; leave "
            "it out"
        )
    theory = theory_of(task, metrics)
    groups = clusters(molecules.ids)
    shown = tqdm(
        molecules, desc=f"score {split}", unit="mol", leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip
    many = theory is not None and cores() > 1
    with pool(cores()) if many else nullcontext() as executor:
        scorer = Scorer(
            metrics, request.score.cutoff, task.basis, theory, executor, ahead=2 * cores(),
            samples=samples_of(scoring_of(metrics, request.score, theory), molecules.ids),
        )  # fmt: skip
        pairs = zip(shown, predicted, strict=True)
        others: Iterable[Array | None] = repeat(None) if turned is None else turned
        for (molecule, one), other in zip(pairs, others, strict=turned is not None):
            scorer.add(one, molecule, groups[molecule.id], other)
        table = table_of(scorer, task, split)
        return Rescored(task, split, len(molecules), scorer.scores(), table)


def predicted_of(path: Path, task: Task, split: str) -> Iterable[Array]:
    """What a file predicts for each molecule of a split, as `score_file` reads it."""
    return (_energies if of_energies(task) else _hamiltonians)(path, task, split)[0]


def of_energies(task: Task) -> bool:
    """Whether a task is of energies, not of Hamiltonians."""
    return all(target.name != "hamiltonian" for target in task.spec.targets)


def _hamiltonians(path: Path, task: Task, split: str) -> Given:
    """Hamiltonians of a split in Eh and canonical order, in a file that must be of this split."""
    molecules = task.split(split)
    if is_predictions(path):
        kept = Predictions(path)
        _check_said(path, task, split, kept.task, None, kept.fingerprint)
        _check_molecules(path, kept.ids, task, split)
        return kept.matrices(molecules.ids), kept.turned(molecules.ids) if kept.has_turned else None
    if path.suffix.lower() in (".csv", ".parquet"):
        raise ConfigError(
            f"task '{task.name}' asks for Hamiltonians, {path} is a table; give HDF5 or .npz as in "
            "docs/predictions.md, or a task of energies"
        )
    foreign = ForeignPredictions(path)
    _check_said(path, task, split, foreign.task, foreign.split, foreign.fingerprint)
    _check_molecules(path, foreign.ids, task, split)
    if doubt := foreign.better_reading(molecules, task.basis):
        logger.warning("warning: %s", doubt)
    return foreign.matrices(_geometries(molecules), task.basis), None


def _energies(path: Path, task: Task, split: str) -> Given:
    """Energies of a split in Eh, in a table that must be of this split."""
    if path.suffix.lower() in (".h5", ".hdf5", ".npz"):
        raise ConfigError(
            f"task '{task.name}' asks for energies; give a table of them with columns id and "
            f"energy (Eh) or energy_ev, which {path} is not"
        )
    if _is_of_run(path):
        found = {
            row.id: row.prediction for row in energy_table.read_energies(path) if row.split == split
        }
        _check_molecules(path, found, task, split)
    else:
        found = read_energies(path, predicted=True)
        _check_molecules(path, found, task, split)
        _doubt_unit(path, found, task.split(split))
    return [np.array(found[name]) for name in task.split(split).ids], None


def _doubt_unit(path: Path, found: Mapping[str, float], molecules: Rows) -> None:
    """Warn of energies that come far closer to the labels if Eh and eV are exchanged."""
    usable = [place for place, name in enumerate(molecules.ids) if np.isfinite(found[name])]
    some = [molecules[usable[k]] for k in sample(len(usable), SAMPLE)]
    pairs = [(found[one.id], one.energy) for one in some if one.energy is not None]
    if not pairs:
        return
    read, labels = np.array(pairs).T
    off = {
        said: float(np.abs(read * factor - labels).mean())
        for said, factor in {"": 1.0, "energy_ev": 1 / HARTREE_EV, "energy": HARTREE_EV}.items()
    }
    column = min(off, key=off.__getitem__)
    if column and off[column] < FAR_BETTER * min(off[""], np.abs(labels).mean()):
        logger.warning(
            "warning: the energies of %s are %.2g Eh off the labels on average; under the column "
            "'%s' (%s) they would be %.2g Eh off: the unit is probably wrong",
            path, off[""], column, "eV" if column == "energy_ev" else "Eh", off[column],
        )  # fmt: skip


def _is_of_run(path: Path) -> bool:
    """Whether a file is the table of a run, which has labels and predictions."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with open(path, newline="", encoding="utf-8", errors="replace") as file:
        return next(csv.reader(file), []) == list(energy_table.EnergyRow._fields)


def _geometries(molecules: Rows) -> Iterator[Molecule]:
    return (molecules.geometry(place) for place in range(len(molecules)))


def _check_said(
    path: Path, task: Task, split: str, of: str | None, part: str | None, fingerprint: str | None
) -> None:
    """VerificationError where a file says that it is of another task, split or data."""
    for what, there, here in (("task", of, task.name), ("split", part, split)):
        if there not in (None, here):
            raise VerificationError(
                f"{path} says it is of {what} '{there}', not '{here}'; score it with "
                f"{'score.' if what == 'split' else ''}{what}={there}"
            )
    if fingerprint is not None and fingerprint != task.fingerprint:
        raise VerificationError(
            f"{path} was predicted on data with fingerprint {fingerprint[:12]}, the data here have "
            f"{task.fingerprint[:12]}; score it on the data it was made for"
        )


def _check_molecules(path: Path, ids: Iterable[str], task: Task, split: str) -> None:
    """VerificationError unless a file is of the molecules of a split; another that fits is named.

    A row of generated data may be missing, so that the rows that are there count.
    """
    found = set(ids)
    for name in task.splits:
        if name != split and found == set(task.splits[name]) != set(task.splits[split]):
            raise VerificationError(
                f"{path} has the molecules of split '{name}', not of '{split}'; add "
                f"score.split={name}"
            )
    check_ids(path, found, task.split(split).ids)
