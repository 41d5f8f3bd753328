"""The Hamiltonian databases of SchNOrb (MD17 molecules, PBE/def2-SVP by ORCA) as lazy rows.

ASE databases; the data of a row are ``energy`` (1,) Eh less the mean of the set, ``forces`` (N, 3)
Eh/Angstrom, ``hamiltonian`` (nao, nao) Eh and ``overlap`` (nao, nao), both in ORCA's order and in
float32. The metadata have ``mean_energy``. (Writer: the repository
atomistic-machine-learning/SchNOrb; Schuett et al., arXiv 1906.10033.)
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final

import numpy as np

from hambench.chem.energies import total_energy
from hambench.chem.molecule import Molecule
from hambench.chem.stored import StoredMatrix
from hambench.chem.theory import named
from hambench.data.conventions import Conventions
from hambench.errors import DataError
from hambench.tasks.ase_rows import AseRows, array, decoded
from hambench.tasks.columns import nao_of, real_number
from hambench.tasks.sqlite import Record, first_value

_PROBE: Final = """SELECT instr(CAST(data AS BLOB), CAST('"hamiltonian"' AS BLOB)) FROM systems"""


class SchnorbDatabase(AseRows):
    """A SchNOrb database as a lazy sequence of `Molecule`; ids are ASE's row ids.

    Args:
        path: the file.
        conventions: unit of the positions and order of the orbitals, if not those of the format.
        mean_energy: Eh, added to the stored energies where the metadata have no ``mean_energy``
            (0.0: they are total energies).

    Raises:
        DataError: as `SqliteRows` raises; also for a row whose energy is no total energy.
        ConfigError: ASE is not installed.
    """

    format = "a SchNOrb database (ASE database of Hamiltonians)"
    known = Conventions("angstrom", "orca")
    theory: Final = named("pbe/def2-svp").to_dict()
    """Level of theory of the labels."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        conventions: Conventions | None = None,
        mean_energy: float = 0.0,
    ) -> None:
        self.mean_energy = mean_energy
        super().__init__(path, conventions=conventions)

    @classmethod
    def recognises(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a file is an ASE database whose first row has a Hamiltonian."""
        return super().recognises(path) and bool(first_value(path, _PROBE))

    def _read_header(self) -> None:
        super()._read_header()
        if "mean_energy" in self.metadata:
            self.mean_energy = real_number(self.metadata["mean_energy"], "mean_energy")

    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        bare, data = self._bare(index, record, conventions)
        nao = self.basis.nao(bare.numbers)
        matrices: dict[str, Any] = {
            name: self._matrix(data, name, bare, conventions).canonical()
            for name in ("hamiltonian", "overlap")
        }
        return replace(bare, **matrices).checked(nao)

    def _stored(self, index: int, conventions: Conventions) -> tuple[Molecule, StoredMatrix | None]:
        bare, data = self._bare(index, self._record(index), conventions)
        hamiltonian = self._matrix(data, "hamiltonian", bare, conventions)
        return bare.checked(self.basis.nao(bare.numbers)), hamiltonian.checked("hamiltonian")

    def _bare(
        self, index: int, record: Record, conventions: Conventions
    ) -> tuple[Molecule, dict[str, Any]]:
        """The molecule of a record without matrices, and the data of its row."""
        atoms = self._atoms(index, record, conventions.length)
        data = decoded(record[2])
        nao_of(self.basis, atoms.numbers)
        energy = real_number(array(data, "energy", (1,)), "energy") + self.mean_energy
        forces = array(data, "forces", atoms.positions.shape)
        return replace(atoms, energy=self._total(energy, atoms), forces=forces), data

    def _matrix(
        self, data: dict[str, Any], name: str, atoms: Molecule, conventions: Conventions
    ) -> StoredMatrix:
        nao = self.basis.nao(atoms.numbers)
        values = np.ascontiguousarray(array(data, name, (nao, nao))).reshape(-1)
        return StoredMatrix(values, atoms.numbers, self.basis, conventions.order)

    def _total(self, energy: float, atoms: Molecule) -> float:
        try:
            return total_energy(energy, atoms.numbers)
        except DataError as error:
            if "mean_energy" in self.metadata:
                raise
            raise DataError(
                f"{error}: the metadata have no 'mean_energy' to add, give it to the reader "
                "(mean_energy=..., Eh)"
            ) from error
