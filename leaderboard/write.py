"""A board as files, in the formats that are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hambench.errors import ConfigError
from hambench.files import atomic_write
from hambench.leaderboard.about import About
from hambench.leaderboard.collect import Board, collect
from hambench.leaderboard.latex import latex
from hambench.leaderboard.records import as_json
from hambench.leaderboard.site import write_site
from hambench.leaderboard.table import printable
from hambench.leaderboard.tables import NOTE
from hambench.leaderboard.text import markdown

NAME: Final = "leaderboard"
DEFAULT: Final = ("md", "html")

Tasks = Mapping[str, About]
"""What is known of tasks, by name."""


def write(
    board: Board,
    folder: str | os.PathLike[str],
    formats: Iterable[str] | None = None,
    tasks: Tasks | None = None,
) -> list[Path]:
    """Write a board into ``folder``; the same board gives the same bytes.

    Args:
        board: from `collect`.
        folder: it is made.
        formats: of `FORMATS` and `PICTURES`; None: `DEFAULT`.
        tasks: what pages say of tasks beside their results.

    Returns:
        The files to look at first, one or more per format.

    Raises:
        ConfigError: an unknown format, or one whose library is not installed.
        RunError: the folder cannot be written, or the disk is full.
    """
    asked = list(dict.fromkeys(DEFAULT if formats is None else formats))
    for name in asked:
        if name not in FORMATS and name not in PICTURES:
            known = ", ".join((*FORMATS, *PICTURES))
            raise ConfigError(f"unknown format '{name}'; choose from {known}")
    kinds = [name for name in asked if name in PICTURES]
    # The site is written last, as it shows pictures and links the other files.
    drawn = _pictures(board, Path(folder), kinds) if kinds else []
    rest = sorted((name for name in asked if name in FORMATS), key="html".__eq__)
    written = [path for name in rest for path in FORMATS[name](board, Path(folder), tasks or {})]
    return written + drawn


def build(paths: Iterable[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> list[Path]:
    """`collect` and `write` in one."""
    return write(collect(paths), folder)


def _text(name: str, make: Callable[[Board], str]) -> Callable[[Board, Path, Tasks], list[Path]]:
    """A format that is one file of text."""

    def save(board: Board, folder: Path, tasks: Tasks) -> list[Path]:
        with atomic_write(folder / name) as file:
            file.write(make(board))
        return [folder / name]

    return save


def _csv(board: Board) -> str:
    from hambench.leaderboard.frame import frame

    found = frame(board)
    found = found.map(lambda one: _harmless(one) if isinstance(one, str) else one)
    return str(found.to_csv(index=False, lineterminator="\n"))


def _harmless(text: str) -> str:
    """Text that no spreadsheet takes for a formula, on one line."""
    shown = printable(text)
    return f"'{shown}" if shown[:1] in ("=", "+", "-", "@") else shown


def _pictures(board: Board, folder: Path, kinds: Sequence[str]) -> list[Path]:
    from hambench.leaderboard.figures import draw

    return draw(board, folder / "figures", kinds)


PICTURES: Final = ("png", "svg")
"""Formats that are pictures, of which there are several."""

FORMATS: Final[dict[str, Callable[[Board, Path, Tasks], list[Path]]]] = {
    "md": _text(f"{NAME}.md", lambda b: markdown("Leaderboard", NOTE, b.tables, b.left_out)),
    "html": write_site,
    "tex": _text(f"{NAME}.tex", lambda b: latex(b.tables)),
    "csv": _text(f"{NAME}.csv", _csv),
    "json": _text(f"{NAME}.json", as_json),
}
"""The other formats: they write a board into a folder and name the files to look at first."""
