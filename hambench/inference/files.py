"""Files of predictions: matrices as ``.npz`` or HDF5, orbitals as Molden, numbers as CSV.

Both kinds of matrix files hold the same names (version 1): ``format``, ``version``, ``basis``,
``order`` (of the atomic orbitals, a key of `hambench.chem.ordering.ORDERS`) and ``about`` (JSON:
units, model, level of theory); ``id``, ``charge``, ``multiplicity`` and ``failed`` of all
molecules; and of every molecule, K being its place from 0, ``K/numbers``, ``K/positions``
(Angstrom), ``K/hamiltonian`` (Eh) and, where there is one, ``K/overlap``, (nao, nao) float64. The
Hamiltonian of a failed prediction is not finite.
"""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench import rundir
from hambench.chem import engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical
from hambench.data.rows import Rows
from hambench.errors import ConfigError
from hambench.files import atomic_path, atomic_write
from hambench.hdf5 import atomic_hdf5
from hambench.inference.properties import Orbitals

FORMAT: Final = "hambench-hamiltonians"
VERSION: Final = 1
UNITS: Final = {"hamiltonian": "Eh", "overlap": "1", "positions": "Angstrom", "charge": "e"}

MATRICES: Final = "matrices"
ORBITALS: Final = "orbitals"
TABLE: Final = "table"
ENDINGS: Final = {
    ".npz": MATRICES,
    ".h5": MATRICES,
    ".hdf5": MATRICES,
    ".molden": ORBITALS,
    ".csv": TABLE,
}
"""What a file holds, by its ending."""

Matrix = NDArray[np.float64]
Put = Callable[[str, Any], None]


@dataclass(frozen=True)
class Targets:
    """Files to write; make it with `Targets.checked`.

    Attributes:
        matrices: of all molecules, in the ``order`` of atomic orbitals.
        orbitals: Molden files, of one molecule.
        table: a row for every molecule.
    """

    matrices: Path | None
    orbitals: tuple[Path, ...]
    table: Path | None
    order: str

    @property
    def files(self) -> list[Path]:
        """All of them."""
        return [p for p in (self.matrices, *self.orbitals, self.table) if p is not None]

    @staticmethod
    def checked(out: Path | None, molden: Path | None, order: str | None, source: Path) -> Targets:
        """Files that can be written, as far as can be seen before long work.

        Args:
            out: its ending says what it holds, see `ENDINGS`.
            molden: a Molden file, whatever its ending.
            order: of the atomic orbitals in a file of matrices; None: canonical.
            source: the file of molecules, which none of them may replace.

        Raises:
            ConfigError: an unknown ending; no folder, or a folder in its place; the file of
                molecules, a file of a run, matrices of others, or one file for two purposes; an
                order without matrices to be in it; a Molden file without PySCF.
        """
        kind = None if out is None else out.suffix.lower()
        if kind is not None and kind not in ENDINGS:
            known = ", ".join(f"{ending} ({what})" for ending, what in ENDINGS.items())
            raise ConfigError(f"--out={out} ends in '{kind}', expected one of {known}")
        for option, path in (("out", out), ("molden", molden)):
            if path is not None:
                _check_place(path, f"--{option}={path}", source)
        if out is not None and molden is not None and out.resolve() == molden.resolve():
            raise ConfigError(f"--out and --molden are both {out}; name two files, or one option")
        what = ENDINGS.get(kind or "")
        if order is not None and what != MATRICES:
            raise ConfigError(
                f"the order '{order}' is of matrices in a file; write one with --out=h.npz or h.h5 "
                "(a Molden file has an order of its own)"
            )
        orbitals = [path for path in (out if what == ORBITALS else None, molden) if path]
        if orbitals:
            engine.pyscf()
        return Targets(
            matrices=out if what == MATRICES else None,
            orbitals=tuple(orbitals),
            table=out if what == TABLE else None,
            order=order or "canonical",
        )

    def check_count(self, count: int, source: Path) -> None:
        """ConfigError where the orbitals of several molecules are wanted in a Molden file."""
        if self.orbitals and count > 1:
            raise ConfigError(
                f"a Molden file holds the orbitals of one molecule, {source} has {count}; write "
                "matrices (--out=h.npz or h.h5), or give molecules one by one"
            )


