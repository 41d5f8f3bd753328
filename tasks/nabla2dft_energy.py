"""The energy databases of nabla2DFT (wB97X-D/def2-SVP by Psi4) as lazy rows.

ASE databases; the data of a row are ``energy`` (1,), the formation energy in Eh, and ``forces``
(N, 3) Eh/Angstrom; ``moses_id`` and ``conformation_id`` are key-value pairs. The metadata have
the energies of the atoms, ``atomrefs["energy"]`` by atomic number (Eh), of which a formation
energy is the total energy less the sum.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hambench.chem.energies import total_energy
from hambench.chem.molecule import Molecule, symbol
from hambench.chem.theory import named
from hambench.data.conventions import Conventions
from hambench.errors import ConfigError, DataError
from hambench.tasks.ase_rows import AseRows, array, decoded
from hambench.tasks.columns import real_number, whole_number
from hambench.tasks.sqlite import Record, first_value

ENERGIES: Final = ("total", "formation")
_PAIRS: Final = ("moses_id", "conformation_id")
_PROBE: Final = f"SELECT 1 FROM number_key_values WHERE key = '{_PAIRS[0]}' LIMIT 1"


class Nabla2dftEnergies(AseRows):
    """A nabla2DFT energy database as a lazy sequence of `Molecule` without matrices.

    Ids are ``"MOSES_ID-CONFORMER_ID"``, the same as in the Hamiltonian databases, whose rows stand
    in another order.

    Args:
        path: the file.
        conventions: unit of the positions, if not Angstrom.
        energies: "total", or "formation" for the stored energies.

    Raises:
        DataError: as `SqliteRows` raises; for a file without ids; with total energies also for one
            without energies of atoms, and for a row whose total energy is impossible.
        ConfigError: ASE is not installed; ``energies`` is neither of the two.
    """

    format = "a nabla2DFT energy database (ASE database of formation energies)"
    tables: ClassVar[Mapping[str, frozenset[str]]] = {
        **AseRows.tables,
        "number_key_values": frozenset({"key", "value", "id"}),
    }
    known = Conventions("angstrom", "canonical")
    theory: Final = named("wb97x-d/def2-svp").to_dict()
    """Level of theory of the labels."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        conventions: Conventions | None = None,
        energies: Literal["total", "formation"] = "total",
    ) -> None:
        if energies not in ENERGIES:
            raise ConfigError(f"energies are {' or '.join(ENERGIES)}, not '{energies}'")
        self.energies = energies
        super().__init__(path, conventions=conventions)

    @classmethod
    def recognises(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a file is an ASE database whose rows have ``moses_id``."""
        return super().recognises(path) and bool(first_value(path, _PROBE))

    def _read_header(self) -> None:
        super()._read_header()
        if self.energies == "total":
            self._references = _references(self.metadata)

    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys, _ = super()._read_names()
        names = np.empty((len(keys), len(_PAIRS)), dtype=np.int64)
        for place, pair in enumerate(_PAIRS):
            found = self._whole_numbers(
                f"SELECT id, value FROM number_key_values WHERE key = '{pair}'", 2
            )
            found = found[np.argsort(found[:, 0], kind="stable")]
            ids = found[:, 0]
            wrong = [*np.setxor1d(keys, ids), *ids[1:][ids[1:] == ids[:-1]]]
            if wrong:
                raise DataError(
                    f"the row of ASE id {wrong[0]} has not exactly one '{pair}'; expected "
                    f"{self.format}: check which file this is"
                )
            names[:, place] = found[:, 1]
        return keys, names

    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        atoms = self._atoms(index, record, conventions.length)
        data = decoded(record[2])
        energy = real_number(array(data, "energy", (1,)), "energy")
        if self.energies == "total":
            energy = total_energy(energy + self._of_atoms(atoms.numbers), atoms.numbers)
        forces = array(data, "forces", atoms.positions.shape)
        return replace(atoms, energy=energy, forces=forces).checked(0)

    def _of_atoms(self, numbers: NDArray[np.int64]) -> float:
        """Sum of the energies of the atoms, Eh."""
        for z in numbers.tolist():
            if not self._references.get(z):
                raise DataError(
                    f"the metadata have no energy of the atom {symbol(z)}; open the file with "
                    "energies='formation', or fetch it again"
                )
        return sum(self._references[z] for z in numbers.tolist())


def _references(metadata: Mapping[str, Any]) -> dict[int, float]:
    """Energies of the atoms (Eh) by atomic number, from a list or a mapping."""
    try:
        found = metadata["atomrefs"]["energy"]
    except (KeyError, TypeError) as error:
        raise DataError(
            "the metadata have no energies of atoms (atomrefs.energy), which total energies need; "
            "open the file with energies='formation', or fetch it again"
        ) from error
    pairs = found.items() if isinstance(found, dict) else enumerate(found)
    return {
        whole_number(int(z)): real_number(e, f"atomrefs.energy of Z = {z}")
        for z, e in pairs
        if e is not None
    }
