"""How the command line prints rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hambench.scoring import Score


def align(rows: Sequence[tuple[str, ...]]) -> str:
    """Rows of text as a table with aligned columns, the first row its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)) for row in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(line.rstrip() for line in lines)


def as_json(value: object) -> str:
    """Indented JSON."""
    return json.dumps(value, indent=2)


def of_scores(scores: Mapping[str, Score]) -> str:
    """Metrics in reporting units with their 95 % intervals and numbers of molecules."""
    from hambench.scoring import format_score

    rows = [("metric", "value [95 % interval]", "n")]
    rows += [(name, format_score(score, name), str(score.n)) for name, score in scores.items()]
    return align(rows)
