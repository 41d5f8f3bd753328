"""The leaderboard as a static web site: works from disk, loads nothing from elsewhere.

`write_site` writes ``index.html``, a page for each task, model and run, and what these load.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hambench.leaderboard.about import About
from hambench.leaderboard.across import across_table
from hambench.leaderboard.collect import Board
from hambench.leaderboard.site.entries import EntryRow, entries_table, entry_rows
from hambench.leaderboard.site.folder import INDEX, SiteFolder
from hambench.leaderboard.site.model import model_content
from hambench.leaderboard.site.pages import Pages
from hambench.leaderboard.site.render import render
from hambench.leaderboard.site.run import run_content
from hambench.leaderboard.site.task import task_content, tasks_table
from hambench.leaderboard.table import Cell, Column, Link, Table
from hambench.leaderboard.tables import NOTE, unfinished_table


def write_site(board: Board, folder: Path, tasks: Mapping[str, About]) -> list[Path]:
    """Write the site into ``folder``; the same board gives the same bytes.

    Pages of an older write that have no place any more are removed, other files left alone.
    Pictures and tables of other formats are shown and linked where they lie in the folder.

    Args:
        board: what is shown.
        folder: it is made.
        tasks: what is known of tasks.

    Returns:
        The page to look at first.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    site, pages, rows = SiteFolder(folder), Pages(board), entry_rows(board)
    site.assets()
    for ranking, entry in board.entries:
        for run in entry.runs:
            content = run_content(ranking, entry, run)
            site.page(pages.path(Link("run", run.name)), _inner("run", pages, content))
    for preset, mine in _by_preset(rows).items():
        content = model_content(preset, mine)
        site.page(pages.path(Link("model", preset)), _inner("model", pages, content))
    for task in board.tasks:
        content = task_content(board, task, tasks.get(task))
        site.page(pages.path(Link("task", task)), _inner("task", pages, content))
    index = render("index", pages, root="", **_index(board, site, tasks, rows))
    first = site.page(INDEX, index)
    site.remove_older()
    return [first]


def _inner(template: str, pages: Pages, content: Mapping[str, Any]) -> str:
    """A page in a folder of the site."""
    return render(template, pages, root="../", note=NOTE, **content)


def _by_preset(rows: tuple[EntryRow, ...]) -> dict[str, list[EntryRow]]:
    found = defaultdict(list)
    for row in rows:
        found[row.entry.preset].append(row)
    return found


def _index(
    board: Board, site: SiteFolder, tasks: Mapping[str, About], rows: tuple[EntryRow, ...]
) -> dict[str, Any]:
    """What the first page shows."""
    others = across_table(board.rankings), unfinished_table(board.unfinished)
    subtitle = "of all rankings; ranks are within one ranking, values of two tasks never compare"
    return {
        "title": "Leaderboard",
        "counts": {
            "tasks": len(board.tasks),
            "models": len({row.entry.preset for row in rows}),
            "runs": sum(1 for _ in board.runs),
        },
        "rankings": tasks_table(board, tasks),
        "entries": entries_table("Entries", subtitle, rows),
        "others": [table for table in others if table is not None],
        "left_out": _left_out(board) if board.left_out else None,
        "pictures": site.beside("figures/*.svg"),
        "files": site.beside("leaderboard.*"),
        "note": NOTE,
    }


def _left_out(board: Board) -> Table:
    columns = (Column("result", numeric=False), Column("why", numeric=False))
    rows = tuple((Cell(name), Cell(why)) for name, why in board.left_out)
    return Table("Left out", "results that are in no ranking", columns, rows)
