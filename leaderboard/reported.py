"""Published numbers, shown beside the leaderboard and never ranked.

``reported/*.csv`` has one number per row, as printed, with its source and what is known against it;
``reported/README.md`` says how rows were chosen. Where a number is the same statistic as a metric
of ours it has that name, else one of `DEFINITIONS`.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Final, Literal

from hambench.errors import DataError
from hambench.leaderboard.table import Cell, Column, Table
from hambench.scoring import METRICS
from hambench.units import HARTREE_EV

UNITS: Final[dict[str, tuple[str, float]]] = {
    "uEh": ("Eh", 1e6),
    "meV": ("Eh", 1e3 * HARTREE_EV),
    "1e-2 Eh": ("Eh", 1e2),
    "1e-4 Eh": ("Eh", 1e4),
    "1e-2 Eh/Angstrom": ("Eh/Angstrom", 1e2),
    "1": ("1", 1.0),
    "1e-5": ("1", 1e5),
    "%": ("1", 1e2),
}
"""Units as printed: unit of ours, and how many of the printed are one of it."""

DEFINITIONS: Final[dict[str, tuple[str, str]]] = {
    "h_mae_nabladft": ("Eh", "as each code of nablaDFT logs it: another statistic for every model"),
    "s_mae_nabladft": ("1", "the same of the overlap"),
    "force_mae": ("Eh/Angstrom", "mean |dF| over all components of all molecules together"),
    "qh9_optimal_ratio": ("1", "1 / cycles of the SCF from the other guess, a lower bound"),
    "qh9_achieved_ratio": ("1", "cycles from the predicted H / cycles from the other guess"),
    "qh9_error_level_ratio": (
        "1",
        "cycles until an SCF is as close to H as the prediction / all its cycles; higher is better",
    ),
    "qhflow_total_time_ratio": ("1", "time of inference and SCF from it / time of the default SCF"),
    "scfbench_ric": ("1", "cycles from the prediction / cycles from minao"),
    "scfbench_convergence_rate": ("1", "share of SCFs that converge; higher is better"),
}
"""Statistics of publications by name: unit and meaning."""

_READ: Final = {"source": "", "summary": "read in a summary of the source"}


@dataclass(frozen=True)
class Reported:
    """One published number.

    Attributes:
        task, variant, split: what it was measured on; a name of ours where it is the same, and
            the variant empty where it is not known or there is none.
        model, setting: what was measured; a name of ours where it is that network.
        metric: of `METRICS`, else of `DEFINITIONS`.
        printed, printed_unit: the number as it is printed.
        spread: standard deviation over molecules, as printed; empty where there is none.
        n: molecules, where that is said.
        source, locator: paper or repository, and the place in it.
        read: ``source``, or ``summary``: the source itself could not be read.
        caveat: what is known against the number, or against comparing it; may be empty.
    """

    task: str
    variant: str
    split: str
    model: str
    setting: str
    metric: str
    printed: str
    printed_unit: str
    spread: str
    n: int | None
    source: str
    locator: str
    read: Literal["source", "summary"]
    caveat: str

    @property
    def value(self) -> float:
        """The number in `unit`."""
        return float(self.printed) / UNITS[self.printed_unit][1]

    @property
    def unit(self) -> str:
        """Our unit."""
        return UNITS[self.printed_unit][0]

    @property
    def key(self) -> tuple[object, ...]:
        """What the number is of; two sources may print two numbers for one."""
        return (
            self.task, self.variant, self.split, self.model, self.setting, self.metric, self.n,
        )  # fmt: skip


COLUMNS: Final = tuple(
    {"printed": "value", "printed_unit": "unit"}.get(f.name, f.name) for f in fields(Reported)
)
"""Of the files."""


@cache
def reported() -> tuple[Reported, ...]:
    """All published numbers.

    Raises:
        DataError: a file does not follow the format (the line is named).
    """
    folder = resources.files("hambench.leaderboard").joinpath("reported")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".csv"))
    rows: list[Reported] = []
    for name in names:
        rows += parse(name, folder.joinpath(name).read_text("utf-8"))
    return tuple(rows)


def parse(name: str, text: str) -> list[Reported]:
    """The rows of one file.

    Args:
        name: what the file is called, for messages.
        text: its content.

    Raises:
        DataError: other columns, a number that is none, an unknown unit or metric, a metric in a
            unit it is not of, or a row without model, task or source (the line is named).
    """
    head, *lines = list(csv.reader(text.splitlines())) or [[]]
    if tuple(head) != COLUMNS:
        raise DataError(f"{name} does not begin with {','.join(COLUMNS)}; restore it")
    rows = []
    for number, line in enumerate(lines, start=2):
        try:
            rows.append(_row(line))
        except ValueError as error:
            raise DataError(f"{name}, line {number}: {error}; correct it") from error
    return rows


def reported_table(task: str) -> Table | None:
    """What was published for a task, in the order of the metrics; None where nothing was."""
    rows = [row for row in reported() if row.task == task]
    if not rows:
        return None
    order = {metric: k for k, metric in enumerate([*METRICS, *DEFINITIONS])}
    rows.sort(key=lambda row: (order[row.metric], row.variant, row.split, row.setting != ""))
    return Table(
        title=f"Published numbers for {task}",
        subtitle="as printed; splits, labels, statistics and training differ, so they are never "
        "ranked, neither among each other nor against runs",
        columns=(
            Column("metric", numeric=False),
            Column("split", numeric=False),
            Column("model", numeric=False),
            Column("value", hint="as printed, sd over molecules where it is given"),
            Column("unit", numeric=False),
            Column("source", numeric=False),
            Column("remarks", numeric=False),
        ),
        rows=tuple(map(_cells, rows)),
        kind="published",
        task=task,
    )


def _cells(row: Reported) -> tuple[Cell, ...]:
    """A row of the table."""
    number = "" if row.n is None else f"(n = {row.n})"
    split = " ".join(filter(None, (row.variant, row.split, number)))
    return (
        Cell(row.metric),
        Cell(split),
        Cell(", ".join(filter(None, (row.model, row.setting)))),
        Cell(f"{row.printed} sd {row.spread}" if row.spread else row.printed, row.value),
        Cell(row.printed_unit if row.printed_unit != "1" else ""),
        Cell(f"{row.source}, {row.locator}"),
        Cell("; ".join(filter(None, (row.caveat, _READ[row.read])))),
    )


def _row(line: list[str]) -> Reported:
    """One line; ValueError with what is wrong."""
    if len(line) != len(COLUMNS):
        raise ValueError(f"expected {len(COLUMNS)} columns, got {len(line)}")
    content = dict(zip(COLUMNS, line, strict=True))
    for column in ("task", "split", "model", "source", "locator"):
        if not content[column]:
            raise ValueError(f"it has no {column}")
    unit, metric, n = content["unit"], content["metric"], content["n"]
    if unit not in UNITS:
        raise ValueError(f"unknown unit '{unit}', expected one of {', '.join(UNITS)}")
    if metric not in METRICS and metric not in DEFINITIONS:
        raise ValueError(f"unknown metric '{metric}'")
    expected = METRICS[metric].unit if metric in METRICS else DEFINITIONS[metric][0]
    if UNITS[unit][0] != expected:
        raise ValueError(f"'{metric}' is in '{expected}', which '{unit}' is not")
    for column in ("value", "spread"):
        text = content[column]
        if (text or column == "value") and not 0 <= float(text) < math.inf:
            raise ValueError(f"the {column} is '{text}', expected a number from 0 on")
    if content["read"] not in _READ:
        raise ValueError(f"read is '{content['read']}', expected one of {', '.join(_READ)}")
    printed, printed_unit = content.pop("value"), content.pop("unit")
    rest = content | {"n": int(n) if n else None}
    return Reported(printed=printed, printed_unit=printed_unit, **rest)  # type: ignore[arg-type]
