"""Make the labels of a task: deterministic, parallel, and resumable after any kind of death.

Every finished row is a file of its own, written atomically into ``<file>.parts``; a start finds
the finished ones and computes the rest. Each row is computed by one process with one thread from
its geometry alone, so that results do not depend on the number of workers or on interruptions.
When all are there the store is assembled in the order of the ids and the parts are removed.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from tqdm import tqdm

import hambench
from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.noise import Noise, convergence_noise, orientation_noise, worst
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.content import content_hash
from hambench.data.store import Store, write_store
from hambench.data.task import GeneratedTask
from hambench.errors import ConfigError, HambenchError, RunError
from hambench.files import atomic_write
from hambench.units import BOHR

NOISE_ROWS: Final = 3
"""Rows on which orientation and SCF noise are measured, spread evenly over the set."""

_LABELS: Final = ("hamiltonian", "overlap", "energy", "forces")
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class _Job:
    """One unit of work and the file it ends in."""

    kind: Literal["row", "orientation", "convergence"]
    molecule: Molecule
    theory: dft.Theory
    part: Path


def generate(
    task: GeneratedTask,
    *,
    n: int | None = None,
    workers: int = 1,
    to: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Path:
    """Compute the labels of a task and write its store; start again to go on after a stop.

    Rows whose SCF does not converge or whose checks fail are left out and named in the
    provenance (``left_out``).

    Args:
        task: its `geometries` are labelled at its `level`.
        n: only the first ``n`` geometries; results on them are told apart by their fingerprint. A
            file of fewer is added to.
        workers: processes, one thread each; the result does not depend on it.
        to: the file to write. None: `Task.path`.
        progress: show a bar with rate and remaining time.

    Returns:
        Path of the store. If it was there already with the same content, nothing is computed.

    Raises:
        ConfigError: PySCF is missing, ``n`` or ``workers`` make no sense, or a file of another
            recipe stands in the way.
        RunError: a worker died, or the disk is full, and what is finished is kept; or every row
            failed.
        KeyboardInterrupt: Ctrl-C, with a message that says how to go on.
    """
    _check_request(n, workers)
    target = task.path if to is None else Path(to)
    versions = dft.versions()
    molecules = task.geometries(n)
    if n is not None and len(molecules) < n:
        raise ConfigError(f"task '{task.name}' has {len(molecules)} geometries, {n} were asked for")
    key = _recipe_key(task.level, molecules)
    store = Store(target) if target.exists() else None
    if store is not None:
        if store.provenance.get("recipe_key") == key:
            return target
        _check_extends(store, task, molecules)
    parts = target.with_name(f"{target.name}.parts") / key[:16]
    with atomic_write(parts / "theory.json") as file:  # and finds out whether one can write here
        json.dump(task.level.to_dict(), file, indent=1)
    jobs = _jobs(molecules, task.level, parts)
    if store is not None:
        _take_over(store, jobs)
    _run(jobs, workers, progress, f"labels of {task.name}")
    left_out = _left_out(jobs)
    if len(left_out) == len(molecules):
        row, reason = next(iter(left_out.items()))
        raise RunError(f"no row of {task.name} could be computed; the first, {row}: {reason}")
    provenance = {
        "task": task.name,
        "task_version": task.version,
        "recipe": task.recipe,
        "recipe_key": key,
        **({} if n is None else {"first": n}),
        "bohr_angstrom": BOHR,
        "versions": {"hambench": hambench.__version__, **versions},
        **_noise(jobs),
        "left_out": left_out,
    }
    rows = (_read_row(job) for job in jobs if job.kind == "row" and not _failure(job))
    elements = sorted({int(z) for molecule in molecules for z in molecule.numbers})
    basis = OrbitalBasis.load(task.level.basis, elements)
    write_store(target, rows, basis=basis, theory=task.level.to_dict(), provenance=provenance)
    shutil.rmtree(parts.parent)
    return target


def _check_request(n: int | None, workers: int) -> None:
    if workers < 1:
        raise ConfigError(f"{workers} workers cannot compute; ask for at least 1")
    if n is not None and n < 1:
        raise ConfigError(f"{n} geometries make no data set; ask for at least 1")


def _check_extends(store: Store, task: GeneratedTask, molecules: list[Molecule]) -> None:
    """ConfigError unless a file holds the first of these molecules at the task's theory."""
    ids = [molecule.id for molecule in molecules]
    same = (
        store.provenance.get("recipe") == task.recipe and store.theory == task.level.to_dict()
    )  # fmt: skip
    if not same or not set(store.ids) <= set(ids):
        raise ConfigError(
            f"{store.path} exists and holds {len(store)} "
            + (f"rows, more than the {len(ids)} asked for" if same else "rows of another recipe")
            + f" of task '{task.name}'; remove it, or write elsewhere with --to"
        )


