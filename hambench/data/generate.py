"""Make the labels of a task: deterministic, parallel, and resumable after any kind of death.

Every finished row is a file of its own in ``<file>.parts/<key>``, the key being a hash of theory
and geometries; a start finds the finished ones and computes the rest (`hambench.data.labels`).
Processes that work into the same folder, of one machine or of many, share the rows
(`hambench.data.claims`); who finds that all are there assembles the store in the order of the rows
and removes the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

import hambench
from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data import labels
from hambench.data.claims import Claims
from hambench.data.content import content_hash
from hambench.data.geometries import Source, check_fit
from hambench.data.labels import Job
from hambench.data.store import Store, write_store
from hambench.data.task import Task
from hambench.data.workers import pool
from hambench.errors import ConfigError, HambenchError, RunError
from hambench.files import atomic_write
from hambench.units import BOHR

AGAIN = "start the same command again to go on"


@dataclass(frozen=True)
class Part:
    """Share ``index`` (1 to ``count``) of the rows: every ``count``-th one."""

    index: int
    count: int

    @staticmethod
    def parse(text: str) -> Part:
        """The share that ``"3/16"`` means; ConfigError for anything else."""
        index, _, count = text.partition("/")
        if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
            raise ConfigError(
                f"part={text} is no share of the rows; give its number and how many there are, "
                "part=1/16 to part=16/16"
            )
        return Part(int(index), int(count))


@dataclass(frozen=True)
class Generated:
    """What a call of `generate` left.

    Attributes:
        path: the file of the labels.
        finished: rows that are computed, or known to be impossible.
        total: rows asked for.
        complete: whether the file is there.
        left_out: ids of the rows without labels, and why.
    """

    path: Path
    finished: int
    total: int
    complete: bool
    left_out: dict[str, str]


def generate(
    task: Task,
    *,
    geometries: Source | None = None,
    n: int | None = None,
    workers: int = 1,
    part: Part | None = None,
    to: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Generated:
    """Compute the labels of a task and write its store; start again to go on after a stop.

    Rows whose SCF does not converge, whose state is not the ground state, or whose checks fail are
    left out and named in the provenance (``left_out``).

    Args:
        task: says the level of theory and the elements.
        geometries: what to label; None: the task's own geometries.
        n: only the first ``n`` geometries; results on them are told apart by their fingerprint. A
            file of fewer is added to.
        workers: processes, one thread each; the result does not depend on it.
        part: do only this share of the rows, for several jobs that write into one folder (or whose
            ``<file>.parts`` are copied together afterwards). The last one to finish, or a call
            without it, assembles the file.
        to: the file to write. None: that of the task, in the folder of data files.
        progress: show a bar with rate and remaining time.

    Returns:
        What there is now. If the file was there already with the same content, nothing is computed.

    Raises:
        ConfigError: PySCF is missing, ``n`` or ``workers`` make no sense, a geometry is not of the
            task's elements or no closed shell, or a file of another recipe stands in the way.
        DataError: a result was damaged on its way to here.
        RunError: a worker died, or the disk is full, and what is finished is kept; or every row
            failed.
        KeyboardInterrupt: Ctrl-C, with a message that says how to go on.
    """
    _check_request(n, workers)
    dft.versions()  # or PySCF is missing
    source = geometries or Source.of_task(task, n)
    molecules = source.first(n)
    check_fit(source, task.spec.elements, task.name)
    work = _Work(
        task=task,
        recipe=source.recipe,
        molecules=molecules,
        target=task.location.generated if to is None else Path(to),
        key=_recipe_key(task.level, molecules),
        provenance={} if n is None else {"first": n},
    )
    if not work.is_finished():
        with Claims(work.folder) as claims:
            if not work.is_finished():  # it may be by now
                work.compute(claims, part or Part(1, 1), workers, progress)
    work.tidy_up()
    return work.outcome()


@dataclass(frozen=True)
class _Work:
    """One data set under way; arguments of `generate`, looked up."""

    task: Task
    recipe: dict[str, Any]
    molecules: tuple[Molecule, ...]
    target: Path
    key: str
    provenance: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Where the results of the jobs are collected."""
        return self.target.with_name(f"{self.target.name}.parts") / self.key[:16]

    @property
    def jobs(self) -> list[Job]:
        return labels.jobs_of(self.molecules, self.task.level, self.folder)

    def is_finished(self) -> bool:
        """Whether the file is there; ConfigError where it is another one, not to be added to."""
        if not self.target.exists():
            return False
        store = Store(self.target)
        if store.provenance.get("recipe_key") == self.key:
            return True
        _check_extends(store, self)
        return False

    def compute(self, claims: Claims, part: Part, workers: int, progress: bool) -> None:
        """Do the share of the jobs, and assemble the file if then all are done."""
        with atomic_write(self.folder / "theory.json") as file:
            json.dump(self.task.level.to_dict(), file, indent=1)
        jobs = self.jobs
        if self.target.exists():
            labels.take_over(Store(self.target), jobs)
        title = f"labels of {self.task.name}"
        if part.count > 1:
            title += f", part {part.index}/{part.count}"
        _run(jobs[part.index - 1 :: part.count], workers, progress, title)
        if all(job.part.exists() for job in jobs):
            with claims.assembly():
                if not self.is_finished():
                    self.assemble(jobs)

    def assemble(self, jobs: Sequence[Job]) -> None:
        """Write the file."""
        left_out = labels.left_out(jobs)
        if len(left_out) == len(self.molecules):
            row, reason = next(iter(left_out.items()))
            raise RunError(
                f"no row of {self.task.name} could be computed; the first, {row}: {reason}"
            )
        rows = [j for j in jobs if j.kind == "row" and j.molecule.id not in left_out]
        provenance = {
            "task": self.task.name,
            "task_version": self.task.version,
            "recipe": self.recipe,
            "recipe_key": self.key,
            **self.provenance,
            "bohr_angstrom": BOHR,
            "versions": {"hambench": hambench.__version__, **labels.versions_of(rows)},
            **labels.noise_of(jobs),
            "left_out": left_out,
        }
        theory = self.task.level
        elements = sorted({int(z) for molecule in self.molecules for z in molecule.numbers})
        write_store(
            self.target,
            map(labels.read, rows),
            basis=OrbitalBasis.load(theory.basis, elements),
            theory=theory.to_dict(),
            provenance=provenance,
        )

    def tidy_up(self) -> None:
        """Remove the results of the jobs once they are in the file and nobody uses them."""
        if not self.folder.exists() or not self.is_finished():
            return
        with Claims(self.folder) as claims:
            if claims.last():
                shutil.rmtree(self.folder, ignore_errors=True)  # NFS keeps what is open
        for empty in (self.folder, self.folder.parent):
            with suppress(OSError):
                empty.rmdir()

    def outcome(self) -> Generated:
        """What there is now."""
        total = len(self.molecules)
        if self.is_finished():
            left_out = Store(self.target).provenance["left_out"]
            return Generated(self.target, total, total, True, left_out)
        rows = [job for job in self.jobs if job.kind == "row"]
        finished = sum(job.part.exists() for job in rows)
        return Generated(self.target, finished, total, False, labels.left_out(rows))


