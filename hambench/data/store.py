"""Our own HDF5 file of molecules and matrices: written once, read lazily by row.

Layout (version 1): attributes ``format``, ``version``, ``basis``, ``theory``, ``provenance`` (the
last three JSON); datasets ``id`` (text), ``charge``, ``multiplicity``, ``atom_offset`` (n + 1),
``numbers``, ``positions`` (Angstrom) and, where all molecules have them, ``energy`` (Eh),
``forces`` (Eh/Angstrom), and the row-major upper triangles ``hamiltonian`` (Eh) and ``overlap``
in canonical AO order, with ``matrix_offset`` (n + 1). Arrays of all rows are joined; the offsets
say where a row starts. Floats are float64; chunks are compressed and carry a checksum.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.stored import StoredMatrix
from hambench.chem.triangle import pack_triangle, unpack_triangle
from hambench.data.hdf5_rows import Hdf5Rows
from hambench.errors import DataError
from hambench.hdf5 import atomic_hdf5

FORMAT: Final = "hambench-store"
VERSION: Final = 1

_ATOM_FIELDS: Final = {"numbers": ((), "i2"), "positions": ((3,), "f8"), "forces": ((3,), "f8")}
_MATRIX_FIELDS: Final = ("hamiltonian", "overlap")
_ROW_FIELDS: Final = {"charge": "i4", "multiplicity": "i4", "energy": "f8"}
_CHUNK: Final = 8192  # entries; 64 kB of a matrix, so that a row unpacks little more than it
_TEXT_CHUNK: Final = 512
_KEPT: Final = 8 * 2**20  # bytes; a column of atoms or rows up to this size is read once
_BATCH: Final = 64  # rows in memory while writing


def write_store(
    path: str | os.PathLike[str],
    molecules: Iterable[Molecule],
    *,
    basis: OrbitalBasis,
    theory: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> None:
    """Write molecules to ``path``, all or nothing, a few at a time.

    Args:
        path: the file; an existing one is replaced.
        molecules: rows in order, ids unique; all have the same labels.
        basis: orbital basis of the matrices.
        theory: settings of the labels, JSON-able.
        provenance: where it comes from, JSON-able.

    Raises:
        DataError: a row that is not sound (see `Molecule.checked`), an id used twice, or labels
            that some rows have and others lack.
        RunError: the disk is full, or the folder cannot be written.
    """
    with atomic_hdf5(path) as (file, check_disk):
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        file.attrs["basis"] = json.dumps(basis.to_dict())
        file.attrs["theory"] = json.dumps(dict(theory or {}), sort_keys=True)
        file.attrs["provenance"] = json.dumps(dict(provenance or {}), sort_keys=True)
        rows = iter(molecules)
        seen: set[str] = set()
        labels: frozenset[str] | None = None
        for name in ("atom_offset", "matrix_offset"):
            _append(file, name, np.zeros(1, dtype=np.int64))
        while batch := list(islice(rows, _BATCH)):
            for molecule in batch:
                molecule.checked(basis.nao(molecule.numbers))
                if not molecule.id or molecule.id in seen:
                    raise DataError(f"id '{molecule.id}' is empty or used twice; give unique ids")
                seen.add(molecule.id)
                labels = _labels(molecule) if labels is None else labels
                if _labels(molecule) != labels:
                    raise DataError(
                        f"molecule '{molecule.id}' has {sorted(_labels(molecule))}, the rows "
                        f"before have {sorted(labels)}; all rows of a store need the same labels"
                    )
            _append_batch(file, batch, labels or frozenset())
            check_disk()


class Store(Hdf5Rows):
    """A file of `write_store` as a lazy sequence of `Molecule`.

    Ids and offsets are read at once, matrices when a row is asked for. It may cross `fork` and
    be pickled: every process opens the file for itself.

    Args:
        path: the file.

    Raises:
        DataError: missing, foreign, truncated or corrupt file, or another version; and for a row
            (on access) that is out of range, unreadable or not sound, naming file and row.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self._columns: dict[str, NDArray[Any]] = {}
        with self._reading("header"):
            file = self._open()
            self._check_format(file.attrs)
            self.basis = OrbitalBasis.from_dict(json.loads(file.attrs["basis"]))
            self.theory: dict[str, Any] = json.loads(file.attrs["theory"])
            self.provenance: dict[str, Any] = json.loads(file.attrs["provenance"])
            self._ids = tuple(file["id"].asstr()[:].tolist()) if "id" in file else ()
            self._atoms = file["atom_offset"][:]
            self._matrices = file["matrix_offset"][:]
            self._labels = frozenset(file) - {"id", "atom_offset", "matrix_offset"}
            lengths = {name: len(file[name]) for name in self._labels}
        self._check_lengths(lengths)

    @staticmethod
    def recognises(path: str | os.PathLike[str]) -> bool:
        """Whether a file is an HDF5 file that says it is of this format."""
        try:
            with h5py.File(path, "r", locking=False) as file:
                return bool(file.attrs.get("format") == FORMAT)
        except OSError:
            return False

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return self._ids

    def row(self, index: int) -> Molecule:
        """The molecule of row ``index`` (0 to n-1); see the class for errors."""
        with self._reading(f"row {index}"):
            bare = self._bare(index)
            matrices: dict[str, Any] = {
                name: unpack_triangle(self._triangle(index, name))
                for name in _MATRIX_FIELDS
                if name in self._labels
            }
            return replace(bare, **matrices).checked(self.basis.nao(bare.numbers))

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """The molecule of a row for training, see `Rows.stored`."""
        with self._reading(f"row {index}"):
            bare = self._bare(index)
            bare.checked(self.basis.nao(bare.numbers))
            if "hamiltonian" not in self._labels:
                return bare, None
            triangle = self._triangle(index, "hamiltonian")
            matrix = StoredMatrix(triangle, bare.numbers, self.basis, "canonical", packed=True)
            return bare, matrix.checked("hamiltonian")

    def geometry(self, index: int) -> Molecule:
        """A row without its matrices."""
        with self._reading(f"row {index}"):
            return self._bare(index)

    def _bare(self, index: int) -> Molecule:
        """The molecule of a row without matrices; not checked."""
        atoms = slice(*self._atoms[index : index + 2].tolist())
        values: dict[str, Any] = {
            name: self._column(name)[atoms].astype(_ATOM_FIELDS[name][1])
            for name in _ATOM_FIELDS
            if name in self._labels
        }
        for name in _ROW_FIELDS:
            if name in self._labels:
                values[name] = self._column(name)[index].item()
        return Molecule(**values, basis=self.basis.name, id=self._ids[index])

    def _column(self, name: str) -> Any:
        """A column of atoms or rows: in memory where it is small, else as it stands in the file."""
        if name not in self._columns:
            column = self._open()[name]
            if column.size * column.dtype.itemsize > _KEPT:
                return column
            self._columns[name] = column[()]
        return self._columns[name]

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_columns": {}}

    def _triangle(self, index: int, name: str) -> NDArray[np.float64]:
        triangle: NDArray[np.float64] = self._open()[name][
            slice(*self._matrices[index : index + 2].tolist())
        ]
        return triangle

    def __repr__(self) -> str:
        return f"Store({self.path}: {len(self)} molecules, {self.basis!r})"

    @staticmethod
    def _check_format(attributes: Mapping[str, Any]) -> None:
        if attributes.get("format") != FORMAT:
            raise DataError(
                "an HDF5 file, but not one of hambench; convert it, or open it with the task it "
                "belongs to"
            )
        version = int(attributes.get("version", 0))
        if version != VERSION:
            raise DataError(
                f"store version {version}, but this hambench reads version {VERSION}; "
                + ("update hambench" if version > VERSION else "generate the file anew")
            )

    def _check_lengths(self, lengths: Mapping[str, int]) -> None:
        n = len(self._ids)
        offsets = len(self._atoms) == len(self._matrices) == n + 1
        expected = {name: n for name in _ROW_FIELDS} if offsets else {}
        if offsets:
            expected |= dict.fromkeys(_ATOM_FIELDS, int(self._atoms[-1]))
            expected |= dict.fromkeys(_MATRIX_FIELDS, int(self._matrices[-1]))
        if not offsets or any(expected.get(name) != size for name, size in lengths.items()):
            raise DataError(
                f"{self.path}: the lengths of its columns do not fit its {n} rows; the file is "
                "corrupt, make or fetch it again"
            )


