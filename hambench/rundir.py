"""A run directory on disk: who may write in it, what state it is in, how it is begun again."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from hambench.config import RunConfig, flatten, read_config
from hambench.errors import ConfigError, DataError, RunError
from hambench.files import atomic_write, explained, is_locked, locked
from hambench.results import RESULT, STATUS, Status, now, read_status, write_status
from hambench.scoring.breakdown_table import BREAKDOWN
from hambench.scoring.energy_table import ENERGIES
from hambench.scoring.score_table import SCORES

CONFIG = "config.yaml"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.h5"
TRACKERS = ("tensorboard", "wandb")  # folders, of the names of the programs
EXTERNAL = "external"
TRACEBACK = "traceback.txt"
LOCK = ".lock"
CONSOLE = "console.log"  # what a run in the background said; of whoever started it
ASKED = "asked.yaml"  # the configuration that a launcher wants here

_OURS = (
    CONFIG, STATUS, LOG, CHECKPOINTS, PREDICTIONS, ENERGIES, SCORES, BREAKDOWN, RESULT, TRACEBACK,
    EXTERNAL, *TRACKERS,
)  # fmt: skip

Ended = Literal["queued", "interrupted", "failed"]
"""How a start can end without a result."""

_OF_LAUNCHERS = (LOCK, CONSOLE, ASKED, STATUS)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` as its only writer; the folder is made if it is missing.

    The operating system drops the lock of a process that died, so its directory can be taken over.
    On file systems that lock per machine only, the holder noted in the file guards against a
    writer elsewhere, unless it was this very job before it was requeued.

    Raises:
        RunError: another process holds it, the file system has no locks, or the disk is full.
        ConfigError: a file stands where the folder has to be.
    """
    path = folder / LOCK
    try:
        file = locked(path)
    except BlockingIOError:
        raise RunError(
            f"{folder} is in use by {_holder(path)}; wait for it, or choose another run_dir"
        ) from None
    with file:
        _refuse_holder_elsewhere(folder, file)
        try:
            _note_holder(path, file)
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):  # it is removed if nothing came of it
                folder.rmdir()


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has its result."""
    return (folder / RESULT).is_file()


def is_running(folder: Path) -> bool:
    """Whether a process on this machine holds ``folder``, see `lock`."""
    return is_locked(folder / LOCK)


def check_same(folder: Path, config: RunConfig) -> None:
    """Refuse a run directory that was begun with another configuration.

    Raises:
        ConfigError: it was; the first difference is named.
    """
    if not (folder / CONFIG).is_file():
        foreign = [p.name for p in folder.glob("*") if p.name not in _OF_LAUNCHERS]
        if foreign:
            raise ConfigError(
                f"{folder} holds other files ({', '.join(sorted(foreign)[:3])}) and no run; "
                "choose an empty or new run_dir"
            )
        return
    old = dict(flatten(read_config(folder / CONFIG).spec))
    new = dict(flatten(config.spec))
    for key in sorted(old.keys() | new.keys(), key=lambda k: (-k.count("."), k)):
        if old.get(key) != new.get(key):
            raise ConfigError(
                f"{folder} holds a run with {key}={old.get(key)}, this one has {key}="
                f"{new.get(key)}; resume that run with its own settings, choose another run_dir, "
                "or replace it with overwrite=true"
            )


def check_scoring(folder: Path, config: RunConfig) -> None:
    """Refuse a finished run that was scored otherwise than ``config`` asks for.

    Raises:
        ConfigError: it was; the options are named.
    """
    was = dict(flatten(read_config(folder / CONFIG).score.model_dump()))
    asked = dict(flatten(config.score.model_dump()))
    said = ", ".join(
        f"score.{key}={value}"
        for key, value in was.items()
        if not isinstance(value, dict) and value != asked[key]
    )
    if said:
        split = f" --split {asked['split']}" if asked["split"] != was["split"] else ""
        raise ConfigError(
            f"the run in {folder} is finished, and was scored with {said}; score it otherwise with "
            f"`hambench evaluate {folder}{split}`, or start anew with overwrite=true"
        )


def begin(folder: Path, config: RunConfig, fingerprint: str) -> Status:
    """Make ``folder`` ready for a start or a restart and say so in ``status.json``.

    Call it while holding the `lock`. With ``config.overwrite`` what a run wrote there is removed.

    Args:
        fingerprint: of the data.

    Raises:
        ConfigError: another run was begun there, or this one with other data.
    """
    if config.overwrite and (folder / CONFIG).is_file():
        _clear(folder)
    else:
        check_same(folder, config)
    before = known_status(folder)
    if before is None or not before.fingerprint:  # it has not begun, at most been queued
        status = Status(state="running", fingerprint=fingerprint, started=now(), updated=now())
    else:
        check_data(folder, before.fingerprint, fingerprint)
        again = {"state": "running", "restarts": before.restarts + 1, "reason": ""}
        status = before.model_copy(update=again)
    with atomic_write(folder / CONFIG) as file:  # device, scoring and paths may have changed
        file.write(config.to_yaml())
    (folder / TRACEBACK).unlink(missing_ok=True)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return update(folder, status, node=node, job=this_job())


def enqueue(folder: Path, config: RunConfig) -> None:
    """Leave a configuration in ``folder`` for the process that is to run it, and say so.

    What ``config.overwrite`` asks for is done now: the run may be started several times.

    Raises:
        RunError: another process holds the folder, the disk is full, or it cannot be written.
    """
    with lock(folder):
        if config.overwrite and (folder / CONFIG).is_file():
            _clear(folder)
        with atomic_write(folder / ASKED) as file:
            file.write(config.model_copy(update={"overwrite": False}).to_yaml())
        if not is_finished(folder):
            status = known_status(folder) or Status(state="queued", started=now(), updated=now())
            update(folder, status, state="queued", reason="", stalls=0)


def settle(folder: Path, state: Ended, reason: str, stalls: int = 0) -> None:
    """Say how a start ended that could not say so itself, unless the run is done."""
    if not is_finished(folder):
        status = known_status(folder) or Status(state=state, started=now(), updated=now())
        job = this_job() or status.job
        update(folder, status, state=state, reason=reason, stalls=stalls, job=job)


def release(folder: Path, jobs: Collection[str]) -> None:
    """Remove the lock that one of these jobs left behind when its node was lost."""
    path = folder / LOCK
    with suppress(OSError), open(path, encoding="utf-8") as file:
        if _read_holder(file).get("job") in jobs and not is_locked(path):
            path.unlink()


def this_job() -> str:
    """The SLURM job that this process belongs to, ``12`` or ``12_3``; empty outside of jobs."""
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def check_data(folder: Path, begun_with: str, fingerprint: str) -> None:
    """Refuse data that are not those a run was begun with.

    Raises:
        ConfigError: the fingerprints differ.
    """
    if begun_with != fingerprint:
        raise ConfigError(
            f"{folder} holds a run on data with fingerprint {begun_with[:12]}, these have "
            f"{fingerprint[:12]}; give it its own data (data=PATH), choose another run_dir, or "
            "replace it with overwrite=true"
        )


def update(folder: Path, status: Status, **changes: object) -> Status:
    """Write ``status`` with ``changes`` and the present time; returns what was written."""
    status = Status.model_validate({**status.model_dump(), **changes, "updated": now()})
    write_status(folder, status)
    return status


def known_status(folder: Path) -> Status | None:
    """What ``status.json`` says; None where there is none that can be read."""
    try:
        return read_status(folder)
    except DataError:
        return None


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for name in _OURS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _refuse_holder_elsewhere(folder: Path, file: IO[str]) -> None:
    held, job = _read_holder(file), this_job()
    same_job = bool(job) and held.get("job") == job
    if held and held.get("host") != socket.gethostname() and not same_job:
        path = folder / LOCK
        raise RunError(
            f"{folder} is in use by {_holder(path)}; if that process is gone, delete {path}"
        )


def _note_holder(path: Path, file: IO[str]) -> None:
    me = {"host": socket.gethostname(), "pid": os.getpid(), "job": this_job()}
    try:
        os.ftruncate(file.fileno(), 0)
        os.pwrite(file.fileno(), json.dumps(me).encode(), 0)
    except OSError as error:
        raise explained(error, path) from error


def _read_holder(file: IO[str]) -> dict[str, object]:
    file.seek(0)
    try:
        held = json.loads(file.read() or "{}")
    except ValueError:
        return {}
    return held if isinstance(held, dict) else {}


def _holder(path: Path) -> str:
    """Who holds a lock, for messages."""
    try:
        with open(path, encoding="utf-8") as file:
            held = _read_holder(file)
    except OSError:
        held = {}
    job = f", job {held['job']}" if held.get("job") else ""
    return f"process {held.get('pid', '?')} on {held.get('host', '?')}{job}"
