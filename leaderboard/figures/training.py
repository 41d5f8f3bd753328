"""Training curves: validation errors against steps and time, every seed a thin line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hambench.errors import DataError
from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.album import Album, Lost, Shown, paged, shown_rankings
from hambench.leaderboard.figures.style import key, looks, panels, scaled, time_unit
from hambench.leaderboard.logs import validations
from hambench.scoring.display import reporting_unit
from hambench.units import MEV

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

NAME: Final = "training"
SEEDS: Final = 5
"""Runs of a model that are drawn, those of the least seeds."""
POINTS: Final = 400
"""Validations of a run that are drawn, evenly chosen."""

_PANELS: Final = 6  # rankings in a picture
_APART: Final = 2.0  # ratio of errors from which their axis is logarithmic: they fall steeply


def pictures(board: Board) -> Album:
    """A row of panels per ranking.

    Raises:
        ConfigError: pandas is not installed.
    """
    lost = Lost(NAME)
    drawn = []
    for one in shown_rankings(board):
        rows = courses(one, lost)
        if len(rows):
            drawn.append((one, rows))
        else:
            lost.add(one.ranking.task, "no run has a training curve")
    return Album(paged(NAME, drawn, _PANELS, _figure), lost.told())


def courses(one: Shown, lost: Lost) -> pd.DataFrame:
    """A row per validation: ``place`` of the entry, ``run``, ``step``, ``seconds``, ``error`` (Eh).

    Args:
        one: the ranking.
        lost: gets the runs whose logs cannot be used.
    """
    import pandas as pd

    rows: list[tuple[int, str, float, float, float]] = []
    for place, entry in enumerate(one.entries):
        for run in entry.runs[:SEEDS]:
            if run.result.cost.steps == 0:  # it was never trained
                continue
            try:
                found = [v for v in validations(run.folder, run.result) if v.error > 0]
            except DataError as error:
                lost.add(run.name, str(error))
                continue
            some = found[:: -(-len(found) // POINTS)] if found else []
            rows += [(place, run.name, *validation) for validation in some]
        if len(entry.runs) > SEEDS:
            lost.add(one.labels[place], f"{SEEDS} seeds of a model are drawn")
    return pd.DataFrame(rows, columns=["place", "run", "step", "seconds", "error"])


def _figure(rankings: Sequence[tuple[Shown, pd.DataFrame]]) -> Figure:
    heights = [max(3.3, 1.1 + 0.19 * len(one.entries)) for one, _ in rankings]
    figure, grid = panels(heights, [4.4, 4.4, 2.6])
    for (one, rows), (by_step, by_time, names) in zip(rankings, grid, strict=True):
        energies = one.entries[0].results[0].strategy is not None
        unit, factor = MEV if energies else reporting_unit("Eh")
        time, seconds = time_unit(rows["seconds"])
        table = rows.assign(error=rows["error"] * factor, time=rows["seconds"] / seconds)
        some = dict(zip(range(len(one.entries)), looks(len(one.entries)), strict=True))
        for panel, x in ((by_step, "step"), (by_time, "time")):
            for (place, _), mine in table.groupby(["place", "run"], sort=False):
                look = some[place]
                panel.plot(
                    mine[x], mine["error"], color=look.color, linestyle=look.linestyle,
                    linewidth=1, marker=look.marker, markersize=4, markeredgewidth=0,
                    markevery=max(1, len(mine) // 12),
                )  # fmt: skip
            scaled(panel.xaxis, [0.0, table[x].max()], math.inf)
            panel.set_xlim(left=0)
            scaled(panel.yaxis, table["error"], _APART)
            panel.set_ylabel("")
        by_step.set_title(one.title, loc="left", fontsize="small")
        what = "MAE of energies" if energies else "MAE of H"
        by_step.set(xlabel="training steps", ylabel=f"validation {what} / {unit}")
        by_time.set_xlabel(f"wall time of training / {time}")
        _key(names, one, sorted(set(rows["place"])), some)
    return figure


def _key(panel: Any, one: Shown, places: Sequence[int], some: dict[int, Any]) -> None:
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=4)
        for look in map(some.__getitem__, places)
    ]
    key(panel, lines, [one.labels[place] for place in places], "a line per seed")
