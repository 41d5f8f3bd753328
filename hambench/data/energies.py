"""Energies from a file of the user's, joined to rows by their ids.

CSV or Parquet with a column ``id`` and one of ``energy`` (Eh) or ``energy_ev``; or an ASE database
in LMDB (``.aselmdb``), whose energies are in eV by ASE's convention and whose ids are the key
``id``, or ``source``, among a row's key-value pairs or data.
"""

from __future__ import annotations

import csv
import importlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from hambench.chem.energies import total_energy
from hambench.chem.molecule import Molecule
from hambench.chem.stored import StoredMatrix
from hambench.data.rows import Rows
from hambench.errors import ConfigError, DataError
from hambench.units import HARTREE_EV

UNITS: Final[Mapping[str, float]] = MappingProxyType({"energy": 1.0, "energy_ev": HARTREE_EV})
"""Columns with energies, and how many of their units are 1 Eh."""

_ID: Final = "id"
_INSTALL: Final = "pip install 'hambench[energies]'"


def read_energies(path: str | os.PathLike[str], *, predicted: bool = False) -> dict[str, float]:
    """Energies (Eh) by id.

    Args:
        path: the file.
        predicted: of a model, which may fail: NaN and infinity are numbers too.

    Raises:
        DataError: the file is missing, of no known kind, without the columns; or a row has no
            number, or an id that another has too.
        ConfigError: a library that reads this kind of file is not installed.
    """
    path = Path(path)
    readers: dict[str, Callable[[Path], Iterator[tuple[str, Any, float]]]] = {
        ".csv": _csv,
        ".parquet": _parquet,
        ".aselmdb": _aselmdb,
    }
    if path.suffix not in readers:
        raise DataError(
            f"energies are read from {', '.join(readers)} files, {path} is none; convert it"
        )
    if not path.is_file():
        raise DataError(f"the file of energies {path} does not exist; check its path")
    found: dict[str, float] = {}
    try:
        for row, (name, value, per_hartree) in enumerate(readers[path.suffix](path), 1):
            if name in found:
                raise DataError(f"row {row}: the id '{name}' was there before; give it once")
            try:
                found[name] = float(value) / per_hartree
                if not (predicted or math.isfinite(found[name])):
                    raise ValueError
            except (TypeError, ValueError):
                raise DataError(
                    f"row {row}, id '{name}': the energy is {value!r:.40}, expected a number"
                ) from None
    except DataError as error:
        raise DataError(f"{path}, {error}") from error
    except ConfigError:
        raise
    except Exception as error:  # whatever the libraries raise for a damaged file
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}: {' '.join(str(error).split())}); "
            "check what file it is"
        ) from error
    return found


class WithEnergies(Rows):
    """Rows whose energies come from elsewhere.

    Args:
        rows: without energies.
        energies: Eh, by id.
        source: where they are from, for messages.

    Raises:
        DataError: a row has no energy; and on access, for one that is no total energy.
    """

    def __init__(self, rows: Rows, energies: Mapping[str, float], source: Path) -> None:
        self.rows = rows
        self.energies = energies
        self.source = source
        missing = [name for name in rows.ids if name not in energies]
        if missing:
            raise DataError(
                f"{source} lacks the energies of {len(missing)} of {len(rows)} rows (first: "
                f"'{missing[0]}'); give energies of all rows"
            )

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return self.rows.ids

    def row(self, index: int) -> Molecule:
        """The molecule at ``index`` with its energy."""
        return self._joined(self.rows.row(index))

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """As `Rows.stored`, with the energy."""
        molecule, hamiltonian = self.rows.stored(index)
        return self._joined(molecule), hamiltonian

    def geometry(self, index: int) -> Molecule:
        """As `Rows.geometry`."""
        return self.rows.geometry(index)

    def _joined(self, molecule: Molecule) -> Molecule:
        try:
            energy = total_energy(self.energies[molecule.id], molecule.numbers)
        except DataError as error:
            raise DataError(f"{self.source}, id '{molecule.id}': {error}") from error
        return replace(molecule, energy=energy)


def _csv(path: Path) -> Iterator[tuple[str, Any, float]]:
    with open(path, newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        column = _column(rows.fieldnames or ())
        for row in rows:
            yield row[_ID], row[column] or None, UNITS[column]


def _parquet(path: Path) -> Iterator[tuple[str, Any, float]]:
    table = _library("pyarrow.parquet").ParquetFile(path)
    column = _column(table.schema.names)
    for batch in table.iter_batches(columns=[_ID, column]):
        values = batch.to_pydict()
        for name, value in zip(values[_ID], values[column], strict=True):
            yield str(name), value, UNITS[column]


def _aselmdb(path: Path) -> Iterator[tuple[str, Any, float]]:
    _library("lmdb").open(str(path), subdir=False, readonly=True, lock=False).close()  # is it one?
    database = _library("ase_db_backends.aselmdb").LMDBDatabase(
        str(path), readonly=True, use_lock_file=False
    )
    try:
        for row in database.select():
            known = {**row.data, **row.key_value_pairs}
            name = known.get(_ID, known.get("source"))
            if name is None:
                raise DataError(f"row {row.id}: neither key '{_ID}' nor 'source' names it")
            yield str(name), row.get("energy"), HARTREE_EV
    finally:
        database.close()


def _column(names: Iterable[str]) -> str:
    """The column of energies; DataError unless there is one of them, and one of ids."""
    names = list(names)
    found = [name for name in UNITS if name in names]
    if _ID not in names or len(found) != 1:
        raise DataError(
            f"its columns are {', '.join(names) or 'none'}; expected '{_ID}' and one of "
            f"{' or '.join(UNITS)} (Eh, eV)"
        )
    return found[0]


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"reading this file of energies needs {name}, which is not installed; {_INSTALL}, or "
            "give a CSV file"
        ) from error
