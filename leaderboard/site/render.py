"""Pages from templates. What comes from strangers becomes text here, in this one place.

Every expression of a template is made printable, cut, and escaped: `_text` and Jinja's autoescape.
Data for scripts go through Jinja's ``tojson``, which escapes all that could end a script.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from hambench.leaderboard.site.pages import Pages
from hambench.leaderboard.table import Cell, Link, printable

LONGEST: Final = 8000
"""Characters of one text, at most; what is longer is cut, and says so."""

_LINE = 28  # characters that stay on one line

GENERATOR: Final = "hambench leaderboard"
"""Name in every page, by which pages of an older write are known."""

POLICY: Final = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Content security policy: files of the site alone. From disk, browsers count those as 'self'."""


def render(template: str, pages: Pages, **content: Any) -> str:
    """A page as HTML text.

    Args:
        template: its name, without ``.html``.
        pages: what can be linked.
        content: names in the template; ``root`` leads from the page to the folder of the site.
    """
    return _templates().get_template(f"{template}.html").render(pages=pages, **content)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=PackageLoader("hambench.leaderboard.site"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_text,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.policies["json.dumps_kwargs"] = {"allow_nan": False, "sort_keys": True}
    made.globals.update(policy=POLICY, generator=GENERATOR, Link=Link, zip=zip)
    made.globals.update(long=_is_long, order=_order, page_of=_page, runs_of=_runs)
    return made


def _text(value: object) -> object:
    """What an expression gives, fit to be read; escaping is the template's."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    if len(value) > LONGEST:
        value = f"{value[:LONGEST]} ... ({len(value) - LONGEST:,} more characters)"
    return value if value.isprintable() else printable(value)


def _is_long(text: str) -> bool:
    """Whether a text may be broken into lines."""
    return len(text) > _LINE


def _page(cell: Cell) -> Link | None:
    """The task or model that the text of a cell leads to."""
    return next((link for link in cell.links if link.kind != "run"), None)


def _runs(cell: Cell) -> list[Link]:
    return [link for link in cell.links if link.kind == "run"]


def _order(cell: Cell) -> str:
    """What a numeric cell sorts by; empty where there is no number."""
    return "" if cell.value is None else f"{cell.value:.12g}"
