"""Figures of what was measured; Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hambench.bench.harness import HarnessBench
from hambench.bench.model import StepBench
from hambench.bench.scaling import Scaling
from hambench.errors import ConfigError
from hambench.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Draw = Callable[["Figure"], None]

SUFFIXES: Final = ("png", "svg")

_PARTS: Final = {
    "forward": "forward",
    "backward": "backward",
    "update": "optimiser",
    "data": "data (beside the steps)",
}


def check_library() -> None:
    """ConfigError where Matplotlib is missing: said before anything is measured."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"--out draws a figure with matplotlib, which cannot be imported ({error}); install it "
            "with pip install 'hambench[plots]', or take --json"
        ) from error


def save(draw: Draw, folder: Path) -> list[Path]:
    """Write ``bench.png`` and ``bench.svg``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    draw(figure)
    paths = [folder / f"bench.{suffix}" for suffix in SUFFIXES]
    for path in paths:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], dpi=200)
    return paths


def draw_steps(rows: Sequence[StepBench], figure: Figure) -> None:
    """A stacked bar for each batch, in units of its matrix products alone."""
    axes = figure.subplots()
    names = [f"{r.molecules} x {r.case}" for r in rows]
    below = [0.0] * len(rows)
    for part, label in _PARTS.items():
        share = [getattr(r, part).median / r.matrix_products.median for r in rows]
        axes.bar(names, share, bottom=below, label=label, width=0.6)
        below = [one + more for one, more in zip(below, share, strict=True)]
    axes.axhline(1, color="black", linestyle="--", label="matrix products alone")
    axes.set(title=f"{rows[0].model}, a training step", ylabel="time / matrix products alone")
    _plain(axes)


def draw_scalings(found: Sequence[Scaling], figure: Figure) -> None:
    """Time and memory over edges, a line for each basis."""
    left, right = figure.subplots(1, 2)
    for one in found:
        edges = [p.edges for p in one.points]
        for axes, costs, power in (
            (left, [1e3 * p.time.median for p in one.points], one.time_exponent),
            (right, [p.peak / 1e6 for p in one.points], one.peak_exponent),
        ):
            fit = "" if power is None else f", edges^{power:.2f}"
            axes.loglog(edges, costs, marker="o", label=f"{one.basis}{fit}")
    left.set(xlabel="edges", ylabel=f"{found[0].part} / ms", title=found[0].model)
    right.set(xlabel="edges", ylabel="peak / MB", title=f"axis: {found[0].axis}")
    for axes in (left, right):
        _plain(axes)


def draw_harness(rows: Sequence[HarnessBench], figure: Figure) -> None:
    """Two bars for each batch, with quartiles."""
    axes = figure.subplots()
    for place, (loop, label) in enumerate({"bare": "bare loop", "ours": "our loop"}.items()):
        times = [getattr(r, loop) for r in rows]
        medians = [1e3 * t.median for t in times]
        spread = [
            [1e3 * (t.median - t.low) for t in times],
            [1e3 * (t.high - t.median) for t in times],
        ]
        where = [k + 0.4 * (place - 0.5) for k in range(len(rows))]
        axes.bar(where, medians, yerr=spread, width=0.4, capsize=4, label=label)
    names = [f"{r.molecules} x {r.case}\n+{100 * r.overhead:.2g} %" for r in rows]
    axes.set_xticks(range(len(rows)), names)
    axes.set(title=f"{rows[0].model}, a training step", ylabel="ms")
    axes.margins(x=0.2, y=0.25)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
