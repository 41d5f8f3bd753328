"""Rows and initial guesses of tasks in one folder, from which runs need neither PySCF nor ASE."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from entries import ROOT

from hambench.cell import Cell, training_split
from hambench.chem.molecule import Molecule
from hambench.chem.triangle import pack_triangle
from hambench.compose import compose
from hambench.config import RunConfig
from hambench.data.guess import Guess
from hambench.data.location import GENERATED
from hambench.data.manifest import find
from hambench.data.rows import Rows
from hambench.data.store import Store, write_store
from hambench.data.task import Task
from hambench.errors import DataError
from hambench.learn.reporters import bar
from hambench.model import Model
from hambench.registry import load_task

_TINY: Final = 2  # rows of each split, to try programs with
_RANDOM: Final = 10  # rows of which each split of the task gets one
_ORGANIC: Final = ROOT / "tests" / "fixtures" / "organic_mini_24.h5"


def pack_rows(task: Task, data: Path) -> str:
    """Put the rows of a task into a `Store` in ``data``; returns what was done.

    Labels of our own alone: a file of others must stay as it was published. Those in another format
    were verified to be of the task's level of theory, which the store states with what was found.

    Raises:
        DataError: they were not verified, or the copy is not the same data.
    """
    source, target = task.path, data / str(task.spec.generated)
    if source.parent == task.folder:
        return "ships with the package"
    if task.source != GENERATED:
        return f"left out: {source.name} is a published file; put it into the data folder there"
    if target.is_file() and _same(task, target):
        return "is there"
    if Store.recognises(source):
        shutil.copyfile(source, target)
        return f"{len(task.rows)} rows"
    found = find(source)
    provenance = {
        "task": task.name,
        "task_version": task.version,
        "converted": {"file": source.name, "verified": found and found.model_dump(mode="json")},
    }
    write_store(
        target, task.rows, basis=task.basis, theory=task.level.to_dict(), provenance=provenance
    )
    if not _same(task, target):
        raise DataError(f"{target} does not hold the data of {source}; this is a defect")
    return f"{len(task.rows)} rows"


def _same(task: Task, copy: Path) -> bool:
    return load_task(task.name, copy).fingerprint == task.fingerprint


def pack_guesses(config: RunConfig, task: Task, data: Path) -> int:
    """Put the initial guesses that a training needs into ``data``; returns their number."""
    guess = _guess(config)
    if guess is None:
        return 0
    trained = training_split(task, config.train_on)
    splits = (trained, task.protocol.validation_split, config.score.split)
    rows = [task.split(name) for name in splits]
    for part in rows:
        guess.complete(part, bar)
    known = (part.geometry(k) for part in rows for k in range(len(part)))
    return guess.keep(((molecule, guess.packed(molecule)) for molecule in known), data)


def _guess(config: RunConfig) -> Guess | None:
    model = Cell.build(config).model
    return model.graph.guess if isinstance(model, Model) else None


def tiny(data: Path) -> None:
    """A few rows of each task, to try programs with; matrices of ethanol are random."""
    data.mkdir(parents=True, exist_ok=True)
    for name, rows in (
        ("water_mini", _few(load_task("water_mini"), load_task("water_mini").rows)),
        ("organic_mini", _few(load_task("organic_mini"), Store(_ORGANIC))),
        ("md17_ethanol", _random(load_task("md17_ethanol"))),
    ):
        task = load_task(name)
        write_store(
            data / str(task.spec.generated), rows, basis=task.basis, theory=task.level.to_dict(),
            provenance={"first": len(rows), "made": "a few rows, to try programs with"},
        )  # fmt: skip
    for name in ("water_mini", "md17_ethanol"):
        words = [f"task={name}", f"data={data / f'{name}.h5'}", "model=sphnet_small", "device=cpu"]
        guess = _guess(compose(words))
        assert guess is not None
        kept = Store(data / f"{name}.h5")
        near = ((row, pack_triangle(np.asarray(row.hamiltonian) + 0.01)) for row in kept)
        guess.keep(near, data)


def _few(task: Task, rows: Rows) -> list[Molecule]:
    """The first rows of every split that are among some rows."""
    places = {name: place for place, name in enumerate(rows.ids)}
    here = [[row for row in ids if row in places] for ids in task.splits.values()]
    wanted = dict.fromkeys(row for ids in here for row in ids[:_TINY])
    return [rows[places[row]] for row in wanted]


def _random(task: Task) -> list[Molecule]:
    """Geometries of a task, with random matrices near the unit matrix."""
    rng = np.random.default_rng(0)
    found = []
    for molecule in task.geometries(_RANDOM):
        nao = task.basis.nao(molecule.numbers)
        noise = 0.01 * rng.standard_normal((nao, nao))
        found.append(
            replace(
                molecule, basis=task.basis.name, hamiltonian=noise + noise.T - np.eye(nao),
                overlap=np.eye(nao), energy=0.0, forces=np.zeros_like(molecule.positions),
            )
        )  # fmt: skip
    return found