def _take_over(store: Store, jobs: list[_Job]) -> None:
    """Labels that a file of fewer rows has already, as parts."""
    place = {name: index for index, name in enumerate(store.ids)}
    for job in jobs:
        if job.kind == "row" and job.molecule.id in place and not job.part.exists():
            labelled = store[place[job.molecule.id]]
            if content_hash(labelled, ()) == content_hash(job.molecule, ()):
                _write_row(job, labelled)


def _recipe_key(theory: dft.Theory, molecules: list[Molecule]) -> str:
    """sha256 over the settings and every geometry: parts of another recipe are never mixed in."""
    digest = hashlib.sha256(json.dumps(theory.to_dict(), sort_keys=True).encode())
    for molecule in molecules:
        digest.update(molecule.id.encode())
        digest.update(content_hash(molecule, ()))
    return digest.hexdigest()


def _jobs(molecules: list[Molecule], theory: dft.Theory, parts: Path) -> list[_Job]:
    rows = [
        _Job("row", molecule, theory, parts / f"row-{index:07d}.npz")
        for index, molecule in enumerate(molecules)
    ]
    step = max(len(molecules) // NOISE_ROWS, 1)
    kinds: tuple[Literal["orientation", "convergence"], ...] = ("orientation", "convergence")
    return rows + [
        _Job(kind, molecule, theory, parts / f"{kind}-{index:07d}.json")
        for index, molecule in enumerate(molecules[::step][:NOISE_ROWS])
        for kind in kinds
    ]


def _run(jobs: list[_Job], workers: int, progress: bool, title: str) -> None:
    """Do the jobs that have no part yet, in ``workers`` processes."""
    waiting = [job for job in jobs if not job.part.exists()]
    again = "start the same command again to go on"
    bar = tqdm(
        desc=title, unit="row", total=len(jobs), initial=len(jobs) - len(waiting),
        disable=not progress, smoothing=0.05, dynamic_ncols=True,
    )  # fmt: skip
    with bar, _pool(min(workers, max(len(waiting), 1))) as pool:
        try:
            futures: list[Future[None]] = [pool.submit(_do, job) for job in waiting]
            for future in as_completed(futures):
                future.result()
                bar.update()
        except BrokenProcessPool as error:
            raise RunError(
                f"{title}: a worker died (killed, or out of memory) after {bar.n} of {len(jobs)} "
                f"were finished and kept; {again}, with fewer workers if memory ran out"
            ) from error
        except KeyboardInterrupt:  # of Ctrl-C, or of a signal that is treated as one
            raise KeyboardInterrupt(
                f"{title}: stopped, {bar.n} of {len(jobs)} are finished and kept; {again}"
            ) from None
        except HambenchError as error:
            raise type(error)(
                f"{error} ({title}: {bar.n} of {len(jobs)} are kept; {again})"
            ) from error


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Spawned single-threaded workers that die with this process, and at once when it stops."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))  # read by the children when they start
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        yield pool
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # parts are atomic: nothing is lost but the rows under way
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start_worker() -> None:
    """Leave Ctrl-C to the parent, and end when the parent does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


def _do(job: _Job) -> None:
    """Compute one part and write it atomically; a failed SCF is a part too."""
    try:
        if job.kind == "row":
            _write_row(job, dft.calculate(job.molecule, job.theory).molecule)
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


def _write_row(job: _Job, molecule: Molecule) -> None:
    with atomic_write(job.part, "wb") as file:
        np.savez(file, **{name: getattr(molecule, name) for name in _LABELS})


def _read_row(job: _Job) -> Molecule:
    with np.load(job.part, allow_pickle=False) as part:
        labels = {name: part[name] for name in _LABELS}
    labels["energy"] = float(labels["energy"])
    return replace(job.molecule, basis=job.theory.basis, **labels)


def _failure(job: _Job) -> str | None:
    """Why a job has no result, or None (an .npz is a zip file and starts with PK)."""
    content = job.part.read_bytes()
    return None if content.startswith(b"PK") else json.loads(content).get("failed")


def _left_out(jobs: list[_Job]) -> dict[str, str]:
    failures = {job.molecule.id: _failure(job) for job in jobs if job.kind == "row"}
    return {row: reason for row, reason in failures.items() if reason is not None}


def _noise(jobs: list[_Job]) -> dict[str, dict[str, float]]:
    """Measured noise over the sampled rows, by kind."""
    found = {}
    for kind in ("orientation", "convergence"):
        done = [job for job in jobs if job.kind == kind and not _failure(job)]
        if done:
            noises = [Noise(**json.loads(job.part.read_text("utf-8"))) for job in done]
            found[f"{kind}_noise_eh"] = asdict(worst(noises)) | {"rows": len(done)}
    return found
