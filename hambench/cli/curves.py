"""``hambench curves``: learning curves, and what pretraining gains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hambench.leaderboard.curves import ErrorMetric


@click.command()
@click.argument(
    "folders", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path)
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write tables, curves.json and pictures here."
)
@click.option(
    "--metric", type=click.Choice(("energy_mae", "energy_mae_per_atom")), default="energy_mae",
    show_default=True, help="Of the tables shown and the pictures; the files hold both.",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
def curves(folders: tuple[Path, ...], out: Path | None, metric: ErrorMetric, json_: bool) -> None:
    """Learning curves of energy runs, and what pretraining on Hamiltonians gains.

    Errors against the number of labelled molecules, a line for each model and strategy; ratios of
    the errors of direct training and of the pretrained models; how many times more labelled
    molecules direct training needs; all with intervals over test molecules and seeds.

    \b
    Examples:
      hambench curves runs
      hambench curves runs --out curves
      hambench curves runs --metric energy_mae_per_atom --json
    """
    from hambench.leaderboard.curve_report import analyse_all, as_json, tables, write_curves
    from hambench.leaderboard.curves import collect_curves
    from hambench.leaderboard.text import plain

    found = collect_curves(folders)
    analyses = analyse_all(found)
    if json_:
        click.echo(as_json(analyses, found.left_out), nl=False)
    else:
        click.echo(plain(tables(analyses[metric]), found.left_out))
    for path in write_curves(found, analyses, metric, out) if out is not None else []:
        click.echo(f"written: {path}", err=json_)
