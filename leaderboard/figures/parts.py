"""Where errors of Hamiltonians sit: by the distance of two atoms, and by pairs of elements.

Of the runs that have a ``breakdown.json``, which `hambench evaluate RUN_DIR --breakdown` leaves.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hambench.errors import DataError
from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.album import Album, Lost, Shown, paged, shown_rankings
from hambench.leaderboard.figures.style import Look, key, looks, panels, scaled, shown
from hambench.leaderboard.runs import Run
from hambench.scoring.breakdown import By
from hambench.scoring.breakdown_table import (
    BREAKDOWN,
    BreakdownTable,
    PartRecord,
    read_breakdown,
)
from hambench.scoring.display import reporting_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES: Final[dict[By, str]] = {"distance": "error_by_distance", "pairs": "error_by_pair"}
AXES: Final[dict[By, str]] = {
    "distance": "distance of the two atoms / Angstrom",
    "pairs": "elements of the two atoms (one: an atom with itself)",
}
PARTS: Final = 24
"""Parts in a panel, those with most of the error."""

_PANELS: Final = 6
_WHOLE: Final = "h_mae_elem"  # what all parts add up to
_AGREES: Final = 1e-2  # relative, as predictions may have been kept in single precision
_APART: Final = 0.08  # of two models in a part; parts are 1 apart
_SPREAD: Final = 0.6  # of all models in a part, at most


class Part(NamedTuple):
    """Mean over seeds of a part of an entry, Eh, and of the ends of its interval."""

    value: float
    low: float
    high: float


Broken = dict[int, dict[str, Part]]
"""Parts by name, by place of the entry."""


def pictures(board: Board) -> Album:
    """For each kind of parts a panel per ranking."""
    rankings = shown_rankings(board)
    tables = {
        run.name: _table(run)
        for one in rankings
        for entry in one.entries
        for run in entry.runs
        if run.result.strategy is None
    }
    return Album.of(_of(by, rankings, tables) for by in NAMES)


def _of(
    by: By, rankings: Sequence[Shown], tables: Mapping[str, BreakdownTable | DataError]
) -> Album:
    lost = Lost(NAMES[by])
    drawn = []
    for one in rankings:
        if one.entries[0].results[0].strategy is not None:
            lost.add(one.ranking.task, "energies have no parts")
        elif found := broken_down(one, by, tables, lost):
            drawn.append((one, found))
    return Album(paged(NAMES[by], drawn, _PANELS, lambda page: _figure(by, page)), lost.told())


def _table(run: Run) -> BreakdownTable | DataError:
    """What a run left, if it is of the data and the errors of its result; else why not."""
    try:
        table = read_breakdown(run.folder / BREAKDOWN)
    except DataError as error:
        return DataError(str(error).replace(f"{run.folder}/", ""))
    r = run.result
    if table.scored != (r.task, r.task_version, r.fingerprint, r.split):
        return DataError(f"{BREAKDOWN} is of other data than its result")
    whole = r.metrics.get(_WHOLE)
    for parts in filter(None, (table.distance, table.pairs)):
        total = sum(part.value * part.elements for part in parts)
        if whole is not None and not math.isclose(total, whole.value, rel_tol=_AGREES):
            return DataError(f"{BREAKDOWN} does not add up to the {_WHOLE} of its result")
    return table


def broken_down(
    one: Shown, by: By, tables: Mapping[str, BreakdownTable | DataError], lost: Lost
) -> Broken:
    """Parts of the entries of which every seed has them; the others are left out.

    All are of the same molecules, so they have the same parts.
    """
    found: Broken = {}
    names: list[str] | None = None
    for place, entry in enumerate(one.entries):
        kept: list[Sequence[PartRecord]] = []
        for run in entry.runs:
            table = tables[run.name]
            parts = None if isinstance(table, DataError) else table.of(by)
            if parts is None:
                said = str(table) if isinstance(table, DataError) else f"no parts by {by}"
                lost.add(run.name, f"{said}; `hambench evaluate RUN_DIR --breakdown {by}` adds it")
                break
            names = names or [part.name for part in parts]
            if [part.name for part in parts] != names:
                lost.add(run.name, f"{BREAKDOWN} has other parts than those of other models")
                break
            kept.append(parts)
        else:
            found[place] = {same[0].name: _mean(same) for same in zip(*kept, strict=True)}
    return found


def _mean(seeds: Sequence[PartRecord]) -> Part:
    ends = [part.ci95 or (part.value, part.value) for part in seeds]
    return Part(fmean(p.value for p in seeds), fmean(e[0] for e in ends), fmean(e[1] for e in ends))


def _figure(by: By, rankings: Sequence[tuple[Shown, Broken]]) -> Figure:
    heights = [max(3.4, 1.2 + 0.19 * len(found)) for _, found in rankings]
    figure, grid = panels(heights, [7.6, 2.6])
    for (one, found), (panel, names) in zip(rankings, grid, strict=True):
        some = dict(zip(found, looks(len(found)), strict=True))
        left_out = _draw(panel, by, found, some)
        title = (
            f"{one.title}\n{left_out} parts with less error are not shown"
            if left_out
            else one.title
        )
        panel.set_title(title, loc="left", fontsize="small")
        key(names, [_handle(look) for look in some.values()], [one.labels[k] for k in found])
    return figure


def _draw(panel: Axes, by: By, found: Broken, some: Mapping[int, Look]) -> int:
    """Models beside each other in every part; how many parts are left out."""
    names = _chosen(found)
    unit, factor = reporting_unit("Eh")
    ends = []
    for order, (place, parts) in enumerate(found.items()):
        shift = min(_APART, _SPREAD / len(found)) * (order - (len(found) - 1) / 2)
        rows = [parts[name] for name in names]
        values, lows, highs = (
            [factor * getattr(row, which) for row in rows] for which in ("value", "low", "high")
        )
        ends += [*values, *(low for low in lows if low > 0), *highs]
        look = some[place]
        panel.errorbar(
            [k + shift for k in range(len(names))], values,
            [
                [max(0.0, v - low) for v, low in zip(values, lows, strict=True)],
                [max(0.0, high - v) for v, high in zip(values, highs, strict=True)],
            ],
            color=look.color, marker=look.marker, linestyle=look.linestyle, markersize=4,
            linewidth=0.7, elinewidth=1, capsize=1.5,
        )  # fmt: skip
    scaled(panel.yaxis, ends)
    crowded = len(names) > 12
    panel.set_xticks(
        range(len(names)), [shown(name.removesuffix(" A"), 12) for name in names],
        rotation=60 if crowded else 0,
    )  # fmt: skip
    panel.set_xlim(-0.6, len(names) - 0.4)
    panel.grid(visible=False, axis="x")
    panel.set(xlabel=AXES[by], ylabel=f"mean |dH| / {unit}")
    return len(next(iter(found.values()))) - len(names)


def _chosen(found: Broken) -> list[str]:
    """Names of the parts that are shown, in their order: where the best model is worst."""
    best = next(iter(found.values()))
    kept = sorted(best, key=lambda name: -best[name].value)[:PARTS]
    return [name for name in best if name in kept]


def _handle(look: Look) -> Any:
    from matplotlib.lines import Line2D

    return Line2D(
        [], [], color=look.color, linestyle=look.linestyle, marker=look.marker, markersize=4
    )
