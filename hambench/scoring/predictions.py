"""``predictions.h5``: what a model predicted for a test set, enough to score it again.

Layout (version 1): attributes ``format``, ``version``, ``task``, ``task_version``,
``fingerprint``; datasets ``id`` (text), ``nao``, ``failed`` and ``values``: the row-major upper
triangles (Eh, canonical AO order) of all molecules in order, float64 or float32. A failed
prediction (NaN or infinity) has no values and reads as a matrix of NaN, so that whatever is not
finite in the file itself is damage. Where rotation errors were measured, ``turned`` holds, as
``values`` does, what was predicted for the same molecules turned.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.triangle import pack_triangle, triangle_size, unpack_triangle
from hambench.errors import DataError, VerificationError
from hambench.hdf5 import atomic_hdf5, is_hdf5, short

FORMAT: Final = "hambench-predictions"
VERSION: Final = 1
SYMMETRY: Final = 1e-10
"""Largest ``|H - H^T|`` in Eh a prediction may show: models symmetrise, files keep a triangle."""
_CHUNK: Final = 1 << 16  # values written and checked at a time


class PredictionWriter:
    """Adds one molecule after another to a file; made by `write_predictions`."""

    def __init__(self, file: h5py.File, dtype: str, check_disk: Callable[[], None]) -> None:
        self._file, self._check_disk = file, check_disk
        self._dtype = dtype
        self._rows: dict[str, tuple[int, bool]] = {}
        self._waiting: dict[str, list[NDArray[np.float64]]] = {}
        self._begin("values")

    def add(self, name: str, hamiltonian: ArrayLike, turned: ArrayLike | None = None) -> None:
        """Add the (nao, nao) Hamiltonian (Eh, on the CPU) predicted for the molecule ``name``.

        Args:
            name: id of the molecule.
            hamiltonian: the prediction.
            turned: the one for the molecule turned, see `Scorer.add`; for all molecules or none.

        Raises:
            DataError: an empty or repeated name, or a matrix that is not square and symmetric.
        """
        if not name or name in self._rows:
            raise DataError(f"molecule '{name}' has no id or was predicted twice; ids are unique")
        given = {"values": np.asarray(hamiltonian, dtype=np.float64)}
        if turned is not None:
            given["turned"] = np.asarray(turned, dtype=np.float64)
            if not self._rows:
                self._begin("turned")
        assert given.keys() == self._waiting.keys(), "turned predictions are of all or of none"
        packed = {key: self._packed(name, matrix) for key, matrix in given.items()}
        failed = not all(np.isfinite(part).all() for part in packed.values())
        if not failed:
            for key, matrix in given.items():
                _refuse_asymmetric(name, matrix)
                self._waiting[key].append(packed[key])
        self._rows[name] = (len(given["values"]), failed)
        if sum(len(part) for part in self._waiting["values"]) >= _CHUNK:
            self._flush()

    def finish(self) -> None:
        """Write what waits and the columns of the rows; `write_predictions` calls it."""
        self._flush()
        sizes, failed = zip(*self._rows.values(), strict=True) if self._rows else ((), ())
        self._file["id"] = np.array(list(self._rows), dtype=h5py.string_dtype())
        self._file["nao"] = np.array(sizes, dtype=np.int64)
        self._file["failed"] = np.array(failed, dtype=bool)

    def _begin(self, key: str) -> None:
        """An empty dataset of triangles."""
        self._file.create_dataset(
            key,
            shape=(0,),
            maxshape=(None,),
            chunks=(_CHUNK,),
            dtype=self._dtype,
            compression="gzip",
            shuffle=True,
            fletcher32=True,
        )
        self._waiting[key] = []

    def _packed(self, name: str, matrix: NDArray[np.float64]) -> NDArray[Any]:
        """The upper triangle, in the type of the file; DataError where there is none."""
        if matrix.ndim != 2 or len(set(matrix.shape)) != 1:
            raise DataError(f"molecule '{name}': prediction of shape {matrix.shape} is not square")
        return pack_triangle(matrix).astype(self._dtype)

    def _flush(self) -> None:
        for key, waiting in self._waiting.items():
            if not waiting:
                continue
            dataset, values = self._file[key], np.concatenate(waiting)
            start = len(dataset)
            dataset.resize(start + len(values), axis=0)
            dataset[start:] = values
            waiting.clear()
            self._check_disk()


def _refuse_asymmetric(name: str, matrix: NDArray[np.float64]) -> None:
    asymmetry = float(np.abs(matrix - matrix.T).max(initial=0))
    if asymmetry > SYMMETRY:
        raise DataError(
            f"molecule '{name}': the prediction is not symmetric (largest difference "
            f"{asymmetry:.1e} Eh, allowed {SYMMETRY:g}); let the model symmetrise it"
        )


@contextmanager
def write_predictions(
    path: str | os.PathLike[str],
    *,
    task: str,
    task_version: int,
    fingerprint: str,
    dtype: Literal["float64", "float32"] = "float64",
) -> Iterator[PredictionWriter]:
    """A writer whose file appears at ``path`` when the block ends well, and not before.

    Args:
        path: the file; an existing one is replaced.
        task, task_version, fingerprint: of the data that was predicted.
        dtype: float64 gives back the very scores; float32 halves the file (1e-7 relative).

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    with atomic_hdf5(path) as (file, check_disk):
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["task"] = task
        file.attrs["task_version"] = task_version
        file.attrs["fingerprint"] = fingerprint
        writer = PredictionWriter(file, dtype, check_disk)
        yield writer
        writer.finish()


