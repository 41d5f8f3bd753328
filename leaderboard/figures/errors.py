"""Errors of all models: mean over seeds, interval over test molecules, every seed a dot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.album import (
    RANKINGS,
    Album,
    Lost,
    Shown,
    paged,
    reduced,
    shown_rankings,
)
from hambench.leaderboard.figures.style import colours, legend, panels, scaled
from hambench.leaderboard.frame import frame
from hambench.leaderboard.ranking import Summary
from hambench.scoring import METRICS
from hambench.scoring.display import reporting_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME: Final = "errors"
_PANELS: Final = 8  # in a picture
_COLUMNS: Final = 2
_WIDTHS: Final = {1: 7.0, 2: 5.6}  # inches, by the number of columns
_ROW: Final = 0.25  # inches of an entry
_HEAD: Final = 1.7  # of title and axis
_BELOW: Final = 0.28  # of a row, where the dots of seeds are


def pictures(board: Board) -> Album:
    """A panel per ranking.

    Raises:
        ConfigError: pandas is not installed.
    """
    lost = Lost(NAME)
    for ranking in board.rankings[RANKINGS:]:
        lost.add(ranking.task, f"pictures show the first {RANKINGS} rankings")
    rows = frame(reduced(board))
    every = shown_rankings(board)
    return Album(paged(NAME, every, _PANELS, lambda some: _figure(some, rows)), lost.told())


def _figure(rankings: Sequence[Shown], rows: pd.DataFrame) -> Figure:
    columns = min(_COLUMNS, len(rankings))
    lines = [rankings[k : k + columns] for k in range(0, len(rankings), columns)]
    heights = [_HEAD + _ROW * max(len(one.entries) for one in line) for line in lines]
    figure, grid = panels(heights, [_WIDTHS[columns]] * columns)
    handles: dict[str, Any] = {}
    for line, axes in zip(lines, grid, strict=True):
        for one, panel in zip(line, axes, strict=False):
            handles |= _draw(panel, one, _seeds(one, rows))
        for panel in axes[len(line) :]:
            panel.set_visible(False)
    legend(figure, handles)
    return figure


def _seeds(one: Shown, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a ranking in its primary metric, a seed each, with their line in the panel."""
    r = one.ranking
    mine = rows[rows["primary"]]
    for column in ("task", "version", "fingerprint", "source", "split", "training_split"):
        mine = mine[mine[column] == getattr(r, column)]
    places = {(e.preset, e.settings): k for k, e in enumerate(one.entries)}
    keys = list(zip(mine["preset"], mine["settings"], strict=True))
    known = [key in places for key in keys]
    _, factor = reporting_unit(METRICS[r.metric].unit, r.metric)
    mine = mine[known]
    return mine.assign(
        place=[places[key] + _BELOW for key in keys if key in places],
        shown=mine["value"] * factor,
    )


def _draw(panel: Axes, one: Shown, seeds: pd.DataFrame) -> dict[str, Any]:
    """One ranking, the best on top; what the legend has to explain."""
    import seaborn as sns

    r = one.ranking
    unit, factor = reporting_unit(METRICS[r.metric].unit, r.metric)
    blue, red = colours(4)[0], colours(4)[3]
    handles: dict[str, Any] = {}
    ends: list[float] = []
    for k, entry in enumerate(one.entries):
        summary = entry.summary(r.metric)
        assert isinstance(summary, Summary)  # or it were in no ranking
        low, high = (factor * end for end in summary.ends)
        value = factor * summary.value
        ends += [value, low, high]
        ranked = r.places[k] is not None
        drawn = panel.errorbar(
            [value], [k], xerr=[[max(0.0, value - low)], [max(0.0, high - value)]], capsize=3,
            fmt="o" if ranked else "X", color=blue if ranked else red, markersize=6,
        )  # fmt: skip
        said = (
            "mean over seeds, 95 % interval over test molecules"
            if ranked
            else "failed on some molecules, unranked"
        )
        handles.setdefault(said, drawn)
    sns.scatterplot(
        seeds, x="shown", y="place", ax=panel, s=14, color="0.25", linewidth=0, zorder=3,
        legend=False,
    )  # fmt: skip
    handles["one seed"] = panel.collections[-1]
    decade = 10.0 if METRICS[r.metric].direction == "lower" else math.inf
    scaled(panel.xaxis, [end for end in ends if end > 0] if min(ends[::3]) > 0 else ends, decade)
    names = [
        f"{place.rank}. {label}" if place else label
        for label, place in zip(one.labels, r.places, strict=False)
    ]
    panel.set_yticks(range(len(names)), names)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.grid(visible=False, axis="y")
    better = METRICS[r.metric].direction
    panel.set(
        ylabel="",
        xlabel=f"{r.metric}{f' / {unit}' if unit else ''} ({better} is better)",
    )
    panel.set_title(one.title, loc="left", fontsize="small")
    return handles
