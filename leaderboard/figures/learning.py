"""Learning curves of the energy runs on a board: those of `hambench curves`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from hambench.errors import DataError
from hambench.leaderboard.arms import Analysis, analyse
from hambench.leaderboard.collect import Board
from hambench.leaderboard.curves import METRICS, ErrorMetric, Study, collect_curves
from hambench.leaderboard.figures.album import Album, Lost, paged
from hambench.leaderboard.figures.curves import curves_figure
from hambench.leaderboard.ranking import Ranking
from hambench.leaderboard.runs import Run

NAME: Final = "learning_curves"
DEFAULT: Final[ErrorMetric] = "energy_mae"
LINES: Final = 10
"""Lines of a study that are drawn, those that are best with most molecules."""
RUNS: Final = 1000
"""Runs whose predictions are read, at most."""

_PANELS: Final = 4  # studies in a picture


def pictures(board: Board) -> Album:
    """A row of panels per study that has training sets of several sizes."""
    lost = Lost(NAME)
    families: dict[Any, list[Ranking]] = defaultdict(list)
    for ranking in board.rankings:
        if ranking.entries[0].results[0].strategy is not None:
            families[ranking.task, ranking.version, ranking.source, ranking.split].append(ranking)
    if not families:
        lost.add("energies", "no run on the board predicts energies")
    runs: list[Run] = []
    for some in families.values():
        sizes = {e.results[0].training_molecules for r in some for e in r.entries}
        if len(sizes - {None}) < 2:
            lost.add(some[0].task, "its runs were trained on one number of molecules")
        else:
            runs += _candidates(some)
    for run in runs[RUNS:]:
        lost.add(run.name, f"learning curves are of {RUNS:,} runs at most")
    analyses = [_analysed(study) for study in _studies(runs[:RUNS], lost)]
    return Album(paged(NAME, analyses, _PANELS, curves_figure), lost.told())


def _analysed(study: Study) -> Analysis:
    """In the metric the task ranks by, if that is one of curves."""
    primary = study.lines[0].points[0].first.primary
    metric = next((name for name in METRICS if name == primary), DEFAULT)
    return analyse(study, metric)


def _candidates(rankings: Sequence[Ranking]) -> list[Run]:
    """All runs of the models that rank best anywhere."""
    best: dict[str, int] = {}
    for ranking in rankings:
        for k, entry in enumerate(ranking.entries):
            best[entry.label] = min(k, best.get(entry.label, k))
    chosen = set(sorted(best, key=lambda label: (best[label], label))[:LINES])
    return [
        run for r in rankings for entry in r.entries if entry.label in chosen for run in entry.runs
    ]


def _studies(runs: Sequence[Run], lost: Lost) -> list[Study]:
    if not runs:
        return []
    try:
        found = collect_curves([run.folder for run in runs])
    except DataError as error:
        lost.add("energies", str(error))
        return []
    for name, why in found.left_out:
        lost.add(name, why)
    return [_trimmed(study, lost) for study in found.studies]


def _trimmed(study: Study, lost: Lost) -> Study:
    """The study with no more lines than can be told apart."""
    by_error = sorted(
        study.lines,
        key=lambda line: (-line.points[-1].molecules, line.points[-1].error(DEFAULT)),
    )
    for line in by_error[LINES:]:
        lost.add(line.label, f"{LINES} lines of a study are drawn")
    kept = by_error[:LINES]
    return replace(study, lines=tuple(line for line in study.lines if line in kept))
