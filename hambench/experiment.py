"""One cell of the benchmark, task x model x seed, from start to finish; resumable at any point."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hambench import registry, rundir
from hambench.cell import Cell, open_task
from hambench.chem.molecule import Molecule
from hambench.config import OF_PRETRAINING, RunConfig, read_config
from hambench.cost import measured
from hambench.data.task import Task
from hambench.domain import domain_of
from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.external import ExternalModel
from hambench.learn import FitResult, Interrupted, fit, load_weights
from hambench.learn.device import open_fabric, peak_memory
from hambench.learn.loop import BEST
from hambench.learn.processes import Processes, join
from hambench.learn.reporters import Reporter, Row, bar
from hambench.learn.statistics import prepare
from hambench.learn.trackers import Tracker, tracked
from hambench.learn.validation import metric_name
from hambench.learn.weights import save_weights
from hambench.model import Model, silent
from hambench.prediction import (
    as_metrics,
    keep_predictions,
    primary_of,
    score_energies,
    score_split,
)
from hambench.pretraining import audited, begin_with, check_body_of
from hambench.provenance import provenance
from hambench.reproduce import command_of
from hambench.results import (
    Audit,
    Cost,
    DataFile,
    Inference,
    Pretraining,
    Result,
    Status,
    read_result,
    write_result,
)
from hambench.scoring.energy_table import ENERGIES
from hambench.scoring.predictions import Predictions
from hambench.scoring.score_table import SCORES, write_scores
from hambench.scoring.summary import scores_of

logger = logging.getLogger(__name__)

_STATUS_SECONDS = 10.0  # between updates of status.json


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes:
        result: what its ``result.json`` holds.
        folder: its run directory.
        fresh: False where it had been finished before and nothing was computed.
    """

    result: Result
    folder: Path
    fresh: bool


def run(config: RunConfig, *, progress: bool = True) -> Outcome:
    """Train, predict, score; go on where an earlier start of the same run stopped.

    A finished run returns at once. The run directory is `RunConfig.folder`. Where ``nodes`` and
    ``gpus`` ask for several processes, all of them call this; they train together, the first one
    does everything else while the others wait.

    Args:
        config: see `hambench.compose.compose`.
        progress: show progress on the terminal, or as log lines where there is none.

    Raises:
        ConfigError: something in the configuration is not there or does not fit, the run
            directory holds another run, or other processes were started than are asked for.
        DataError: the task's data are missing or corrupt.
        RunError: the run failed (``status.json`` says why), or another process has the directory.
        Interrupted: Ctrl-C or SIGTERM; the same configuration goes on from the checkpoint.
    """
    processes = join(config.nodes, config.gpus, config.device)
    with processes.course():
        return _outcome(config, processes, progress and processes.first)


def _outcome(config: RunConfig, processes: Processes, progress: bool) -> Outcome:
    folder = config.folder
    if config.overwrite or not processes.from_first(lambda: rundir.is_finished(folder)):
        cell = processes.in_turn(lambda: Cell.build(config))
        fingerprint, audit = processes.from_first(lambda: _checked(cell, processes))
        if config.pretraining is not None:
            _pretrain(config.pretraining, processes, progress)
        with ExitStack() as held:
            status = processes.from_first(lambda: _begun(config, fingerprint, held))
            if status is not None:
                file = _StatusFile(folder, status)
                result = _followed(cell, audit, folder, file, processes, progress)
                return Outcome(result, folder, fresh=True)
    return processes.from_first(lambda: _finished(config, progress))


def _checked(cell: Cell, processes: Processes) -> tuple[str, Audit | None]:
    """Fingerprint of the data, and audit of the pretraining; what would fail later fails here."""
    fingerprint = cell.task.fingerprint  # reads every row: corrupt data fail here
    if isinstance(cell.model, ExternalModel):
        cell.model.check(cell.recipe, len(cell.task.split(cell.training_split)))
        if processes.several:
            raise ConfigError(
                f"model '{cell.config.model['name']}' trains in an environment of its own, with "
                "one process; leave out nodes and gpus"
            )
    cell.check_guesses()
    cell.check_overlaps()
    check_body_of(cell)
    return fingerprint, audited(cell)  # before what it would refuse is trained


def _begun(config: RunConfig, fingerprint: str, held: ExitStack) -> Status | None:
    """Take the run directory; None where another start has finished the run meanwhile."""
    held.enter_context(rundir.lock(config.folder))
    if rundir.is_finished(config.folder) and not config.overwrite:
        held.close()
        return None
    return rundir.begin(config.folder, config, fingerprint)


