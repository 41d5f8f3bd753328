"""Validations in the ``log.jsonl`` of a run; the file may be anybody's."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final, NamedTuple

from pydantic_core import from_json

from hambench.errors import DataError
from hambench.leaderboard.table import printable
from hambench.results import Result

LOG: Final = "log.jsonl"
LARGEST: Final = 1 << 24
"""Bytes of a log, at most: a million steps of training leave four fifths of it."""

_MOST: Final = 1e60  # numbers beyond are refused, as results refuse them


class Validation(NamedTuple):
    """One validation.

    Attributes:
        step: training steps before it.
        elapsed_s: seconds of training before it, over all starts.
        error: mean absolute error on the validation split in Eh, of a matrix element or an energy.
    """

    step: float
    elapsed_s: float
    error: float


def validations(folder: Path, result: Result) -> list[Validation]:
    """The validations of a run, as its log has them.

    Args:
        folder: where the run is.
        result: of that run.

    Raises:
        DataError: the log is missing or corrupt (the line is named), or has no validation.
    """
    key = "val_h_mae" if result.strategy is None else "val_e_mae"
    found = []
    for number, line in enumerate(log_lines(folder), start=1):
        try:
            row = from_json(line)
            if key in row:
                found.append(Validation(*(float(row[k]) for k in ("step", "elapsed_s", key))))
        except (ValueError, TypeError, KeyError, OverflowError):
            said = printable(line.decode("utf-8", "replace")[:60])
            raise DataError(f"{LOG}, line {number} is no row of a log: {said}") from None
    if not found:
        raise DataError(f"{LOG} has no {key}")
    if not all(math.isfinite(value) and abs(value) < _MOST for row in found for value in row):
        raise DataError(f"{LOG} has a {key} that is no number")
    return found


def log_lines(folder: Path) -> list[bytes]:
    """Lines of the log of a run, whatever they are.

    Raises:
        DataError: there is none, it is larger than `LARGEST`, or cannot be read.
    """
    path = folder / LOG
    if not path.is_file():
        raise DataError(f"it has no {LOG}")
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{LOG} has more than {LARGEST >> 20} MiB")
        return path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{LOG} cannot be read: {error.strerror}") from error
