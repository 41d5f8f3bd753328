"""A thousand mutated results: each is refused by name, or shown as text."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from board_case import Compile, metric, put

from hambench.leaderboard import Board, collect, table, write
from hambench.leaderboard.latex import latex
from hambench.results import RESULT, Metric

COUNT = 1000
SCRIPT = "<script>alert(1)</script>"
VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 10**400, 1e308, -1e308, 1e-308, 0.5, "", SCRIPT, '"><img src=x onerror=y>',
    "a\x00b\x1b[31m\u202e", "${oc.env:HOME}", "../../etc/passwd", r"\input{/etc/passwd} $x$ % & #",
    "{{ 7 * 7 }}", "x" * 10_000, [], {}, [[[[]]]], {"a": {"b": []}}, [1, 2], [2, 1], float("nan"),
    float("inf"), "2026-01-01T00:00:00Z", "9999-99-99", "__proto__",
)  # fmt: skip


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in nested JSON."""
    found = [at]
    if isinstance(tree, dict):
        found += [p for key, value in tree.items() for p in paths(value, (*at, key))]
    elif isinstance(tree, list):
        found += [p for k, value in enumerate(tree) for p in paths(value, (*at, k))]
    return found


def mutated(content: Any, rng: random.Random) -> bytes:
    """JSON of a result with one to three places changed, or broken as text."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        *outer, key = rng.choice(paths(content)[1:])
        place = content
        for step in outer:
            place = place[step]
        match rng.randrange(4):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[rng.choice((SCRIPT, "extra", "", "schema_version"))] = place.pop(key)
            case _:
                place[key] = rng.choice(VALUES)
        if not isinstance(content, dict) or len(paths(content)) < 5:
            break
    text = json.dumps(content).encode()
    match rng.randrange(20):
        case 0:
            return text[: rng.randrange(len(text))]
        case 1:
            at = rng.randrange(len(text))
            return text[:at] + bytes([rng.randrange(256)]) + text[at + 1 :]
        case 2:
            return text.replace(b'"h_mae"', b'"h_mae": 1, "h_mae"', 1)
    return text


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """A board of mutated results, each of a model of its own, and of an honest one."""
    runs = tmp_path_factory.mktemp("hostile") / "runs"
    rng = random.Random(2)
    for k in range(COUNT):
        put(
            runs / f"r{k}", 100.0 + k, preset=f"m{k}",
            metrics={
                "h_mae": metric(100.0 + k),
                "psi": Metric(value=0.99, unit="1", ci95=(0.98, 1.0), n=100),
                "failure_rate": Metric(value=0.0, unit="1", ci95=None, n=100),
            },
        )  # fmt: skip
        path = runs / f"r{k}" / RESULT
        path.write_bytes(mutated(json.loads(path.read_text()), rng))
    put(runs / "honest", 50.0, preset="honest")
    return collect([runs])


def test_each_is_refused_by_name_or_ranked(board: Board) -> None:
    refused = {name.removesuffix(f"/{RESULT}"): why for name, why in board.left_out}
    shown = {run.name for run in board.runs}
    assert refused.keys() | shown == {"runs/honest", *(f"runs/r{k}" for k in range(COUNT))}
    assert not refused.keys() & shown
    assert len(refused) > 300
    assert len(shown) > 100
    assert all(why and "Traceback" not in why and len(why) < 1500 for why in refused.values())


class Tags(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_what_is_shown_is_text(board: Board, tmp_path: Path) -> None:
    written = write(board, tmp_path / "out", ["md", "html", "json", "tex"])
    pages = sorted((tmp_path / "out").rglob("*.html"))
    assert len(pages) >= 1
    for page in pages:
        tags = Tags(page.read_text("utf-8"))
        assert not tags.found & {"img", "iframe", "object", "form"}
        assert not {name for name in tags.attributes if name.startswith("on")}
    assert all(page.resolve().is_relative_to((tmp_path / "out").resolve()) for page in pages)
    for text in (table(board), *(p.read_text("utf-8") for p in written if p.suffix != ".html")):
        assert not re.search(r"[\x00\x1b\u202e]", text)
    json.loads((tmp_path / "out" / "leaderboard.json").read_text("utf-8"))


def test_latex_shows_it_too(board: Board, compile_latex: Compile) -> None:
    source = latex(board.tables)
    assert "\\input" not in source
    assert "honest" in compile_latex(source)
