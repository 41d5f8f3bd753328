"""How every command of ``hambench bench`` tells what it measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from hambench.cli.table import align, as_json

F = TypeVar("F", bound=Callable[..., Any])

_json = click.option("--json", "json_", is_flag=True, help="Print JSON instead of tables.")
_out = click.option(
    "--out", type=click.Path(path_type=Path, file_okay=False),
    help="Folder for bench.json, bench.md, bench.png and bench.svg.",
)  # fmt: skip


def reported(command: F) -> F:
    """With the options ``--json`` and ``--out``."""
    return _json(_out(command))


def tell(kind: str, json_: bool, out: Path | None, measure: Callable[[], Sequence[Any]]) -> None:
    """Measure, print what came out, and keep it where that is asked for."""
    from hambench.bench.figure import check_library
    from hambench.bench.report import Report
    from hambench.files import explained
    from hambench.results import now

    if out is not None:
        check_library()
        try:  # now, not when everything has been measured
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise explained(error, out / "bench.json") from error
    started = now()
    try:
        report = Report(kind, started, measure())
    except KeyboardInterrupt:
        raise KeyboardInterrupt("of a measurement that is not done nothing is kept") from None
    if out is not None:
        report.write(out)
    if json_:
        click.echo(as_json(report.document()))
        return
    click.echo("\n\n".join([*map(align, report.tables), *report.notes]))
