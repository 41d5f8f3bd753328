"""A run directory on disk: who may write in it, what state it is in, how it is begun again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hambench.config import RunConfig, flatten, read_config
from hambench.errors import ConfigError, DataError, RunError
from hambench.files import atomic_write
from hambench.results import RESULT, STATUS, Status, now, read_status, write_status

CONFIG = "config.yaml"
LOG = "log.jsonl"
CHECKPOINTS = "checkpoints"
PREDICTIONS = "predictions.h5"
TENSORBOARD = "tensorboard"
TRACEBACK = "traceback.txt"
LOCK = ".lock"

_OURS = (CONFIG, STATUS, LOG, CHECKPOINTS, PREDICTIONS, RESULT, TENSORBOARD, TRACEBACK)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold ``folder`` as its only writer; the folder is made if it is missing.

    The operating system drops the lock of a process that died, so its directory can be taken over.
    On file systems that lock per machine only, the holder noted in the file guards against a
    writer elsewhere, unless it was this very job before it was requeued.

    Raises:
        RunError: another process holds it, or the file system has no locks.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except BlockingIOError:
        raise RunError(
            f"{folder} is in use by {_holder(path)}; wait for it, or choose another run_dir"
        ) from None
    except OSError as error:
        raise RunError(
            f"cannot lock {path}: {error.strerror}; choose a run_dir on a file system that can"
        ) from error
    with file:
        me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "job": os.environ.get("SLURM_JOB_ID", ""),
        }
        held = _read_holder(file)
        same_job = bool(me["job"]) and held.get("job") == me["job"]
        if held and held.get("host") != me["host"] and not same_job:
            raise RunError(
                f"{folder} is in use by {_holder(path)}; if that process is gone, delete {path}"
            )
        file.seek(0)
        file.truncate()
        json.dump(me, file)
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has its result."""
    return (folder / RESULT).is_file()


def check_same(folder: Path, config: RunConfig) -> None:
    """Refuse a run directory that was begun with another configuration.

    Raises:
        ConfigError: it was; the first difference is named.
    """
    if not (folder / CONFIG).is_file():
        foreign = [p.name for p in folder.glob("*") if p.name != LOCK]
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


def begin(folder: Path, config: RunConfig) -> Status:
    """Make ``folder`` ready for a start or a restart and say so in ``status.json``.

    Call it while holding the `lock`. With ``config.overwrite`` what a run wrote there is removed.
    """
    if config.overwrite and (folder / CONFIG).is_file():
        _clear(folder)
    else:
        check_same(folder, config)
    try:
        before = read_status(folder)
        status = before.model_copy(
            update={"state": "running", "restarts": before.restarts + 1, "reason": ""}
        )
    except DataError:
        status = Status(state="running", started=now(), updated=now())
    if not (folder / CONFIG).is_file():
        with atomic_write(folder / CONFIG) as file:
            file.write(config.to_yaml())
    (folder / TRACEBACK).unlink(missing_ok=True)
    return update(folder, status)


def update(folder: Path, status: Status, **changes: object) -> Status:
    """Write ``status`` with ``changes`` and the present time; returns what was written."""
    status = Status.model_validate({**status.model_dump(), **changes, "updated": now()})
    write_status(folder, status)
    return status


def _clear(folder: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for name in _OURS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> IO[str]:
    """The lock file, open and locked; tried again if its holder removed it meanwhile."""
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (the caller closes it)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            file.close()
            raise
        file.close()


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
