"""`Hdf5Rows`: rows of an HDF5 file, read in place by any number of processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from hambench.data.rows import Rows
from hambench.errors import ConfigError, DataError
from hambench.hdf5 import short


class Hdf5Rows(Rows):
    """Base of the readers of HDF5 files: a handle per process, and errors that name the place.

    It may cross `fork` and be pickled: every process opens the file for itself.

    Args:
        path: the file.

    Raises:
        DataError: there is no such file; on access, that it cannot be read as HDF5.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._file: h5py.File | None = None
        self._pid = -1
        if not self.path.is_file():
            what = "is a folder, not a file" if self.path.is_dir() else "is not there"
            raise DataError(f"{self.path} {what}; check the path")

    def close(self) -> None:
        """Close the file; the next access opens it again."""
        if self._file is not None and self._pid == os.getpid():
            self._file.close()
        self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_pid": -1}

    def _open(self) -> h5py.File:
        """This process's handle: one inherited by a fork must not be used."""
        if self._file is None or self._pid != os.getpid():
            try:
                # no locks: the file is never changed in place, and some network disks have none
                self._file = h5py.File(self.path, "r", locking=False)
            except OSError as error:
                raise DataError(
                    f"cannot be read as HDF5 ({short(error)}); it is truncated, corrupt or of "
                    "another kind: make or fetch it again"
                ) from error
            self._pid = os.getpid()
        return self._file

    @contextmanager
    def _reading(self, where: str) -> Iterator[None]:
        """Errors of what is done in the block name the file and ``where`` in it."""
        try:
            yield
        except (DataError, ConfigError) as error:
            raise DataError(f"{self.path}, {where}: {error}") from error
        except (
            OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, MemoryError,
        ) as error:  # fmt: skip
            raise DataError(
                f"{self.path}, {where}: cannot be read ({short(error)}); the file is corrupt, make "
                "or fetch it again"
            ) from error
