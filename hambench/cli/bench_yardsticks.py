"""``hambench bench products`` and ``inference``: against what others offer for the same purpose."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import click

from hambench.cli.bench_report import reported, tell
from hambench.cli.group import WordsCommand
from hambench.cli.names import Names, Numbers

Precision = Literal["float32", "float64"]


@click.command(cls=WordsCommand)
@click.option(
    "--kind", "kinds", type=Names(), default="features,harmonics", show_default=True,
    help="Products of features with features (all paths, e3nn's uuu), or with the spherical "
    "harmonics of edges (those that keep parity, uvu).",
)  # fmt: skip
@click.option(
    "--rows", type=Numbers(), default="360,1560", show_default=True,
    help="Pairs of atoms: 5 ethanols have 360, 40 atoms 1560.",
)  # fmt: skip
@click.option(
    "--channels", type=click.IntRange(min=1), default=128, show_default=True, help="Of features."
)
@click.option(
    "--lmax", type=click.IntRange(min=0), default=4, show_default=True, help="Largest degree."
)
@click.option("--device", default="auto", show_default=True, help="Where.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64"]), default="float32",
    show_default=True, help="Of all numbers.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True, help="Of a CPU."
)
@click.option(
    "--repeats", type=click.IntRange(min=1), default=10, show_default=True,
    help="Rounds that are timed, all products in turns.",
)  # fmt: skip
@reported
def products(
    kinds: list[str], rows: list[int], channels: int, lmax: int, device: str,
    precision: Precision, threads: int, repeats: int, json_: bool, out: Path | None,
) -> None:  # fmt: skip
    """Tensor products, ours against path by path, e3nn, cuEquivariance and OpenEquivariance.

    Every product, and its gradients by all that models differentiate by, has to be equal to ours
    (1e-5 of the largest number in float32, 1e-10 in float64) before it is timed, with factors
    that lie in memory as its library likes them. Medians and quartiles; "both" is forward and
    backward, and ratios are of it.

    \b
    Examples:
      hambench bench products
      hambench bench products kind=harmonics rows=1560 channels=64 lmax=6
      hambench bench products device=cuda --json
    """
    from hambench.bench.products import measure

    tell(
        "products", json_, out,
        lambda: measure(
            kinds, rows, channels=channels, lmax=lmax, device=device, precision=precision,
            threads=threads, repeats=repeats,
        ),
    )  # fmt: skip


@click.command(cls=WordsCommand)
@click.option("--model", default="helm", show_default=True, help="Preset, of whole Hamiltonians.")
@click.option(
    "--atoms", type=Numbers(), default="10,17,24,31,38", show_default=True,
    help="Of the molecules: 7 for each glycine, and 3.",
)  # fmt: skip
@click.option(
    "--theory",
    default="wb97m-v/def2-tzvpd",
    show_default=True,
    help="Of the SCF, and basis of both.",
)
@click.option(
    "--fit", help="Auxiliary basis of density fitting, or none.  [default: as the theory has it]"
)
@click.option(
    "--grid", type=click.IntRange(min=0, max=9),
    help="PySCF's level of the integration grid.  [default: as the theory has it]",
)  # fmt: skip
@click.option(
    "--beyond", type=click.IntRange(min=1),
    help="Extrapolate to so many atoms, by a power law of those measured.",
)  # fmt: skip
@click.option("--device", default="auto", show_default=True, help="Where the model runs.")
@click.option(
    "--precision", type=click.Choice(["float32", "float64"]), default="float32",
    show_default=True, help="Of the model.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(1, 1024), default=1, show_default=True,
    help="Of the CPU, for both.",
)  # fmt: skip
@click.option(
    "--repeats", type=click.IntRange(min=1), default=3, show_default=True,
    help="How often both are timed, in turns.",
)  # fmt: skip
@reported
def inference(
    model: str, atoms: list[int], theory: str, fit: str | None, grid: int | None,
    beyond: int | None, device: str, precision: Precision, threads: int, repeats: int, json_: bool,
    out: Path | None,
) -> None:  # fmt: skip
    """Predicting a Hamiltonian against one cycle of PySCF's SCF, for helices of glycine.

    From the geometry to the matrix on the host, one molecule at a time, in turns with the first
    cycle from the minao guess: a diagonalisation and a Fock build. What an SCF does once (grid,
    fitted integrals, guess) is not counted. Medians and quartiles.

    \b
    Examples:
      hambench bench inference
      hambench bench inference fit=def2-universal-jkfit grid=3 beyond=150
      hambench bench inference model=qhnet theory=pbe/def2-svp atoms=10,38 device=cuda threads=16
    """
    from hambench.bench.inference import measure
    from hambench.chem.theory import named

    level = named(theory)
    if fit is not None:
        level = dataclasses.replace(level, fit=None if fit == "none" else fit)
    if grid is not None:
        level = dataclasses.replace(level, grid_level=grid)
    tell(
        "inference", json_, out,
        lambda: [
            measure(
                model, atoms, level, beyond=beyond, device=device, precision=precision,
                threads=threads, repeats=repeats,
            )
        ],
    )  # fmt: skip
