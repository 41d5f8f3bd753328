"""The QH9 databases (B3LYP/def2-SVP by PySCF) as lazy rows.

SQLite, one table ``data``; matrices float64 in PySCF's order, no overlap. Stable molecules:
(id, N, Z int32, pos float64 in Angstrom, Ham). Molecular dynamics: (id, geo_id, N, Z, pos float64
in bohr, ekin, epot, etot, time, Ham, converged). Whole numbers may be NumPy's, which SQLite keeps
as blobs. (Yu et al., arXiv 2306.09549; the repository divelab/AIRS.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem.energies import total_energy
from hambench.chem.molecule import Molecule
from hambench.chem.stored import StoredMatrix
from hambench.chem.theory import named
from hambench.data.conventions import Conventions
from hambench.errors import DataError
from hambench.tasks.columns import blob, nao_of, real_number, whole_number
from hambench.tasks.sqlite import BASIS, Record, SqliteRows, tables_of

_GEOMETRY: Final = "geo_id"


class QH9Stable(SqliteRows):
    """QH9Stable as a lazy sequence of `Molecule` with Hamiltonians alone; ids are those stored.

    Arguments and errors are those of `SqliteRows`.
    """

    format = "a database of QH9Stable"
    tables: ClassVar[Mapping[str, frozenset[str]]] = {
        "data": frozenset({"id", "N", "Z", "pos", "Ham"})
    }
    query = "SELECT N, Z, pos, Ham FROM data"
    key = "rowid"
    known = Conventions("angstrom", "pyscf")
    theory: Final = named("b3lyp5/def2-svp").to_dict()
    """Level of theory of the labels; PySCF before 2.3 made them, whose B3LYP has VWN5."""

    @classmethod
    def recognises(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a file has the columns of this format, and not those of the dynamics."""
        return super().recognises(path) and _GEOMETRY not in tables_of(path)["data"]

    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        names = self._whole_numbers("SELECT rowid, id FROM data ORDER BY rowid", 2)
        return names[:, 0], names[:, 1:]

    def atom_counts(self) -> NDArray[np.int64]:
        """(n,) atoms of every row, in the order of the file."""
        with self._reading("column 'N'"):
            return self._whole_numbers("SELECT N FROM data ORDER BY rowid", 1)[:, 0]

    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        return _whole(*_stored(self, self._id(index), record[:4], conventions))

    def _stored(self, index: int, conventions: Conventions) -> tuple[Molecule, StoredMatrix | None]:
        return _checked(*_stored(self, self._id(index), self._record(index)[:4], conventions))


class QH9Dynamic(SqliteRows):
    """QH9Dynamic as a lazy sequence of `Molecule`; ids are ``"id-geo_id"``.

    Energies are ``epot``, the potential energies (Eh) of PySCF's dynamics. Arguments and errors
    are those of `SqliteRows`; a row whose SCF did not converge is refused.
    """

    format = "a database of QH9Dynamic"
    tables: ClassVar[Mapping[str, frozenset[str]]] = {
        "data": frozenset({"id", _GEOMETRY, "N", "Z", "pos", "epot", "Ham", "converged"})
    }
    query = "SELECT N, Z, pos, Ham, epot, converged FROM data"
    key = "rowid"
    known = Conventions("bohr", "pyscf")

    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        names = self._whole_numbers(f"SELECT rowid, id, {_GEOMETRY} FROM data ORDER BY rowid", 3)
        return names[:, 0], names[:, 1:]

    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        return _whole(*self._with_energy(index, record, conventions))

    def _stored(self, index: int, conventions: Conventions) -> tuple[Molecule, StoredMatrix | None]:
        return _checked(*self._with_energy(index, self._record(index), conventions))

    def _with_energy(
        self, index: int, record: Record, conventions: Conventions
    ) -> tuple[Molecule, StoredMatrix]:
        if not whole_number(record[5]):
            raise DataError("its SCF did not converge; leave the row out")
        bare, hamiltonian = _stored(self, self._id(index), record[:4], conventions)
        energy = total_energy(real_number(record[4], "epot"), bare.numbers)
        return replace(bare, energy=energy), hamiltonian


def _stored(
    rows: SqliteRows, name: str, values: Record, conventions: Conventions
) -> tuple[Molecule, StoredMatrix]:
    """The molecule of N, Z and pos, and its Hamiltonian of Ham; neither is checked."""
    n, z, pos, ham = values
    count = whole_number(n)
    if count < 1:
        raise DataError(f"its number of atoms N is {count}; leave the row out")
    atoms = Molecule(
        blob(z, "Z", "<i4", (count,)),
        blob(pos, "pos", "<f8", (count, 3)) * conventions.length,
        basis=BASIS,
        id=name,
    )
    nao = nao_of(rows.basis, atoms.numbers)
    matrix = blob(ham, "Ham", "<f8", (nao, nao)).reshape(-1)
    return atoms, StoredMatrix(matrix, atoms.numbers, rows.basis, conventions.order)


def _checked(bare: Molecule, hamiltonian: StoredMatrix) -> tuple[Molecule, StoredMatrix]:
    return bare.checked(hamiltonian.nao), hamiltonian.checked("hamiltonian")


def _whole(bare: Molecule, hamiltonian: StoredMatrix) -> Molecule:
    return replace(bare, hamiltonian=hamiltonian.canonical()).checked(hamiltonian.nao)
