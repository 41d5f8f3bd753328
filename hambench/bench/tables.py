"""What was measured, as rows of text: the first row of a table is its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hambench.bench.data import DataBench
    from hambench.bench.harness import HarnessBench
    from hambench.bench.inference import Beyond, InferenceBench
    from hambench.bench.loading import Memory, Supply
    from hambench.bench.model import StepBench
    from hambench.bench.powerlaw import Estimate
    from hambench.bench.products import Cost, ProductBench
    from hambench.bench.reading import Reading
    from hambench.bench.scaling import Scaling, Skipped
    from hambench.bench.shapes import Shapes
    from hambench.bench.timing import Timing

Table = Sequence[tuple[str, ...]]

_SIZE = {"atoms": "atoms", "basis": "atoms", "batch": "molecules"}
_PARTS = ("forward", "backward", "update", "step", "matrix_products", "data", "data_kept")


def of_steps(rows: Sequence[StepBench]) -> list[Table]:
    """Times; what a step does; how fast it is."""
    names = [f"{r.molecules} x {r.case}" for r in rows]
    times = [
        (name, *(milliseconds(getattr(r, part)) for part in _PARTS))
        for name, r in zip(names, rows, strict=True)
    ]
    work = [
        (
            name, f"{r.products:,}", f"{r.flops / 1e9:.3g}", f"{r.product_bytes / 1e6:.3g}",
            f"{r.bytes / 1e6:.4g}", f"{r.calls:,}",
            "-" if r.launches is None else f"{r.launches:,}", f"{r.waits:,}", f"{r.peak / 1e6:.3g}",
        )
        for name, r in zip(names, rows, strict=True)
    ]  # fmt: skip
    speed = [
        (
            name, _where(r), f"{r.parameters:,}", f"{r.ratio:.2g}",
            f"{100 * r.update_share:.2g} %", f"{r.flops / r.step.median / 1e9:.3g}",
            f"{r.molecules_per_s:.3g}", f"{r.edges_per_s:.3g}",
        )
        for name, r in zip(names, rows, strict=True)
    ]  # fmt: skip
    return [
        [("molecules", *(f"{part.replace('_', ' ')}/ms" for part in _PARTS)), *times],
        [
            (
                "molecules", "products", "GFLOP", "their MB", "MB moved", "calls", "kernels",
                "waits", "peak/MB",
            ),
            *work,
        ],
        [
            (
                "molecules", "on", "parameters", "step/matrix products", "update", "GFLOP/s",
                "molecules/s", "edges/s",
            ),
            *speed,
        ],
    ]  # fmt: skip


def of_scalings(found: Sequence[Scaling]) -> list[Table]:
    """A table of points for each basis, and one of exponents."""
    return [_points(one) for one in found] + [
        [
            ("model", "basis", "measured", "parameters", "time ~ edges^", "peak ~ edges^"),
            *(
                (
                    one.model, one.basis, one.part, f"{one.parameters:,}",
                    _exponent(one.time_exponent), _exponent(one.peak_exponent),
                )
                for one in found
            ),
        ]
    ]  # fmt: skip


def _points(one: Scaling) -> Table:
    head = (_SIZE[one.axis], "edges", f"{one.part}/ms", "us/edge", "peak/MB", "kB/edge")
    rows = [
        (
            f"{p.size}", f"{p.edges:,}", milliseconds(p.time), f"{1e6 * p.time_per_edge:.3g}",
            f"{p.peak / 1e6:.3g}", f"{p.peak_per_edge / 1e3:.3g}",
        )
        for p in one.points
    ]  # fmt: skip
    left = [(f"{s.size}", f"{s.edges:,}", _skipped(s), "-", "-", "-") for s in one.skipped]
    return [head, *rows, *left]


def _where(r: StepBench | HarnessBench) -> str:
    return f"{r.device}, {r.precision}{', one graph' if r.cuda_graph else ''}"


def _skipped(s: Skipped) -> str:
    there = f"{s.limit / 1e9:.3g} GB are there"
    if s.needs is None:
        return f"skipped: does not fit, {there}"
    return f"skipped: needs about {s.needs / 1e9:.3g} GB, {there}"


def _exponent(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def of_harness(rows: Sequence[HarnessBench]) -> list[Table]:
    """Both loops, and what ours adds."""
    head = (
        "molecules", "on", "steps", "our loop/ms", "bare loop/ms", "added/us", "overhead",
        "losses differ by",
    )  # fmt: skip
    return [
        [
            head,
            *(
                (
                    f"{r.molecules} x {r.case}", _where(r),
                    f"{r.blocks} x {r.steps}", milliseconds(r.ours), milliseconds(r.bare),
                    _spread(r.added, 1e6), f"{100 * r.overhead:.2g} %", f"{r.loss_difference:.1e}",
                )
                for r in rows
            ),
        ]
    ]  # fmt: skip


def of_data(rows: Sequence[DataBench]) -> list[Table]:
    """Reading, and how fast batches are built and used."""
    return [table for one in rows for table in (_reading(one.reading), _supply(one.supply))]


def _reading(rows: Sequence[Reading]) -> Table:
    head = ("molecule", "format", "made of a row", "MB", "plain read/ms", "time/ms", "ratio")
    return [head] + [
        (
            r.case, r.format, r.what, f"{r.bytes / 1e6:.3g}", f"{1e3 * r.raw.median:.3g}",
            milliseconds(r.time),
            f"{r.ratio:.2g}",
        )
        for r in rows
    ]  # fmt: skip


def _supply(rows: Sequence[Supply]) -> Table:
    head = ("molecule", "built by", "built/s", "used by", "used/s", "built/used")
    return [head] + [
        (
            s.case, s.by, f"{s.built:.3g}", f"{s.model} on {s.device}", f"{s.used:.3g}",
            f"{s.built / s.used:.2g}",
        )
        for s in rows
    ]  # fmt: skip


def notes_of_data(rows: Sequence[DataBench]) -> list[str]:
    """A sentence on shapes, and one on memory where that was measured."""
    return [
        note
        for one in rows
        for note in (_shapes(one.shapes), *([] if one.memory is None else [_memory(one.memory)]))
    ]


def _shapes(s: Shapes) -> str:
    return (
        f"{s.molecules} molecules of {s.smallest} to {s.largest} atoms, {s.batches} batches of at "
        f"most {s.max_edges} edges: {s.shapes} shapes, padded {s.padded} with "
        f"{100 * (s.edges - 1):.1f} % more edges, {100 * (s.atoms - 1):.0f} % more atoms "
        f"and {100 * (s.labels - 1):.0f} % more labels"
    )


def _memory(m: Memory) -> str:
    return (
        f"{m.molecules} molecules of a file of {m.file_bytes / 1e9:.3g} GB in {m.batches} batches: "
        f"peak {m.peak / 1e9:.2f} GB resident, {m.before / 1e9:.2f} GB of it before the first"
    )


def of_products(rows: Sequence[ProductBench]) -> list[Table]:
    """Every product by every library."""
    head = (
        "product", "by", "forward/ms", "both/ms", "ratio", "calls", "kernels", "peak/MB",
        "difference", "remark",
    )  # fmt: skip
    return [
        [
            head,
            *(
                (
                    r.product, r.by, *_cost(r.cost),
                    "-" if r.difference is None else f"{r.difference:.1e}", r.remark,
                )
                for r in rows
            ),
        ]
    ]  # fmt: skip


def _cost(cost: Cost | None) -> tuple[str, ...]:
    if cost is None:
        return ("-",) * 6
    return (
        milliseconds(cost.forward), milliseconds(cost.both), f"{cost.ratio:.3g}",
        f"{cost.calls:,}", "-" if cost.launches is None else f"{cost.launches:,}",
        f"{cost.peak / 1e6:.3g}",
    )  # fmt: skip


def of_inference(rows: Sequence[InferenceBench]) -> list[Table]:
    """Both for every molecule, the one that was extrapolated last."""
    return [_inference(one) for one in rows]


def _inference(found: InferenceBench) -> Table:
    head = ("atoms", "orbitals", "pairs", "predicting/s", "SCF cycle/s", "cycle/predicting")
    table: list[tuple[str, ...]] = [head]
    for s in found.sizes:
        table.append(
            (
                f"{s.atoms}", f"{s.orbitals:,}", f"{s.edges:,}", _spread(s.predicting),
                _spread(s.cycle), f"{s.ratio:.3g}",
            )
        )  # fmt: skip
    if (b := found.beyond) is not None:
        table.append(
            (
                f"{b.atoms}, extrapolated", "-", "-", _estimated(b.predicting),
                _estimated(b.cycle), f"{b.cycle.value / b.predicting.value:.3g}",
            )
        )  # fmt: skip
    return table


def notes_of_inference(rows: Sequence[InferenceBench]) -> list[str]:
    """What was measured where, and by which laws it was extrapolated."""
    return [note for one in rows for note in (_level(one), *_laws(one.beyond))]


def _level(found: InferenceBench) -> str:
    theory = found.theory
    return (
        f"{found.model} on {found.device} in {found.precision}, {found.threads} thread(s) of the "
        f"CPU; {theory['xc']}/{theory['basis']}, grid level {theory['grid_level']}, "
        + (f"density fitting ({theory['fit']})" if theory["fit"] else "exact integrals")
    )


def _laws(beyond: Beyond | None) -> list[str]:
    if beyond is None:
        return []
    laws = ", ".join(
        f"{what} as atoms^{e.exponent:.2f} +- {e.exponent_error:.2f}"
        for what, e in (("predicting", beyond.predicting), ("the cycle", beyond.cycle))
    )
    return [f"extrapolated by power laws, 95 % prediction intervals: {laws}"]


def _estimated(e: Estimate) -> str:
    return f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]"


def milliseconds(t: Timing) -> str:
    """Median and quartiles."""
    return _spread(t, 1e3)


def _spread(t: Timing, unit: float = 1.0) -> str:
    return f"{unit * t.median:.3g} [{unit * t.low:.3g}, {unit * t.high:.3g}]"
