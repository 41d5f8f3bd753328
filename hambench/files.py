"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from hambench.errors import ConfigError, HambenchError, RunError


@contextmanager
def atomic_path(path: str | os.PathLike[str], *, sync: bool = True) -> Iterator[Path]:
    """A temporary name beside ``path``; what was written there becomes ``path`` on success.

    On any failure the temporary file is removed and ``path`` stays as it was. The folder is made.
    Without ``sync`` the disk is not waited for: for many files that can be made again.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
        ConfigError: a file stands where the folder has to be.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        os.close(handle)
    except OSError as error:
        raise explained(error, target) from error
    temporary = Path(name)
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes it private, results are to be shared
        os.replace(temporary, target)
    except OSError as error:
        raise explained(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_write(
    path: str | os.PathLike[str], mode: str = "w", *, sync: bool = True
) -> Iterator[IO[Any]]:
    """An open file that becomes ``path`` when the block ends well; see `atomic_path`."""
    with atomic_path(path, sync=sync) as temporary:
        encoding = None if "b" in mode else "utf-8"
        with open(temporary, mode, encoding=encoding) as file:
            yield file


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``, which becomes ``path`` when the block ends well.

    A folder that is there is replaced whole. On any failure it stays as it was.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
        ConfigError: a file stands where a folder has to be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        within = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise explained(error, path) from error
    new, old = within / "new", within / "old"
    try:
        new.mkdir()
        yield new
        if path.exists():
            os.replace(path, old)
        try:
            os.replace(new, path)
        except OSError:
            if old.exists():
                os.replace(old, path)
            raise
    except OSError as error:
        raise explained(error, path) from error
    finally:
        shutil.rmtree(within, ignore_errors=True)


@contextmanager
def alone(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file ``path`` as the only process; it is gone afterwards.

    Args:
        path: its folder is made.
        busy: what to say where another process holds it.

    Raises:
        RunError: another process does, or the folder cannot be written or locked.
    """
    try:
        file = locked(path)
    except BlockingIOError:
        raise RunError(busy) from None
    with file:
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def locked(path: Path) -> IO[str]:
    """The lock file, open and locked by this process alone; its folder is made.

    Whoever holds it may remove it: one that was removed while it was being locked is made anew.

    Raises:
        BlockingIOError: another process holds it.
        RunError: it cannot be written, or the file system has no locks.
        ConfigError: a file stands where the folder has to be.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _locked(path)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise RunError(
                f"cannot lock {path}: {error.strerror}; choose a folder on a file system that can"
            ) from error
        raise explained(error, path) from error


def _locked(path: Path) -> IO[str]:
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


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock file (see `locked`); False where that cannot be found out.

    The file is neither made nor held, so that nobody is kept from locking it.
    """
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Hexadecimal sha256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def explained(error: OSError, target: Path) -> HambenchError:
    """What a failure to write ``target`` means to the user, and what to do about it."""
    if isinstance(error, FileExistsError | NotADirectoryError):
        return ConfigError(
            f"cannot make the folder {target.parent}: it, or a folder above it, is a file; choose "
            "another one"
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"no space left to write {target}; free some or choose another folder")
    return RunError(f"cannot write {target}: {error.strerror or error}; check the folder's rights")
