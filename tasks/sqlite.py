"""SQLite files of molecules as lazy rows, read in place; what the formats of them share.

A file is opened as immutable: nothing is written to it or beside it, and no locks are taken (the
files are never changed in place, and some network disks have no locks). What a writer has left
unfinished shows in its journal, and is refused.
"""

from __future__ import annotations

import copy
import os
import sqlite3
import threading
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.stored import StoredMatrix
from hambench.data.conventions import Conventions
from hambench.data.rows import Rows
from hambench.errors import DataError
from hambench.hdf5 import short
from hambench.tasks.columns import whole_number

BASIS: Final = "def2-svp"
"""Orbital basis of every format here."""

_MAGIC: Final = b"SQLite format 3\0"
_HEAD: Final = 100  # bytes of the header of a file
_WAL_HEADER: Final = 32  # bytes of a write-ahead log without any content

_UNREADABLE: Final = (
    sqlite3.Error, OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError,
    AssertionError, RuntimeError, MemoryError,
)  # fmt: skip
"""What SQLite, NumPy and ASE raise on bytes that are not what they should be."""

Record = tuple[Any, ...]


class SqliteRows(Rows):
    """Rows of a SQLite file; a subclass says what it must hold and how a record is read.

    Names are read at once, a molecule when it is asked for. It may cross `fork`, be pickled and be
    shared by threads: each opens the file for itself.

    Args:
        path: the file.
        conventions: unit of the positions and order of the orbitals, if not those of the format.

    Raises:
        DataError: missing, foreign, truncated, unfinished or corrupt file; and for a row (on
            access) that is unreadable or not sound, naming file and row.
    """

    format: ClassVar[str]
    """Name of the format, for messages."""
    known: ClassVar[Conventions | None] = None
    """Conventions of the format, where it has the same in every file."""
    tables: ClassVar[Mapping[str, frozenset[str]]]
    """Columns that must be there, by table."""
    query: ClassVar[str]
    """SQL that gives the records of all rows."""
    key: ClassVar[str]
    """Column of the query's table by which a row is found."""

    def __init__(
        self, path: str | os.PathLike[str], *, conventions: Conventions | None = None
    ) -> None:
        self.path = Path(path)
        self._conventions = conventions or self.known
        self._local = threading.local()
        self._check_file()
        with self._reading("header"):
            self._check_tables()
            self._read_header()
            self._keys, self._names = self._read_names()
        self._check_names()

    @classmethod
    def recognises(cls, path: str | os.PathLike[str]) -> bool:
        """Whether a file is a SQLite database with the tables and columns of this format."""
        return holds(tables_of(path), cls.tables)

    @cached_property
    def basis(self) -> OrbitalBasis:
        """Orbital basis of the matrices, over the elements it may have."""
        return OrbitalBasis.load(BASIS)

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return tuple(self._id(index) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def conventions(self) -> Conventions:
        """Unit and order the file is read with."""
        assert self._conventions is not None  # subclasses whose format states none override this
        return self._conventions

    def with_conventions(self, conventions: Conventions) -> Self:
        """The same file read with another unit of positions or order of orbitals."""
        other = copy.copy(self)
        other._local = threading.local()
        other._conventions = conventions
        return other

    def row(self, index: int) -> Molecule:
        """The molecule of row ``index`` (0 to n-1); see the class for errors."""
        conventions = self.conventions
        with self._reading(self._where(index)):
            return self._molecule(index, self._record(index), conventions)

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """The molecule of a row for training, see `Rows.stored`."""
        conventions = self.conventions
        with self._reading(self._where(index)):
            return self._stored(index, conventions)

    def geometry(self, index: int) -> Molecule:
        """Elements and positions of a row, without its labels where the format allows that."""
        conventions = self.conventions
        with self._reading(self._where(index)):
            return self._geometry(index, conventions)

    def close(self) -> None:
        """Close this thread's handle; the next access opens it again."""
        connection = self._local.__dict__.pop("connection", None)
        if connection is not None and self._local.__dict__.pop("pid") == os.getpid():
            connection.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_local"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._local = threading.local()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path}: {len(self)} molecules)"

    @abstractmethod
    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(n,) keys of the rows in order, and (n, k) whole numbers that make up their ids."""

    @abstractmethod
    def _molecule(self, index: int, record: Record, conventions: Conventions) -> Molecule:
        """The checked molecule of a record; its errors get file and row added."""

    def _stored(self, index: int, conventions: Conventions) -> tuple[Molecule, StoredMatrix | None]:
        """What `stored` gives; its errors get file and row added."""
        return self._molecule(index, self._record(index), conventions), None

    def _geometry(self, index: int, conventions: Conventions) -> Molecule:
        """What `geometry` gives; its errors get file and row added."""
        return self._molecule(index, self._record(index), conventions)

    def _read_header(self) -> None:
        """Read and check what a format says once for all rows."""

    def _id(self, index: int) -> str:
        return "-".join(map(str, self._names[index].tolist()))

    def _where(self, index: int) -> str:
        return f"row {index} ('{self._id(index)}')"

    def _record(self, index: int, query: str | None = None) -> Record:
        """What ``query`` (by default that of the format) selects of a row."""
        key = int(self._keys[index])
        found: Record | None = self._execute(
            f"{query or self.query} WHERE {self.key} = ?", (key,)
        ).fetchone()
        if found is None:
            raise DataError("there is no such row; the file is corrupt, fetch it again")
        return found

    def _execute(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Cursor:
        """Run a query on the handle of this process and thread.

        One inherited by a fork must not be used, nor one of another thread.
        """
        own = self._local.__dict__
        if own.get("pid") != os.getpid():
            _refuse_unfinished(self.path)
            own["connection"] = _connect(self.path)
            own["pid"] = os.getpid()
        cursor: sqlite3.Cursor = own["connection"].execute(sql, values)
        return cursor

    def _whole_numbers(self, sql: str, width: int) -> NDArray[np.int64]:
        """(n, width) results of a query, all whole numbers, without a list of Python objects."""
        flat = (value for record in self._execute(sql) for value in record)
        numbers = np.fromiter(map(whole_number, flat), dtype=np.int64)
        return numbers.reshape(-1, width)

    def _check_file(self) -> None:
        if not self.path.is_file():
            what = "a folder, not a file" if self.path.is_dir() else "not there"
            raise DataError(f"{self.path} is {what}; check the path")
        head = _head(self.path)
        if not head.startswith(_MAGIC):
            what = "is empty" if not head else "is no SQLite database"
            raise DataError(f"{self.path} {what}; expected {self.format}: fetch the file again")
        refuse_truncated(self.path)

    def _check_tables(self) -> None:
        found = _tables(self._execute)
        for table, columns in self.tables.items():
            if table not in found:
                raise DataError(
                    f"there is no table '{table}' (tables: {', '.join(sorted(found)) or 'none'}); "
                    f"expected {self.format}: check which file this is"
                )
            for column in sorted(columns - found[table]):
                raise DataError(
                    f"table '{table}' has no column '{column}' (columns: "
                    f"{', '.join(sorted(found[table]))}); expected {self.format}: check which "
                    "file this is"
                )

    def _check_names(self) -> None:
        names, counts = np.unique(self._names, axis=0, return_counts=True)
        if len(names) < len(self._names):
            twice = "-".join(map(str, names[counts.argmax()].tolist()))
            raise DataError(
                f"{self.path}: {counts.max()} rows are called '{twice}', but names must be unique; "
                "the file is corrupt or was joined from others: fetch it again"
            )

    @contextmanager
    def _reading(self, where: str) -> Iterator[None]:
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.path}, {where}: {error}") from error
        except _UNREADABLE as error:
            raise DataError(
                f"{self.path}, {where}: cannot be read ({short(error)}); the file is corrupt, "
                "fetch it again"
            ) from error


def tables_of(path: str | os.PathLike[str]) -> dict[str, frozenset[str]]:
    """Columns of a SQLite file's tables by name; none where it is no such file. Never raises."""
    try:
        if not Path(path).is_file() or not _head(Path(path)).startswith(_MAGIC):
            return {}
        with closing(_connect(Path(path))) as connection:
            return _tables(connection.execute)
    except (DataError, *_UNREADABLE):
        return {}


def first_value(path: str | os.PathLike[str], sql: str) -> Any:
    """The first value a query gives, None where there is none or no such file. Never raises."""
    try:
        with closing(_connect(Path(path))) as connection:
            return (connection.execute(sql).fetchone() or (None,))[0]
    except _UNREADABLE:
        return None


def holds(found: Mapping[str, frozenset[str]], wanted: Mapping[str, frozenset[str]]) -> bool:
    """Whether all wanted tables and columns are among those found."""
    return all(columns <= found.get(table, frozenset()) for table, columns in wanted.items())


def refuse_truncated(path: Path) -> None:
    """DataError where a SQLite file has fewer bytes than its header says."""
    head = _head(path)
    if not head.startswith(_MAGIC):
        return
    size, expected = path.stat().st_size, _stated_size(head)
    if size < expected:
        raise DataError(
            f"{path} is truncated: it has {size:,} of {expected:,} bytes; fetch the rest of it"
        )


def _refuse_unfinished(path: Path) -> None:
    """DataError where a writer of the file is at work, or was interrupted."""
    journal, log = (path.with_name(path.name + end) for end in ("-journal", "-wal"))
    # SQLite ends a transaction by removing, emptying or zeroing its journal
    hot = journal.is_file() and _head(journal)[:1] not in (b"", b"\0")
    pending = log.is_file() and log.stat().st_size > _WAL_HEADER
    if hot or pending:
        raise DataError(
            f"a writer is at work or was interrupted ({(journal if hot else log).name} is beside "
            f"it); let it finish, or complete it with: sqlite3 {path.name} .tables"
        )


def _connect(path: Path) -> sqlite3.Connection:
    """A read-only handle that neither locks nor writes."""
    uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    connection.text_factory = lambda text: text.decode("utf-8", "replace")  # refused by the readers
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA cell_size_check = ON")
    return connection


def _tables(execute: Any) -> dict[str, frozenset[str]]:
    """Columns by table; views are left out, they may compute without end."""
    names = [name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: frozenset(
            column for (column,) in execute("SELECT name FROM pragma_table_info(?)", (name,))
        )
        for name in names
    }


def _head(path: Path) -> bytes:
    """The header of a SQLite file, or what stands in its place; DataError where none can be had."""
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror or error}); check its kind and rights"
        ) from error


def _stated_size(head: bytes) -> int:
    """Bytes a file must have by its header (SQLite's file format, section 1.3)."""
    if len(head) < _HEAD or head[24:28] != head[92:96]:  # the size may be out of date
        return _HEAD
    page = int.from_bytes(head[16:18], "big")
    return (65536 if page == 1 else page) * int.from_bytes(head[28:32], "big")
