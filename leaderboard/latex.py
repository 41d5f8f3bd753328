r"""Tables as LaTeX, to be ``\input`` in a paper; it needs the packages booktabs and graphicx."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hambench.leaderboard.table import Cell, Column, Table, printable

_PREAMBLE: Final = r"""% Made by hambench. In the preamble: \usepackage{booktabs,graphicx}
% Wide tables shrink to the width of the text.
\providecommand{\hambenchfit}[1]{\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{#1}}
"""

_CHARACTERS: Final = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
    "-": r"{-}",  # or two of them would be a dash
    "\u2260": r"$\neq$",
    "\u00c5": r"\AA{}",
}
_UNITS: Final = {"uEh": r"\textmu{}$E_\mathrm{h}$", "Eh": r"$E_\mathrm{h}$"}


def latex(tables: Sequence[Table]) -> str:
    """All tables, one float each. Minor columns, which a paper has no room for, are left out."""
    return _PREAMBLE + "\n".join(map(_table, tables))


def _table(table: Table) -> str:
    shown = [k for k, column in enumerate(table.columns) if not column.minor]
    columns = [table.columns[k] for k in shown]
    rows = [[row[k] for k in shown] for row in table.rows]
    notes = "".join(f"\\par {{\\footnotesize {escaped(note)}}}\n" for note in table.notes)
    body = "\n".join(f"{' & '.join(map(_cell, row))} \\\\" for row in rows)
    return f"""
\\begin{{table}}
\\centering
\\caption{{{escaped(table.title)}: {escaped(table.subtitle)}.}}
\\hambenchfit{{%
\\begin{{tabular}}{{{"".join("r" if column.numeric else "l" for column in columns)}}}
\\toprule
{" & ".join(map(_heading, columns))} \\\\
\\midrule
{body}
\\bottomrule
\\end{{tabular}}}}
{notes}\\end{{table}}
"""


def _heading(column: Column) -> str:
    name, _, unit = column.label.rpartition(" / ")
    if unit in _UNITS:
        return f"{escaped(name)} / {_UNITS[unit]}"
    return escaped(column.label)


def _cell(cell: Cell) -> str:
    text = escaped(cell.text)
    return f"\\textbf{{{text}}}" if cell.bold else text


def escaped(text: str) -> str:
    """Text of strangers that LaTeX shows as it is; characters it lacks as a question mark."""
    return "".join(map(_escaped, printable(text)))


def _escaped(character: str) -> str:
    if character in _CHARACTERS:
        return _CHARACTERS[character]
    return character if " " <= character <= "~" else "?"
