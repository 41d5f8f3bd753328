"""Synthetic files of the public formats, and the plain reads their readers are measured against."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical
from hambench.chem.triangle import pack_triangle, triangle_size
from hambench.data.conventions import Conventions
from hambench.data.synthetic import SyntheticFormat
from hambench.errors import ConfigError
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.omol_csh_file import OmolCshFile
from hambench.tasks.schnorb import SchnorbDatabase
from hambench.units import BOHR

_PSI4: Final = Conventions("bohr", "psi4")
_SAME_ENERGY: Final = 0.5  # Eh per Z^(7/3), negative: near that of an atom of charge Z
_NABLA_TABLES: Final = """
CREATE TABLE data (id INTEGER NOT NULL PRIMARY KEY, Z BLOB, R BLOB, E FLOAT, F BLOB, H BLOB,
                   S BLOB, C BLOB);
CREATE TABLE dataset_ids (id INTEGER NOT NULL PRIMARY KEY, MOSES_ID INT, CONFORMER_ID INT);
CREATE TABLE basisset (Z INTEGER NOT NULL PRIMARY KEY, orbitals BLOB);
CREATE TABLE metadata (id INTEGER NOT NULL PRIMARY KEY, N INTEGER);
"""


def write_nabla2dft(path: Path, molecules: Iterable[Molecule]) -> None:
    """A nabla2DFT Hamiltonian database in Psi4's order; overlaps are unit matrices."""
    elements: set[int] = set()
    rows = 0
    with closing(sqlite3.connect(path)) as file, file:
        file.executescript(_NABLA_TABLES)
        for rows, molecule in enumerate(molecules, 1):
            elements |= set(molecule.numbers.tolist())
            matrix = _in_order(molecule, _PSI4.order)
            unit = np.eye(len(matrix), dtype="<f4").tobytes()
            record = (
                rows - 1, molecule.numbers.astype("<i4").tobytes(),
                (molecule.positions / BOHR).astype("<f4").tobytes(), _energy(molecule),
                np.zeros((len(molecule), 3), "<f4").tobytes(), matrix.tobytes(), unit, unit,
            )  # fmt: skip
            file.execute(f"INSERT INTO data VALUES ({', '.join('?' * len(record))})", record)
            file.execute("INSERT INTO dataset_ids VALUES (?, ?, 0)", (rows - 1, rows))
        for z, shells in OrbitalBasis.load("def2-svp", elements).shells.items():
            file.execute(
                "INSERT INTO basisset VALUES (?, ?)", (z, np.array(shells.l, "<i4").tobytes())
            )
        file.execute("INSERT INTO metadata VALUES (0, ?)", (rows,))


def write_schnorb(path: Path, molecules: Iterable[Molecule]) -> None:
    """A SchNOrb database in ORCA's order, energies being total ones.

    Raises:
        ConfigError: ASE is not installed.
    """
    try:
        import ase.db
    except ImportError as error:
        raise ConfigError(
            "writing ASE databases needs ASE, which is not installed; install it with: pip "
            "install 'hambench[ase]'"
        ) from error

    with ase.db.connect(path, type="db") as file:
        for molecule in molecules:
            matrix = _in_order(molecule, "orca")
            data = {
                "energy": np.array([_energy(molecule)]),
                "forces": np.zeros((len(molecule), 3), np.float32),
                "hamiltonian": matrix,
                "overlap": np.eye(len(matrix), dtype=np.float32),
            }
            file.write(ase.Atoms(molecule.numbers, molecule.positions), data=data)
    ase.db.connect(path, type="db").metadata = {"mean_energy": 0.0}


def write_omol_csh(path: Path, molecules: Iterable[Molecule]) -> None:
    """A file of OMol_CSH in float32."""
    with h5py.File(path, "w") as file:
        for row, molecule in enumerate(molecules):
            group = _omol_group(file, row, molecule)
            group["fock"] = pack_triangle(_in_order(molecule, "omol_csh"))


def write_sparse_omol_csh(path: Path, molecules: Iterable[Molecule], size: int) -> None:
    """As `write_omol_csh` until ``size`` bytes; matrices are holes, that is, zero."""
    basis = OrbitalBasis.load("def2-tzvpd")
    holes = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    holes.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    holes.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        for row, molecule in enumerate(molecules):
            if size <= 0:
                return
            entries = int(triangle_size(np.array(basis.nao(molecule.numbers))))
            size -= 4 * entries
            space = h5py.h5s.create_simple((entries,))
            group = _omol_group(file, row, molecule)
            h5py.h5d.create(group.id, b"fock", h5py.h5t.IEEE_F32LE, space, dcpl=holes)


def formats() -> dict[str, SyntheticFormat]:
    """The formats by key."""
    return {
        "schnorb": SyntheticFormat("SchNOrb", write_schnorb, SchnorbDatabase, _raw_schnorb),
        "nabla2dft": SyntheticFormat(
            "nabla2DFT",
            write_nabla2dft,
            lambda path: Nabla2dftHamiltonians(path, conventions=_PSI4),
            _raw_nabla2dft,
        ),
        "omol_csh": SyntheticFormat(
            "OMol_CSH", write_omol_csh, OmolCshFile, _raw_omol_csh, write_sparse_omol_csh
        ),
    }


def _omol_group(file: h5py.File, row: int, molecule: Molecule) -> h5py.Group:
    group = file.create_group(f"synthetic/m{row}_0_1")
    group["elements"] = molecule.numbers.astype(np.int32)
    group["coords"] = molecule.positions.astype(np.float32)
    group.attrs["charge"] = molecule.charge
    return group


def _in_order(molecule: Molecule, order: str) -> NDArray[np.float32]:
    assert molecule.basis is not None
    assert molecule.hamiltonian is not None
    basis = OrbitalBasis.load(molecule.basis)
    matrix = from_canonical(molecule.hamiltonian, molecule.numbers, basis, order)
    return matrix.astype(np.float32)


def _energy(molecule: Molecule) -> float:
    """An energy in the range of those of the molecule, Eh."""
    return -_SAME_ENERGY * float((molecule.numbers ** (7 / 3)).sum())


def _raw_sqlite(query: str, first: int) -> Callable[[Path], Callable[[int], int]]:
    """Plain reads by a query with one ``?``, which is the row's number counted from ``first``."""

    def opened(path: Path) -> Callable[[int], int]:
        file = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)

        def read(row: int) -> int:
            record: tuple[Any, ...] = file.execute(query, (row + first,)).fetchone()
            return sum(len(value) for value in record if isinstance(value, bytes))

        return read

    return opened


_raw_nabla2dft = _raw_sqlite("SELECT Z, R, E, F, H FROM data WHERE id = ?", 0)
_raw_schnorb = _raw_sqlite("SELECT numbers, positions, data FROM systems WHERE id = ?", 1)


def _raw_omol_csh(path: Path) -> Callable[[int], int]:
    file = h5py.File(path, "r", locking=False)
    names = OmolCshFile(path, progress=False).ids

    def read(row: int) -> int:
        group = file[names[row]]
        return sum(group[name][()].nbytes for name in ("elements", "coords", "fock"))

    return read
