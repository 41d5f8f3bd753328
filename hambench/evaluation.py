"""Metrics of a run once more, and others: from what it kept, computing only what is not there yet.

``scores.h5`` in the run directory holds what every molecule of the scored split adds to every
metric; new metrics join it. Where predictions are needed, they are those the run kept, else those
of its best weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hambench import rundir
from hambench.cell import Cell
from hambench.chem.molecule import Molecule
from hambench.config import read_config, score_options
from hambench.data.splits import clusters
from hambench.errors import ConfigError, DataError, RunError
from hambench.learn import load_weights
from hambench.learn.loop import BEST
from hambench.model import Model
from hambench.prediction import (
    Array,
    kept_hamiltonians,
    predict,
    score_kept,
    score_kept_energies,
    score_split,
    scorer_of,
)
from hambench.results import read_result, read_status
from hambench.scoring import METRICS, Score
from hambench.scoring.breakdown import Breakdown, By, Part
from hambench.scoring.breakdown_table import (
    BREAKDOWN,
    BreakdownTable,
    read_breakdown,
    write_breakdown,
)
from hambench.scoring.energy_table import ENERGIES
from hambench.scoring.predictions import Predictions
from hambench.scoring.score_table import SCORES, ScoreTable, merged, read_scores, write_scores
from hambench.scoring.summary import scores_of

logger = logging.getLogger(__name__)


def evaluate(
    folder: Path,
    *,
    metrics: Sequence[str] | None = None,
    cutoff: float | None = None,
    split: str | None = None,
    energy_n: int | None = None,
    scf_n: int | None = None,
    device: str = "auto",
    progress: bool = True,
) -> dict[str, Score]:
    """Metrics of a run, those asked for.

    A metric that ``scores.h5`` has with the same settings is taken from there. Others are computed
    from ``predictions.h5`` or ``energies.csv`` where the run kept one for that split (no weights
    are needed then), else from its best weights; of the split the finished run was scored on they
    join ``scores.h5``, in place of the same metric with other settings.

    Args:
        folder: a run directory.
        metrics, cutoff, split: None: as in the run.
        energy_n, scf_n: molecules that metrics of energies and dipole moments, and of SCFs are
            computed on; None: as in the run.
        device: where the model predicts, and a GPU finds spectra.
        progress: show progress on a terminal.

    Raises:
        DataError: no run directory, or neither predictions nor weights in it.
        ConfigError: an unknown metric or split, a cutoff that is none, or the data have changed.
    """
    asked: dict[str, Any] = {"metrics": metrics and list(metrics), "cutoff": cutoff, "split": split}
    sizes = {"energy": energy_n, "scf": scf_n}
    asked |= {kind: {"n": n} for kind, n in sizes.items() if n is not None}
    cell, same = _cell(folder, asked, device)
    keeps = same and rundir.is_finished(folder)
    table = _kept_scores(folder, cell) if keeps else None
    missing = _missing(cell, table)
    if missing and keeps and table is None:  # the scores of the run's result are there again
        missing += [name for name in _of_result(folder) if name not in missing]
    if missing:
        cell.check_overlaps()
        new = _scored(_asking(cell, missing), folder, same, progress)
        table = new if table is None else merged(table, new)
        if keeps:
            _keep(folder, cell, new)
    assert table is not None  # or all had been missing
    return scores_of(table, cell.metrics)


def breakdown(
    folder: Path,
    by: By,
    *,
    split: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> list[Part]:
    """How the error of a run's Hamiltonians is made up.

    Of the split the finished run was scored on it is kept in ``breakdown.json``, for pictures of
    leaderboards.

    Args:
        folder, split, device, progress: see `evaluate`, also for errors.
        by: see `Breakdown`.

    Raises:
        ConfigError: a run on energies.
    """
    cell, same = _cell(folder, {"split": split}, device)
    if cell.energies:
        raise ConfigError(
            f"the run in {folder} predicts energies, which have no distances or pairs of elements; "
            "leave out --breakdown"
        )
    split = cell.config.score.split
    groups = clusters(cell.task.split(split).ids)
    parts = Breakdown(by, cell.task.basis)
    for molecule, predicted in _hamiltonians(cell, folder, same, progress):
        parts.add(predicted, molecule, groups[molecule.id])
    found = parts.parts()
    if same and rundir.is_finished(folder):
        _keep_parts(folder, cell, by, found)
    return found


def _cell(folder: Path, asked: Mapping[str, Any], device: str) -> tuple[Cell, bool]:
    """The cell of a run, scored as asked; whether the split is the one the run was scored on."""
    as_run = read_config(folder / rundir.CONFIG)
    as_run = as_run.model_copy(update={"run_dir": folder})  # wherever it has been moved
    changes = {k: v for k, v in asked.items() if v is not None}
    for kind in changes.keys() & {"energy", "scf"}:  # the seed stays
        changes[kind] = getattr(as_run.score, kind).model_dump() | changes[kind]
    options = score_options(as_run.score, changes)
    cell = Cell.build(as_run.model_copy(update={"score": options, "device": device}))
    rundir.check_data(folder, read_status(folder).fingerprint, cell.task.fingerprint)
    return cell, options.split == as_run.score.split


def _asking(cell: Cell, metrics: list[str]) -> Cell:
    """The cell, asking for other metrics."""
    options = score_options(cell.config.score, {"metrics": metrics})
    return replace(cell, config=cell.config.model_copy(update={"score": options}))


def _missing(cell: Cell, table: ScoreTable | None) -> list[str]:
    """What has to be computed: not in the table, or there with other settings."""
    wanted = scorer_of(cell).settings
    have = {} if table is None else table.settings
    return [name for name, settings in wanted.items() if have.get(name) != settings]


def _of_result(folder: Path) -> list[str]:
    """Metrics that the result of a run has, less those that only count what went wrong."""
    known = (METRICS.get(name) for name in read_result(folder).metrics)
    return [metric.name for metric in known if metric is not None and not metric.alarm]


def _scored(cell: Cell, folder: Path, same: bool, progress: bool) -> ScoreTable:
    """Compute the metrics of a cell, from what a run kept if it is there."""
    kept = _kept_predictions(folder) if same else None
    if kept is not None and (not cell.needs_turned or kept.has_turned):
        return score_kept(cell, kept, progress, inference_s=_inference_s(folder))
    if same and cell.energies and (folder / ENERGIES).is_file():
        return score_kept_energies(cell, folder / ENERGIES)
    return score_split(_with_weights(cell, folder), progress, inference_s=_inference_s(folder))


def _kept_predictions(folder: Path) -> Predictions | None:
    """The Hamiltonians a run kept; None where there are none, or damaged ones and weights.

    A warning says of the latter that the weights predict again.
    """
    kept, weights = folder / rundir.PREDICTIONS, folder / rundir.CHECKPOINTS / BEST
    if not kept.is_file():
        return None
    try:
        return Predictions(kept)
    except DataError as error:
        if not weights.is_file():
            raise
        logger.warning("warning: %s; predicting anew with %s", str(error).split(";")[0], weights)
        return None


def _inference_s(folder: Path) -> float | None:
    """Seconds that predicting a molecule took in a run, where its result knows."""
    if not rundir.is_finished(folder):
        return None
    inference = read_result(folder).cost.inference
    return None if inference is None else inference.molecule_s


def _hamiltonians(
    cell: Cell, folder: Path, same: bool, progress: bool
) -> Iterator[tuple[Molecule, Array]]:
    kept = _kept_predictions(folder) if same else None
    if kept is not None:
        return kept_hamiltonians(cell, kept, progress)
    return predict(_with_weights(cell, folder), cell.config.score.split, progress)


def _with_weights(cell: Cell, folder: Path) -> Cell:
    if isinstance(cell.model, Model):
        load_weights(folder / rundir.CHECKPOINTS / BEST, cell.model)
    return cell


def _kept_scores(folder: Path, cell: Cell, level: int = logging.WARNING) -> ScoreTable | None:
    """The scores of a finished run; None where they are of no use, which a message says."""
    path, task, split = folder / SCORES, cell.task, cell.config.score.split
    if not path.is_file():
        return None
    try:
        table = read_scores(path)
    except DataError as error:
        logger.log(level, "warning: %s; metrics are computed anew", error)
        return None
    wanted = (task.name, task.version, task.fingerprint, split, task.split(split).ids)
    if (table.task, table.task_version, table.fingerprint, table.split, table.ids) != wanted:
        logger.log(level, "warning: %s is of other molecules; metrics are computed anew", path)
        return None
    return table


def _keep(folder: Path, cell: Cell, new: ScoreTable) -> None:
    """Add new scores to those of a run, whole or not at all."""

    def add() -> None:
        # another evaluation may have added to it
        before = _kept_scores(folder, cell, logging.DEBUG)
        write_scores(folder / SCORES, new if before is None else merged(before, new))

    _add_to(folder, add)


def _keep_parts(folder: Path, cell: Cell, by: By, parts: Sequence[Part]) -> None:
    """Put parts beside those of other kinds, or in place of a file that is of no use."""
    path, task = folder / BREAKDOWN, cell.task
    empty = BreakdownTable(
        task=task.name,
        task_version=task.version,
        fingerprint=task.fingerprint,
        split=cell.config.score.split,
    )

    def add() -> None:
        before = empty
        with suppress(DataError):
            kept = read_breakdown(path)
            before = kept if kept.scored == empty.scored else empty
        write_breakdown(path, before.with_parts(by, parts))

    _add_to(folder, add)


def _add_to(folder: Path, add: Callable[[], None]) -> None:
    """Add to what a run keeps, as its only writer; where that cannot be, a warning says so."""
    try:
        with rundir.lock(folder):
            add()
    except RunError as error:
        logger.warning("what was computed is shown and not kept: %s", error)
