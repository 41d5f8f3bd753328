"""What accuracy costs: errors against times of training and prediction, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hambench.leaderboard.collect import Board
from hambench.leaderboard.costs import devices, front, price
from hambench.leaderboard.figures.album import Album, Lost, Shown, paged, shown_rankings
from hambench.leaderboard.figures.style import Look, key, looks, panels, scaled, shown, time_unit
from hambench.scoring import METRICS
from hambench.scoring.display import reporting_unit

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME: Final = "costs"
KINDS: Final = {"training": "training time", "prediction": "prediction time per molecule"}
_PANELS: Final = 6  # rankings in a picture
_DEVICES: Final = 6  # with a marker of their own; the last one stands for all others


class Point(NamedTuple):
    """An entry in a panel: its number in the key, device, cost in s, error, and whether it is on
    the front."""

    number: int
    device: str
    cost: float
    error: float
    on_front: bool


class Mark(NamedTuple):
    """How the points of a device look, and what the key calls it."""

    look: Look
    name: str


def pictures(board: Board) -> Album:
    """A row of panels per ranking."""
    lost = Lost(NAME)
    drawn = []
    for one in shown_rankings(board):
        found = {kind: points(one, kind) for kind in KINDS}
        if max(map(len, found.values())) > 1:
            drawn.append((one, found))
        else:
            lost.add(one.ranking.task, "fewer than two ranked models have a known cost")
    return Album(paged(NAME, drawn, _PANELS, _figure), lost.told())


def points(one: Shown, kind: str) -> list[Point]:
    """The ranked entries of which a cost is known, best first."""
    metric = one.ranking.metric
    _, factor = reporting_unit(METRICS[metric].unit, metric)
    undominated = front(one.ranking, kind)
    found = []
    for k, entry in enumerate(one.entries):
        cost, summary = price(entry, kind), entry.summary(metric)
        if one.ranking.places[k] is None or cost is None or summary is None:
            continue
        device = ", ".join(devices(entry))
        found.append(Point(k + 1, device, cost, factor * summary.value, k in undominated))
    return found


def _figure(rankings: Sequence[tuple[Shown, dict[str, list[Point]]]]) -> Figure:
    heights = [max(3.6, 1.1 + 0.19 * len(one.entries)) for one, _ in rankings]
    figure, grid = panels(heights, [4.4, 4.4, 2.6])
    for (one, found), (*axes, names) in zip(rankings, grid, strict=True):
        known = {p.device for some in found.values() for p in some}
        marks = _marks(sorted(known))
        for (kind, some), panel in zip(found.items(), axes, strict=True):
            _draw(panel, kind, some, marks)
            panel.sharey(axes[0])
        scaled(axes[0].yaxis, [p.error for some in found.values() for p in some])
        _say_what_lacks(axes, found)
        axes[0].set_title(one.title, loc="left", fontsize="small")
        metric = one.ranking.metric
        unit, _ = reporting_unit(METRICS[metric].unit, metric)
        axes[0].set_ylabel(f"{metric}{f' / {unit}' if unit else ''}")
        _key(names, one, found, marks)
    return figure


def _marks(names: Sequence[str]) -> dict[str, Mark]:
    """Marker and colour of each device, by its name."""
    few = len(names) <= _DEVICES
    return {
        name: Mark(look, shown(name) if few or k < _DEVICES - 1 else "other devices")
        for k, name in enumerate(names)
        for look in [looks(_DEVICES)[min(k, _DEVICES - 1)]]
    }


def _draw(panel: Axes, kind: str, some: Sequence[Point], marks: dict[str, Mark]) -> None:
    """Numbered points, filled on the front, and the stairs below which there is nobody."""
    if not some:
        panel.text(0.5, 0.5, "not known", ha="center", va="center", transform=panel.transAxes)
        panel.set(xticks=[], xlabel=KINDS[kind])
        return
    unit, seconds = time_unit(p.cost for p in some)
    for device, (look, _) in marks.items():
        stairs = sorted((p.cost, p.error) for p in some if p.device == device and p.on_front)
        costs, errors = [cost / seconds for cost, _ in stairs], [error for _, error in stairs]
        panel.step(costs, errors, where="post", color=look.color, lw=1.2, zorder=1)
    for p in reversed(some):
        look = marks[p.device].look
        panel.plot(
            [p.cost / seconds], [p.error], look.marker, markersize=13, color=look.color,
            markerfacecolor=look.color if p.on_front else "white", zorder=2,
        )  # fmt: skip
        panel.annotate(
            str(p.number), (p.cost / seconds, p.error), ha="center", va="center", fontsize=7,
            color="white" if p.on_front else "0.1", zorder=3,
        )  # fmt: skip
    scaled(panel.xaxis, [p.cost / seconds for p in some])
    panel.set_xlabel(f"{KINDS[kind]} / {unit}")


def _say_what_lacks(axes: Sequence[Axes], found: dict[str, list[Point]]) -> None:
    """Numbers that are in one panel and not in the other."""
    numbers = [{p.number for p in some} for some in found.values()]
    for panel, mine, other in zip(axes, numbers, reversed(numbers), strict=True):
        if mine and other - mine:
            said = ", ".join(map(str, sorted(other - mine)))
            panel.set_title(f"not known of {said}", loc="right", fontsize="small")


def _key(panel: Axes, one: Shown, found: dict[str, list[Point]], marks: dict[str, Mark]) -> None:
    """Numbers of the entries, and markers of the devices."""
    from matplotlib.lines import Line2D

    nothing = Line2D([], [], linestyle="")
    numbers = sorted({p.number for some in found.values() for p in some})
    lines: list[tuple[Any, str]] = [(nothing, f"{k}  {one.labels[k - 1]}") for k in numbers]
    for look, name in dict.fromkeys(marks.values()):
        mark = Line2D([], [], linestyle="", marker=look.marker, color=look.color, markersize=8)
        lines.append((mark, name))
    lines.append((Line2D([], [], color="0.4", lw=1.2), "front of a device (filled)"))
    key(panel, [handle for handle, _ in lines], [text for _, text in lines])
