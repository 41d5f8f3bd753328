"""A measurement as JSON, with where it comes from, and as a folder with tables and a figure."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from hambench.bench import figure, tables
from hambench.bench.tables import Table
from hambench.files import atomic_write
from hambench.provenance import provenance
from hambench.registry import plugins

SCHEMA: Final = 1


def _no_notes(results: Sequence[Any]) -> list[str]:
    return []


class _Shown(NamedTuple):
    """How measurements of one kind are shown."""

    tables: Callable[[Any], list[Table]]
    draw: Callable[[Any, Any], None]
    notes: Callable[[Any], list[str]] = _no_notes


_KINDS: Final = {
    "model": _Shown(tables.of_steps, figure.draw_steps),
    "scaling": _Shown(tables.of_scalings, figure.draw_scalings),
    "harness": _Shown(tables.of_harness, figure.draw_harness),
    "data": _Shown(tables.of_data, figure.draw_data, tables.notes_of_data),
    "products": _Shown(tables.of_products, figure.draw_products),
    "inference": _Shown(tables.of_inference, figure.draw_inference, tables.notes_of_inference),
}


@dataclass(frozen=True)
class Report:
    """What was measured.

    Attributes:
        kind: the command, ``model``, ``scaling``, ``harness``, ``data``, ``products`` or
            ``inference``; of any other there is a document alone.
        started: when.
        results: records of that kind.
    """

    kind: str
    started: datetime
    results: Sequence[Any]

    @property
    def tables(self) -> list[Table]:
        """For people."""
        return _KINDS[self.kind].tables(self.results)

    @property
    def notes(self) -> list[str]:
        """Sentences beneath the tables."""
        return _KINDS[self.kind].notes(self.results)

    def document(self) -> dict[str, Any]:
        """For programs: ``schema``, ``measured``, ``provenance`` and ``results``, times in s."""
        return {
            "schema": SCHEMA,
            "measured": self.kind,
            "provenance": provenance(self.started, 0, plugins()).model_dump(mode="json"),
            "results": [dataclasses.asdict(one) for one in self.results],
        }

    def write(self, folder: Path) -> None:
        """Write ``bench.json``, ``bench.md``, ``bench.png`` and ``bench.svg``.

        Raises:
            RunError: the folder cannot be written.
        """
        document = self.document()
        with atomic_write(folder / "bench.json") as file:
            json.dump(document, file, indent=2)
        figure.save(partial(_KINDS[self.kind].draw, self.results), folder)
        with atomic_write(folder / "bench.md") as file:
            file.write(self._page(document["provenance"]))

    def _page(self, origin: dict[str, Any]) -> str:
        machine = origin["gpu"] or origin["cpu"]
        parts = [
            f"`{origin['command']}`, hambench {origin['package']}, torch "
            f"{origin['libraries']['torch']}, {machine}, {origin['started']}",
            *map(_markdown, self.tables),
            *self.notes,
            "![](bench.svg)",
        ]
        return "\n\n".join(parts) + "\n"


def _markdown(table: Table) -> str:
    head, *rows = [[cell.replace("|", "\\|") for cell in line] for line in table]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
