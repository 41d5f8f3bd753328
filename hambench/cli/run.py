"""``hambench run`` and ``hambench evaluate``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.complete import complete_override
from hambench.cli.group import WordsCommand
from hambench.cli.names import Names
from hambench.cli.table import align, as_json, of_scores

if TYPE_CHECKING:
    from hambench.experiment import Outcome
    from hambench.results import Inference
    from hambench.scoring.breakdown import By, Part


@click.command(options_metavar="[--cfg]")
@click.argument("overrides", nargs=-1, metavar="KEY=VALUE...", shell_complete=complete_override)
@click.option("--cfg", is_flag=True, help="Print the composed configuration and do nothing.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Run this configuration, as --cfg printed it, in place of KEY=VALUE...",
)
def run(overrides: tuple[str, ...], cfg: bool, file: Path | None) -> int:
    """Train a model on a task and score it: one cell of the benchmark.

    The configuration is composed by Hydra and changed by its overrides; task and model must be
    given. Results go to runs/TASK/MODEL/seedSEED-ID (or run_dir=...). The same command goes on
    where an earlier start stopped; a finished run is not computed again.

    \b
    Examples:
      hambench run task=water_mini model=helm_small
      hambench run task=water_mini model=helm_small seed=1 max_minutes=5
      hambench run task=water_mini model=helm recipe.batch_size=4 device=cuda
      hambench run task=water_mini model=helm max_steps=1000 precision=float64
      hambench run task=water_mini model=helm --cfg
      hambench run --config cell.yaml
    """
    from hambench.compose import compose
    from hambench.config import read_config

    if file is not None and overrides:
        raise click.UsageError("--config is the whole configuration; leave out KEY=VALUE.")
    config = compose(overrides) if file is None else read_config(file)
    if cfg:
        click.echo(f"# run directory: {config.folder}\n{config.to_yaml()}", nl=False)
        return 0
    from hambench.launch import ranks

    if ranks.are_to_start(config):
        words = list(overrides) if file is None else ["--config", str(file)]
        return ranks.run(config, words)
    from hambench import experiment
    from hambench.learn.processes import is_first

    outcome = experiment.run(config)
    if is_first():
        _show(outcome)
    return 0


@click.command(cls=WordsCommand)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--metrics", type=Names(), help="Names, separated by commas.  [default: those of the run]"
)
@click.option("--split", help="Split to score.  [default: that of the run]")
@click.option("--cutoff", type=float, help="Angstrom, for h_mae_in_cutoff.  [default: the model's]")
@click.option("--energy-n", type=int, help="Molecules for energies, dipoles.  [default: the run's]")
@click.option("--scf-n", type=int, help="Molecules for metrics of SCFs.  [default: the run's]")
@click.option("--device", default="auto", show_default=True, help="Where the model predicts.")
@click.option(
    "--breakdown",
    type=click.Choice(("distance", "pairs")),
    help="Instead, mean |dH| by distance of two atoms, or by pair of elements.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def evaluate(
    run_dir: Path,
    metrics: list[str] | None,
    split: str | None,
    cutoff: float | None,
    energy_n: int | None,
    scf_n: int | None,
    device: str,
    breakdown: By | None,
    json_: bool,
) -> None:
    """Show the metrics of a run, or compute others, without training anything again.

    A metric that is in the run's scores.h5 with the same settings is not computed again. Others
    are, from the predictions the run kept or else its best checkpoint, and scores.h5 gets their
    columns, whole or not at all; result.json stays as it is. --breakdown leaves breakdown.json,
    which pictures of leaderboards show. Of another split nothing is written.

    \b
    Examples:
      hambench evaluate runs/water_mini/helm_small/seed0-1a2b3c4d
      hambench evaluate RUN_DIR --metrics h_mae,eps_occ,p_occ
      hambench evaluate RUN_DIR --metrics h_mae,h_max --split validation
      hambench evaluate RUN_DIR --metrics scf_iter_ratio,dipole_mae --scf-n 10
      hambench evaluate RUN_DIR --breakdown distance
    """
    from hambench import evaluation

    if breakdown is not None:
        if metrics is not None or cutoff is not None:
            raise click.UsageError(
                "--breakdown is of |dH| over all pairs; leave out --metrics and --cutoff."
            )
        parts = evaluation.breakdown(run_dir, breakdown, split=split, device=device)
        click.echo(as_json(list(map(_plain, parts))) if json_ else _breakdown(parts))
        return
    scores = evaluation.evaluate(
        run_dir, metrics=metrics, split=split, cutoff=cutoff, energy_n=energy_n, scf_n=scf_n,
        device=device,
    )  # fmt: skip
    if json_:
        click.echo(as_json({name: score._asdict() for name, score in scores.items()}))
    else:
        click.echo(of_scores(scores))


def _show(outcome: Outcome) -> None:
    """The last screen of a run."""
    from hambench.scoring import Score, format_score

    result, cost = outcome.result, outcome.result.cost
    if not outcome.fresh:
        click.echo(f"this run is finished already ({outcome.folder}); overwrite=true starts anew")
    scores = {name: Score(**metric.model_dump()) for name, metric in result.metrics.items()}
    click.echo(f"\n{result.preset} on {result.task} v{result.task_version}, {result.split} split")
    click.echo(of_scores(scores))
    if result.pretraining is not None:
        before = result.pretraining
        value = Score(before.value, "Eh", None, 1)
        click.echo(
            f"\n{result.strategy}, after {before.steps} steps on {before.task} in "
            f"{before.wall_s:.0f} s ({before.metric} {format_score(value, before.metric)})"
        )
    if metric := result.training_metrics.get(name := result.primary):
        on = Score(**metric.model_dump())
        click.echo(
            f"on its own {result.training_rows} training rows of {result.training_molecules} "
            f"molecules: {name} {format_score(on, name)}"
        )
    speed = f", {cost.molecules_per_s:.3g} molecules/s" if cost.molecules_per_s else ""
    click.echo(
        f"\n{result.parameters:,} parameters, {cost.steps} steps in {cost.wall_s:.0f} s{speed} on "
        f"{cost.device} (stopped by {cost.stopped_by})"
    )
    if cost.inference is not None:
        click.echo(_inference(cost.inference))
    click.echo(f"result: {outcome.folder / 'result.json'}")


def _inference(cost: Inference) -> str:
    """What predicting takes, in one line."""
    batch = f"{cost.max_edges} edges" if cost.batch_size is None else f"{cost.batch_size} molecules"
    guess = "" if cost.guess_s is None else f", {cost.guess_s:.2g} s for an initial guess"
    return (
        f"predicts {cost.molecules_per_s:.3g} molecules/s in batches of {batch} (the model alone "
        f"{cost.model_molecules_per_s:.3g}{guess}), {cost.flops / 1e6:.3g} MFLOP per molecule, "
        f"{cost.peak_memory / 2**20:.3g} MiB"
    )


def _plain(part: Part) -> dict[str, object]:
    """A part of a breakdown as JSON has it."""
    return {
        "part": part.name, **part.score._asdict(), "elements": part.elements, "error": part.error
    }  # fmt: skip


def _breakdown(parts: Sequence[Part]) -> str:
    """Parts in reporting units, with their shares of the matrix elements and of the error."""
    from hambench.scoring import format_score

    rows = [("part", "mean |dH| [95 % interval]", "elements", "error", "n")]
    rows += [
        (p.name, format_score(p.score), f"{p.elements:.1%}", f"{p.error:.1%}", str(p.score.n))
        for p in parts
    ]
    return align(rows)
