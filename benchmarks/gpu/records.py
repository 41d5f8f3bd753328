"""What the queue leaves behind: a record per entry, and one archive of them and of the runs."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from hambench.errors import DataError
from hambench.files import atomic_path, atomic_write
from hambench.results import Count, Name, Provenance, Record, Seconds

COMMIT: Final = "commit.txt"
"""File beside the packed data: the commit of the source tree it was packed with."""

ARCHIVE: Final = "results.tar.gz"
LIMIT: Final = 16 * 2**20
"""Bytes of an archive: predictions that do not fit are left out."""

ENTRIES: Final = "entries"
RUNS: Final = "runs"
KEPT: Final = (
    "result.json", "scores.h5", "energies.csv", "log.jsonl", "config.yaml", "status.json",
    "traceback.txt", "predictions.h5",
)  # fmt: skip
"""Files of a run that are kept, the most important first."""

_SPARE: Final = 64 * 1024  # bytes for the headers of the archive
_LARGEST: Final = 64 * 2**20  # bytes of a file that is taken out of an archive

Outcome = Literal["done", "failed", "stopped", "skipped"]


class CommandRecord(Record):
    """How one command of an entry went.

    Attributes:
        command: its words.
        outcome: ``stopped`` by the time limit.
        exit_code: None for a command that was not begun.
        output: what it measured, as its program prints or writes it.
        said: end of what it printed, where it failed.
        run: run directory below `RUNS`, of a training.
    """

    command: str
    outcome: Outcome
    exit_code: int | None
    seconds: Seconds
    output: Any = None
    said: str = ""
    run: str | None = None


class EntryRecord(Record):
    """How an entry went.

    Attributes:
        entry, asks: see `entries.Entry`.
        smoke: whether it only tried the programs.
        outcome: ``skipped`` where something it needs is missing.
        reason: why it is not done.
        device: the GPU, or "cpu".
        provenance: code, libraries and machine.
    """

    version: Literal[1] = 1
    entry: Name = Field(pattern=r"^[a-z0-9_]+$")
    asks: str
    smoke: bool
    outcome: Outcome
    reason: str = ""
    device: Name
    started: datetime
    seconds: Seconds
    limit: Count
    commands: tuple[CommandRecord, ...]
    provenance: Provenance


def without_paths(text: str) -> str:
    """A text for others to see: of absolute paths the last name stays."""
    return re.sub(r"(?<![\w.])/(?:[\w.+-]+/)+", ".../", text)


def write_record(work: Path, record: EntryRecord) -> None:
    """Keep a record in the folder of the queue's work."""
    with atomic_write(work / ENTRIES / f"{record.entry}.json") as file:
        file.write(record.model_dump_json(indent=1) + "\n")


def read_record(path: Path) -> EntryRecord:
    """A record; DataError where the file is none."""
    try:
        return EntryRecord.model_validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{path} is no record of an entry: {said:.300}") from error


def write_archive(target: Path, work: Path, limit: int = LIMIT) -> list[str]:
    """Pack all records and what is kept of all runs into one file.

    Args:
        target: the archive, which is replaced.
        work: folder of the queue's work.
        limit: bytes that the archive must not exceed.

    Returns:
        Names of the files that did not fit.
    """
    left, left_out = limit, []
    with atomic_path(target) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for path in _by_importance(work):
            size = path.stat().st_size + _SPARE
            if size > left:  # most of it is compressed already
                left_out.append(path.relative_to(work).as_posix())
                continue
            archive.add(path, path.relative_to(work).as_posix())
            left -= size
    return left_out


def _by_importance(work: Path) -> Iterator[Path]:
    yield from sorted((work / ENTRIES).glob("*.json"))
    for name in KEPT:
        yield from sorted((work / RUNS).rglob(name))


def unpack(archive: Path, to: Path) -> None:
    """Take the files of an archive out, and nothing but those `write_archive` puts in.

    Raises:
        DataError: it is no archive, or holds something else.
    """
    try:
        with tarfile.open(archive, "r:gz") as opened:
            for member in opened:
                parts = Path(member.name).parts
                known = (
                    len(parts) == 2 and parts[0] == ENTRIES and parts[1].endswith(".json")
                ) or (len(parts) > 2 and parts[0] == RUNS and parts[-1] in KEPT)
                if not (known and member.isfile() and member.size <= _LARGEST) or ".." in parts:
                    raise DataError(
                        f"{archive} holds '{member.name:.100}', which the queue does not write; "
                        f"give the {ARCHIVE} of a queue"
                    )
                opened.extract(member, to, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"cannot read {archive} ({error}); give the {ARCHIVE} of a queue"
        ) from error
