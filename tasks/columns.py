"""Values of database columns, decoded and checked; every refusal says what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, DataError


def blob(value: Any, name: str, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """The array in a blob, after its size was found to be right.

    Args:
        value: what the file has in its place.
        name: for the message.
        kind: NumPy type of the numbers, with their byte order (``"<f4"``).
        shape: expected; the first length may be -1, to be found from the size of the blob.

    Raises:
        DataError: no blob, or of another size.
    """
    kept = np.dtype(kind)
    if not isinstance(value, bytes):
        raise DataError(
            f"'{name}' is {'empty' if value is None else f'a {type(value).__name__}'}, "
            f"expected {_described(kept, shape)}; leave the row out or fetch the file again"
        )
    known = math.prod(length for length in shape if length >= 0) * kept.itemsize
    if len(value) % known if -1 in shape else len(value) != known:
        raise DataError(
            f"'{name}' holds {len(value)} bytes, expected "
            f"{'a multiple of ' if -1 in shape else ''}{known} for {_described(kept, shape)}; it "
            "is truncated or of another type: fetch the file again"
        )
    return np.frombuffer(value, kept).reshape(shape)


def _described(kind: np.dtype[Any], shape: tuple[int, ...]) -> str:
    return f"{kind.name} of shape {shape}".replace("-1", "n")


def whole_number(value: Any) -> int:
    """A whole number, as SQLite's integer or as the blob that NumPy's integers become.

    Raises:
        DataError: anything else.
    """
    if isinstance(value, bytes) and len(value) in (1, 4, 8):
        return int.from_bytes(value, "little", signed=True)
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return int(value)
    raise DataError(f"{value!r:.40} is no whole number; the file is corrupt, fetch it again")


def real_number(value: Any, name: str) -> float:
    """A number, as SQLite's, as the blob that NumPy's become, or alone in an array or list.

    Raises:
        DataError: anything else, NaN or infinity.
    """
    if isinstance(value, bytes) and len(value) in (4, 8):
        value = np.frombuffer(value, f"<f{len(value)}")
    number = np.asarray(value)
    if number.size != 1 or number.dtype.kind not in "fiu" or not np.isfinite(number).all():
        raise DataError(
            f"'{name}' is {value!r:.40}, expected one number; leave the row out or fetch the file "
            "again"
        )
    return float(number.item())


def nao_of(basis: OrbitalBasis, numbers: ArrayLike) -> int:
    """Atomic orbitals of a row's (N,) atoms; DataError for an element the basis lacks."""
    try:
        return basis.nao(numbers)
    except ConfigError as error:
        raise DataError(f"{error}; or leave the row out") from error
