"""Tables as Markdown and for a terminal. Names come from strangers: they stay text."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hambench.leaderboard.table import Cell, Table, printable
from hambench.leaderboard.tables import NOTE

if TYPE_CHECKING:
    from hambench.leaderboard.collect import Board


def markdown(
    title: str, note: str, tables: Sequence[Table], left_out: Sequence[tuple[str, str]]
) -> str:
    """All tables as one Markdown document."""
    parts = [f"# {title}", note]
    for table in tables:
        lines = [
            _row([_escaped(column.label) for column in table.columns]),
            _row(["---:" if column.numeric else "---" for column in table.columns]),
            *(_row([_marked(cell) for cell in row]) for row in table.rows),
        ]
        parts += [f"## {_escaped(table.title)}", _escaped(table.subtitle), "\n".join(lines)]
        parts += map(_escaped, table.notes)
    if left_out:
        parts.append("## Left out")
        parts.append("\n".join(f"- {_escaped(name)}: {_escaped(why)}" for name, why in left_out))
    return "\n\n".join(parts) + "\n"


def table(board: Board) -> str:
    """All rankings, published numbers and what they mean, as aligned text for a terminal."""
    return f"{plain(board.tables, board.left_out)}\n\n{textwrap.fill(NOTE, 100)}"


def plain(tables: Sequence[Table], left_out: Sequence[tuple[str, str]]) -> str:
    """All tables as aligned text for a terminal."""
    parts = []
    for made in tables:
        head = [column.label for column in made.columns]
        lines = [head, *([printable(cell.text) for cell in row] for row in made.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [
            "  ".join(
                cell.rjust(width) if column.numeric else cell.ljust(width)
                for cell, width, column in zip(line, widths, made.columns, strict=True)
            ).rstrip()
            for line in lines
        ]
        title = printable(f"{made.title}, {made.subtitle}")
        notes = [textwrap.fill(printable(note), 100) for note in made.notes]
        parts.append("\n".join([title, *text, *notes]))
    if left_out:
        lost = [printable(f"  {name}: {why}") for name, why in left_out]
        parts.append("\n".join(["left out:", *lost]))
    return "\n\n".join(parts)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.bold else text


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]|~$#])", r"\\\1", html.escape(printable(text), quote=False))