def _labels(molecule: Molecule) -> frozenset[str]:
    optional = ("energy", "forces", *_MATRIX_FIELDS)
    return frozenset(name for name in optional if getattr(molecule, name) is not None)


def _append_batch(file: h5py.File, batch: Sequence[Molecule], labels: frozenset[str]) -> None:
    _append(file, "id", np.array([m.id for m in batch], dtype=object), text=True)
    for name, kind in _ROW_FIELDS.items():
        if name in labels or name != "energy":
            _append(file, name, np.array([getattr(m, name) for m in batch], dtype=kind))
    for name, (_, kind) in _ATOM_FIELDS.items():
        if name in labels or name != "forces":
            _append(file, name, np.concatenate([getattr(m, name) for m in batch]).astype(kind))
    sizes = np.zeros(len(batch), dtype=np.int64)
    for name in _MATRIX_FIELDS:
        if name in labels:
            triangles = [pack_triangle(getattr(m, name)) for m in batch]
            sizes = np.array([len(t) for t in triangles])
            _append(file, name, np.concatenate(triangles))
    atoms = np.array([len(m) for m in batch])
    for name, lengths in {"atom_offset": atoms, "matrix_offset": sizes}.items():
        _append(file, name, file[name][-1] + np.cumsum(lengths))


def _append(file: h5py.File, name: str, values: NDArray[Any], *, text: bool = False) -> None:
    """Add values at the end of a dataset, which is made at the first time."""
    if name not in file:
        file.create_dataset(
            name,
            shape=(0, *values.shape[1:]),
            maxshape=(None, *values.shape[1:]),
            chunks=((_TEXT_CHUNK if text else _CHUNK), *values.shape[1:]),
            dtype=h5py.string_dtype() if text else values.dtype,
            compression=None if text else "gzip",  # variable-length text is not compressible
            shuffle=not text,
            fletcher32=not text,
        )
    data = file[name]
    start = len(data)
    data.resize(start + len(values), axis=0)
    data[start:] = values
