"""Pictures of learning curves and of convergence. Needs the ``plots`` extra."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from hambench.leaderboard.arms import Analysis, Measured
from hambench.leaderboard.convergence import Course
from hambench.leaderboard.curves import METRICS, Line, Study
from hambench.leaderboard.figures.style import (
    colours,
    drawing,
    legend,
    panels,
    plain_logarithm,
    plain_numbers,
    saved,
    shown,
    time_unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS: Final = {"direct": "o", "frozen": "s", "finetuned": "D"}
_PANEL: Final = 3.9  # inches
_SHIFT: Final = 0.03  # of neighbouring points of a panel, so that their bars do not hide each other


def draw_curves(analyses: Sequence[Analysis], folder: Path) -> list[Path]:
    """``learning_curves.png`` and ``.svg``: errors of test and training, and gains.

    One row of panels per study, the axes logarithmic.

    Raises:
        ConfigError: matplotlib or seaborn is not installed.
        RunError: the folder cannot be written.
    """
    with drawing():
        figure = curves_figure(analyses)
        return [saved(figure, folder / f"learning_curves.{kind}") for kind in ("png", "svg")]


def curves_figure(analyses: Sequence[Analysis]) -> Figure:
    """One row of panels per study: errors of test and training, and gains."""
    figure, rows = _rows(len(analyses), 3)
    labels: dict[str, Any] = {}
    for analysis, (test, train, gains) in zip(analyses, rows, strict=True):
        looks = _looks(analysis.study)
        for line in analysis.study.lines:
            points = [m for m in analysis.points if m.line is line]
            labels.setdefault(shown(line.label), _draw_line(test, points, looks[line.label]))
            _draw_training(train, points, looks[line.label])
        _draw_gains(gains, analysis, looks)
        unit = METRICS[analysis.metric]
        test.set_title(f"{shown(analysis.study.title)}\nerror on {shown(analysis.study.split)}")
        train.set_title("error on the training set")
        gains.set_title("direct / pretrained\nabove 1: pretraining helps")
        test.set_ylabel(f"mean absolute error / {unit}")
        train.sharey(test)
        sizes = sorted({m.point.molecules for m in analysis.points})
        for panel in (test, train, gains):
            _size_axis(panel, sizes)
            plain_logarithm(panel.yaxis, (1, 2, 5) if panel is not gains else (1, 1.5, 2, 3, 5, 7))
    legend(figure, labels)
    return figure


def draw_convergence(
    studies: Sequence[Study], courses: Sequence[Course], folder: Path
) -> list[Path]:
    """``convergence.png``: validation errors against wall time, pretraining counted.

    One row of panels per study, one panel per training set, one curve per seed.

    Raises:
        ConfigError: matplotlib or seaborn is not installed.
        RunError: the folder cannot be written.
    """
    drawn = [study for study in studies if any(c.study is study for c in courses)]
    sets = [sorted({c.trained_on for c in courses if c.study is study}) for study in drawn]
    with drawing():
        figure, rows = _rows(len(drawn), max(map(len, sets)))
        labels: dict[str, Any] = {}
        for study, trained_on, row in zip(drawn, sets, rows, strict=True):
            looks = _looks(study)
            for (molecules, task, split), panel in zip(trained_on, row, strict=False):
                some = [
                    c
                    for c in courses
                    if c.study is study and c.trained_on == (molecules, task, split)
                ]
                time, unit = time_unit(second for c in some for second in c.seconds)
                for course in some:
                    found = _draw_course(panel, course, unit, looks)
                    labels.setdefault(shown(course.label), found)
                panel.set_title(f"{shown(task)}\n{shown(split)}: {molecules:,} molecules")
                panel.sharey(row[0])
                panel.set_xlim(left=0)
                panel.set_xlabel(f"wall time with pretraining / {time}")
                plain_numbers(panel.xaxis)
                plain_logarithm(panel.yaxis, (1, 2, 5))
            row[0].set_ylabel("validation error / meV per molecule")
            for panel in row[len(trained_on) :]:
                panel.set_visible(False)
        legend(figure, labels)
        return [saved(figure, folder / "convergence.png")]


def _rows(rows: int, columns: int) -> tuple[Figure, Any]:
    return panels([_PANEL] * rows, [_PANEL] * columns)


def _looks(study: Study) -> dict[str, dict[str, Any]]:
    """Colour and marker of every line, by its label."""
    return {
        line.label: {"color": colour, "marker": _marker(line)}
        for line, colour in zip(study.lines, colours(len(study.lines)), strict=True)
    }


def _marker(line: Line) -> str:
    return _MARKERS.get(line.strategy, "^")


def _draw_line(panel: Axes, points: Sequence[Measured], look: dict[str, Any]) -> Any:
    sizes = [m.point.molecules for m in points]
    (drawn,) = panel.plot(sizes, [m.error for m in points], markersize=6, **look)
    ends = np.array([m.ci95 or (m.error, m.error) for m in points])
    panel.fill_between(sizes, ends[:, 0], ends[:, 1], color=look["color"], alpha=0.15, linewidth=0)
    if len(points) == 1:  # a band without width
        panel.vlines(sizes, ends[:, 0], ends[:, 1], color=look["color"])
    return drawn


def _draw_training(panel: Axes, points: Sequence[Measured], look: dict[str, Any]) -> None:
    """Errors of zero, of a model that knows its training set by heart, have no place in a log."""
    known = [m for m in points if m.train_error]
    sizes = [m.point.molecules for m in known]
    panel.plot(sizes, [m.train_error or np.nan for m in known], "--", markersize=6, **look)


def _draw_gains(panel: Axes, analysis: Analysis, looks: dict[str, dict[str, Any]]) -> None:
    panel.axhline(1.0, color="0.3", linewidth=1)
    pairs = list(
        dict.fromkeys((c.direct.line.label, c.other.line.label) for c in analysis.comparisons)
    )
    for place, pair in enumerate(pairs):
        some = [
            c for c in analysis.comparisons if (c.direct.line.label, c.other.line.label) == pair
        ]
        shift = 1 + _SHIFT * (place - (len(pairs) - 1) / 2)
        gains = np.array([c.gain.value for c in some])
        ends = np.array([c.gain.ci95 or (c.gain.value,) * 2 for c in some]).T
        panel.errorbar(
            [shift * c.other.point.molecules for c in some], gains, abs(ends - gains),
            capsize=3, markersize=6, linestyle=":", **looks[pair[1]],
        )  # fmt: skip
    panel.set_yscale("log")
    low, high = panel.get_ylim()
    panel.set_ylim(min(low, 0.8), max(high, 1.25))
    panel.set_visible(bool(analysis.comparisons))


def _draw_course(panel: Axes, course: Course, unit: float, looks: dict[str, dict[str, Any]]) -> Any:
    """A course with its times in ``unit`` seconds, and a dotted line while it was pretrained."""
    look = looks[course.label]
    (drawn,) = panel.plot(
        [second / unit for second in course.seconds],
        course.errors,
        ".-",
        color=look["color"],
        linewidth=1.4,
        markersize=4,
    )
    if course.pretraining_s:
        first = course.errors[0]
        panel.plot(
            [0, course.pretraining_s / unit], [first, first], ":", color=look["color"], linewidth=1
        )
    return drawn


def _size_axis(panel: Axes, sizes: Sequence[int]) -> None:
    from matplotlib.ticker import NullLocator

    panel.set_xscale("log")
    panel.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlabel("labelled molecules")