class Predictions:
    """A file of `write_predictions`, checked as a whole when opened, its matrices read lazily.

    Attributes:
        path: the file.
        ids: names of the molecules, in order.
        failed: those whose prediction was not finite.
        has_turned: whether predictions for the molecules turned are there too.
        dtype: "float64" or "float32", in which they were kept.
        task, task_version, fingerprint: of the data that was predicted.

    Raises:
        DataError: missing, foreign, truncated or corrupt file, another version, ids that are not
            unique, sizes that do not add up, or numbers that are not finite (the molecule named).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(
                f"there is no file {self.path}; a run keeps it with save_predictions=true"
            )
        with self._open() as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise DataError(
                    f"{self.path} holds no predictions of version {VERSION}; give a predictions.h5 "
                    "that this version of hambench wrote"
                )
            self.task = str(file.attrs["task"])
            self.task_version = int(file.attrs["task_version"])
            self.fingerprint = str(file.attrs["fingerprint"])
            self.ids: tuple[str, ...] = tuple(file["id"].asstr()[:].tolist())
            self._nao = file["nao"][:].astype(np.int64)
            self._failed = file["failed"][:].astype(bool)
            self.has_turned = "turned" in file
            self.dtype = str(file["values"].dtype)
            for key in ("values", "turned")[: 1 + self.has_turned]:
                self._check(file[key])
        self.failed = tuple(np.array(self.ids, dtype=object)[self._failed])
        self._place = {name: place for place, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"Predictions({self.path}: {len(self)} molecules of {self.task})"

    def matrices(self, ids: Iterable[str] | None = None) -> Iterator[NDArray[np.float64]]:
        """The (nao, nao) predictions in Eh of ``ids`` (None: all), NaN where one failed.

        Raises:
            VerificationError: a molecule that was not predicted.
        """
        return self._matrices("values", ids)

    def turned(self, ids: Iterable[str] | None = None) -> Iterator[NDArray[np.float64]]:
        """As `matrices`, of the molecules turned; only with ``has_turned``."""
        return self._matrices("turned", ids)

    def _matrices(self, key: str, ids: Iterable[str] | None) -> Iterator[NDArray[np.float64]]:
        with self._open() as file:
            for name in self.ids if ids is None else ids:
                if name not in self._place:
                    raise VerificationError(
                        f"{self.path} has no prediction for molecule '{name}'; it belongs to "
                        f"another split or task than '{self.task}'"
                    )
                place = self._place[name]
                if self._failed[place]:
                    yield np.full((self._nao[place],) * 2, np.nan)
                else:
                    packed = file[key][self._starts[place] : self._starts[place + 1]]
                    yield unpack_triangle(packed.astype(np.float64))

    def check_complete(self, ids: Iterable[str], fingerprint: str) -> None:
        """Make sure that this is a prediction of these molecules, all of them and no others.

        Args:
            ids: of the split.
            fingerprint: of the task's data.

        Raises:
            VerificationError: the first molecule missing or too many, or other data.
        """
        if fingerprint != self.fingerprint:
            raise VerificationError(
                f"{self.path} was predicted on data with fingerprint {self.fingerprint[:12]}, the "
                f"data here have {fingerprint[:12]}; score it on the data it was made for"
            )
        check_ids(self.path, self.ids, ids)

    def _check(self, values: h5py.Dataset) -> None:
        check_unique(self.path, self.ids)
        columns = len(self._nao) == len(self._failed) == len(self.ids) and (self._nao > 0).all()
        sizes = triangle_size(self._nao)
        if columns:
            sizes[self._failed] = 0
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        if not columns or self._starts[-1] != len(values):
            raise DataError(
                f"{self.path}: the sizes of its {len(self.ids)} matrices do not add up to its "
                f"{len(values)} values; the file is corrupt, run again with save_predictions=true"
            )
        for start in range(0, len(values), _CHUNK):
            bad = np.flatnonzero(~np.isfinite(values[start : start + _CHUNK]))
            if len(bad):
                place = int(np.searchsorted(self._starts, start + bad[0], side="right")) - 1
                raise DataError(
                    f"{self.path}: molecule '{self.ids[place]}' holds NaN or infinity and is not "
                    "marked as failed; the file is corrupt, run again with save_predictions=true"
                )

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        try:
            with h5py.File(self.path, "r", locking=False) as file:
                yield file
        except (OSError, RuntimeError, KeyError) as error:
            raise DataError(
                f"{self.path} cannot be read ({short(error)}); it is truncated, corrupt or of "
                "another kind: run again with save_predictions=true"
            ) from error


def is_predictions(path: str | os.PathLike[str]) -> bool:
    """Whether a file says of itself that `write_predictions` wrote it, in whatever version."""
    if not is_hdf5(path):
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (OSError, RuntimeError):
        return True  # damaged; reading it says so


def check_unique(path: Path, ids: Iterable[str]) -> None:
    """DataError for a molecule that comes more than once in a file of predictions."""
    for name, count in Counter(ids).items():
        if count > 1:
            raise DataError(f"{path} has molecule '{name}' {count} times; ids are unique")


def check_ids(path: Path, found: Iterable[str], wanted: Iterable[str]) -> None:
    """VerificationError where a file's molecules are not those that are to be scored."""
    there, needed = set(found), set(wanted)
    if lacking := needed - there:
        instead = f", but has '{min(there - needed)}'" if there - needed else ""
        raise VerificationError(
            f"{path} lacks {len(lacking)} of {len(needed)} molecules (first: '{min(lacking)}')"
            f"{instead}; predict the whole split and nothing else"
        )
    if beyond := there - needed:
        raise VerificationError(
            f"{path} has {len(beyond)} molecules beyond the {len(needed)} of the split (first: "
            f"'{min(beyond)}'); predict the whole split and nothing else"
        )
