"""What a page says of a task beside its results: told by whoever knows the tasks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class About:
    """One task.

    Attributes:
        name, title: what it is.
        facts: (heading, text): level of theory, license, citation, protocol ...
        splits: (name, rows), rows None where they depend on a file.
        metrics: names, the primary one first.
    """

    name: str
    title: str
    facts: tuple[tuple[str, str], ...]
    splits: tuple[tuple[str, int | None], ...]
    metrics: tuple[str, ...]
