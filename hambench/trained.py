"""A finished run, or an export of one, as a model to use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hambench import exported, rundir
from hambench.cell import model_of, open_task
from hambench.config import RunConfig, read_config
from hambench.data.task import Task
from hambench.errors import ConfigError, DataError
from hambench.learn.device import open_fabric
from hambench.learn.loop import BEST
from hambench.learn.weights import load_weights
from hambench.model import Model
from hambench.models import is_external
from hambench.scoring.energy_table import ENERGIES


@dataclass(frozen=True)
class Trained:
    """A run's configuration, its task (whose data may be elsewhere by now), and its model.

    Attributes:
        folder: the run directory, or the folder it was exported to.
        model: with its best weights, in evaluation mode, on the device.
    """

    folder: Path
    config: RunConfig
    task: Task
    model: Model


def load_trained(
    run_dir: str | os.PathLike[str],
    device: str = "cpu",
    data: str | os.PathLike[str] | None = None,
) -> Trained:
    """The model of a finished run.

    Args:
        run_dir: of ``hambench run``, or a folder of ``hambench export``; or the weights in it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        data: where the task's data are now; None: where the run had them. The model alone needs
            none.

    Raises:
        ConfigError: the model runs in an environment of its own.
        DataError: no run directory, not finished, its weights cannot be read; or a file of an
            export was changed.
        CheckpointError: the weights are of another version of the model.
    """
    folder, weights = _found(Path(run_dir))
    config = read_config(folder / rundir.CONFIG)
    if not rundir.is_finished(folder):
        raise DataError(f"the run in {folder} is not finished; finish it with its own command")
    if data is not None:
        config = config.model_copy(update={"data": Path(data)})
    task = open_task(config)
    if is_external(config.model["name"]):
        raise ConfigError(
            f"the model of the run in {folder} lives in an environment of its own and cannot be "
            f"loaded here; its predictions are in {ENERGIES}, and `hambench evaluate` makes others"
        )
    model = model_of(config, task)
    load_weights(weights, model)
    return Trained(folder, config, task, model.to(open_fabric(device).device).eval())


def _found(given: Path) -> tuple[Path, Path]:
    """The folder, checked if it is an export, and its weights, which may be named instead."""
    if given.name == exported.WEIGHTS and exported.is_export(given.parent):
        given = given.parent
    if exported.is_export(given):
        exported.verify(given)
        return given, given / exported.WEIGHTS
    folder = _run_directory(given)
    return folder, folder / rundir.CHECKPOINTS / BEST


def _run_directory(given: Path) -> Path:
    """The run directory, where its best weights may be named instead."""
    if not given.is_file() and given.suffix != Path(BEST).suffix:
        return given
    if given.absolute().parts[-2:] != (rundir.CHECKPOINTS, BEST):
        raise DataError(
            f"{given} is not the {rundir.CHECKPOINTS}/{BEST} of a run directory, nor the "
            f"{exported.WEIGHTS} of an export, whose {rundir.CONFIG} says what the weights are of; "
            "give the run directory or the export"
        )
    return given.absolute().parent.parent
