"""The site in a real browser: from disk and from a server, without a display."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from board_case import put
from site_case import HOSTILE, harmless, hostile

from hambench.leaderboard import collect, write
from hambench.leaderboard.table import printable

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = pytest.mark.browser


@dataclass
class Visit:
    """A page of a browser that writes down whatever went wrong or was asked for."""

    page: Page
    troubles: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: self.troubles.append(message.text))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.set_default_timeout(10_000)

    def _dialog(self, dialog: Any) -> None:
        self.troubles.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def table(self, title: str) -> Locator:
        """A table by its heading, made interactive."""
        made = self.page.locator("section", has=self.page.get_by_role("heading", name=title))
        made.locator("th .dt-column-order").first.wait_for()
        return made

    def column(self, title: str, heading: str) -> list[str]:
        """Texts of a visible column, as they stand."""
        table = self.table(title)
        headings = [text.strip() for text in table.locator("thead th").all_inner_texts()]
        cells = table.locator(f"tbody tr td:nth-child({headings.index(heading) + 1})")
        return [text.split("\n")[0].strip() for text in cells.all_inner_texts()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write(collect([harmless(folder / "runs")]), folder / "site", ["html"])
    return folder / "site"


SOME = HOSTILE[:4]


@pytest.fixture(scope="module")
def hostile_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write(collect([hostile(folder / "runs", SOME, settings=2)]), folder / "site", ["html"])
    return folder / "site"


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """A page of its own; nothing may have gone wrong on it."""
    with contextlib.closing(browser.new_context()) as context:
        visit = Visit(context.new_page())
        yield visit
        assert visit.troubles == []


def test_sort_filter_choose_columns_and_open_a_run(visit: Visit, site: Path) -> None:
    page = visit.page
    page.goto((site / "index.html").as_uri())
    entries = visit.table("Entries")

    numbers = visit.column("Entries", "parameters")
    assert numbers != sorted(numbers)
    entries.get_by_role("columnheader", name="parameters").click()
    assert visit.column("Entries", "parameters")[:3] == ["1,000", "1,000", "2,000"]
    entries.get_by_role("columnheader", name="parameters").click()
    assert visit.column("Entries", "parameters")[0] == "123,456"
    for _ in range(2):  # the failing model has no rank, and is last whichever way round
        entries.get_by_role("columnheader", name="rank").click()
        assert visit.column("Entries", "rank")[-1] == "-"

    def choose(heading: str, value: str) -> None:
        entries.get_by_role("combobox", name=heading, exact=True).select_option(value)

    for heading, choice, rows in (("task", "water_mini", 6), ("device", "cuda", 2)):
        choose(heading, choice)
        assert visit.column("Entries", heading) == [choice] * rows
    choose("model", "minao")
    assert visit.column("Entries", "model") == ["minao"]
    for heading in ("task", "model", "device"):
        choose(heading, "")
    entries.get_by_label("Search").fill("qhnet")
    assert visit.column("Entries", "model") == ["qhnet_small"] * 2
    assert entries.get_by_text("1 to 2 of 2 rows").is_visible()

    assert not entries.get_by_role("columnheader", name="settings").count()
    entries.get_by_role("button", name="Columns").click()
    entries.get_by_role("button", name="settings", pressed=False).click()
    assert entries.get_by_role("button", name="settings", pressed=True).is_visible()
    page.keyboard.press("Escape")
    assert len(visit.column("Entries", "settings")[0]) == 8

    entries.get_by_role("link", name="run of seed 1").first.click()
    assert page.locator("h1").inner_text().startswith("qhnet_small on")
    assert page.get_by_text("h_mae:").first.is_visible()
    chart = page.locator("figure.chart canvas").first
    chart.wait_for()
    assert chart.get_attribute("aria-label") == "Validation error against training steps"
    drawn = chart.evaluate("c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height)"
                           ".data).size")  # fmt: skip
    assert drawn > 10
    page.get_by_role("link", name="hambench leaderboard").click()
    assert page.locator("h1").inner_text() == "Leaderboard"
    assert all(url.startswith(site.as_uri()) for url in visit.requests)


def test_the_keyboard_is_enough(visit: Visit, site: Path) -> None:
    page = visit.page
    page.goto((site / "index.html").as_uri())
    entries = visit.table("Entries")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    heading = entries.get_by_role("columnheader", name="seeds")
    heading.get_by_role("button").focus()
    for state in ("ascending", "descending"):
        page.keyboard.press("Enter")
        assert heading.get_attribute("aria-sort") == state
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"

    note = entries.locator("details.more").first
    note.locator("summary").focus()
    assert note.locator("pre").is_visible()
    assert "95 % interval over 100 test molecules" in note.locator("pre").inner_text()
    page.keyboard.press("Escape")
    assert note.locator("pre").is_hidden()
    note.hover()
    assert note.locator("pre").is_visible()


def test_names_stay_text_on_every_page(visit: Visit, hostile_site: Path) -> None:
    page, seen = visit.page, set()
    runs = sorted(hostile_site.glob("runs/*.html"))
    others = [path for path in sorted(hostile_site.rglob("*.html")) if path not in runs]
    for path in [*others, *runs[::2]]:  # of each name one
        page.goto(path.as_uri())
        for button in page.get_by_role("button", name="Columns").all():
            button.click()
            page.keyboard.press("Escape")
        assert page.locator("figure.chart").count() == page.locator("canvas").count()
        assert page.locator("img").count() == 0
        assert page.locator("h1").count() == 1
        assert page.evaluate("[...document.querySelectorAll('*')].flatMap(e => [...e.attributes])"
                             ".filter(a => a.name.startsWith('on')).length") == 0  # fmt: skip
        text = page.locator("body").inner_text()
        seen |= {name for name in SOME if printable(name) in text}
    assert seen == set(SOME)
    page.goto((hostile_site / "index.html").as_uri())
    chosen = page.get_by_role("combobox", name="task")
    assert set(chosen.locator("option").all_text_contents()) == {"all", *SOME}
    for name in SOME:
        chosen.select_option(name)
        assert visit.column("Entries", "task") == [name] * 2
    assert all(url.startswith(hostile_site.as_uri()) for url in visit.requests)


def test_phone_dark_and_paper(visit: Visit, site: Path, hostile_site: Path) -> None:
    page = visit.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.emulate_media(color_scheme="dark")
    kinds = [next(site.glob(f"{kind}/*.html")) for kind in ("tasks", "models", "runs")]
    paths = [site / "index.html", *kinds, hostile_site / "index.html",
             next(hostile_site.glob("runs/*.html"))]  # fmt: skip
    for path in paths:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 27)"
    page.set_viewport_size({"width": 1032, "height": 700})  # A4, turned, within its margins
    page.emulate_media(media="print")
    for path in paths[:4]:
        page.goto(path.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 1032, path
        for control in (".dt-search", ".dt-buttons", ".choices", "nav", ".skip", "summary"):
            assert not any(found.is_visible() for found in page.locator(control).all())
        assert page.locator("tbody td").first.is_visible()
    chart = page.locator("figure.chart").first  # of the run, the last of them
    assert 0 < chart.locator("canvas").bounding_box()["width"] <= chart.bounding_box()["width"]


def test_long_tables_have_pages_but_not_on_paper(visit: Visit, tmp_path: Path) -> None:
    for k in range(60):
        put(tmp_path / "runs" / str(k), 100.0 + k, preset=f"model{k}")
    write(collect([tmp_path / "runs"]), tmp_path / "site", ["html"])
    page = visit.page
    page.goto((tmp_path / "site" / "index.html").as_uri())
    entries = visit.table("Entries")
    assert len(visit.column("Entries", "model")) == 50
    entries.get_by_role("link", name="Next").click()
    assert visit.column("Entries", "model") == [f"model{k}" for k in range(50, 60)]
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert len(visit.column("Entries", "model")) == 60
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(visit.column("Entries", "model")) == 50
    entries.get_by_label("Rows").select_option(label="All")
    assert len(visit.column("Entries", "model")) == 60


def test_without_script_tables_are_whole(browser: Browser, site: Path) -> None:
    with contextlib.closing(browser.new_context(java_script_enabled=False)) as context:
        page = context.new_page()
        page.goto((site / "index.html").as_uri())
        entries = page.get_by_role("table", name="Entries")
        assert entries.locator("tbody tr").count() == 11
        assert entries.get_by_role("columnheader", name="settings").is_visible()
        entries.get_by_role("link", name="run of seed 0").first.click()
        assert page.get_by_role("table", name="Validations").locator("tbody tr").count() == 6
        assert page.locator("figure.chart").first.is_hidden()


def test_from_a_server(visit: Visit, site: Path) -> None:
    handler = partial(Quiet, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        home = f"http://127.0.0.1:{server.server_port}"
        try:
            visit.page.goto(f"{home}/")
            visit.table("Entries").get_by_role("link", name="helm_small").first.click()
            visit.table("Entries").get_by_role("link", name="run of seed 0").first.click()
            visit.page.locator("figure.chart canvas").first.wait_for()
        finally:
            server.shutdown()
    assert all(url.startswith(home) for url in visit.requests)


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder and keeps silent about it."""

    def log_message(self, *args: Any) -> None:
        """Nothing."""
