"""The course of a training, from the ``log.jsonl`` beside a result. Its content is not trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from pydantic_core import from_json

from hambench.errors import DataError
from hambench.leaderboard.logs import LOG, log_lines
from hambench.leaderboard.table import Cell, Column, Table
from hambench.units import MEV, REPORT

_POINTS = 300  # of one curve: no screen shows more
_ROWS = 12  # of the table of validations
_STEPS, _HUGE = 1e15, 1e60

_CHARTS: Final = (
    ("Validation error", REPORT["Eh"], {"val_h_mae": "mean |dH|"}),
    ("Validation error", MEV, {"val_e_mae": "mean |dE|"}),
    ("Loss", ("", 1.0), {"train_loss": "training", "val_loss": "validation"}),
)
"""Title, unit with its factor, and curves by their key in the log."""

_VALIDATION: Final = (
    ("step", "step", 1.0, ",.0f"),
    ("epoch", "epoch", 1.0, ",.0f"),
    ("elapsed_s", "seconds", 1.0, ",.0f"),
    ("val_h_mae", f"error / {REPORT['Eh'][0]}", REPORT["Eh"][1], ".4g"),
    ("val_e_mae", f"error / {MEV[0]}", MEV[1], ".4g"),
    ("val_loss", "loss", 1.0, ".4g"),
)
"""Columns of the table of validations: key in the log, heading, factor, and form."""

Row = dict[str, Any]
T = TypeVar("T")


class Curve(NamedTuple):
    """Points of one line."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]


class Chart(NamedTuple):
    """Curves with one axis; ``unit`` is empty for a pure number."""

    title: str
    unit: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Course:
    """How a training went.

    Attributes:
        charts: those there is anything for.
        validations: some of them, evenly spread, with the last; None where there is none.
        remark: what is not shown, in words; empty where all is.
    """

    charts: tuple[Chart, ...]
    validations: Table | None
    remark: str


def read_course(folder: Path) -> Course:
    """The training of a run directory; nothing but a remark where there is no usable log."""
    try:
        lines = log_lines(folder)
    except DataError as error:
        return Course((), None, f"No curves: {error}.")
    rows = [row for line in lines if (row := _row(line)) is not None]
    lost = len(lines) - len(rows)
    remark = f"{lost:,} of {len(lines):,} lines of its {LOG} are no rows of a log." if lost else ""
    return Course(tuple(_charts(rows)), _validations(rows), remark)


def _row(line: bytes) -> Row | None:
    """A line with a step; None where it is no row. Its other values are unchecked."""
    try:
        content = from_json(line)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    step = _number(content, "step")
    return content if step is not None and 0 <= step <= _STEPS else None


def _number(row: Row, key: str) -> float | None:
    """A value that can be shown; None where there is none, or it is no number, or NaN."""
    value: Any = row.get(key)
    return float(value) if type(value) in (float, int) and abs(value) <= _HUGE else None


def _charts(rows: Sequence[Row]) -> Iterable[Chart]:
    for title, (unit, factor), keys in _CHARTS:
        curves = []
        for key, label in keys.items():
            found = ((row["step"], _number(row, key)) for row in rows if key in row)
            points = [(float(step), value * factor) for step, value in found if value and value > 0]
            if points:  # axes are logarithmic
                steps, values = zip(*_spread(sorted(points), _POINTS), strict=True)
                curves.append(Curve(label, steps, values))
        if curves:
            yield Chart(title, unit, tuple(curves))


def _validations(rows: Sequence[Row]) -> Table | None:
    found = [row for row in rows if {"val_loss", "val_h_mae", "val_e_mae"} & row.keys()]
    if not found:
        return None
    columns = [column for column in _VALIDATION if any(column[0] in row for row in found)]
    spread = _spread(found, _ROWS)
    few = "" if len(spread) == len(found) else f"{len(spread)} of {len(found)}, evenly spread"
    return Table(
        title="Validations",
        subtitle=few,
        columns=tuple(Column(heading) for _, heading, *_ in columns),
        rows=tuple(
            tuple(
                Cell("" if value is None else format(value * factor, form))
                for key, _, factor, form in columns
                for value in [_number(row, key)]
            )
            for row in spread
        ),
    )


def _spread(some: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, evenly spaced, the first and the last among them."""
    if len(some) <= most:
        return some
    return [some[round(k * (len(some) - 1) / (most - 1))] for k in range(most)]
