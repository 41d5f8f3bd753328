"""Tables free of any markup, and the cells that several of them have."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hambench.scoring import METRICS
from hambench.scoring.display import format_numbers, reporting_unit


class Link(NamedTuple):
    """What a page may link a cell to: a model, a task, or a run, by its name."""

    kind: Literal["model", "task", "run"]
    name: str


@dataclass(frozen=True)
class Column:
    """A heading; ``numeric`` columns are aligned right and sort by number.

    ``minor`` columns may be hidden at first, ``filtered`` ones be chosen from.
    """

    label: str
    numeric: bool = True
    hint: str = ""
    minor: bool = False
    filtered: bool = False


@dataclass(frozen=True)
class Cell:
    """What is shown, what it sorts by (None: the text), and what a page may unfold and link."""

    text: str
    value: float | None = None
    details: str = ""
    bold: bool = False
    links: tuple[Link, ...] = ()


@dataclass(frozen=True)
class Table:
    """A titled table, free of any markup; all text may come from strangers.

    Attributes:
        kind: what it is of.
        task: of one task; empty for one of several.
        notes: what belongs below it.
    """

    title: str
    subtitle: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: Literal["ranking", "across", "unfinished", "published", "other"] = "other"
    task: str = ""
    notes: tuple[str, ...] = ()


def printable(text: str) -> str:
    """``text`` on one line, control and direction characters shown as U+FFFD."""
    return "".join(c if c.isprintable() else "\ufffd" for c in re.sub(r"\s+", " ", text))


def duration(seconds: float) -> Cell:
    """Seconds as a reader says them."""
    if seconds < 60:
        return Cell(f"{seconds:.0f} s", seconds)
    minutes = round(seconds / 60)
    hours, rest = divmod(minutes, 60)
    return Cell(f"{hours} h {rest:02d} min" if hours else f"{minutes} min", seconds)


def metric_column(name: str, heading: str = "", *, minor: bool = False) -> Column:
    """The column of a metric, or of something else in its unit."""
    label, _ = reporting_unit(METRICS[name].unit, name)
    heading = heading or name
    return Column(
        f"{heading} / {label}" if label else heading,
        hint=f"{METRICS[name].description}; {METRICS[name].direction} is better",
        minor=minor,
    )


def score_cell(value: float, ci95: tuple[float, float] | None, name: str) -> Cell:
    """A value of a metric with its interval."""
    _, factor = reporting_unit(METRICS[name].unit, name)
    ends = ci95 and (ci95[0] * factor, ci95[1] * factor)
    number, interval = format_numbers(value * factor, ends)
    return Cell(f"{number} {interval}".strip(), value * factor)


def spread_cell(spread: float | None, name: str) -> Cell:
    """A standard deviation over seeds; empty where there is none."""
    if spread is None:
        return Cell("")
    value = spread * reporting_unit(METRICS[name].unit, name)[1]
    return Cell(f"{value:.0f}" if value >= 100 else f"{value:.2g}", value)


def count(values: Iterable[int]) -> Cell:
    """One number, or the range over seeds."""
    low, *_, high = sorted(values) * 2
    return Cell(f"{low:,}" if low == high else f"{low:,} to {high:,}", low)
