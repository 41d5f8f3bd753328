"""``hambench leaderboard``: from results to ranked tables, pictures and a web site."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hambench.leaderboard import About

_FORMATS = ("md", "html", "tex", "csv", "json", "png", "svg")


def _formats(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",")]
    for name in names:
        if name not in _FORMATS:
            raise click.BadParameter(f"'{name}' is none of {', '.join(_FORMATS)}.")
    return names


@click.command()
@click.argument(
    "folders", nargs=-1, required=True, metavar="DIR...", type=click.Path(path_type=Path)
)
@click.option("--out", type=click.Path(path_type=Path), help="Write files here, too.")
@click.option(
    "--format", "formats", metavar="NAME,...", callback=_formats,
    help=f"What to write, of {','.join(_FORMATS)}.  [default: md,html]",
)  # fmt: skip
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
def leaderboard(
    folders: tuple[Path, ...], out: Path | None, formats: list[str] | None, json_: bool
) -> None:
    """Rank all results found below some folders.

    Results on other data, splits or versions of a task are never mixed; what cannot be ranked is
    listed with the reason. html is a web site that works from disk, tex is for \\input in a paper,
    csv holds one row per run and metric, png and svg are pictures.

    \b
    Examples:
      hambench leaderboard runs
      hambench leaderboard runs ../other/runs --out site
      hambench leaderboard runs --out paper --format tex,svg
    """
    from hambench.leaderboard import collect, table, write
    from hambench.leaderboard.records import as_json

    if formats and out is None:
        raise click.UsageError("--format says what to write: add --out DIR.")
    board = collect(folders)
    if json_:
        click.echo(as_json(board), nl=False)
    else:
        click.echo(table(board))
    if out is not None:
        for path in write(board, out, formats, {one.name: one for one in _about(board.tasks)}):
            click.echo(f"written: {path}", err=json_)


def _about(names: Iterable[str]) -> Iterable[About]:
    """What is known here of tasks, whether their data are here or not."""
    from hambench.errors import RegistryError
    from hambench.leaderboard import About
    from hambench.registry import load_task

    for name in names:
        try:
            spec = load_task(name).spec
        except RegistryError:  # of a plug-in that is elsewhere: pages say what results say
            continue
        protocol = spec.protocol.model_dump(mode="json", exclude_none=True)
        facts = {
            "labels": spec.labels,
            "level of theory": ", ".join(f"{k} {v}" for k, v in spec.theory.items()),
            "basis": spec.basis,
            "elements": " ".join(spec.elements),
            "protocol": ", ".join(f"{k} {v}" for k, v in protocol.items()),
            "license": spec.license,
            "citation": spec.citation,
            "references": "; ".join(" ".join(map(str, one.values())) for one in spec.references),
            "notes": spec.notes,
        }
        yield About(
            name=name,
            title=spec.title,
            facts=tuple((heading, text) for heading, text in facts.items() if text),
            splits=tuple((part, split.count) for part, split in spec.splits.items()),
            metrics=tuple(metric.name for metric in spec.metrics),
        )
