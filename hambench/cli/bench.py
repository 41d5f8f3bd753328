"""``hambench bench``: speed and memory, as ratios to a yardstick of the same run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from hambench.cli.bench_report import reported, tell
from hambench.cli.bench_steps import harness, model, scaling
from hambench.cli.bench_yardsticks import inference, products
from hambench.cli.group import Group, WordsCommand
from hambench.cli.names import Finite


@click.group(cls=Group)
def bench() -> None:
    """Measure speed and memory, as ratios to a yardstick of the same run.

    \b
    Examples:
      hambench bench data
      hambench bench model model=qhnet
      hambench bench scaling model=helm axis=atoms
      hambench bench harness model=helm_small
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
    "--seconds", type=Finite(min=0), default=5.0, show_default=True,
    help="For the speed of each loader and of the model.",
)  # fmt: skip
@click.option(
    "--gigabytes", type=Finite(min=0), default=20.0, show_default=True,
    help="Size of the sparse file whose reader's memory is measured; 0: none.",
)  # fmt: skip
@click.option(
    "--folder", type=click.Path(path_type=Path, file_okay=False, exists=True, writable=True),
    help="Where the temporary files go; 0.2 GB.  [default: that of the system]",
)  # fmt: skip
@reported
def data(
    repeats: int, model: str, device: str, batch_size: int, workers: int, seconds: float,
    gigabytes: float, folder: Path | None, json_: bool, out: Path | None,
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
        tell(
            "data", json_, out,
            lambda: [
                measure(
                    Path(made), repeats=repeats, model=model, device=device,
                    batch_size=batch_size, workers=workers, seconds=seconds,
                    size=int(gigabytes * 1e9),
                )
            ],
        )  # fmt: skip


for _command in (model, scaling, harness, products, inference):
    bench.add_command(_command)
