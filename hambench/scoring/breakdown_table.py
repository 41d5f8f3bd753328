"""``breakdown.json``: how the error of a run is made up, kept beside its result for pictures.

One JSON object (version 1): what was scored, and for each way to break it down that was asked for
its parts, in the order they are shown in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator
from pydantic_core import from_json

from hambench.errors import DataError
from hambench.files import atomic_write
from hambench.scoring.breakdown import By, Part

BREAKDOWN: Final = "breakdown.json"
FORMAT: Final = "hambench-breakdown"
VERSION: Final = 1
LARGEST: Final = 1 << 22
"""Bytes of a file, at most: pairs of all 118 elements take half of it."""

_Error = Annotated[FiniteFloat, Field(ge=0, le=1e60)]
_Share = Annotated[FiniteFloat, Field(ge=0, le=1 + 1e-9)]
_Name = Annotated[str, Field(min_length=1, max_length=40)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PartRecord(_Record):
    """One bin of distances or pair of elements, see `Part`.

    Attributes:
        name: as shown, ``"2-3 A"`` or ``"C-H"``.
        value: mean |dH| of its matrix elements, Eh; ``ci95`` its 95 % interval over molecules.
        n: molecules that have such elements.
        elements, error: its shares of all matrix elements, and of the sum of all |dH|.
    """

    name: _Name
    value: _Error
    ci95: tuple[_Error, _Error] | None
    n: Annotated[int, Field(ge=1, le=10**15)]
    elements: _Share
    error: _Share

    @classmethod
    def of(cls, part: Part) -> Self:
        """The record of a part."""
        s = part.score
        return cls(
            name=part.name, value=s.value, ci95=s.ci95, n=s.n, elements=part.elements,
            error=part.error,
        )  # fmt: skip


class BreakdownTable(_Record):
    """What a file holds.

    Attributes:
        task, task_version, fingerprint, split: what was scored.
        distance, pairs: the parts; None where nobody asked for them yet.
    """

    format: Literal["hambench-breakdown"] = FORMAT
    version: Literal[1] = VERSION
    task: str
    task_version: int
    fingerprint: str
    split: str
    distance: Annotated[tuple[PartRecord, ...], Field(min_length=1)] | None = None
    pairs: Annotated[tuple[PartRecord, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _names_once(self) -> Self:
        for parts in (self.distance, self.pairs):
            if parts and len({part.name for part in parts}) < len(parts):
                raise ValueError("a part comes twice")
        return self

    @property
    def scored(self) -> tuple[str, int, str, str]:
        """Task, version, fingerprint and split."""
        return self.task, self.task_version, self.fingerprint, self.split

    def of(self, by: By) -> tuple[PartRecord, ...] | None:
        """The parts of one way to break it down."""
        return self.distance if by == "distance" else self.pairs

    def with_parts(self, by: By, parts: Sequence[Part]) -> Self:
        """The same with one way to break it down added, or put in its place."""
        return self.model_copy(update={by: tuple(map(PartRecord.of, parts))})


def write_breakdown(path: str | os.PathLike[str], table: BreakdownTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    with atomic_write(Path(path)) as file:
        file.write(table.model_dump_json(indent=1) + "\n")


def read_breakdown(path: str | os.PathLike[str]) -> BreakdownTable:
    """Read a table.

    Raises:
        DataError: it is missing, no JSON, or not of this version; how to mend it is for the caller
            to say.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no {path}")
    try:
        if path.stat().st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 20} MiB: it is no {BREAKDOWN}")
        content: Any = from_json(path.read_bytes())
        return BreakdownTable.model_validate(content)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file as a whole"
        raise DataError(
            f"{path} holds no breakdown of version {VERSION}: {where:.200}: {first['msg']}"
        ) from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON: {error}") from error
