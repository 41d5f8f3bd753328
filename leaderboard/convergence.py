"""How runs converged: their validation errors against wall time, pretraining counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hambench.errors import DataError
from hambench.leaderboard.curves import Study
from hambench.leaderboard.logs import validations
from hambench.units import HARTREE_EV


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
                        rows = validations(run.folder, run.result)
                    except DataError as error:
                        lost.append((run.name, f"no convergence curve: {error}"))
                        continue
                    seconds = tuple(waited + row.elapsed_s for row in rows)
                    errors = tuple(1000 * HARTREE_EV * row.error for row in rows)
                    trained_on = (point.molecules, *run.trained_on)
                    found.append(Course(study, line.label, trained_on, waited, seconds, errors))
    return found, lost
