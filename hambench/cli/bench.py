"""``hambench bench``: speed and memory, as ratios to a yardstick of the same run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hambench.cli.bench_yardsticks import inference, products
from hambench.cli.group import Group, WordsCommand
from hambench.cli.names import Names
from hambench.cli.table import align, as_json
from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.bench.loading import Memory, Supply
    from hambench.bench.model import Precision, StepBench
    from hambench.bench.reading import Reading
    from hambench.bench.shapes import Shapes
    from hambench.bench.timing import Timing


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory, as ratios to a yardstick of the same run.

    \b
    Examples:
      hambench bench data
      hambench bench model model=qhnet
    """


@bench.command(cls=WordsCommand)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=100, show_default=True,
    help="Reads of each kind that are timed, in turns.",
)  # fmt: skip
@click.option(
    "--model", default="helm_small", show_default=True,
    help="Model whose use of batches is compared with building them.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="Where the model runs.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=4, show_default=True,
    help="Molecules per batch.",
)  # fmt: skip
@click.option(
    "--workers", type=click.IntRange(min=0), default=2, show_default=True,
    help="Processes that build batches, besides a thread; 0: the thread alone.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=5.0, show_default=True,
    help="For the speed of each loader and of the model.",
)  # fmt: skip
@click.option(
    "--gigabytes", type=click.FloatRange(min=0), default=20.0, show_default=True,
    help="Size of the sparse file whose reader's memory is measured; 0: none.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False),
    help="Where the temporary files go; 0.2 GB.  [default: that of the system]",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
def data(
    repeats: int, model: str, device: str, batch_size: int, workers: int, seconds: float,
    gigabytes: float, folder: Path | None, json_: bool,
) -> None:  # fmt: skip
    """Reading, building of batches and memory, on synthetic files of the public formats.

    And how many shapes the batches of molecules of many sizes have, as compiled models need few.

    A sample is read, put into canonical order and packed into blocks; the yardstick is a plain
    read of the same bytes by the file's library, warm, in turns with it. Medians and quartiles.

    \b
    Examples:
      hambench bench data
      hambench bench data repeats=20 gigabytes=0
      hambench bench data model=helm workers=8 device=cuda --json
    """
    from hambench.bench.data import measure

    with tempfile.TemporaryDirectory(prefix="hambench-bench-", dir=folder) as made:
        found = measure(
            Path(made), repeats=repeats, model=model, device=device, batch_size=batch_size,
            workers=workers, seconds=seconds, size=int(gigabytes * 1e9),
        )  # fmt: skip
    if json_:
        click.echo(as_json(dataclasses.asdict(found)))
        return
    click.echo(align(_reading_table(found.reading)))
    click.echo("\n" + align(_supply_table(found.supply)))
    click.echo("\n" + _shapes_line(found.shapes))
    if found.memory is not None:
        click.echo("\n" + _memory_line(found.memory))


@bench.command(cls=WordsCommand)
@click.option("--model", default="helm_small", show_default=True, help="Preset.")
@click.option(
    "--case", "cases", type=Names(), default="ethanol,40_atoms", show_default=True,
    help="Molecules: some of water, ethanol, 40_atoms (all def2-SVP), 100_atoms (def2-TZVPD).",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(min=1),
    help="Molecules per batch.  [default: 50 of water, 5 of ethanol, else 1]",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="Where the model runs.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64", "tf32"]), default="float32",
    show_default=True, help="Of parameters and products, whatever the recipe has.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of a CPU."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=10, show_default=True,
    help="Steps that are timed, in turns with the yardstick.",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