def _pretrain(before: RunConfig, processes: Processes, progress: bool) -> None:
    """Run the cell that an energy cell begins with, unless that is done.

    Raises:
        ConfigError: the folder holds another run.
    """
    if processes.from_first(lambda: rundir.is_finished(before.folder)):
        processes.from_first(lambda: rundir.check_same(before.folder, before))
    else:
        budget = before.training
        limits = {"max_steps": "steps", "max_minutes": "minutes"}
        said = ", ".join(f"{budget[k]} {unit}" for k, unit in limits.items() if budget[k])
        logger.info(
            "pretraining comes first: %s on %s (change it with pretraining.KEY=VALUE): %s",
            said, before.task["name"], before.folder,
        )  # fmt: skip
        try:
            _outcome(before, processes, progress)
        except RunError as error:
            raise RunError(f"{error} ({OF_PRETRAINING})") from error


def _finished(config: RunConfig, progress: bool) -> Outcome:
    """What a finished run has, if that is what is asked for; predictions it kept not are made.

    Raises:
        ConfigError: another run, other data, or other options of scoring.
        DataError: its ``result.json`` or its best weights cannot be read.
    """
    folder, kept = config.folder, config.folder / rundir.PREDICTIONS
    rundir.check_same(folder, config)
    outcome = Outcome(read_result(folder), folder, fresh=False)
    rundir.check_scoring(folder, config)
    as_run = read_config(folder / rundir.CONFIG)
    task = open_task(config)
    if config.data != as_run.data or task.available:
        rundir.check_data(folder, outcome.result.fingerprint, task.fingerprint)
    wanted = config.save_predictions and config.strategy is None
    if wanted and not _are_kept(kept, task, config):
        cell = Cell.build(config)
        assert isinstance(cell.model, Model)  # others predict energies alone
        with rundir.lock(folder):
            load_weights(folder / rundir.CHECKPOINTS / BEST, cell.model)
            keep_predictions(cell, kept, progress)
    return outcome


def _are_kept(kept: Path, task: Task, config: RunConfig) -> bool:
    """Whether a file has all predictions, no coarser than asked; they are made anew if not."""
    if not kept.is_file():
        return False
    try:
        found = Predictions(kept)
        if (found.dtype, config.predictions_dtype) == ("float32", "float64"):
            return False
        found.check_complete(task.split(config.score.split).ids, task.fingerprint)
    except DataError as error:
        logger.warning("the predictions are made anew: %s", error)
        return False
    return True


