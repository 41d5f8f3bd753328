"""``energies.csv``: what a model predicted for every molecule of an energy task, beside the label.

One row per molecule of the training and the scored split, Eh with 17 digits, so that every number
made of them, intervals and paired comparisons too, can be made again without model and data.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from hambench.errors import DataError
from hambench.files import atomic_write
from hambench.scoring.energy import EnergyDeviation
from hambench.scoring.metrics import FAILURES, METRICS
from hambench.scoring.score_table import ScoreTable

ENERGIES: Final = "energies.csv"


class EnergyRow(NamedTuple):
    """One molecule.

    Attributes:
        split: the split it is of.
        id: its name, unique in the split.
        group: what the bootstrap resamples as one, the molecule a conformer belongs to.
        atoms: how many it has.
        label, prediction: total energies in Eh; NaN for a prediction that failed.
    """

    split: str
    id: str
    group: str
    atoms: int
    label: float
    prediction: float


def write_energies(path: str | os.PathLike[str], rows: Iterable[EnergyRow]) -> None:
    """Write a table, whole or not at all.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(EnergyRow._fields)
    for row in rows:
        writer.writerow([*row[:4], f"{row.label:.17g}", f"{row.prediction:.17g}"])
    with atomic_write(Path(path)) as file:
        file.write(text.getvalue())


def read_energies(path: str | os.PathLike[str]) -> list[EnergyRow]:
    """The rows of a table.

    Raises:
        DataError: it is missing or corrupt (the line is named).
    """
    path = Path(path)
    try:
        lines = list(csv.reader(path.read_text(encoding="utf-8").splitlines()))
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}; every run of an energy task writes it: run it anew with "
            "overwrite=true"
        ) from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read {path}: {error}; restore it, or run it anew") from error
    if not lines or lines[0] != list(EnergyRow._fields):
        raise DataError(f"{path} does not begin with {','.join(EnergyRow._fields)}; restore it")
    rows = [_row(path, number, line) for number, line in enumerate(lines[1:], start=2)]
    if len({(row.split, row.id) for row in rows}) < len(rows):
        raise DataError(f"{path} has a molecule twice in one split; restore it, or run it anew")
    return rows


def score_table(
    rows: Iterable[EnergyRow],
    metrics: Sequence[str],
    *,
    task: str,
    task_version: int,
    fingerprint: str,
    split: str,
) -> ScoreTable:
    """What every molecule of a split adds to metrics of energies, by the labels in the table.

    Args:
        rows: of any splits.
        metrics: names of metrics of energies.
        task, task_version, fingerprint, split: as a `ScoreTable` has them.
    """
    some = [row for row in rows if row.split == split]
    errors = [EnergyDeviation(row.prediction - row.label, row.atoms) for row in some]
    chosen = dict.fromkeys([*metrics, FAILURES])
    terms = np.zeros((len(some), len(chosen), 2))
    for k, error in enumerate(errors):
        terms[k, -1] = float(error.failed), 1
        if not error.failed:
            terms[k, :-1] = [METRICS[name].terms(error) for name in metrics]
    return ScoreTable(
        task, task_version, fingerprint, split,
        ids=tuple(row.id for row in some), groups=tuple(row.group for row in some),
        settings={name: {} for name in chosen}, terms=terms,
    )  # fmt: skip


def _row(path: Path, number: int, line: list[str]) -> EnergyRow:
    try:
        split, name, group, atoms, label, prediction = line
        row = EnergyRow(split, name, group, int(atoms), float(label), float(prediction))
        if row.atoms < 1 or not math.isfinite(row.label):
            raise ValueError
    except ValueError:
        raise DataError(
            f"{path}, line {number}: expected {','.join(EnergyRow._fields)} with numbers, got "
            f"'{','.join(line):.80}'; restore it, or run it anew"
        ) from None
    return row
