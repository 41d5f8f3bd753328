"""The page of a model: all its entries, and the settings they were run with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hambench.leaderboard.site.entries import EntryRow, entries_table
from hambench.leaderboard.site.settings import compare


def model_content(preset: str, rows: Sequence[EntryRow]) -> dict[str, Any]:
    """What the template shows of a preset, given its entries."""
    entries = [row.entry for row in rows]
    common, differences = compare(entries)
    return {
        "title": preset,
        "adapters": sorted({result.model for entry in entries for result in entry.results}),
        "entries": entries_table("Entries", "on all tasks", rows, "settings", "scored on", "sd"),
        "common": common,
        "differences": differences,
    }
