"""What a page says of a task beside its results: told by whoever knows the tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """A split of a task: its name, and how many rows it has."""

    name: str
    rows: int | None


@dataclass(frozen=True)
class About:
    """One task.

    Attributes:
        name, title: what it is.
        facts: (heading, text): level of theory, license, citation, files, protocol ...
        splits: of its rows.
        metrics: names, the primary one first.
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...]
    splits: tuple[Part, ...]
    metrics: tuple[str, ...]
