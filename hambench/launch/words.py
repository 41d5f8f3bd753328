"""What a process said, in the log that it left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TAIL: Final = 8192  # bytes at the end of a log in which the reason of a failure stands
_SAID: Final = ("error: ", "interrupted: ")


def last_words(log: Path, start: int = 0) -> str:
    """The message that the command line, or a job, left with last; empty where there is none.

    Args:
        log: its file.
        start: bytes at its beginning that are older.
    """
    try:
        with open(log, "rb") as file:
            file.seek(max(start, file.seek(0, os.SEEK_END) - _TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = [line for line in lines if line.startswith(_SAID)]
    return said[-1].removeprefix("error: ") if said else ""
