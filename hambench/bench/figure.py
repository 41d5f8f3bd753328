"""Figures of what was measured; Matplotlib is imported when one is drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hambench.errors import ConfigError
from hambench.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hambench.bench.data import DataBench
    from hambench.bench.harness import HarnessBench
    from hambench.bench.inference import InferenceBench
    from hambench.bench.model import StepBench
    from hambench.bench.powerlaw import Estimate
    from hambench.bench.products import ProductBench
    from hambench.bench.scaling import Scaling
    from hambench.bench.timing import Timing

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
    loops = {"bare loop": [r.bare for r in rows], "our loop": [r.ours for r in rows]}
    _bars(axes, [f"{r.molecules} x {r.case}\n+{100 * r.overhead:.2g} %" for r in rows], loops)
    axes.set(title=f"{rows[0].model}, a training step", ylabel="ms")
    axes.margins(x=0.2, y=0.25)
    _plain(axes)


def draw_data(rows: Sequence[DataBench], figure: Figure) -> None:
    """Reading beside plain reads; molecules per second that are built and used."""
    left, right = figure.subplots(1, 2)
    (found,) = rows
    by_case: dict[str, dict[str, Timing]] = {}
    for r in found.reading:
        by_case.setdefault(r.case, {"plain read": r.raw})[r.what] = r.time
    kinds = dict.fromkeys(what for times in by_case.values() for what in times)
    series = {what: [times.get(what) for times in by_case.values()] for what in kinds}
    _bars(left, [case.replace(", ", "\n") for case in by_case], series)
    left.set(ylabel="a row / ms", yscale="log", title="reading")
    left.margins(y=0.7)
    names = [f"{s.case}\n{s.by}".replace(", ", "\n") for s in found.supply]
    for label, speeds in (
        ("built", [s.built for s in found.supply]), ("used", [s.used for s in found.supply]),
    ):  # fmt: skip
        right.plot(names, speeds, linestyle="none", marker="o", label=label)
    right.set(ylabel="molecules / s", yscale="log", title=f"batches of {found.supply[0].model}")
    right.margins(x=0.2)
    for axes in (left, right):
        axes.tick_params("x", labelsize="x-small")
        _plain(axes)


def draw_products(rows: Sequence[ProductBench], figure: Figure) -> None:
    """A bar for each library that has the product, with quartiles."""
    axes = figure.subplots()
    names = list(dict.fromkeys(r.product for r in rows))
    costs = {(r.product, r.by): r.cost.both for r in rows if r.cost is not None}
    series = {
        by: [costs.get((name, by)) for name in names]
        for by in dict.fromkeys(r.by for r in rows if r.cost is not None)
    }
    _bars(axes, [name.replace(", ", "\n") for name in names], series)
    axes.set(title="a product and its gradients", ylabel="ms", yscale="log")
    axes.margins(y=0.3)
    _plain(axes)


def draw_inference(rows: Sequence[InferenceBench], figure: Figure) -> None:
    """Seconds over atoms; what was extrapolated is open, with its prediction interval."""
    axes = figure.subplots()
    (found,) = rows
    atoms = [s.atoms for s in found.sizes]
    for part, label in {"predicting": found.model, "cycle": "a cycle of the SCF"}.items():
        medians = [getattr(s, part).median for s in found.sizes]
        (line,) = axes.loglog(atoms, medians, marker="o", label=label)
        if found.beyond is not None:
            far: Estimate = getattr(found.beyond, part)
            axes.errorbar(
                [found.beyond.atoms], [far.value],
                yerr=[[far.value - far.low], [far.high - far.value]],
                color=line.get_color(), marker="o", markerfacecolor="none", capsize=4,
            )  # fmt: skip
    axes.set(xlabel="atoms", ylabel="s", title="a Hamiltonian, against a cycle of an SCF for it")
    _plain(axes)


def _bars(axes: Axes, groups: Sequence[str], series: Mapping[str, Sequence[Timing | None]]) -> None:
    """A bar of each series in each group where there is one: milliseconds, with quartiles."""
    width = 0.8 / len(series)
    for place, (label, times) in enumerate(series.items()):
        there = [(k, t) for k, t in enumerate(times) if t is not None]
        spread = [
            [1e3 * (t.median - t.low) for _, t in there],
            [1e3 * (t.high - t.median) for _, t in there],
        ]
        axes.bar(
            [k + width * (place - (len(series) - 1) / 2) for k, _ in there],
            [1e3 * t.median for _, t in there], yerr=spread, width=width, capsize=4, label=label,
        )  # fmt: skip
    axes.set_xticks(range(len(groups)), groups)


def _plain(axes: Axes) -> None:
    axes.legend(frameon=False, fontsize="small")
    axes.spines[["top", "right"]].set_visible(False)