@click.argument("settings", nargs=-1, metavar="[model.hyperparameters.KEY=VALUE]...")
def model(
    model: str, cases: list[str], batch_size: int | None, device: str, precision: Precision,
    threads: int, repeats: int, json_: bool, settings: tuple[str, ...],
) -> None:  # fmt: skip
    """A training step with the optimiser of its recipe, on random molecules.

    The yardstick is all its products of matrices, forward and backward, run alone on random
    matrices of the same shapes in turns with it. Medians and quartiles. Calls are those of
    operators, and of kernels on a GPU; memory is the most that tensors take during a step, beyond
    parameters, optimiser and batch, which stay.

    \b
    Examples:
      hambench bench model model=qhnet
      hambench bench model model=phisnet case=water batch_size=10 repeats=3
      hambench bench model model=qhnet model.hyperparameters.channels=64
      hambench bench model model=helm case=ethanol,40_atoms device=cuda precision=tf32 --json
    """
    from hambench.bench.model import measure

    found = measure(
        model, cases, batch_size=batch_size, device=device, precision=precision,
        threads=threads, repeats=repeats, settings=_hyperparameters(settings),
    )  # fmt: skip
    if json_:
        click.echo(as_json([dataclasses.asdict(one) for one in found]))
        return
    click.echo(align(_step_table(found)))
    click.echo("\n" + align(_cost_table(found)))


_SECTION = "model.hyperparameters."


def _hyperparameters(words: Sequence[str]) -> dict[str, Any]:
    """By name, of words as ``hambench run`` takes them."""
    from hambench.compose import parse_override

    found = {}
    for word in words:
        override = parse_override(word)
        name = override.key_or_group.removeprefix(_SECTION)
        if name == override.key_or_group or override.is_sweep_override():
            raise ConfigError(f"'{word}' is no option here, expected {_SECTION}KEY=VALUE")
        found[name] = override.value()
    return found


def _step_table(rows: list[StepBench]) -> Sequence[tuple[str, ...]]:
    parts = ("forward", "backward", "update", "step", "contractions")
    head = ("molecules", *(f"{part}/ms" for part in parts), "step/contractions", "molecules/s")
    return [head] + [
        (
            f"{r.molecules} x {r.case}", *(_milliseconds(getattr(r, part)) for part in parts),
            f"{r.ratio:.2g}", f"{r.rate:.3g}",
        )
        for r in rows
    ]  # fmt: skip


def _cost_table(rows: list[StepBench]) -> Sequence[tuple[str, ...]]:
    head = (
        "molecules", "on", "parameters", "products", "GFLOP", "calls", "kernels", "peak/MB",
    )  # fmt: skip
    return [head] + [
        (
            f"{r.molecules} x {r.case}", f"{r.device}, {r.precision}", f"{r.parameters:,}",
            f"{r.products:,}", f"{r.flops / 1e9:.3g}", f"{r.calls:,}",
            "-" if r.launches is None else f"{r.launches:,}", f"{r.peak / 1e6:.3g}",
        )
        for r in rows
    ]  # fmt: skip


def _milliseconds(t: Timing) -> str:
    return f"{1e3 * t.median:.3g} [{1e3 * t.low:.3g}, {1e3 * t.high:.3g}]"


def _reading_table(rows: list[Reading]) -> Sequence[tuple[str, ...]]:
    head = ("molecule", "format", "made of a row", "MB", "plain read/ms", "time/ms", "ratio")
    return [head] + [
        (
            r.case, r.format, r.what, f"{r.bytes / 1e6:.3g}", f"{1e3 * r.raw.median:.3g}",
            _milliseconds(r.time),
            f"{r.ratio:.2g}",
        )
        for r in rows
    ]  # fmt: skip


def _supply_table(rows: list[Supply]) -> Sequence[tuple[str, ...]]:
    head = ("molecule", "built by", "built/s", "used by", "used/s", "built/used")
    return [head] + [
        (
            s.case, s.by, f"{s.built:.3g}", f"{s.model} on {s.device}", f"{s.used:.3g}",
            f"{s.built / s.used:.2g}",
        )
        for s in rows
    ]  # fmt: skip


def _shapes_line(s: Shapes) -> str:
    return (
        f"{s.molecules} molecules of {s.smallest} to {s.largest} atoms, {s.batches} batches of at "
        f"most {s.max_edges} edges: {s.shapes} shapes, padded {s.padded} with "
        f"{100 * (s.edges - 1):.1f} % more edges and {100 * (s.atoms - 1):.0f} % more atoms"
    )


def _memory_line(m: Memory) -> str:
    return (
        f"{m.molecules} molecules of a file of {m.file_bytes / 1e9:.3g} GB in {m.batches} batches: "
        f"peak {m.peak / 1e9:.2f} GB resident, {m.before / 1e9:.2f} GB of it before the first"
    )


for _other in (products, inference):
    bench.add_command(_other)
