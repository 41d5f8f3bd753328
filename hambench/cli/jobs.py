"""``hambench status``, ``logs``, ``cancel`` and ``retry``: everything about a launched sweep."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.table import align, as_json
from hambench.errors import ConfigError, DataError

if TYPE_CHECKING:
    from hambench.launch.manifest import Manifest
    from hambench.launch.standing import Standing

_REFRESH = 5.0  # seconds
_SHORT = 60  # characters of a reason in the table
_CLEAR = "\x1b[H\x1b[2J"

sweep_argument = click.argument("sweep", metavar="SWEEP_DIR", type=click.Path(path_type=Path))
cells_argument = click.argument("cells", nargs=-1, metavar="[CELL]...")


@click.command()
@sweep_argument
@click.option("--follow", "-f", is_flag=True, help="Show it anew every few seconds, to the end.")
@click.option("--reasons", is_flag=True, help="Show reasons and paths of logs in full, as a list.")
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def status(sweep: Path, follow: bool, reasons: bool, json_: bool) -> None:
    """How far the cells of a sweep are.

    From any process, at any later time. What a run says of itself counts; of cells that have not
    begun, or died without a word, the scheduler is asked, once for all of them, with or without
    accounting.

    \b
    Examples:
      hambench status runs/sweeps/1a2b3c4d
      hambench status runs/sweeps/1a2b3c4d --follow
      hambench status 1a2b3c4d --json
    """
    from hambench.launch.scheduler import Scheduler
    from hambench.launch.standing import followed, standing

    def show(manifest: Manifest, cells: Sequence[Standing]) -> None:
        if json_:
            click.echo(as_json([_plain(cell) for cell in cells]))
            return
        text = _details(cells) if reasons else _table(manifest, cells)
        click.echo(f"{_CLEAR if follow and sys.stdout.isatty() else ''}{text}")

    if not follow:
        manifest = _manifest(sweep)
        show(manifest, standing(manifest, Scheduler()))
        return
    for manifest, cells in followed(_folder(sweep), _REFRESH):
        show(manifest, cells)


@click.command()
@sweep_argument
@cells_argument
@click.option("--follow", "-f", is_flag=True, help="Go on as the log grows, until the cell ends.")
@click.option("-n", "lines", type=click.IntRange(min=1), help="Last lines only.")
@click.option("--path", is_flag=True, help="Print the path of the log, nothing of it.")
def logs(sweep: Path, cells: tuple[str, ...], follow: bool, lines: int | None, path: bool) -> None:
    """What cells of a sweep said, over all their starts.

    A CELL is its number in `hambench status`, or a part of its name; without one, all.

    \b
    Examples:
      hambench logs runs/sweeps/1a2b3c4d 3
      hambench logs runs/sweeps/1a2b3c4d helm_small/seed0 -f
      hambench logs runs/sweeps/1a2b3c4d -n 5
    """
    from hambench.launch.scheduler import Scheduler
    from hambench.launch.standing import UNDER_WAY, chosen, standing

    manifest, scheduler = _manifest(sweep), Scheduler()
    every = standing(manifest, scheduler)
    picked = chosen(every, cells)
    if follow and len(picked) != 1:
        raise ConfigError(
            f"{len(picked)} cells match; to follow one, give its number in `hambench status`"
        )
    for cell in picked:
        if path:
            click.echo(str(cell.log))
            continue
        if len(picked) > 1:
            click.echo(f"==> {cell.entry.cell} <==")
        if not cell.log.exists():
            click.echo(f"no log yet: {cell.entry.cell} is {cell.state}", err=True)
        end = _print_from(cell.log, 0, lines)
        while follow:
            (cell,) = [c for c in standing(manifest, scheduler) if c.entry == cell.entry]
            end = _print_from(cell.log, end, None)
            if cell.state not in UNDER_WAY:
                break
            time.sleep(_REFRESH / 5)


@click.command()
@sweep_argument
@cells_argument
def cancel(sweep: Path, cells: tuple[str, ...]) -> None:
    """Cancel the jobs of a sweep, or of some of its cells, waiting and running ones.

    What running cells have done stays; `hambench retry`, or the same sweep again, goes on from it.

    \b
    Examples:
      hambench cancel runs/sweeps/1a2b3c4d
      hambench cancel runs/sweeps/1a2b3c4d 3 4
    """
    from hambench.launch.again import cancel_cells

    count = cancel_cells(_folder(sweep), cells)
    click.echo(f"cancelled: {count} job{'s' * (count != 1)}")


@click.command()
@sweep_argument
@cells_argument
@click.option("--failed", is_flag=True, help="Only cells that failed.")
def retry(sweep: Path, cells: tuple[str, ...], failed: bool) -> None:
    """Start the cells of a sweep again that did not get done and are not under way.

    Each goes on from its newest checkpoint, on the cluster it was launched to. CELLs may be words
    KEY=VALUE of the cluster profile too, which replace those of the launch.

    \b
    Examples:
      hambench retry runs/sweeps/1a2b3c4d
      hambench retry runs/sweeps/1a2b3c4d --failed cluster.time=4:00:00
      hambench retry runs/sweeps/1a2b3c4d 3
    """
    from hambench.cli.launch import launch
    from hambench.launch.again import plan_again

    changes = [word for word in cells if word.startswith("cluster.")]
    names = [word for word in cells if word not in changes]
    folder = _folder(sweep)
    cwd = _manifest(folder).head.cwd
    if not Path(cwd).is_dir():
        raise ConfigError(f"the working folder of the launch is gone: {cwd}; make it anew")
    with contextlib.chdir(cwd):
        plan, only, where = plan_again(folder, names, failed=failed, changes=changes)
        if not only:
            others = ", or were cancelled or interrupted: leave out --failed" if failed else ""
            click.echo(f"nothing to start again: these cells are done or under way{others}")
            return
        launch(plan, where, only=only)


def _folder(sweep: Path) -> Path:
    from hambench.launch.manifest import find_sweep

    return find_sweep(sweep).absolute()


def _manifest(sweep: Path) -> Manifest:
    from hambench.launch.manifest import read_manifest

    return read_manifest(_folder(sweep))


def _print_from(log: Path, start: int, lines: int | None) -> int:
    """Print a log from a place on, or its last lines; the place of its end."""
    try:
        with open(log, "rb") as file:
            file.seek(start)
            text = file.read()
    except FileNotFoundError:
        return start
    except OSError as error:
        raise DataError(f"cannot read {log}: {error.strerror}") from error
    shown = text.decode(errors="replace")
    if lines is not None:
        shown = "".join(shown.splitlines(keepends=True)[-lines:])
    click.echo(shown, nl=False)
    return start + len(text)


def _table(manifest: Manifest, cells: Sequence[Standing]) -> str:
    """A row per cell, and their sum."""
    from hambench.launch.standing import summary

    rows = [("#", "cell", "state", "progress", "metric", "restarts", "node", "job", "time", "why")]
    for number, cell in enumerate(cells, start=1):
        why = cell.reason if len(cell.reason) <= _SHORT else f"{cell.reason[: _SHORT - 3]}..."
        rows.append(
            (str(number), cell.entry.cell, cell.state, cell.progress, cell.metric,
             str(cell.restarts), cell.node, cell.job, cell.elapsed, why)
        )  # fmt: skip
    kept = [k for k, name in enumerate(rows[0]) if k < 3 or any(row[k] for row in rows[1:])]
    shown = [tuple(row[k] for k in kept) for row in rows]
    lines = [align(shown), "", f"{summary(cells)} of {len(cells)} ({manifest.head.cluster})"]
    board = manifest.folder / "leaderboard" / "leaderboard.md"
    if board.is_file():
        lines.append(f"leaderboard: {board}")
    return "\n".join(lines)


def _details(cells: Sequence[Standing]) -> str:
    """Reasons and logs, which are too long for a table."""
    return "\n".join(
        f"{number}  {cell.entry.cell}: {cell.state}{': ' * bool(cell.reason)}{cell.reason}\n"
        f"   log: {cell.log}"
        for number, cell in enumerate(cells, start=1)
    )


def _plain(cell: Standing) -> dict[str, object]:
    """A cell as JSON has it."""
    return {
        "cell": cell.entry.cell, "state": cell.state, "reason": cell.reason,
        "progress": cell.progress, "step": cell.status.step if cell.status else 0,
        "metric": cell.metric, "restarts": cell.restarts, "node": cell.node, "job": cell.job,
        "elapsed": cell.elapsed, "log": str(cell.log), "swept": cell.entry.swept,
    }  # fmt: skip
