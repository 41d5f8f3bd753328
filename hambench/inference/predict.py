"""Predictions of a finished run for a file of molecules: what they say, and files of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from tqdm import tqdm

from hambench.cell import training_split
from hambench.chem import engine
from hambench.chem.molecule import Molecule, formula
from hambench.data.rows import Rows, Unlabelled
from hambench.data.workers import cores, mapped
from hambench.domain import beyond, domain_of
from hambench.errors import HambenchError, RunError
from hambench.inference.files import Targets, write_matrices, write_molden, write_table
from hambench.inference.hamiltonians import (
    Matrix,
    Precision,
    hamiltonians,
    load_hamiltonian_model,
)
from hambench.inference.molecules import check_molecules, read_molecules
from hambench.inference.properties import Orbitals, Properties, examine
from hambench.learn.recipe import Recipe
from hambench.results import Domain, read_result
from hambench.trained import Trained

UNITS: Final = {
    "homo": "Eh", "lumo": "Eh", "gap": "Eh", "dipole": "D", "energy": "Eh", "levels": "Eh",
    "charge": "e",
}  # fmt: skip
"""Of the numbers of `Predicted.to_dict`."""

_LONG: Final = ("dipole_vector", "levels")  # values that are no cell of a table


@dataclass(frozen=True, eq=False)
class Predicted:
    """What was predicted for one molecule.

    Attributes:
        molecule: without labels.
        properties: what its predicted Hamiltonian says.
        failed: whether that was not finite, and says nothing.
        beyond: in what it lies beyond the training set; None where that is not known.
    """

    molecule: Molecule
    properties: Properties
    failed: bool
    beyond: list[str] | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, units as in `UNITS`; what there is not is None."""
        found, molecule = self.properties, self.molecule
        return {
            "id": molecule.id,
            "formula": formula(molecule.numbers),
            "atoms": len(molecule),
            "charge": molecule.charge,
            "electrons": 2 * found.pairs,
            "homo": found.homo,
            "lumo": found.lumo,
            "gap": found.gap,
            "dipole": found.moment,
            "energy": found.energy,
            "failed": self.failed,
            "beyond_training": self.beyond,
            "dipole_vector": None if found.dipole is None else found.dipole.tolist(),
            "levels": None if found.levels is None else found.levels.tolist(),
        }


