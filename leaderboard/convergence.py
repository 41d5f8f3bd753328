"""How runs converged: their validation errors against wall time, pretraining counted."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from hambench.leaderboard.curves import Run, Study
from hambench.units import HARTREE_EV

LOG: Final = "log.jsonl"
_ERROR: Final = "val_e_mae"  # in Eh, as training logs it


@dataclass(frozen=True)
class Course:
    """One run's way to its weights.

    Attributes:
        study: where it belongs; ``label`` its line there.
        trained_on: molecules, task and split of its training set.
        pretraining_s: seconds before its energy stage began, zero for direct training.
        seconds: of its validations, from the start of pretraining.
        errors: of its validations, meV per molecule.
    """

    study: Study
    label: str
    trained_on: tuple[int, str, str]
    pretraining_s: float
    seconds: tuple[float, ...]
    errors: tuple[float, ...]


def courses(studies: Sequence[Study]) -> tuple[list[Course], list[tuple[str, str]]]:
    """Courses of all runs that trained, and those that cannot be read as (run, reason)."""
    found, lost = [], []
    for study in studies:
        for line in study.lines:
            for point in line.points:
                for run in point.runs:
                    if run.result.cost.steps == 0:
                        continue
                    before = run.result.pretraining
                    waited = before.wall_s if before else 0.0
                    try:
                        rows = _validations(run)
                    except (OSError, ValueError) as error:
                        lost.append((run.name, f"no convergence curve: {error}"))
                        continue
                    seconds = tuple(waited + elapsed for elapsed, _ in rows)
                    errors = tuple(1000 * HARTREE_EV * error for _, error in rows)
                    trained_on = (point.molecules, *run.trained_on)
                    found.append(Course(study, line.label, trained_on, waited, seconds, errors))
    return found, lost


def _validations(run: Run) -> list[tuple[float, float]]:
    """(elapsed_s, error in Eh) of the validations in a run's log.

    Raises:
        OSError: the log is missing or unreadable.
        ValueError: it is corrupt, or has no validation.
    """
    try:
        text = (run.folder / LOG).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"it has no {LOG}") from None
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
            if _ERROR in row:
                found.append((float(row["elapsed_s"]), float(row[_ERROR])))
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{LOG}, line {number} is no row of a log: {line:.60}") from None
    if not found:
        raise ValueError(f"{LOG} has no {_ERROR}")
    if not all(math.isfinite(value) for row in found for value in row):
        raise ValueError(f"{LOG} has a {_ERROR} that is no number")
    return found
