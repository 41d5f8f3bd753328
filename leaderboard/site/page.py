"""Tables as one static page that needs nothing from elsewhere.

What comes from result files is escaped, and a content security policy allows no script but the
one below, which sorts tables.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from importlib import resources

from hambench.leaderboard.table import Cell, Column, Table, printable
from hambench.leaderboard.tables import NOTE


def page(tables: Sequence[Table], left_out: Sequence[tuple[str, str]]) -> str:
    """The page as HTML text; the same tables give the same bytes."""
    style, script = (_part(name) for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    body = "\n".join([*map(_section, tables), _left_out(left_out)])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>hambench leaderboard</title>
<style>{style}</style>
</head>
<body>
<h1>Leaderboard</h1>
<p>{escape(NOTE)}</p>
{body}
<script>{script}</script>
</body>
</html>
"""


def _text(text: str) -> str:
    """Text of strangers as HTML, also inside an attribute."""
    return escape(printable(text))


def _part(name: str) -> str:
    return resources.files("hambench.leaderboard.site").joinpath(name).read_text("utf-8")


def _section(table: Table) -> str:
    head = "".join(map(_heading, table.columns))
    rows = "\n".join(f"<tr>{''.join(map(_cell, row, table.columns))}</tr>" for row in table.rows)
    return f"""<section>
<h2>{_text(table.title)}</h2>
<p>{_text(table.subtitle)}</p>
<div class="wide" tabindex="0" role="region" aria-label="{_text(table.title)}">
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</section>"""


def _heading(column: Column) -> str:
    kind = ' class="number"' if column.numeric else ""
    hint = f' title="{_text(column.hint)}"' if column.hint else ""
    return f'<th scope="col"{kind}{hint}><button>{_text(column.label)}</button></th>'


def _cell(cell: Cell, column: Column) -> str:
    kind = ' class="number"' if column.numeric else ""
    value = "" if cell.value is None else f' data-value="{cell.value:.12g}"'
    text = _text(cell.text)
    if cell.details:
        text = f"<details><summary>{text}</summary><pre>{escape(cell.details)}</pre></details>"
    return f"<td{kind}{value}>{text}</td>"


def _left_out(rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    items = "\n".join(f"<li><code>{_text(name)}</code>: {_text(why)}</li>" for name, why in rows)
    return f"<section>\n<h2>Left out</h2>\n<ul>\n{items}\n</ul>\n</section>"
