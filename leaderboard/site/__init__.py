"""The leaderboard as a static web site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from hambench.files import atomic_write
from hambench.leaderboard.about import About
from hambench.leaderboard.collect import Board
from hambench.leaderboard.site.page import page


def write_site(board: Board, folder: Path, tasks: Mapping[str, About]) -> list[Path]:
    """Write ``index.html`` into ``folder``; the same board gives the same bytes.

    Args:
        board: what is shown.
        folder: it is made.
        tasks: what is known of tasks.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    path = folder / "index.html"
    with atomic_write(path) as file:
        file.write(page(board.tables, board.left_out))
    return [path]