def _followed(
    cell: Cell,
    audit: Audit | None,
    folder: Path,
    status: _StatusFile,
    processes: Processes,
    progress: bool,
) -> Result:
    """`_run`, whose end stands in ``status.json`` whatever it is, in whichever process."""
    if not processes.first:
        return _run(cell, audit, folder, status, [], processes, progress)
    config = cell.config
    told = tracked(config.tracker, folder, config.run_id, config.title, config.spec)
    try:
        with processes.together(), told as trackers:
            result = _run(cell, audit, folder, status, trackers, processes, progress)
            for tracker in trackers:
                tracker.result({name: metric.value for name, metric in result.metrics.items()})
    except (Interrupted, KeyboardInterrupt) as error:
        status.update(state="interrupted", reason=str(error) or "Ctrl-C")
        raise
    except HambenchError as error:
        status.update(state="failed", reason=str(error))
        raise
    except Exception as error:
        (folder / rundir.TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
        status.update(state="failed", reason=f"{type(error).__name__}: {error}")
        raise
    status.update(state="done", step=result.cost.steps)
    return result


def _run(
    cell: Cell,
    audit: Audit | None,
    folder: Path,
    status: _StatusFile,
    trackers: Sequence[Tracker],
    processes: Processes,
    progress: bool,
) -> Result:
    task, model, config = cell.task, cell.model, cell.config
    train = task.split(cell.training_split)
    validation = task.split(task.protocol.validation_split)
    logger.info("task %s v%d: %d molecules to train on", task.name, task.version, len(train))
    device, precision = open_fabric(config.device).device, cell.recipe.precision
    where = f"{processes.size} x {device.type}" if processes.several else str(device)
    logger.info("run %s on %s, %s: %s", config.run_id[:8], where, precision, folder)
    pretraining = processes.from_first(lambda: None if audit is None else begin_with(cell, audit))
    reporters: list[Reporter] = [status, *trackers]
    if isinstance(model, ExternalModel):
        fitted = model.fit(
            train, validation, cell.recipe, folder / rundir.EXTERNAL,
            seed=config.seed, device=config.device, progress=progress, reporters=reporters,
        )  # fmt: skip
    elif model.count_parameters() == 0:
        prepared = model
        fitted = processes.from_first(lambda: _prepare(prepared, train, folder, device, progress))
    else:
        logger.info("%s: %s parameters", config.model["name"], f"{model.count_parameters():,}")
        fitted = fit(
            model, train, validation, cell.recipe, folder,
            seed=config.seed, device=config.device, workers=config.workers, progress=progress,
            reporters=reporters, fingerprint=f"{task.fingerprint} {cell.training_split}",
            processes=processes, cuda_graph=config.cuda_graph,
        )  # fmt: skip
    return processes.from_first(
        lambda: _scored(cell, fitted, pretraining, folder, status.current, device, progress)
    )


def _scored(
    cell: Cell,
    fitted: FitResult,
    pretraining: Pretraining | None,
    folder: Path,
    status: Status,
    device: torch.device,
    progress: bool,
) -> Result:
    """The result of a trained model, written down with its scores; by one process alone."""
    config = cell.config
    inference = measured(cell, progress)
    common = _common(cell, fitted, inference, status, device)
    more: dict[str, Any] = {}
    if cell.energies:
        scores, trained = score_energies(cell, folder / ENERGIES, progress)
        more = {**trained, "strategy": config.strategy, "pretraining": pretraining}
    else:
        kept = folder / rundir.PREDICTIONS if config.save_predictions else None
        inference_s = None if inference is None else inference.molecule_s
        scores = score_split(cell, progress, kept, inference_s=inference_s)
        more = {"scoring": cell.scoring}
    metrics = as_metrics(scores_of(scores, cell.metrics))
    result = Result(**common, metrics=metrics, primary=primary_of(cell.task, metrics), **more)
    write_scores(folder / SCORES, scores)
    write_result(folder, result)
    return result


def _prepare(
    model: Model, train: Sequence[Molecule], folder: Path, device: torch.device, progress: bool
) -> FitResult:
    """All the training there is for a model without parameters: statistics of the labels."""
    began = time.monotonic()
    prepare(model, train, None, bar if progress else silent)
    save_weights(folder / rundir.CHECKPOINTS / BEST, model, 0, None)
    return FitResult(
        steps=0,
        epochs=0.0,
        metric=metric_name(model),
        best_value=None,
        best_step=0,
        wall_s=time.monotonic() - began,
        steps_per_s=None,
        molecules_per_s=None,
        peak_memory=peak_memory(device),
        stopped_by="no parameters",
        restarts=0,
    )


def _common(
    cell: Cell,
    fitted: FitResult,
    inference: Inference | None,
    status: Status,
    device: torch.device,
) -> dict[str, Any]:
    """What the results of all runs have but their scores."""
    config, task, model = cell.config, cell.task, cell.model
    name = config.model["name"]
    used = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    if config.nodes * config.gpus > 1:
        used = f"{config.nodes * config.gpus} x {used}"
    made = provenance(status.started, status.restarts, registry.plugins())
    if isinstance(model, ExternalModel):
        used = model.device
        made = made.model_copy(update={"libraries": made.libraries | model.libraries})
    return dict(
        run_id=config.run_id,
        task=task.name,
        task_version=task.version,
        fingerprint=status.fingerprint,
        source=task.source,
        data=tuple(DataFile(**file) for file in task.files()),
        variant=task.spec.variant,
        split=config.score.split,
        training_split=cell.training_split,
        domain=domain_of(task.split(cell.training_split)),
        model=registry.MODELS.preset(name).entry,
        preset=name,
        hyperparameters=model.hyperparameters,
        parameters=model.count_parameters(),
        recipe=cell.recipe.model_dump(mode="json"),
        seed=config.seed,
        step_budget=task.protocol.max_steps,
        reproduce=command_of(config),
        cost=Cost(
            device=used,
            wall_s=fitted.wall_s,
            steps=fitted.steps,
            epochs=fitted.epochs,
            steps_per_s=fitted.steps_per_s,
            molecules_per_s=fitted.molecules_per_s,
            peak_memory=fitted.peak_memory,
            stopped_by=fitted.stopped_by,
            inference=inference,
        ),
        provenance=made,
    )


class _StatusFile(Reporter):
    """Keeps ``status.json`` up to date while the run goes on."""

    def __init__(self, folder: Path, status: Status) -> None:
        self.folder, self.current = folder, status
        self._step = status.step
        self._written = time.monotonic()

    def update(self, **changes: object) -> None:
        """Write ``status.json`` with the newest step and these fields changed."""
        self.current = rundir.update(self.folder, self.current, **{"step": self._step, **changes})
        self._written = time.monotonic()

    def start(self, step: int, elapsed_s: float) -> None:
        """Note where training goes on."""
        self._step = step

    def step(self, step: int, elapsed_s: float) -> None:
        """Note the step."""
        self._step = step

    def row(self, row: Row) -> None:
        """Write it down, now and then."""
        validated = [key for key in row if key.startswith("val_") and key != "val_loss"]
        for key in validated:
            changes = {"metric": key.removeprefix("val_"), "value": row[key]}
            self.current = self.current.model_copy(update=changes)
        self.current = self.current.model_copy(update={"elapsed_s": row["elapsed_s"]})
        if time.monotonic() - self._written > _STATUS_SECONDS:
            self.update()