@dataclass(frozen=True)
class Report:
    """What `predict` found and wrote.

    Attributes:
        trained: the run.
        domain: what its training set was made of; None where that is not known.
        rows: in the order of the file of molecules.
        files: those that were written.
        remark: what could not be had, and why, in a sentence; empty where nothing lacks.
    """

    trained: Trained
    domain: Domain | None
    rows: list[Predicted]
    files: list[Path]
    remark: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form."""
        return {
            **_described(self.trained),
            "units": UNITS,
            "domain": None if self.domain is None else self.domain.model_dump(mode="json"),
            "remark": self.remark,
            "files": [str(path) for path in self.files],
            "molecules": [row.to_dict() for row in self.rows],
        }


def predict(
    checkpoint: str | os.PathLike[str],
    molecules: Path,
    *,
    charge: int | None = None,
    out: Path | None = None,
    molden: Path | None = None,
    order: str | None = None,
    energy: bool = True,
    device: str = "auto",
    precision: Precision | None = None,
    batch_size: int | None = None,
    progress: bool = True,
) -> Report:
    """Predict Hamiltonians, and what they say of their molecules.

    Args:
        checkpoint: a run directory or an export, or the weights in it.
        molecules: see `read_molecules`.
        charge: of all molecules; None: as the file says.
        out: file to write: matrices (.npz, .h5), orbitals (.molden) or the table (.csv).
        molden: another one for orbitals.
        order: of the orbitals in a file of matrices, a key of `hambench.chem.ordering.ORDERS`;
            None: canonical.
        energy: whether to evaluate ``E[D]``.
        device, precision: see `load_hamiltonian_model`.
        batch_size: molecules that are predicted together; None: as in training.
        progress: show bars on a terminal.

    Raises:
        ConfigError: files that cannot be written as asked; a run on energies or of an external
            model; a molecule that does not fit the model.
        DataError: no finished run, or molecules that cannot be read.
        RunError: a file cannot be written, a process died, or orbitals to be written are of a
            prediction that failed.
    """
    targets = Targets.checked(out, molden, order, molecules)
    trained = load_hamiltonian_model(checkpoint, device, precision)
    whole = read_molecules(molecules, charge)
    rows, basis = Unlabelled(whole), trained.model.basis
    targets.check_count(len(rows), molecules)
    check_molecules(rows, basis)
    domain = _domain(trained)
    found: dict[int, Predicted] = {}
    with (
        (
            nullcontext()
            if targets.matrices is None
            else write_matrices(targets.matrices, rows, basis, targets.order, _described(trained))
        ) as file,
        closing(_examined(trained, whole, energy, batch_size, progress)) as done,
    ):
        for (place, molecule, hamiltonian), (properties, orbitals) in done:
            failed = not np.isfinite(hamiltonian).all()
            if file is not None:
                file.add(place, molecule, hamiltonian, orbitals)
            if failed and targets.orbitals:
                raise RunError(
                    f"the Hamiltonian predicted for {engine.called(molecule)} holds NaN or "
                    "infinity: there are no orbitals to write"
                )
            for path in targets.orbitals:
                write_molden(path, molecule, basis.name, orbitals)
            said = None if domain is None else beyond(domain, molecule)
            found[place] = Predicted(rows.row(place), properties, failed, said)
    listed = [found[place] for place in sorted(found)]
    if targets.table is not None:
        write_table(targets.table, [_cells(row) for row in listed])
    return Report(trained, domain, listed, targets.files, _remark(listed, energy))


class _Found(NamedTuple):
    """A molecule and the Hamiltonian that was predicted for it."""

    place: int
    molecule: Molecule
    hamiltonian: Matrix


def _examined(
    trained: Trained, whole: Rows, energy: bool, batch_size: int | None, progress: bool
) -> Generator[tuple[_Found, tuple[Properties, Orbitals]], None, None]:
    """All molecules and what their predicted Hamiltonians say, by several processes if that pays.

    Raises:
        RunError: one of them died.
    """
    recipe, rows = Recipe.parse(trained.config.training), Unlabelled(whole)
    by_edges = recipe.max_edges if batch_size is None else None
    predictions = hamiltonians(
        trained.model, rows, batch_size=batch_size or recipe.batch_size, max_edges=by_edges,
        progress=progress,
    )  # fmt: skip
    source = rows if engine.is_installed() else whole  # whose overlaps have to do without it
    found = (_Found(place, source[place], hamiltonian) for place, hamiltonian in predictions)
    theory = trained.task.level
    jobs = ((one, (one.molecule, one.hamiltonian, theory, energy)) for one in found)
    with closing(mapped(examine, jobs, cores())) as done:
        try:
            yield from tqdm(
                done, total=len(rows), desc="predict", unit="mol", leave=False,
                disable=not (progress and sys.stderr.isatty()),
            )  # fmt: skip
        except BrokenProcessPool as error:
            raise RunError(
                "a process that evaluates predictions died (killed, or out of memory); start the "
                "same command again with more memory, or without energies"
            ) from error


def _domain(trained: Trained) -> Domain | None:
    """What a run's training set was made of, as its result says, else by reading it."""
    if (kept := read_result(trained.folder).domain) is not None:
        return kept
    split = training_split(trained.task, trained.config.train_on)
    with suppress(HambenchError):  # the data need not be here
        return domain_of(trained.task.split(split))
    return None


def _described(trained: Trained) -> dict[str, Any]:
    """Which model it is, for files."""
    config = trained.config
    return {
        "model": config.model["name"],
        "task": trained.task.name,
        "task_version": trained.task.version,
        "seed": config.seed,
        "run_id": config.run_id,
        "run_dir": str(trained.folder),
        "theory": trained.task.theory,
    }


def _cells(row: Predicted) -> dict[str, Any]:
    """A row of the table; names of columns end in the unit."""
    cells = {key: value for key, value in row.to_dict().items() if key not in _LONG}
    cells["beyond_training"] = "; ".join(row.beyond or ()) if row.beyond is not None else None
    return {
        f"{key}_{UNITS[key]}" if UNITS.get(key, "e") != "e" else key: value
        for key, value in cells.items()
    }


def _remark(rows: list[Predicted], energy: bool) -> str:
    if engine.is_installed():
        return ""
    lacking = [row for row in rows if row.properties.levels is None and not row.failed]
    wanted = [*(["orbital energies"] if lacking else []), "dipole moments"]
    wanted += ["energies E[D]"] if energy else []
    return (
        f"no {', no '.join(wanted)}: they need PySCF, which is not installed; "
        "install it with: pip install 'hambench[pyscf]'"
    )
