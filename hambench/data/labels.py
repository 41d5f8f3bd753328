"""The units of work of a generated data set, each with the file it ends in.

Every label is computed by one process with one thread from the geometry alone, so that results do
not depend on the number of workers, on machines or on interruptions. A file is written atomically:
it is there and complete, or its job has to be done.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.noise import Noise, convergence_noise, orientation_noise, worst
from hambench.chem.theory import Theory
from hambench.data.claims import Claims
from hambench.data.content import content_hash
from hambench.data.store import Store
from hambench.errors import DataError
from hambench.files import atomic_write

NOISE_ROWS: Final = 3
"""Rows on which orientation and SCF noise are measured, spread evenly over the set."""

_LABELS: Final = ("hamiltonian", "overlap", "energy", "forces")

State = Literal["done", "failed", "taken"]
"""How a try at a job ended: "taken" is one that another process is doing."""


@dataclass(frozen=True)
class Job:
    """One unit of work.

    Attributes:
        kind: labels of a row, or one of the two kinds of noise on it.
        place: its number among the jobs, by which processes claim it.
        molecule: the geometry.
        theory: level of theory.
        part: file it ends in.
        row: file that the labels of its molecule end in.
    """

    kind: Literal["row", "orientation", "convergence"]
    place: int
    molecule: Molecule
    theory: Theory
    part: Path
    row: Path


def jobs_of(molecules: Sequence[Molecule], theory: Theory, folder: Path) -> list[Job]:
    """The jobs of a data set: its rows in order, then noise on some of them."""
    work: list[tuple[Literal["row", "orientation", "convergence"], int, str]]
    work = [("row", index, f"row-{index:07d}.npz") for index in range(len(molecules))]
    step = max(len(molecules) // NOISE_ROWS, 1)
    for count, index in enumerate(range(0, len(molecules), step)[:NOISE_ROWS]):
        work.append(("orientation", index, f"orientation-{count:07d}.json"))
        work.append(("convergence", index, f"convergence-{count:07d}.json"))
    return [
        Job(kind, place, molecules[index], theory, folder / name, folder / work[index][2])
        for place, (kind, index, name) in enumerate(work)
    ]


def do(job: Job, *, wait: bool) -> State:
    """Compute a job unless that was done; a failed SCF is a result too.

    Args:
        job: the job.
        wait: where another process is at it, wait for that, and do it if that one gives up.

    Raises:
        HambenchError: the result cannot be written, or the molecule be computed at all.
    """
    with _claims(job.part.parent).claim(job.place, wait=wait) as mine:
        if not mine:
            return "taken"
        if not job.part.exists():
            _compute(job)
    return "failed" if failure(job.part) else "done"


@lru_cache(maxsize=1)
def _claims(folder: Path) -> Claims:
    return Claims(folder)


def _compute(job: Job) -> None:
    try:
        if job.kind != "row" and job.row.exists() and failure(job.row):
            raise dft.SCFError("its row has no labels")
        if job.kind == "row":
            labelled = dft.calculate(job.molecule, job.theory, ground_state=True).molecule
            write(job, labelled, dft.versions())
            return
        if job.kind == "orientation":
            seed = int.from_bytes(content_hash(job.molecule, ())[:8], "little")
            noise = orientation_noise(job.molecule, job.theory, np.random.default_rng(seed))
        else:
            noise = convergence_noise(job.molecule, job.theory)
        content: dict[str, Any] = asdict(noise)
    except dft.SCFError as error:
        content = {"failed": str(error)}
    with atomic_write(job.part) as file:
        json.dump(content, file)


def write(job: Job, molecule: Molecule, versions: Mapping[str, str]) -> None:
    """Write the labels of a row, and the versions of the programs that computed them."""
    content = {name: getattr(molecule, name) for name in _LABELS}
    with atomic_write(job.part, "wb") as file:
        np.savez(file, **content, versions=np.array(json.dumps(versions)))


def read(job: Job) -> Molecule:
    """The labelled molecule of a row that is done; DataError where the file is damaged."""
    labels: dict[str, Any] = _arrays(job, _LABELS)
    labels["energy"] = float(labels["energy"])
    return replace(job.molecule, basis=job.theory.basis, **labels)


def versions_of(jobs: Sequence[Job]) -> dict[str, str]:
    """Versions of the programs that computed rows; more than one, if machines differed."""
    found: dict[str, set[str]] = {}
    for job in jobs:
        for program, version in json.loads(str(_arrays(job, ["versions"])["versions"])).items():
            found.setdefault(program, set()).update(version.split(", "))
    return {program: ", ".join(sorted(versions)) for program, versions in found.items()}


def _arrays(job: Job, names: Iterable[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(job.part, allow_pickle=False) as part:
            return {name: part[name] for name in names}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _damaged(job.part) from error


def failure(part: Path) -> str | None:
    """Why a job that was done has no result, or None (an .npz is a zip file: it starts with PK)."""
    with open(part, "rb") as file:
        if file.read(2) == b"PK":
            return None
    try:
        reason: str | None = _content(part).get("failed")
    except ValueError as error:
        raise _damaged(part) from error
    return reason


def _content(part: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(part.read_text("utf-8"))
    return content


def _damaged(part: Path) -> DataError:
    return DataError(
        f"{part} is damaged (cut off while it was copied?); remove it, or copy it again, and "
        "start the same command again"
    )


def left_out(jobs: Sequence[Job]) -> dict[str, str]:
    """Ids of the rows that failed, among those that are done, and why."""
    done = [job for job in jobs if job.kind == "row" and job.part.exists()]
    reasons = {job.molecule.id: failure(job.part) for job in done}
    return {row: reason for row, reason in reasons.items() if reason is not None}


def noise_of(jobs: Sequence[Job]) -> dict[str, dict[str, float]]:
    """Measured noise over the sampled rows, by kind, for the provenance."""
    found = {}
    bad = left_out(jobs)
    sampled = [job for job in jobs if job.kind != "row" and job.molecule.id not in bad]
    for kind in ("orientation", "convergence"):
        noises = [
            Noise(**_content(job.part))
            for job in sampled
            if job.kind == kind and not failure(job.part)
        ]
        if noises:
            found[f"{kind}_noise_eh"] = asdict(worst(noises)) | {"rows": len(noises)}
    return found


def take_over(store: Store, jobs: Sequence[Job]) -> None:
    """Write the labels that a file of fewer rows has already as results of their jobs."""
    place = {name: index for index, name in enumerate(store.ids)}
    versions = {k: v for k, v in store.provenance["versions"].items() if k != "hambench"}
    for job in jobs:
        if job.kind == "row" and job.molecule.id in place and not job.part.exists():
            labelled = store[place[job.molecule.id]]
            if content_hash(labelled, ()) == content_hash(job.molecule, ()):
                write(job, labelled, versions)
