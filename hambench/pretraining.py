"""What a run on energies takes from a run on Hamiltonians, and the proof that it saw no test."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist

from hambench import rundir
from hambench.cell import Cell, open_task, training_split
from hambench.data.rows import Rows
from hambench.data.splits import molecule_of
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError, DataError
from hambench.learn.loop import BEST
from hambench.learn.weights import adopt_weights, check_body, identity, read_identity
from hambench.model import Model
from hambench.registry import MODELS
from hambench.results import Audit, Pretraining, read_result

SAME = 1e-5
"""Angstrom: interatomic distances of one geometry in two files differ by less (float32 bohr)."""


def check_body_of(cell: Cell) -> None:
    """See whether a cell can begin with its pretraining, before anything is trained.

    Raises:
        ConfigError: it is of another model.
        DataError: ``pretrained`` names a run that is not finished, or lost its weights.
        CheckpointError: the body of that run, or of the one to come, is not that of the cell.
    """
    config, before = cell.config, cell.config.pretraining
    if before is None:
        return
    assert isinstance(cell.model, Model)
    theirs, ours = (MODELS.preset(c.model["name"]).entry for c in (before, config))
    if theirs != ours:
        raise ConfigError(
            f"the pretraining in {before.folder} is of model '{theirs}', the model of energies is "
            f"'{ours}'; pretrain the same"
        )
    if rundir.is_finished(before.folder):
        weights = before.folder / rundir.CHECKPOINTS / BEST
        check_body(read_identity(weights), cell.model, str(weights))
        return
    if config.pretrained is not None:
        raise DataError(
            f"the run in {config.pretrained} is not finished; finish it with its own command, or "
            "leave out pretrained= to have a pretraining run made"
        )
    model = Cell.build(before).model
    assert isinstance(model, Model)
    check_body(identity(model), cell.model, f"the pretraining in {before.folder}")


def audited(cell: Cell) -> Audit | None:
    """The audit of the pretraining of a cell, done or to come; None for a cell without one.

    Raises:
        ConfigError: it sees molecules it must not see (`check_unseen`).
    """
    before = cell.config.pretraining
    if before is None:
        return None
    source = open_task(before)
    seen = [
        source.split(training_split(source, before.train_on)),
        source.split(source.protocol.validation_split),
    ]
    split = cell.config.score.split
    audit = compare(seen, cell.task.split(split), cell.task.spec.splits[split].unseen)
    check_unseen(audit, before.folder, cell.task.name, split)
    return audit


def begin_with(cell: Cell, audit: Audit) -> Pretraining:
    """Give the model of an energy cell the body of its finished pretraining run.

    Args:
        cell: of energies.
        audit: of that run.

    Raises:
        ConfigError: it was on other data than are here.
        CheckpointError: its weights do not fit the model.
    """
    before, model = cell.config.pretraining, cell.model
    assert before is not None and isinstance(model, EnergyModel)
    folder = before.folder
    result = read_result(folder)
    rundir.check_data(folder, result.fingerprint, open_task(before).fingerprint)
    adopted = adopt_weights(folder / rundir.CHECKPOINTS / BEST, model)
    metric = result.primary
    return Pretraining(
        run_id=result.run_id,
        task=result.task,
        task_version=result.task_version,
        fingerprint=result.fingerprint,
        source=result.source,
        training_split=result.training_split,
        preset=result.preset,
        seed=result.seed,
        steps=result.cost.steps,
        wall_s=result.cost.wall_s,
        metric=metric,
        value=result.metrics[metric].value,
        fresh=tuple(_parts(adopted["fresh"])),
        left_out=tuple(_parts(adopted["left_out"])),
        audit=audit,
    )


def compare(seen: list[Rows], scored: Rows, unseen: str) -> Audit:
    """Count rows of ``scored`` whose molecule, or whose very geometry, is among those seen.

    A molecule is known by the name before the conformer and its composition; a geometry by its
    interatomic distances, so that neither the order of the atoms nor the orientation matters.

    Args:
        seen: rows of the pretraining.
        scored: rows of the scored split.
        unseen: see `Audit`.
    """
    names: set[tuple[str, bytes]] = set()
    shapes: dict[bytes, list[NDArray[np.float64]]] = defaultdict(list)
    for rows in seen:
        for place, row in enumerate(rows.ids):
            composition, distances = _shape(rows, place)
            names.add((molecule_of(row), composition))
            shapes[composition].append(distances)
    trees = {
        composition: cKDTree(np.stack(known))
        for composition, known in shapes.items()
        if known[0].size
    }
    molecules = geometries = 0
    for place, row in enumerate(scored.ids):
        composition, distances = _shape(scored, place)
        known = (molecule_of(row), composition) in names
        same = composition in shapes and not distances.size  # single atoms
        if composition in trees:
            nearest, _ = trees[composition].query(distances, p=np.inf, distance_upper_bound=SAME)
            same = bool(np.isfinite(nearest))
        molecules += known or same
        geometries += same
    return Audit(
        unseen="molecules" if unseen == "molecules" else "rows",
        rows=sum(map(len, seen)),
        scored=len(scored),
        same_molecules=molecules,
        same_geometries=geometries,
    )


def check_unseen(audit: Audit, where: Path, task: str, split: str) -> None:
    """ConfigError where a pretraining sees what the protocol says no training has seen."""
    shared = audit.same_molecules if audit.unseen == "molecules" else audit.same_geometries
    if shared:
        raise ConfigError(
            f"the pretraining in {where} sees {shared} of {audit.scored} {audit.unseen} of split "
            f"'{split}' of task '{task}', whose protocol wants them unseen; pretrain on other data "
            "(pretraining.task=, pretraining.train_on=), or score another split"
        )


def _shape(rows: Rows, place: int) -> tuple[bytes, NDArray[np.float64]]:
    """Sorted atomic numbers as bytes, and sorted distances in Angstrom, of a row."""
    molecule = rows.geometry(place)
    return np.sort(molecule.numbers).tobytes(), np.sort(pdist(molecule.positions))


def _parts(names: list[str]) -> list[str]:
    """The modules that parameters belong to, by two names, each once."""
    return list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
