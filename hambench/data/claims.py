"""Who computes what, where several processes, also of several machines, work into one folder.

Everything that can be claimed is one byte of the file ``claims``, under a POSIX record lock: such
locks work between the nodes of a cluster (NFS, Lustre mounted with ``flock``), and vanish with
their process however it ends, so that nothing needs to be cleaned up after a kill.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from hambench.errors import RunError
from hambench.files import explained

_USERS: Final = 0
_ASSEMBLY: Final = 1
_FIRST: Final = 2
_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


class Claims:
    """The claims in a folder; while it is open, nobody else removes the folder.

    The system gives up the locks of a process when it closes the file for the first time: open a
    folder once in a process.

    Args:
        folder: made if it is missing.

    Raises:
        RunError: the folder cannot be written, or its file system has no locks.
        ConfigError: a file stands where the folder has to be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "claims"
        while True:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue  # removed between the two lines
            except OSError as error:
                raise explained(error, self._path) from error
            self._lock(fcntl.LOCK_SH, _USERS)
            if self._is_current():
                return
            self.close()  # whoever was here last has removed it meanwhile

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def close(self) -> None:
        """Give up everything."""
        os.close(self._file)

    @contextmanager
    def claim(self, place: int, *, wait: bool) -> Iterator[bool]:
        """Hold thing number ``place``; False where another process does and ``wait`` is not set."""
        mine = self._lock(fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), _FIRST + place)
        try:
            yield mine
        finally:
            if mine:
                self._lock(fcntl.LOCK_UN, _FIRST + place)

    @contextmanager
    def assembly(self) -> Iterator[None]:
        """Hold the right to put everything together, after who holds it now."""
        self._lock(fcntl.LOCK_EX, _ASSEMBLY)
        try:
            yield
        finally:
            self._lock(fcntl.LOCK_UN, _ASSEMBLY)

    def last(self) -> bool:
        """Whether no other process is here; nobody comes in then until `close`."""
        return self._lock(fcntl.LOCK_EX | fcntl.LOCK_NB, _USERS)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def _lock(self, kind: int, place: int) -> bool:
        try:
            fcntl.lockf(self._file, kind, 1, place)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            if error.errno in _NO_LOCKS:
                raise RunError(
                    f"the file system of {self.folder} has no file locks, without which processes "
                    "would do each other's work; write to another one"
                ) from error
            raise explained(error, self._path) from error
        return True