def _check_place(path: Path, called: str, source: Path) -> None:
    if not path.parent.is_dir():
        raise ConfigError(f"{called}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise ConfigError(f"{called} is a folder; name a file in it")
    if path.resolve() == source.resolve():
        raise ConfigError(f"{called} would replace the molecules; name another file")
    if path.exists() and (path.parent / rundir.CONFIG).is_file():
        raise ConfigError(f"{called} would replace a file of a run; name another file")
    if path.exists() and ENDINGS.get(path.suffix.lower()) == MATRICES and not _is_ours(path):
        raise ConfigError(
            f"{called} is there, and was not written by `hambench predict`; name another file, or "
            "remove it"
        )


def _is_ours(path: Path) -> bool:
    """Whether a file of matrices is one that `write_matrices` made."""
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as npz:
                return str(npz["format"]) == FORMAT
        with h5py.File(path) as file:
            return file["format"][()] == FORMAT.encode()
    except (OSError, KeyError, ValueError, AttributeError, zipfile.BadZipFile):
        return False


class MatrixFile:
    """Adds one molecule after another to a file; made by `write_matrices`."""

    def __init__(self, put: Put, basis: OrbitalBasis, order: str, count: int) -> None:
        self._put, self._basis, self._order = put, basis, order
        self.failed = np.zeros(count, dtype=bool)

    def add(self, place: int, molecule: Molecule, hamiltonian: Matrix, orbitals: Orbitals) -> None:
        """Add the molecule at a place with its matrices in canonical order."""
        self.failed[place] = not np.isfinite(hamiltonian).all()
        found = {"hamiltonian": hamiltonian, "overlap": orbitals.overlap}
        for name in ("numbers", "positions"):
            self._put(f"{place}/{name}", getattr(molecule, name))
        for name, matrix in found.items():
            if matrix is not None:
                ordered = from_canonical(matrix, molecule.numbers, self._basis, self._order)
                self._put(f"{place}/{name}", ordered)


@contextmanager
def write_matrices(
    path: Path, rows: Rows, basis: OrbitalBasis, order: str, about: Mapping[str, Any]
) -> Iterator[MatrixFile]:
    """A `MatrixFile` that appears at ``path`` when the block ends well, and not before.

    Args:
        path: ``.npz``, or HDF5; an existing file is replaced.
        rows: the molecules, all of which are to be added.
        basis: of the matrices.
        order: to write them in.
        about: JSON-able, of the model.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    opened = _npz if path.suffix.lower() == ".npz" else _hdf5
    with opened(path) as put:
        said = {"format": FORMAT, "version": VERSION, "basis": basis.name, "order": order}
        for name, value in said.items():
            put(name, value)
        put("about", json.dumps({"units": UNITS, **about}))
        geometries = [rows.geometry(place) for place in range(len(rows))]
        put("id", [molecule.id for molecule in geometries])
        put("charge", [molecule.charge for molecule in geometries])
        put("multiplicity", [molecule.multiplicity for molecule in geometries])
        file = MatrixFile(put, basis, order, len(rows))
        yield file
        put("failed", file.failed)


def write_molden(path: Path, molecule: Molecule, basis: str, orbitals: Orbitals) -> None:
    """Write the orbitals of a molecule to a Molden file, whole or not at all.

    Raises:
        ConfigError: PySCF is not installed.
        RunError: the disk is full, or the folder cannot be written.
    """
    mole = engine.mole(molecule.numbers, molecule.positions, basis, molecule.charge)
    assert orbitals.levels is not None  # PySCF is there
    assert orbitals.coefficients is not None
    assert orbitals.occupations is not None
    with atomic_path(path) as temporary:
        engine.write_molden(
            temporary, mole, orbitals.levels, orbitals.coefficients, orbitals.occupations
        )


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the same columns as CSV, whole or not at all; None is left empty.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    with atomic_write(path) as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


@contextmanager
def _npz(path: Path) -> Iterator[Put]:
    """Arrays by name, written one after another; `numpy.savez` wants all of them at once."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive,
    ):

        def put(name: str, value: Any) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(value), allow_pickle=False)

        yield put


@contextmanager
def _hdf5(path: Path) -> Iterator[Put]:
    with atomic_hdf5(path) as (file, check_disk):

        def put(name: str, value: Any) -> None:
            array = np.asarray(value)
            if array.dtype.kind == "U":
                file[name] = array.astype(h5py.string_dtype())
            elif array.ndim == 2:
                file.create_dataset(
                    name, data=array, compression="gzip", shuffle=True, fletcher32=True
                )
            else:
                file[name] = array
            check_disk()

        yield put
