"""``hambench data generate``: the labels of a task, from PySCF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.complete import complete_task
from hambench.cli.group import WordsCommand

if TYPE_CHECKING:
    from hambench.data.generate import Generated

_SHOWN = 10  # rows that were left out


@click.command(cls=WordsCommand)
@click.argument("task", shell_complete=complete_task)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    help="Label these geometries: .xyz, .extxyz, or a list of SMILES: .smi, .smiles, .csv.  "
    "[default: the task's own]",
)
@click.option("-n", "--n", type=click.IntRange(min=1), help="Only the first N geometries.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes.  [default: one per processor core]"
)
@click.option("--part", metavar="K/M", help="Only the K-th of M shares of the rows.")
@click.option(
    "--conformers", type=click.IntRange(min=1), help="Of every SMILES of --from.  [default: 1]"
)
@click.option("--seed", type=click.IntRange(min=0), help="Of the conformers.  [default: 0]")
@click.option("--to", type=click.Path(path_type=Path), help="File to write.  [default: the task's]")
def generate(
    task: str,
    source: Path | None,
    n: int | None,
    workers: int | None,
    part: str | None,
    conformers: int | None,
    seed: int | None,
    to: Path | None,
) -> None:
    """Compute the labels of a task with PySCF; start again to go on after a stop.

    The result does not depend on the number of workers or on interruptions. Options may be given
    as KEY=VALUE too. A file of the first N rows serves for trying out, and is added to later. Jobs
    are the rows, and two kinds of noise measured on up to three of them for the file's provenance.

    The labels take the place of published files that are not here; results say source=generated
    and are never ranked with those on published files.

    With part= several jobs share the rows. They write into one folder, FILE.parts, which may be
    copied together from several machines; the last one to finish makes the file, or, at any time,
    the same command without part=. Rows that do not converge, or not to the ground state, are left
    out and named.

    \b
    Examples:
      hambench data generate water_mini --to water.h5
      hambench data generate organic_mini n=20 workers=2
      hambench data generate organic_mini from=mine.xyz to=mine.h5
      hambench data generate organic_mini from=list.smi conformers=4 seed=1 --to list.h5
      sbatch --array=1-8 --wrap 'hambench data generate TASK workers=1 part=$SLURM_ARRAY_TASK_ID/8'
    """
    from hambench.data import geometries
    from hambench.data.generate import Part
    from hambench.data.generate import generate as make
    from hambench.data.workers import cores
    from hambench.errors import ConfigError
    from hambench.registry import load_task

    found = load_task(task)
    if source is not None and to is None and found.spec.source == "generated":
        raise ConfigError(
            f"task '{task}' has geometries of its own; write labels of others elsewhere: to=FILE.h5"
        )
    share = None if part is None else Part.parse(part)
    if source is not None:
        given = geometries.from_file(source, n=n, conformers=conformers, seed=seed)
    elif conformers is not None or seed is not None:
        raise ConfigError("conformers and seed are for a list of SMILES; name it with from=FILE")
    else:
        given = None
    made = make(found, geometries=given, n=n, workers=workers or cores(), part=share, to=to)
    _report(task, made)


def _report(task: str, made: Generated) -> None:
    """What there is, what was left out, and how to go on."""
    for row, reason in list(made.left_out.items())[:_SHOWN]:
        click.echo(f"left out {row}: {reason}", err=True)
    if len(made.left_out) > _SHOWN:
        more = len(made.left_out) - _SHOWN
        click.echo(f"left out {more} more; the file's provenance names them", err=True)
    if made.complete:
        click.echo(f"data of {task}: {made.path}")
        return
    click.echo(
        f"data of {task}: {made.finished} of {made.total} rows are finished; the last part makes "
        f"{made.path}, or the same command without part= (which computes what lacks)"
    )
