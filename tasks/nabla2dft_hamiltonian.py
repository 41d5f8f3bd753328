"""The Hamiltonian databases of nabla2DFT (wB97X-D/def2-SVP by Psi4) as lazy rows.

SQLite; table ``data`` has Z (int32), R (float32, bohr), E (Eh), F (float32, Eh/bohr), H and S
(float32, (nao, nao), Eh and 1) and the core Hamiltonian C; ``dataset_ids`` the ids of molecule and
conformer, ``basisset`` the angular momenta of each element's shells, ``metadata`` the number of
rows. Whether the orbitals stand in Psi4's or in canonical order the files do not say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem.energies import total_energy
from hambench.chem.molecule import Molecule, symbol
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.stored import StoredMatrix
from hambench.chem.theory import named
from hambench.data.conventions import Conventions, RawOverlap, decide
from hambench.errors import ConfigError, DataError
from hambench.tasks.columns import blob, nao_of, whole_number
from hambench.tasks.sqlite import BASIS, Record, SqliteRows
from hambench.units import BOHR

_WITHOUT_OVERLAP: Final = "SELECT Z, R, E, F, H FROM data"
_GEOMETRY: Final = "SELECT Z, R FROM data"
_AS_STORED: Final = Conventions("bohr", "canonical")
_DECIDING: Final = 3  # rows that decide unit and order ...
_PROBES: Final = 9  # ... and how many are tried, if some cannot be read


class Nabla2dftHamiltonians(SqliteRows):
    """A nabla2DFT Hamiltonian database as a lazy sequence of `Molecule`.

    Ids are ``"MOSES_ID-CONFORMER_ID"``. The order of the orbitals and the unit of the positions
    are those given as ``conventions``; without them, the overlaps of a few rows decide when the
    first molecule is asked for (see `hambench.data.conventions.decide`), which needs PySCF.

    Args:
        path: the file.
        conventions: unit and order, where they are known.

    Raises:
        DataError: as `SqliteRows` raises; also for a row without energy, and where the overlaps
            leave unit and order open.
        ConfigError: PySCF is needed to decide, and not installed.
    """

    format = "a nabla2DFT Hamiltonian database"
    tables: ClassVar[Mapping[str, frozenset[str]]] = {
        "data": frozenset({"id", "Z", "R", "E", "F", "H", "S"}),
        "dataset_ids": frozenset({"id", "MOSES_ID", "CONFORMER_ID"}),
        "basisset": frozenset({"Z", "orbitals"}),
        "metadata": frozenset({"N"}),
    }
    query = "SELECT Z, R, E, F, H, S FROM data"
    key = "id"
    theory: Final = named("wb97x-d/def2-svp").to_dict()
    """Level of theory of the labels."""

    @property
    def conventions(self) -> Conventions:
        """Unit and order the file is read with; decided here, if need be."""
        if self._conventions is None:
            self._conventions = self._decide()
        return self._conventions

    def _read_header(self) -> None:
        """The elements of the file, whose shells must be those of the basis."""
        shells = {
            whole_number(z): tuple(blob(l, f"orbitals of Z = {z}", "<i4", (-1,)).tolist())
            for z, l in self._execute("SELECT Z, orbitals FROM basisset")
        }
        try:
            self.basis = OrbitalBasis.load(BASIS, shells)
        except ConfigError as error:
            raise DataError(f"table 'basisset': {error}") from error
        for z, found in shells.items():
            if found != self.basis.shells[z].l:
                raise DataError(
                    f"table 'basisset' gives {symbol(z)} shells of l = {found}, {BASIS} has "
                    f"{self.basis.shells[z].l}; it is of another basis set: check which file this "
                    "is"
                )

    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        names = self._whole_numbers(
            "SELECT id, MOSES_ID, CONFORMER_ID FROM dataset_ids ORDER BY id", 3
        )
        stated = self._whole_numbers("SELECT N FROM metadata", 1).ravel().tolist()
        if stated != [len(names)]:
            raise DataError(
                f"table 'metadata' gives {stated} as the number of rows, 'dataset_ids' has "
                f"{len(names)}; the file is incomplete or corrupt, fetch it again"
            )
        return names[:, 0], names[:, 1:]

    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        *atoms, h, s = record
        bare = self._bare(index, atoms, conventions)
        nao = self.basis.nao(bare.numbers)
        matrices: dict[str, Any] = {
            name: self._matrix(value, column, bare, conventions).canonical()
            for name, column, value in (("hamiltonian", "H", h), ("overlap", "S", s))
        }
        return replace(bare, **matrices).checked(nao)

    def _stored(self, index: int, conventions: Conventions) -> tuple[Molecule, StoredMatrix | None]:
        *atoms, h = self._record(index, _WITHOUT_OVERLAP)
        bare = self._bare(index, atoms, conventions)
        hamiltonian = self._matrix(h, "H", bare, conventions)
        return bare.checked(self.basis.nao(bare.numbers)), hamiltonian.checked("hamiltonian")

    def _geometry(self, index: int, conventions: Conventions) -> Molecule:
        z, r = self._record(index, _GEOMETRY)
        return Molecule(*_atoms(z, r, conventions), basis=BASIS, id=self._id(index))

    def _bare(self, index: int, record: Sequence[Any], conventions: Conventions) -> Molecule:
        """The molecule of Z, R, E and F, without matrices."""
        z, r, e, f = record
        numbers, positions = _atoms(z, r, conventions)
        if not isinstance(e, float) or e == 0:  # the format's own reader makes 0 of None
            raise DataError(f"its energy E is {e!r:.40}, expected a number; leave the row out")
        forces = blob(f, "F", "<f4", positions.shape).astype(np.float64) / conventions.length
        molecule = Molecule(
            numbers, positions, basis=BASIS, energy=e, forces=forces, id=self._id(index)
        )
        nao_of(self.basis, numbers)
        total_energy(e, numbers)
        return molecule

    def _matrix(
        self, value: Any, column: str, atoms: Molecule, conventions: Conventions
    ) -> StoredMatrix:
        nao = self.basis.nao(atoms.numbers)
        values = blob(value, column, "<f4", (nao, nao)).reshape(-1)
        return StoredMatrix(values, atoms.numbers, self.basis, conventions.order)

    def _decide(self) -> Conventions:
        """Unit and order that explain the overlaps of a few rows, spread over the file."""
        overlaps: list[RawOverlap] = []
        unreadable = DataError(f"{self.path} has no rows; fetch it again")
        for index in np.linspace(0, len(self) - 1, min(len(self), _PROBES)).astype(int).tolist():
            try:
                overlaps.append(self._raw_overlap(index))
            except DataError as error:  # raised again when this row is asked for
                unreadable = error
            if len(overlaps) == _DECIDING:
                break
        if not overlaps:
            raise unreadable
        try:
            return decide(overlaps, BASIS)[0]
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error
        except ConfigError as error:
            raise ConfigError(
                f"{self.path} does not say the order of its orbitals, which its overlaps decide; "
                f"{error}, or give the reader what is known of the file, such as "
                "conventions=Conventions('bohr', 'canonical')"
            ) from error

    def _raw_overlap(self, index: int) -> RawOverlap:
        with self._reading(self._where(index)):
            row = self._molecule(index, self._record(index), _AS_STORED)
        assert row.overlap is not None  # as `_molecule` made it
        return RawOverlap(row.numbers, row.positions / BOHR, row.overlap, row.id)


def _atoms(
    z: Any, r: Any, conventions: Conventions
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(N,) atomic numbers and (N, 3) positions in Angstrom of the columns Z and R."""
    numbers = blob(z, "Z", "<i4", (-1,)).astype(np.int64)
    positions = blob(r, "R", "<f4", (len(numbers), 3)).astype(np.float64)
    return numbers, positions * conventions.length
