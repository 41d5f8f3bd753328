"""``hambench compare``: models against each other on the same molecules."""

from __future__ import annotations

from pathlib import Path

import click

from hambench.cli.group import WordsCommand
from hambench.cli.names import Names
from hambench.cli.table import as_json


@click.command(cls=WordsCommand)
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option(
    "--metric", type=Names(), help="Names, separated by commas.  [default: the primary of the task]"
)
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
def compare(runs: tuple[Path, ...], metric: list[str] | None, json_: bool) -> None:
    """Compare models on the same molecules: differences, intervals, tests, ties.

    RUN is a run directory or a folder above some; runs that differ only in the seed are one model.
    Intervals are over molecules and seeds; p-values of paired permutation tests are corrected for
    the number of pairs (Holm). Models that share a letter under "ties" do not differ at 5 %; a rank
    is 1 + the number of models that are significantly better.

    \b
    Examples:
      hambench compare runs/water_mini
      hambench compare runs/water_mini/helm_small runs/water_mini/qhnet_small
      hambench compare runs/water_mini --metric h_mae,h_rmse --json
    """
    from hambench.leaderboard import pairwise
    from hambench.leaderboard.text import plain

    found = pairwise.compare(runs, metric)
    if json_:
        click.echo(as_json(pairwise.records(found)))
        return
    click.echo(plain(pairwise.tables(found.contests), found.left_out))
    for remark in pairwise.remarks(found):
        click.echo(f"\nnote: {remark}")
