"""The part of a download that is here already: ``<name>.part``, and ``<name>.part.json`` about it.

The JSON file names the response that the bytes are the beginning of. It is written when the part
is empty, so that at any moment, also after ``kill -9``, the bytes belong to the response it names.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hambench.errors import RunError
from hambench.files import atomic_write, explained


class Response(BaseModel):
    """What a server said of a file when its download began.

    Attributes:
        url: asked for.
        etag: header ETag without quotes, None if there is none or a weak one.
        modified: header Last-Modified.
        bytes: of the whole file; None if it was not said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str
    etag: str | None = None
    modified: str | None = None
    bytes: Annotated[int, Field(ge=0)] | None = None

    def validator(self, url: str) -> str | None:
        """Header If-Range with which ``url`` goes on only where it still has the same bytes.

        None where nothing could tell. A date says something at its own server alone.
        """
        if self.etag is not None:
            return f'"{self.etag}"'
        return self.modified if url == self.url else None


class Part:
    """The part file of ``target`` and the response it is from, None if there is none."""

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._about = target.with_name(f"{target.name}.part.json")
        self.response = self._read()

    @property
    def size(self) -> int:
        """Bytes that are here."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def complete(self) -> bool:
        """Whether all bytes of the response are here."""
        return self.response is not None and self.response.bytes == self.size

    def resume_from(self, url: str) -> dict[str, str]:
        """Headers that ask ``url`` for the rest; none where only a new start is sure to be right.

        A part longer than its response is of no use, nor one that nothing identifies.
        """
        if self.response is None or not 0 < self.size < (self.response.bytes or 0):
            return {}
        validator = self.response.validator(url)
        if validator is None:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": validator}

    def begin(self, response: Response) -> None:
        """Start over with an empty part of ``response``."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            open(self.path, "wb").close()
        except OSError as error:
            raise explained(error, self.path) from error
        self._note(response)

    @contextmanager
    def writing(self) -> Iterator[Callable[[bytes], None]]:
        """Gives a function that appends bytes; RunError if the disk is full, and all is kept."""
        try:
            with open(self.path, "ab", buffering=0) as file:
                yield lambda data: _write_all(file, data)
        except OSError as error:
            raise RunError(f"{explained(error, self.path)} ({self.kept()})") from error

    def end_here(self) -> None:
        """Note that a response whose length was not said is complete."""
        assert self.response is not None
        self._note(self.response.model_copy(update={"bytes": self.size}))

    def check_room(self, needed: int) -> None:
        """RunError unless the file system has ``needed`` bytes left."""
        free = shutil.disk_usage(self.path.parent).free
        if free < needed:
            raise RunError(
                f"no space for {self.path.name.removesuffix('.part')}: {amount(needed)} more are "
                f"needed and {amount(free)} free in {self.path.parent}; free some, or choose "
                "another folder with --to"
            )

    def kept(self) -> str:
        """What is here and how to go on, for messages."""
        total = self.response.bytes if self.response is not None else None
        of = f" of {amount(total)}" if total is not None else ""
        return f"{amount(self.size)}{of} are kept in {self.path}; the same command goes on"

    def become(self, target: Path) -> None:
        """Take the name ``target``, with all bytes on the disk."""
        try:
            with open(self.path, "rb") as file:
                os.fsync(file.fileno())
            os.replace(self.path, target)
        except OSError as error:
            raise explained(error, target) from error
        self.remove()

    def reject(self) -> Path:
        """Put the part aside as ``<name>.rejected``, so that the next start is a new one."""
        aside = self.path.with_suffix(".rejected")
        os.replace(self.path, aside)
        self.remove()
        return aside

    def remove(self) -> None:
        """Remove the part and what is known of it."""
        self.path.unlink(missing_ok=True)
        self._about.unlink(missing_ok=True)
        self.response = None

    def _note(self, response: Response) -> None:
        with atomic_write(self._about) as file:
            json.dump(response.model_dump(), file)
        self.response = response

    def _read(self) -> Response | None:
        try:
            return Response.model_validate_json(self._about.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):  # none, or of another version
            return None


def _write_all(file: FileIO, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def amount(size: int) -> str:
    """Bytes as people read them.

    >>> amount(276_516_996_009), amount(512)
    ('276.5 GB', '512 B')
    """
    value, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if unit != "B" else f"{size} B"
