"""``breakdown.json``: what was written comes back, and what a stranger wrote is checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hambench.errors import DataError
from hambench.scoring import Score
from hambench.scoring.breakdown import Part
from hambench.scoring.breakdown_table import (
    LARGEST,
    BreakdownTable,
    PartRecord,
    read_breakdown,
    write_breakdown,
)

PARTS = [
    Part("on-site", Score(2e-4, "Eh", (1e-4, 3e-4), 10), 0.25, 0.4),
    Part("0-1 A", Score(1e-4, "Eh", None, 1), 0.75, 0.6),
]


def content(**changes: Any) -> dict[str, Any]:
    """A valid file."""
    empty = BreakdownTable(task="t", task_version=1, fingerprint="f", split="test")
    return json.loads(empty.with_parts("distance", PARTS).model_dump_json()) | changes


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    table = BreakdownTable(task="t", task_version=1, fingerprint="f", split="test")
    table = table.with_parts("distance", PARTS)
    write_breakdown(tmp_path / "b.json", table)
    again = read_breakdown(tmp_path / "b.json")
    assert again == table
    assert again.of("distance") == tuple(map(PartRecord.of, PARTS))
    assert again.of("pairs") is None
    assert again.with_parts("pairs", PARTS).of("distance") == table.distance


def part(**changes: Any) -> dict[str, Any]:
    return PartRecord.of(PARTS[0]).model_dump() | changes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON"),
        ("[]", "the file as a whole"),
        (json.dumps(content(version=2)), "version: Input should be 1"),
        (json.dumps(content(more=1)), "more: Extra inputs"),
        (json.dumps(content(distance=[])), "distance: "),
        (json.dumps(content(distance=[part(value=-1)])), r"distance\.0\.value"),
        (json.dumps(content(distance=[part(value="NaN")])), r"distance\.0\.value"),
        (json.dumps(content(distance=[part(elements=2)])), r"distance\.0\.elements"),
        (json.dumps(content(distance=[part(name="x" * 41)])), r"distance\.0\.name"),
        (json.dumps(content(pairs=[part(), part()])), "a part comes twice"),
        ('{"a": ' * 5000, "is no JSON"),
        (" " * (LARGEST + 1), "more than 4 MiB"),
    ],
)
def test_what_is_no_breakdown_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "b.json"
    path.write_text(text)
    with pytest.raises(DataError, match=said) as raised:
        read_breakdown(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*b\.json"):
        read_breakdown(tmp_path / "b.json")
    with pytest.raises(DataError, match="there is no"):
        read_breakdown(tmp_path)
