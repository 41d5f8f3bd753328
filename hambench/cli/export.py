"""``hambench export``: a trained model in one folder, for others."""

from __future__ import annotations

from pathlib import Path

import click

from hambench.cli.group import WordsCommand
from hambench.cli.table import align


@click.command(cls=WordsCommand)
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The folder.  [default: TASK-MODEL-seedSEED-ID in the current one]",
)
@click.option(
    "--license", metavar="SPDX", help="Of the weights, e.g. CC-BY-4.0.  [default: none is stated]"
)
def export(run_dir: Path, out: Path | None, license: str | None) -> None:
    """Pack the model of a finished run into one folder that others can load.

    It holds the best weights, configuration, result, orbital basis, a model card, and a manifest
    with checksums, which are verified when the model is loaded. Paths, device and command line of
    this machine are left out. An export of the same run is replaced; a folder with anything else is
    refused.

    \b
    Examples:
      hambench export runs/water_mini/helm_small/seed0-1a2b3c4d
      hambench export RUN_DIR --out water-helm --license CC-BY-4.0
      hambench predict water-helm water.xyz
    """
    from hambench.export import export as pack

    folder = pack(run_dir, out, license)
    sizes = [(path.name, f"{path.stat().st_size:,} bytes") for path in sorted(folder.iterdir())]
    click.echo(align([("file", "size"), *sizes]))
    if license is None:
        click.echo("no licence of the weights is stated; --license says one")
    click.echo(f"\nexported: {folder}")