def _check_request(n: int | None, workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot compute; ask for at least 1")
    if n is not None and n < 1:
        raise ConfigError(f"{n} geometries make no data set; ask for at least 1")


def _check_extends(store: Store, work: _Work) -> None:
    """ConfigError unless a file holds the first of these molecules at the task's theory."""
    ids = [molecule.id for molecule in work.molecules]
    theory = work.task.level.to_dict()
    same = store.provenance.get("recipe") == work.recipe and store.theory == theory
    if not same or not set(store.ids) <= set(ids):
        raise ConfigError(
            f"{store.path} exists and holds {len(store)} "
            + (f"rows, more than the {len(ids)} asked for" if same else "rows of another recipe")
            + f" of task '{work.task.name}'; remove it, or write elsewhere with --to"
        )


def _recipe_key(theory: Theory, molecules: Sequence[Molecule]) -> str:
    """sha256 over the settings and every geometry: parts of another recipe are never mixed in."""
    digest = hashlib.sha256(json.dumps(theory.to_dict(), sort_keys=True).encode())
    for molecule in molecules:
        digest.update(molecule.id.encode())
        digest.update(content_hash(molecule, ()))
    return digest.hexdigest()


def _run(jobs: Sequence[Job], workers: int, progress: bool, title: str) -> None:
    """Do the jobs that are not done, in ``workers`` processes.

    First what nobody is at; then what others were doing, for the case that they stop.
    """
    waiting = [job for job in jobs if not job.part.exists()]
    if not waiting:
        return
    bar = tqdm(
        desc=title, unit="job", total=len(jobs), initial=len(jobs) - len(waiting),
        disable=not progress, smoothing=0.05, dynamic_ncols=True,
    )  # fmt: skip
    with bar, pool(min(workers, len(waiting))) as executor:
        failed = 0
        try:
            for wait in (False, True):
                tries = {executor.submit(labels.do, job, wait=wait): job for job in waiting}
                waiting = []
                for future in as_completed(tries):
                    job, state = tries[future], future.result()
                    if state == "taken":
                        waiting.append(job)
                        continue
                    failed += state == "failed" and job.kind == "row"
                    bar.set_postfix({"left out": failed} if failed else {}, refresh=False)
                    bar.update()
        except BrokenProcessPool as error:
            raise RunError(
                f"{title}: a worker died (killed, or out of memory) after {bar.n} of {len(jobs)} "
                f"were finished and kept; {AGAIN}, with fewer workers if memory ran out"
            ) from error
        except KeyboardInterrupt:  # of Ctrl-C, or of a signal that is treated as one
            raise KeyboardInterrupt(
                f"{title}: stopped, {bar.n} of {len(jobs)} are finished and kept; {AGAIN}"
            ) from None
        except HambenchError as error:
            raise type(error)(
                f"{error} ({title}: {bar.n} of {len(jobs)} are kept; {AGAIN})"
            ) from error
