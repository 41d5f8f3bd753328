"""``hambench bench model``, ``scaling``, ``harness``: what training steps of a model cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hambench.cli.bench_report import reported, tell
from hambench.cli.group import WordsCommand
from hambench.cli.names import Finite, Names, Numbers
from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.bench.scaling import Axis, Basis, Part
    from hambench.bench.subject import Setting
    from hambench.learn.recipe import Precision

F = TypeVar("F", bound=Callable[..., Any])

_CASES = "some of water, ethanol, 40_atoms (all def2-SVP), 100_atoms (def2-TZVPD)"
_WORDS = "[model.hyperparameters.KEY=VALUE]..."
_COMMON = (
    click.option("--model", default="helm_small", show_default=True, help="Preset."),
    click.option("--device", default="auto", show_default=True, help="Where the model runs."),
    click.option(
        "--precision", type=click.Choice(["float32", "float64", "tf32"]), default="float32",
        show_default=True, help="Of parameters and products, whatever the recipe has.",
    ),
    click.option(
        "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of a CPU."
    ),
)  # fmt: skip

_cuda_graph = click.option(
    "--cuda-graph", type=bool, default=False, show_default=True,
    help="Capture the whole step, as a run with cuda_graph=true does.",
)  # fmt: skip


def _measured(command: F) -> F:
    """With the options of every command here."""
    for option in (reported, *reversed(_COMMON)):
        command = option(command)
    return command


@click.command(cls=WordsCommand)
@_measured
@click.option(
    "--case",
    "cases",
    type=Names(),
    help=f"Random molecules: {_CASES}.  [default: ethanol,40_atoms]",
)
@click.option("--task", help="Instead of them: a task, the first batch of its training split.")
@click.option(
    "--batch-size", type=click.IntRange(min=1),
    help="Molecules per batch.  "
    "[default: the recipe's of a task; 50 of water, 5 of ethanol, else 1]",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(min=1), default=10, show_default=True,
    help="Steps that are timed, in turns with the yardstick.",
)  # fmt: skip
@_cuda_graph
@click.argument("words", nargs=-1, metavar=_WORDS)
def model(
    model: str, cases: list[str] | None, task: str | None, batch_size: int | None, device: str,
    precision: Precision, threads: int, repeats: int, cuda_graph: bool, json_: bool,
    out: Path | None, words: tuple[str, ...],
) -> None:  # fmt: skip
    """A training step with the optimiser of its recipe, on random molecules or those of a task.

    The yardstick is all its matrix products, forward and backward, run alone on random
    matrices of the same shapes in turns with it. Update is clipping, optimisers and averaged
    weights. Data is building the batch and bringing it to the device, which a training does beside
    the steps; kept, where graphs are there from an earlier epoch. Medians and quartiles.

    Bytes moved are those of all tensors that operators read and write, as if nothing stayed in a
    cache. Calls are those of operators, and of kernels on a GPU; waits are those of the host for a
    GPU, on a CPU those that there would be. Peak memory is the most that tensors take during a
    step, beyond parameters, optimiser and batch, which stay.

    With a task, other words of `hambench run` can follow: data=PATH, strategy=direct,
    recipe.KEY=VALUE.

    \b
    Examples:
      hambench bench model model=qhnet
      hambench bench model model=phisnet case=water batch_size=10 repeats=3
      hambench bench model model=qhnet model.hyperparameters.channels=64
      hambench bench model model=helm_small task=organic_mini_energy strategy=direct
      hambench bench model model=helm case=water,ethanol batch_size=5 device=cuda cuda_graph=true
    """
    from hambench.bench.model import measure

    if task is not None and cases is not None:
        raise ConfigError(
            f"task={task} and case={','.join(cases)} exclude each other; give one of the two"
        )
    if task is None and cases is None:
        cases = ["ethanol", "40_atoms"]
    tell(
        "model", json_, out,
        lambda: measure(
            model, cases=cases or (), task=task, batch_size=batch_size,
            setting=_setting(device, precision, threads), repeats=repeats, words=words,
            cuda_graph=cuda_graph,
        ),
    )  # fmt: skip


@click.command(cls=WordsCommand)
@_measured
@click.option(
    "--axis", type=click.Choice(["atoms", "basis", "batch"]), default="atoms", show_default=True,
    help="What grows: the molecule, also with either basis, or the number of molecules of 9 atoms.",
)  # fmt: skip
@click.option(
    "--part", type=click.Choice(["step", "predict"]), default="step", show_default=True,
    help="A training step, or forward pass and matrices.",
)  # fmt: skip
@click.option(
    "--basis", type=click.Choice(["def2-svp", "def2-tzvpd"]),
    help="Orbitals, of axis=atoms and axis=batch.  [default: def2-svp]",
)  # fmt: skip
@click.option(
    "--sizes", type=Numbers(),
    help="Atoms, or molecules per batch.  [default: atoms from 3 to 150, molecules from 1 to 50]",
)  # fmt: skip
@click.option(
    "--memory", type=Finite(min=0, min_open=True),
    help="GB that tensors may take; what needs more is left out.  [default: what is free]",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True,
    help="How often each size is timed, in turns with the others.",
)  # fmt: skip
@click.argument("words", nargs=-1, metavar=_WORDS)
def scaling(
    model: str, axis: Axis, part: Part, basis: Basis | None, sizes: list[int] | None,
    memory: float | None, device: str, precision: Precision, threads: int, repeats: int,
    json_: bool, out: Path | None, words: tuple[str, ...],
) -> None:  # fmt: skip
    """How time and memory grow with the edges, on random organic molecules.

    Exponents are slopes of the logarithms over the larger half of the sizes: 1 is linear.

    \b
    Examples:
      hambench bench scaling model=helm axis=atoms sizes=3,9,20,40
      hambench bench scaling model=helm axis=atoms basis=def2-tzvpd part=predict device=cuda
      hambench bench scaling model=qhnet axis=basis memory=8
      hambench bench scaling model=helm axis=batch --out scaling
    """
    from hambench.bench.scaling import measure

    tell(
        "scaling", json_, out,
        lambda: measure(
            model, axis, part=part, basis=basis, sizes=sizes or (), memory=memory,
            setting=_setting(device, precision, threads), repeats=repeats, words=words,
        ),
    )  # fmt: skip


@click.command(cls=WordsCommand)
@_measured
@click.option(
    "--case", "cases", type=Names(), default="water", show_default=True,
    help=f"Random molecules: {_CASES}.",
)  # fmt: skip
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=5, show_default=True,
    help="Molecules per batch.",
)  # fmt: skip
@click.option(
    "--blocks", type=click.IntRange(min=1), default=10, show_default=True,
    help="Of steps of each loop, in turns.",
)  # fmt: skip
@click.option(
    "--steps", type=click.IntRange(min=1), default=20, show_default=True,
    help="That are timed of each block.",
)  # fmt: skip
@_cuda_graph
@click.argument("words", nargs=-1, metavar=_WORDS)
def harness(
    model: str, cases: list[str], batch_size: int, blocks: int, steps: int, device: str,
    precision: Precision, threads: int, cuda_graph: bool, json_: bool, out: Path | None,
    words: tuple[str, ...],
) -> None:  # fmt: skip
    """What the training loop adds to a step, on random molecules in memory, without validations.

    Blocks of its steps are timed in turns with blocks of the same steps in a bare loop: forward,
    loss, backward, clipping, optimisers, averaged weights, on batches that are on the device
    already. The losses of both are compared.

    \b
    Examples:
      hambench bench harness model=helm_small
      hambench bench harness model=helm case=water,ethanol device=cuda cuda_graph=true steps=100
    """
    from hambench.bench.harness import measure

    tell(
        "harness", json_, out,
        lambda: measure(
            model, cases, batch_size=batch_size, setting=_setting(device, precision, threads),
            blocks=blocks, steps=steps, cuda_graph=cuda_graph, words=words,
        ),
    )  # fmt: skip


def _setting(device: str, precision: Precision, threads: int) -> Setting:
    from hambench.bench.subject import Setting

    return Setting(device, precision, threads)
