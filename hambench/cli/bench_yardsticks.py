"""``hambench bench products`` and ``inference``: against what others offer for the same purpose."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import click

from hambench.cli.group import WordsCommand
from hambench.cli.names import Names, Numbers
from hambench.cli.table import align, as_json

if TYPE_CHECKING:
    from hambench.bench.inference import InferenceBench
    from hambench.bench.powerlaw import Estimate
    from hambench.bench.products import ProductBench
    from hambench.bench.timing import Timing

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
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def products(
    kinds: list[str], rows: list[int], channels: int, lmax: int, device: str,
    precision: Precision, threads: int, repeats: int, json_: bool,
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

    found = measure(
        kinds, rows, channels=channels, lmax=lmax, device=device, precision=precision,
        threads=threads, repeats=repeats,
    )  # fmt: skip
    if json_:
        click.echo(as_json([dataclasses.asdict(one) for one in found]))
        return
    click.echo(align(_products_table(found)))


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
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def inference(
    model: str, atoms: list[int], theory: str, fit: str | None, grid: int | None,
    beyond: int | None, device: str, precision: Precision, threads: int, repeats: int, json_: bool,
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
    found = measure(
        model, atoms, level, beyond=beyond, device=device, precision=precision,
        threads=threads, repeats=repeats,
    )  # fmt: skip
    if json_:
        click.echo(as_json(dataclasses.asdict(found)))
        return
    click.echo(_inference_lines(found))


def _products_table(rows: list[ProductBench]) -> Sequence[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        (
            "product", "by", "forward/ms", "both/ms", "ratio", "calls", "kernels", "peak/MB",
            "difference", "remark",
        )
    ]  # fmt: skip
    for r in rows:
        difference = "-" if r.difference is None else f"{r.difference:.1e}"
        costs: tuple[str, ...] = ("-",) * 6
        if (cost := r.cost) is not None:
            costs = (
                _scaled(cost.forward, 1e3), _scaled(cost.both, 1e3), f"{cost.ratio:.3g}",
                f"{cost.calls:,}", "-" if cost.launches is None else f"{cost.launches:,}",
                f"{cost.peak / 1e6:.3g}",
            )  # fmt: skip
        what = f"{r.kind}, {r.rows} x {r.channels}, l <= {r.lmax}"
        table.append((what, r.by, *costs, difference, r.remark))
    return table


def _inference_lines(found: InferenceBench) -> str:
    table: list[tuple[str, ...]] = [
        ("atoms", "orbitals", "pairs", "predicting/s", "SCF cycle/s", "cycle/predicting")
    ]
    for s in found.sizes:
        table.append(
            (
                f"{s.atoms}", f"{s.orbitals:,}", f"{s.edges:,}", _scaled(s.predicting),
                _scaled(s.cycle), f"{s.ratio:.3g}",
            )
        )  # fmt: skip
    if (b := found.beyond) is not None:
        table.append(
            (
                f"{b.atoms}, extrapolated", "-", "-", _estimated(b.predicting),
                _estimated(b.cycle), f"{b.cycle.value / b.predicting.value:.3g}",
            )
        )  # fmt: skip
    theory = found.theory
    lines = [
        align(table),
        "",
        f"{found.model} on {found.device} in {found.precision}, {found.threads} thread(s) of the "
        f"CPU; {theory['xc']}/{theory['basis']}, grid level {theory['grid_level']}, "
        + (f"density fitting ({theory['fit']})" if theory["fit"] else "exact integrals"),
    ]
    if b is not None:
        laws = ", ".join(
            f"{what} as atoms^{e.exponent:.2f} +- {e.exponent_error:.2f}"
            for what, e in (("predicting", b.predicting), ("the cycle", b.cycle))
        )
        lines.append(f"extrapolated by power laws, 95 % prediction intervals: {laws}")
    return "\n".join(lines)


def _estimated(e: Estimate) -> str:
    return f"{e.value:.3g} [{e.low:.3g}, {e.high:.3g}]"


def _scaled(t: Timing, factor: float = 1.0) -> str:
    return f"{factor * t.median:.3g} [{factor * t.low:.3g}, {factor * t.high:.3g}]"
