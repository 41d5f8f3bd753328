"""Hamiltonians that another code predicted, in a simple file; docs/predictions.md describes it.

HDF5, or .npz with the same names. ``order`` names the order of the orbitals
(`hambench.chem.ordering.ORDERS`); ``unit`` (`UNITS`; Eh where it is not said), ``task``, ``split``
and ``fingerprint`` may be there too; in HDF5 they are attributes. Matrices stand

* each by itself, as ``hamiltonian/ID`` (n, n); or
* beside ``id`` (G,), all in one ``hamiltonian``: (G, n, n), or all numbers in one row, matrix after
  matrix, row-major, with their sizes in ``nao`` (G,).
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule, formula
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import ORDERS, to_canonical
from hambench.errors import DataError, nearest
from hambench.hdf5 import is_hdf5, short
from hambench.scoring.predictions import check_ids, check_unique
from hambench.units import HARTREE_EV, KCAL_MOL

UNITS: Final[Mapping[str, float]] = {"Eh": 1.0, "eV": HARTREE_EV, "kcal_mol": KCAL_MOL}
"""Units of matrices, and how many of each are 1 Eh."""

ASYMMETRY: Final = 1e-4
"""Largest ``|H - H^T|`` in Eh that is averaged away, being rounding; what is beyond is refused."""

_SAID: Final = ("order", "unit", "task", "split", "fingerprint")
SAMPLE: Final = 5
"""Molecules by which other readings of a file are judged."""

FAR_BETTER: Final = 0.5
"""Another reading is told of below this part of the error as read: 0.08 Eh of a wrong order."""

Array = NDArray[np.float64]


class ForeignPredictions:
    """A file of another code: what it says is checked when opened, its matrices are read lazily.

    Attributes:
        path: the file.
        ids: names of the molecules, in the order of the file.
        order, unit: how its matrices are read.
        task, split, fingerprint: what was predicted, where the file says it; else None.

    Raises:
        DataError: a file that is missing or cannot be read, no order or one nobody knows, an
            unknown unit, ids that are not unique, or not as many matrices as ids.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with self._opened() as (arrays, said):
            self.order = self._known("order", said.get("order"), ORDERS)
            self.unit = self._known("unit", said.get("unit", "Eh"), UNITS)
            self.task, self.split = said.get("task"), said.get("split")
            self.fingerprint = said.get("fingerprint")
            self._packed = "id" in arrays
            self.ids = _texts(arrays["id"]) if self._packed else _names(arrays)
            if not self.ids:
                raise DataError(
                    f"{self.path} holds no predictions; expected 'hamiltonian/ID' for every "
                    "molecule, or 'id' and 'hamiltonian' (docs/predictions.md)"
                )
            if self._packed:
                self._starts = self._bounds(arrays)
        check_unique(self.path, self.ids)
        self._place = {name: place for place, name in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ForeignPredictions({self.path}: {len(self)} molecules, {self.order}, {self.unit})"

    def check_complete(self, ids: Iterable[str]) -> None:
        """Make sure that these molecules were predicted, all of them and no others.

        Raises:
            VerificationError: the first molecule missing or too many.
        """
        check_ids(self.path, self.ids, ids)

    def matrices(self, molecules: Iterable[Molecule], basis: OrbitalBasis) -> Iterator[Array]:
        """The (nao, nao) predictions for molecules in Eh, canonical order, one after another.

        An asymmetry of at most `ASYMMETRY` is averaged away. What is not finite stays so: a
        failure, which scores count.

        Raises:
            DataError: a matrix of another size than the molecule's in the basis, not of real
                numbers, or not symmetric.
        """
        with self._opened() as (arrays, _):
            for molecule in molecules:
                raw = self._raw(arrays, molecule, basis)
                read = to_canonical(raw, molecule.numbers, basis, self.order) / UNITS[self.unit]
                yield self._symmetric(read, molecule.id)

    def better_reading(self, molecules: Sequence[Molecule], basis: OrbitalBasis) -> str:
        """Which other order or unit would bring the matrices far closer to the labels, in words.

        Judged by a few molecules; empty where none halves the error. Exchanged atoms cannot be
        found out like that.

        Raises:
            DataError: as `matrices`.
        """
        orders, units = list(ORDERS), list(UNITS)
        errors, size = np.zeros((len(orders), len(units))), 0.0
        places = np.unique(np.linspace(0, len(molecules) - 1, SAMPLE).round().astype(int))
        with self._opened() as (arrays, _):
            for place in places.tolist():
                molecule = molecules[place]
                raw = self._raw(arrays, molecule, basis)
                if molecule.hamiltonian is None or not np.isfinite(raw).all():
                    continue
                size += np.abs(molecule.hamiltonian).mean() / len(places)
                for i, order in enumerate(orders):
                    read = to_canonical(raw, molecule.numbers, basis, order)
                    for j, unit in enumerate(units):
                        off = np.abs(read / UNITS[unit] - molecule.hamiltonian)
                        errors[i, j] += off.mean() / len(places)
        mine, best = errors[orders.index(self.order), units.index(self.unit)], errors.min()
        if best >= FAR_BETTER * min(mine, size):  # zeros, and tiny units, are off by the size
            return ""
        fits = errors <= 1.001 * best  # orders may be the same in a basis without d, or f, shells
        fitting = [order for order, fit in zip(orders, fits.any(axis=1), strict=True) if fit]
        unit = units[int(fits.any(axis=0).argmax())]
        other = [] if self.order in fitting else [f"in {' or '.join(fitting)} order"]
        other += [] if self.unit == unit else [f"in {unit}"]
        return (
            f"{self.path} says that its matrices are in {self.order} order and {self.unit}; so "
            f"read they are {mine:.2g} Eh off the labels on average, but {' and '.join(other)} "
            f"they would be {best:.2g} Eh off: what it says is probably wrong"
        )

    def _raw(self, arrays: Mapping[str, Any], molecule: Molecule, basis: OrbitalBasis) -> Array:
        """The (nao, nao) matrix of a molecule in float64, else as it stands in the file."""
        place, nao = self._place[molecule.id], basis.nao(molecule.numbers)
        where = f"{self.path}, molecule '{molecule.id}': the matrix"
        if not self._packed:
            raw = np.asarray(arrays[f"hamiltonian/{molecule.id}"])
        elif arrays["hamiltonian"].ndim == 3:
            raw = np.asarray(arrays["hamiltonian"][place])
        else:
            raw = np.asarray(arrays["hamiltonian"][self._starts[place] : self._starts[place + 1]])
            raw = raw.reshape((round(len(raw) ** 0.5),) * 2)
        if raw.shape != (nao, nao):
            raise DataError(
                f"{where} has shape {raw.shape}, expected ({nao}, {nao}) for "
                f"{formula(molecule.numbers)} in {basis.name}; check the molecule and the basis"
            )
        if raw.dtype not in (np.float32, np.float64):
            raise DataError(f"{where} is of type {raw.dtype}, expected float32 or float64")
        return raw.astype(np.float64)

    def _symmetric(self, matrix: Array, name: str) -> Array:
        """The symmetric part of a matrix; DataError where the other part is no rounding."""
        if not np.isfinite(matrix).all():
            return matrix
        asymmetry = float(np.abs(matrix - matrix.T).max())
        if asymmetry > ASYMMETRY:
            raise DataError(
                f"{self.path}, molecule '{name}': the matrix is not symmetric (largest difference "
                f"{asymmetry:.1e} Eh, allowed {ASYMMETRY:g}); give (H + H.T) / 2 if that is what "
                "was predicted"
            )
        return (matrix + matrix.T) / 2

    def _check_kind(self, kind: Any) -> None:
        """DataError for one of the suite's own files that holds something else."""
        kind = "" if kind is None else _text(kind)
        if kind.startswith("hambench-"):
            raise DataError(
                f"{self.path} is a file of {kind.removeprefix('hambench-')}, which cannot be "
                "scored; give predictions.h5 of a run (`hambench predict` writes for molecules "
                "without labels)"
            )

    def _known(self, field: str, value: str | None, known: Mapping[str, object]) -> str:
        """A value that the file gives; DataError if it gives none, or one that is not known."""
        if value is None:
            kind = "attribute" if is_hdf5(self.path) else "array"
            raise DataError(
                f"{self.path} does not say in which {field} its matrices are; add the {kind} "
                f"'{field}', one of {', '.join(known)}"
            )
        if value not in known:
            raise DataError(f"{self.path}: unknown {field} '{value}'.{nearest(value, known)}")
        return value

    def _bounds(self, arrays: Mapping[str, Any]) -> NDArray[np.int64]:
        """(G + 1,) where the matrices begin in the row of all numbers, and where the last ends."""
        count = len(self.ids)
        shape = getattr(arrays.get("hamiltonian"), "shape", None)  # a group has none
        if shape is not None and len(shape) == 3 and shape == (count, shape[1], shape[1]):
            return np.arange(count + 1) * shape[1] ** 2
        sizes = np.asarray(arrays["nao"]) if "nao" in arrays else np.zeros(0)
        if shape is not None and len(shape) == 1 and sizes.shape == (count,) and sizes.min() > 0:
            starts = np.concatenate([[0], np.cumsum(sizes.astype(np.int64) ** 2)])
            if starts[-1] == shape[0]:
                return starts
        raise DataError(
            f"{self.path} has {count} ids and 'hamiltonian' of shape {shape}; expected ({count}, "
            "n, n), or all numbers in one row and the sizes n of the matrices in 'nao'"
        )

    @contextmanager
    def _opened(self) -> Iterator[tuple[Mapping[str, Any], dict[str, str]]]:
        """Arrays by name, those of HDF5 read when asked for, and what the file says of them."""
        if self.path.is_dir():
            raise DataError(
                f"{self.path} is a folder; give a file of predictions; a run directory is scored "
                f"by `hambench evaluate {self.path}`"
            )
        if not self.path.is_file():
            raise DataError(f"there is no file {self.path}; give a file of predictions")
        if not (is_hdf5(self.path) or zipfile.is_zipfile(self.path)):
            raise DataError(
                f"{self.path} is neither HDF5 nor .npz, or damaged; docs/predictions.md says what "
                "a file of predictions holds"
            )
        try:
            if is_hdf5(self.path):
                with h5py.File(self.path, "r", locking=False) as file:
                    self._check_kind(file.attrs.get("format", file.get("format")))
                    yield file, {key: _text(file.attrs[key]) for key in _SAID if key in file.attrs}
                return
            with np.load(self.path) as file:
                self._check_kind(file.get("format"))
                arrays = {key: file[key] for key in file}
                yield arrays, {key: _text(arrays[key]) for key in _SAID if key in arrays}
        except (OSError, RuntimeError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            what = "an array of Python objects" if "pickle" in str(error) else short(error)
            raise DataError(
                f"{self.path} cannot be read ({what}); expected HDF5 or .npz of numbers and text "
                "as in docs/predictions.md"
            ) from error


def _text(value: Any) -> str:
    """Text of an HDF5 attribute or of an array of one text."""
    value = np.asarray(value).item()
    return value.decode() if isinstance(value, bytes) else str(value)


def _texts(ids: Any) -> tuple[str, ...]:
    """Names of molecules, also those written as numbers."""
    values = np.asarray(ids).ravel().tolist()
    return tuple(v.decode() if isinstance(v, bytes) else str(v) for v in values)


def _names(arrays: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the molecules whose matrices stand by themselves; they may have slashes in them."""
    found: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found.append(name)

    if not isinstance(arrays, h5py.File):
        return tuple(k.removeprefix("hamiltonian/") for k in arrays if k.startswith("hamiltonian/"))
    if isinstance(group := arrays.get("hamiltonian"), h5py.Group):
        group.visititems(note)
    return tuple(found)
