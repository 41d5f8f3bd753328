"""``hambench data``: what data there are, making and checking them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hambench.cli.complete import complete_task
from hambench.cli.group import Group, WordsCommand
from hambench.cli.table import align, as_json

if TYPE_CHECKING:
    from hambench.data.manifest import Manifest
    from hambench.data.rows import Rows
    from hambench.data.task import Task


@click.group(cls=Group)
def data() -> None:
    """List, inspect, download and make the data of tasks.

    \b
    Examples:
      hambench data list
      hambench data info water_mini
      hambench data download md17_water
      hambench data generate water_mini --workers 4 --to water.h5
      hambench data verify water.h5
    """


@data.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def list_(json_: bool) -> None:
    """All tasks: where their labels come from, and whether their data are on this machine."""
    from hambench.registry import load_task, task_names

    tasks = [load_task(name) for name in task_names()]
    if json_:
        click.echo(as_json([task.describe() for task in tasks]))
        return
    rows: list[tuple[str, ...]] = [("task", "labels", "basis", "train", "test", "data")]
    for task in tasks:
        about = task.describe()
        here = about["path"] if about["available"] else f"missing; {about['obtain']}"
        sizes = (about["splits"][role] for role in (task.spec.roles[0], task.spec.roles[2]))
        rows.append(
            (task.name, task.source, about["basis"], *("?" if n is None else str(n) for n in sizes),
             here)
        )  # fmt: skip
    click.echo(align(rows))


@data.command()
@click.argument("what", metavar="TASK|FILE", shell_complete=complete_task)
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of text.")
def info(what: str, json_: bool) -> None:
    """All about a task, or about a data file of any supported format.

    \b
    Examples:
      hambench data info water_mini
      hambench data info water.h5
    """
    from hambench.errors import HambenchError
    from hambench.registry import load_task, open_data

    if _is_file(what):
        about = _about_file(what, open_data(what))
    else:
        task = load_task(what)
        about = task.describe()
        if task.available and all(file.get("verified", True) for file in about["here"]):
            try:
                about["fingerprint"] = task.fingerprint
            except HambenchError as error:
                about["unusable"] = str(error)
    if json_:
        click.echo(as_json(about))
        return
    import yaml

    click.echo(yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=100), nl=False)


@data.command(cls=WordsCommand)
@click.argument("what", metavar="TASK|FILE", shell_complete=complete_task)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="File with the data of the task.  [default: where the task looks by itself]",
)
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Rows to check, spread evenly over the file.",
)
@click.option(
    "--fock-rows",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Of these, the smallest, whose Fock matrices are rebuilt.",
)
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def verify(what: str, data: Path | None, rows: int, fock_rows: int, json_: bool) -> None:
    """Check that unit, orbital order, charges and theory of a data file are as stated.

    Overlaps and Fock matrices are compared with PySCF's. If all is well, a manifest is written
    beside the file (or to the cache folder); if not, the first failure is told, with exit code 4.

    \b
    Examples:
      hambench data verify water_mini
      hambench data verify organic_mini data=organic_mini.db rows=100
      hambench data verify omol_csh_58k_train.h5 --fock-rows 5
    """
    from hambench.chem.theory import Theory
    from hambench.data import manifest
    from hambench.data.verify import verify as check
    from hambench.errors import VerificationError

    manifests = []
    task, files = _opened(what, data)
    for path, opened, stated in files:
        theory = Theory.from_dict(stated) if stated else None
        try:
            found = check(opened, theory=theory, count=rows, fock_rows=fock_rows)
            if task is not None:
                task.check_rows(path, opened, found.sample)
        except VerificationError as error:
            raise VerificationError(f"{path}, {error}") from error
        place = manifest.write(path, found)
        manifests.append({"file": str(path), "path": str(place), **found.model_dump(mode="json")})
        if not json_:
            click.echo(_checks(found))
            read = f", {found.unit}, orbitals in {found.order} order" if found.unit else ""
            click.echo(f"{path}: {found.rows} rows{read}; {len(found.sample)} checked, all sound")
            click.echo(f"manifest: {place}")
    if json_:
        click.echo(as_json(manifests))


def _checks(found: Manifest) -> str:
    """Table of what was compared."""
    table: list[tuple[str, ...]] = [("check", "worst", "limit", "rows", "what")]
    for name, one in found.checks.items():
        worst = "-" if one.residual is None else f"{one.residual:.2g}"
        skipped = "".join(f"; {n} rows: {reason}" for reason, n in one.skipped.items())
        limit = f"{one.allowed:g} {one.unit}".strip()
        table.append((name, worst, limit, str(one.rows), one.title + skipped))
    return align(table)


def _opened(
    what: str, data: Path | None
) -> tuple[Task | None, list[tuple[Path, Rows, dict[str, Any]]]]:
    """A task and its files that are here, or one file: path, rows, level of theory (if known)."""
    from hambench.errors import ConfigError
    from hambench.registry import load_task, open_data

    if not _is_file(what):
        task = load_task(what, data)
        return task, [(path, rows, task.theory) for path, rows in task.unverified()]
    if data is not None:
        raise ConfigError(f"{what} is a file itself; leave out data={data}")
    rows = open_data(what)
    return None, [(Path(what), rows, getattr(rows, "theory", {}))]


def _is_file(what: str) -> bool:
    """Whether a word means a file, there or not, and no task."""
    from hambench.registry import task_names

    return what not in task_names() and (Path(what).exists() or bool(Path(what).suffix))


def _about_file(path: str, rows: Rows) -> dict[str, Any]:
    """What can be said of a data file without its task."""
    first = rows[0]
    fields = ("hamiltonian", "overlap", "energy", "forces")
    return {
        "path": path,
        "bytes": Path(path).stat().st_size,
        "molecules": len(rows),
        "first": repr(first),
        "basis": first.basis,
        "labels": [name for name in fields if getattr(first, name) is not None],
    }
