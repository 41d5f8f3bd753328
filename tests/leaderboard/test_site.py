"""The pages of the site as files: what they say, that it stays text, and where they are."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from board_case import Write, metric
from click.testing import CliRunner
from site_case import HOSTILE, Page, cost, harmless, hostile, log

from hambench.cli import cli
from hambench.leaderboard import About, collect, write
from hambench.leaderboard.logs import LARGEST
from hambench.leaderboard.site.log import read_course
from hambench.leaderboard.site.render import LONGEST
from hambench.leaderboard.site.settings import MOST, facts
from hambench.leaderboard.table import printable


def build(runs: Path, out: Path, tasks: dict[str, About] | None = None) -> Path:
    write(collect([runs]), out, ["html"], tasks)
    return out


def page(site: Path, pattern: str) -> str:
    (found,) = site.glob(pattern)
    return found.read_text("utf-8")


def files(site: Path) -> dict[str, bytes]:
    return {p.relative_to(site).as_posix(): p.read_bytes() for p in site.rglob("*") if p.is_file()}


def test_every_link_leads_to_a_file_of_the_site(tmp_path: Path) -> None:
    site = build(harmless(tmp_path / "runs"), tmp_path / "site")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) == 1 + 2 + 6 + 21
    linked = set()
    for path in pages:
        for link in Page(path.read_text("utf-8")).links():
            if not link.startswith("#"):
                target = (path.parent / link).resolve()
                assert target.is_file(), link
                assert site.resolve() in target.parents
                linked.add(target)
    assert {path.resolve() for path in pages} <= linked
    assert not [p for p in site.rglob("*") if p.suffix in (".html", ".css") and b"://" in
                p.read_bytes()]  # fmt: skip


def test_same_input_same_bytes_wherever_it_is(tmp_path: Path) -> None:
    runs = harmless(tmp_path / "runs")
    first = files(build(runs, tmp_path / "one"))
    moved = runs.rename(tmp_path / "elsewhere")
    assert files(build(moved, tmp_path / "two")) == first
    assert files(build(moved, tmp_path / "two")) == first


def test_pages_of_an_older_write_go_and_other_files_stay(run: Write, tmp_path: Path) -> None:
    run("a", preset="kept")
    runs, site = run("b", preset="withdrawn"), tmp_path / "site"
    build(runs, site)
    mine = {
        site / "notes.html": "mine",
        site / "models" / "mine.html": 'content="hambench leaderboard"',
        site / "runs" / f"copy-{'0' * 32}.html": "not of the generator",
    }
    for path, text in mine.items():
        path.write_text(text)
    shutil.rmtree(runs / "b")
    build(runs, site)
    assert {path: path.read_text() for path in mine} == mine
    left = {name for name in files(site) if name.endswith(".html")}
    assert not [name for name in left if "withdrawn" in name]
    assert len(left) == 1 + 3 + len(mine)


def test_a_run_says_how_it_was_made(run: Write, tmp_path: Path) -> None:
    runs = run("a", 100.0, reproduce="hambench run task=water_mini seed=0", cost=cost())
    log(runs / "a")
    text = page(build(runs, tmp_path / "site"), "runs/*.html")
    found = Page(text)
    assert "hambench run task=water_mini seed=0" in found.text
    for said in ("channels", "16", "optimizer.name", "adam", "95.0 to 105.0", "ab" * 32, "3 min"):
        assert said in found.text, said
    (curves,) = re.findall('<script type="application/json" id="curves">(.*)</script>', text)
    error, loss = json.loads(curves)
    assert (error["title"], error["unit"]) == ("Validation error", "uEh")
    assert error["curves"][0]["steps"] == [10, 20, 30, 40, 50, 60]
    assert error["curves"][0]["values"] == pytest.approx([1000 / k for k in range(10, 61, 10)])
    assert [curve["label"] for curve in loss["curves"]] == ["training", "validation"]
    assert "16.67" in found.text  # the error at the last validation, in the table


def test_a_run_of_an_earlier_version_shows_its_command(run: Write, tmp_path: Path) -> None:
    text = page(build(run("a", reproduce=""), tmp_path / "site"), "runs/*.html")
    assert "the run was started with" in text
    assert "<code>hambench run</code>" in text
    assert "No curves: it has no log.jsonl." in text


def test_a_task_is_explained(tmp_path: Path) -> None:
    about = About(
        "water_mini", "Water, small", (("license", "CC0"),), (("train", 300),), ("h_mae",)
    )
    site = build(harmless(tmp_path / "runs"), tmp_path / "site", {"water_mini": about})
    known, unknown = (page(site, f"tasks/{name}-*.html") for name in ("water-mini", "organic-mini"))
    for said in ("Water, small", "CC0", "300 rows", "h_mae", "mean over the full matrix"):
        assert said in known, said
    assert "not known where these pages were written" in unknown
    assert "Water, small" in (site / "index.html").read_text()


def test_a_model_tells_what_its_settings_have_in_common(run: Write, tmp_path: Path) -> None:
    run("a", hyperparameters={"channels": 16, "layers": 3})
    runs = run("b", 200.0, hyperparameters={"channels": 64, "layers": 3})
    text = page(build(runs, tmp_path / "site"), "models/*.html")
    differs, common = text.index("What differs"), text.index("Settings in common")
    assert differs < text.index(">channels</th>") < common < text.index(">layers</th>")


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    site = build(hostile(tmp_path / "runs"), tmp_path / "site")
    paths = sorted(site.rglob("*.html"))
    assert len(paths) == 1 + 3 * len(HOSTILE)
    seen = set()
    for path in paths:
        found = Page(path.read_text("utf-8"))
        scripts = [a for tag, a in found.tags if tag == "script"]
        assert all(
            "defer" in a or a == {"type": "application/json", "id": "curves"} for a in scripts
        )
        assert "img" not in {tag for tag, _ in found.tags}
        assert sum(tag == "h1" for tag, _ in found.tags) == 1
        assert not [key for _, a in found.tags for key in a if key.startswith("on")]
        assert all(re.fullmatch(r"[\w./#-]+", link) for link in found.links())
        text = "".join(found.text)
        seen |= {name for name in HOSTILE if printable(name) in text}
    assert seen == set(HOSTILE)


def test_names_that_look_alike_have_pages_of_their_own(run: Write, tmp_path: Path) -> None:
    for k, name in enumerate(("a/b", "a b", "A-B", "", "." * 200, "\u00e4")):
        runs = run(f"r{k}", preset=name)
    site = build(runs, tmp_path / "site")
    assert len(list(site.glob("models/*.html"))) == len(list(site.glob("runs/*.html"))) == 6


def test_endless_settings_are_cut(run: Write, tmp_path: Path) -> None:
    endless = {f"option_{k}": "x" * 99 for k in range(3000)} | {"first": "y" * 10**6}
    site = build(run("a", hyperparameters=endless), tmp_path / "site")
    assert all(len(content) < 400_000 for content in files(site).values())
    assert f"and {3001 - MOST:,} more" in page(site, "runs/*.html")
    assert len(facts({"a": {"b": {"c": {"d": {"e": 1}}}}})[0][0].split(".")) == 4
    assert LONGEST < 10**5


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (b"", ""),
        (b"\xff\xfe\n[1]\n{}\nnull\n", "4 of 4 lines of its log.jsonl are no rows of a log."),
        (b'{"step": -1, "val_loss": 1}\n{"step": 1e99}\n{"step": true}\n', "3 of 3 lines"),
        (b"{" * 5000, "1 of 1 lines"),
        (b" " * (LARGEST + 1), "No curves: log.jsonl has more than 16 MiB."),
    ],
)
def test_a_log_that_is_none_is_told(tmp_path: Path, content: bytes, remark: str) -> None:
    (tmp_path / "log.jsonl").write_bytes(content)
    course = read_course(tmp_path)
    assert (course.charts, course.validations) == ((), None)
    assert remark in course.remark
    assert bool(course.remark) == bool(remark)


def test_only_numbers_of_a_log_are_drawn(tmp_path: Path) -> None:
    values = ['"2"', "NaN", "Infinity", "-1", "0", "1e400", "[3]", "null", "true", str(10**70), "4"]
    rows = [f'{{"step": {k}, "train_loss": {value}}}\n' for k, value in enumerate(values)]
    (tmp_path / "log.jsonl").write_text("".join(rows))
    (chart,) = read_course(tmp_path).charts
    assert (chart.curves[0].steps, chart.curves[0].values) == ((10,), (4,))


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    rows = (f'{{"step": {k}, "train_loss": 1, "val_loss": 2}}\n' for k in range(1, 5001))
    (tmp_path / "log.jsonl").write_text("".join(rows))
    course = read_course(tmp_path)
    steps = course.charts[0].curves[0].steps
    assert (len(steps), steps[0], steps[-1]) == (300, 1, 5000)
    assert len(course.validations.rows) == 12
    assert course.validations.rows[-1][0].text == "5,000"


def test_pictures_and_files_beside_the_page_are_linked(run: Write, tmp_path: Path) -> None:
    runs, site = run("a", metrics={"h_mae": metric(100.0)}), tmp_path / "site"
    (site / "figures").mkdir(parents=True)
    (site / "figures" / "a b.svg").write_text("<svg/>")
    write(collect([runs]), site, ["html", "md"])
    links = Page((site / "index.html").read_text()).links()
    assert "figures/a%20b.svg" in links
    assert "leaderboard.md" in links  # written before the page, whatever the order


def test_the_command_knows_the_tasks_that_are_installed(run: Write, tmp_path: Path) -> None:
    runs, site = run("a"), tmp_path / "site"
    done = CliRunner().invoke(
        cli, ["leaderboard", str(runs), "--out", str(site), "--format", "html"]
    )
    assert done.exit_code == 0, done.output
    text = page(site, "tasks/*.html")
    for said in ("level of theory", "xc pbe, basis def2-svp", "license", "300 rows"):
        assert said in text, said


def test_who_handed_a_run_in_is_said_as_text(run: Write, tmp_path: Path) -> None:
    runs = run("a")
    said = 'authors: ["<b>A</b> Nother"]\nurl: "javascript:alert(1)"\nnotes: "</td><script>"\n'
    (runs / "submission.yaml").write_text(said)
    found = page(build(runs, tmp_path / "site"), "runs/*.html")
    assert "&lt;b&gt;A&lt;/b&gt; Nother" in found
    assert "&lt;/td&gt;&lt;script&gt;" in found
    assert 'href="javascript' not in found
    assert "<b>A" not in found
