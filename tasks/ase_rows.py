"""ASE's SQLite databases of atoms as lazy rows.

Table ``systems`` has ``numbers`` (int32), ``positions`` (float64, Angstrom) and ``data``, a
dictionary with arrays that ASE decodes (binary since version 9, before that JSON); table
``information`` has the version and, as JSON, the metadata. The files are read through a handle of
our own: ASE's would open them for writing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.data.conventions import Conventions
from hambench.errors import ConfigError, DataError
from hambench.tasks.columns import blob, whole_number
from hambench.tasks.sqlite import BASIS, Record, SqliteRows

_GEOMETRY: Final = "SELECT numbers, positions FROM systems"
_VERSIONS: Final = range(5, 10)  # of ASE's format; older ones have other columns


class AseRows(SqliteRows):
    """Rows of an ASE database; see `SqliteRows` for what they can do and for errors.

    Raises:
        ConfigError: ASE is not installed.
    """

    format = "an ASE database"
    tables: ClassVar[Mapping[str, frozenset[str]]] = {
        "systems": frozenset({"id", "numbers", "positions", "data"}),
        "information": frozenset({"name", "value"}),
    }
    query = "SELECT numbers, positions, data FROM systems"
    key = "id"

    metadata: dict[str, Any]
    """What the database says of all its rows."""

    def _read_header(self) -> None:
        _ase()
        information = dict(self._execute("SELECT name, value FROM information").fetchall())
        version = whole_number(float(information.get("version", "nan")))
        if version not in _VERSIONS:
            raise DataError(
                f"ASE database of version {version}, but this hambench reads versions "
                f"{_VERSIONS[0]} to {_VERSIONS[-1]}; "
                + ("update hambench" if version > 9 else "convert it: python -m ase.db.convert")
            )
        self.metadata = json.loads(information.get("metadata") or "{}")
        if not isinstance(self.metadata, dict):
            raise DataError("its metadata are no dictionary; the file is corrupt, fetch it again")

    def _read_names(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        keys = np.sort(self._whole_numbers("SELECT id FROM systems", 1), axis=0)
        return keys[:, 0], keys

    def _geometry(self, index: int, conventions: Conventions) -> Molecule:
        return self._atoms(index, self._record(index, _GEOMETRY), conventions.length)

    def _atoms(self, index: int, record: Record, length: float) -> Molecule:
        """Numbers and positions of a record, ``length`` Angstrom per unit of it."""
        positions = blob(record[1], "positions", "<f8", (-1, 3)) * length
        numbers = blob(record[0], "numbers", "<i4", (len(positions),))
        return Molecule(numbers, positions, basis=BASIS, id=self._id(index))


def decoded(data: bytes | str) -> dict[str, Any]:
    """The dictionary in a ``data`` column; DataError if it is none."""
    from_bytes, from_text = _ase()
    content = from_text(data) if isinstance(data, str) else from_bytes(data)
    if not isinstance(content, dict):
        raise DataError("its data are no dictionary; the file is corrupt, fetch it again")
    return content


def array(data: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array among the data of a row, in either encoding.

    SchNetPack 0.x wrote arrays as base64 text, with their shape and type under the keys
    ``_shape_NAME`` and ``_dtype_NAME``; all others are arrays, or lists of numbers.

    Args:
        data: dictionary of a row.
        name: key of the array.
        shape: expected; ``(1,)`` is also met by a lone number.

    Raises:
        DataError: there is none, or of another kind or shape.
    """
    if name not in data:
        raise DataError(
            f"its data have no '{name}' (they have {', '.join(sorted(map(str, data))) or 'none'}); "
            "check which file this is"
        )
    encoded = f"_dtype_{name}" in data
    value = _from_base64(data, name) if encoded else np.asarray(data[name])
    if shape == (1,) and value.size == 1:
        value = value.reshape(1)
    if value.dtype.kind not in "fiu" or value.shape != shape:
        raise DataError(
            f"'{name}' is {value.dtype} of shape {value.shape}, expected numbers of shape {shape}; "
            "leave the row out or fetch the file again"
        )
    return value


def _from_base64(data: Mapping[str, Any], name: str) -> NDArray[Any]:
    kind = np.dtype(str(data[f"_dtype_{name}"])).newbyteorder("<")
    shape = tuple(map(whole_number, np.atleast_1d(data[f"_shape_{name}"]).tolist()))
    return blob(base64.b64decode(data[name], validate=True), name, kind.str, shape)


def _ase() -> tuple[Any, Any]:
    """ASE's decoders of binary and of JSON data; they are untyped, hence Any."""
    try:
        from ase.db.core import bytes_to_object
        from ase.io.jsonio import decode
    except ImportError as error:
        raise ConfigError(
            "ASE databases need ASE, which is not installed; install it with: pip install "
            "'hambench[ase]'"
        ) from error
    return bytes_to_object, decode
