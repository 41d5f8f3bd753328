"""HDF5 files that are written whole or not at all, also on a full disk."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h5py

from hambench.files import atomic_path


@contextmanager
def atomic_hdf5(path: str | os.PathLike[str]) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file that becomes ``path`` when the block ends well; see `atomic_path`.

    Yields:
        The open file, and a function that raises the error of an earlier write: HDF5 itself is
        never told of one, so a long writer asks now and then.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    with atomic_path(path) as temporary, _Sink(temporary, "w+") as sink:
        try:
            with h5py.File(sink, "w") as file:
                yield file, sink.check
        finally:
            sink.check()


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as HDF5 files do, readable or not."""
    try:
        with open(path, "rb") as file:
            return file.read(8) == b"\x89HDF\r\n\x1a\n"
    except OSError:
        return False


def short(error: BaseException) -> str:
    """What a library says, on one line of a bearable length."""
    text = " ".join(str(error).split())[:120]
    return "".join(c if c.isprintable() else "?" for c in text) or type(error).__name__


class _Sink(io.FileIO):
    """A file that keeps a write error to itself until asked.

    HDF5 does not survive one: it prints, leaks and may crash the process (version 1.14). So it is
    told that all is well, and what it has written is thrown away.
    """

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of ``data``, or remember why not."""
        view = memoryview(data).cast("B")
        try:
            while view and self.error is None:
                view = view[super().write(view) :]
        except OSError as error:
            self.error = error
        return len(data)

    def check(self) -> None:
        """Raise the error of an earlier write."""
        if self.error is not None:
            raise self.error
