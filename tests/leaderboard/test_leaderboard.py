"""The leaderboard: who is compared with whom, who wins, and that names stay text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from board_case import Write, metric, ranked, ties

from hambench.errors import DataError
from hambench.leaderboard import Board, build, collect, table, write
from hambench.results import Metric


def order(board: Board) -> list[tuple[int | None, str]]:
    (ranking,) = board.rankings
    return [(place, entry.preset) for place, entry in ranked(ranking)]


def test_seeds_are_averaged(run: Write) -> None:
    for seed, value in enumerate((90.0, 100.0, 116.0)):
        runs = run(f"s{seed}", value, seed=seed, parameters=1000)
    board = collect([runs])
    ((place, entry),) = ranked(board.rankings[0])
    found = entry.summary("h_mae")
    assert (place, entry.seeds, board.left_out) == (1, (0, 1, 2), ())
    assert found.value == pytest.approx(102e-6)
    assert found.ci95 == pytest.approx((102e-6 * 0.95, 102e-6 * 1.05))
    assert found.spread == pytest.approx(13.114877e-6)  # deviations -12, -2, 14: sqrt(344 / 2)
    assert "102.0 [96.9, 107.1]" in table(board)


def test_order_ties_and_failures(run: Write) -> None:
    run("a", 100.0, preset="first")
    run("b", 108.0, preset="tied")
    run("c", 300.0, preset="last")
    partial = {
        "h_mae": metric(1.0, n=99),
        "failure_rate": Metric(value=0.01, unit="1", ci95=None, n=100),
    }
    runs = run("d", preset="failing", metrics=partial)
    board = collect([runs])
    assert order(board) == [(1, "first"), (1, "tied"), (3, "last"), (None, "failing")]
    assert ties(board.rankings[0]) is None
    assert "1 of 100" in table(board)


def test_ties_reach_to_the_first_of_a_rank_only(run: Write) -> None:
    """100 meets 108 and 108 meets 117, but 117 is worse than 100."""
    for name, value in {"a": 100.0, "b": 108.0, "c": 117.0}.items():
        runs = run(name, value, preset=name)
    assert order(collect([runs])) == [(1, "a"), (1, "b"), (3, "c")]


@pytest.mark.parametrize(
    "other",
    [{"task": "water"}, {"task_version": 2}, {"fingerprint": "cd" * 32}, {"split": "validation"},
     {"source": "published"}],
)  # fmt: skip
def test_other_data_are_never_mixed(run: Write, other: dict[str, Any]) -> None:
    run("a", 100.0)
    board = collect([run("b", 1.0, **other)])
    assert [len(ranking.entries) for ranking in board.rankings] == [1, 1]


@pytest.mark.parametrize(
    ("other", "entries"),
    [
        ({"hyperparameters": {"channels": 32}}, 2),
        ({"recipe": {"optimizer": {"name": "muon"}}}, 2),
        ({"recipe": {"optimizer": {"name": "adam"}, "title": "other words"}}, 1),
    ],
)
def test_settings_are_told_apart(run: Write, other: dict[str, Any], entries: int) -> None:
    run("a", 100.0)
    board = collect([run("b", 101.0, seed=1, **other)])
    assert len(board.rankings[0].entries) == entries


def test_a_cell_run_twice_counts_once(run: Write) -> None:
    run("new", 100.0, finished=500)
    board = collect([run("old", 1.0, finished=400)])
    ((_, entry),) = ranked(board.rankings[0])
    assert entry.summary("h_mae").value == pytest.approx(1e-4)
    assert board.left_out == (
        ("runs/old", "runs/new is the same cell, finished later; their metrics differ"),
    )


def test_what_cannot_be_ranked_is_listed(run: Write) -> None:
    run("a")
    run("b", metrics={"h_max": metric(100.0)}, preset="other")
    run("c", metrics={"h_mae": metric(100.0, unit="meV")}, preset="other")
    runs = run("d", task="future", metrics={"spectrum_error": metric(100.0)})
    (runs / "broken").mkdir()
    (runs / "broken" / "result.json").write_text("{")
    board = collect([runs])
    reasons = dict(board.left_out)
    assert "has no 'h_mae'" in reasons["runs/b"]
    assert "'h_mae' is in 'meV', expected 'Eh'" in reasons["runs/c"]
    assert "'spectrum_error' is not known" in reasons["runs/d"]
    assert "is no valid result of schema" in reasons["runs/broken/result.json"]
    assert str(runs) not in reasons["runs/broken/result.json"]
    assert order(board) == [(1, "helm_small")]
    for text in (table(board), *(p.read_text() for p in write(board, runs.parent / "out"))):
        assert "broken/result.json" in text.replace("\\", "")


def test_same_input_same_bytes(run: Write, tmp_path: Path) -> None:
    for k in range(4):
        runs = run(f"r{k}", 100.0 + k, preset=f"m{k % 2}", seed=k // 2)
    first = build([runs], tmp_path / "one")
    moved = tmp_path / "elsewhere"
    runs.rename(moved)
    second = build([moved, moved / "r1"], tmp_path / "two")
    assert [p.name for p in first] == ["leaderboard.md", "index.html"]
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]


def test_files_and_folders_can_be_given(run: Write) -> None:
    runs = run("a")
    for given in (runs, runs / "a", runs / "a" / "result.json"):
        assert order(collect([given])) == [(1, "helm_small")]
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        collect([runs / "nowhere"])
    (runs / "a" / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"none of 1 results .*, runs/a/result\.json: .* no"):
        collect([runs])
    (runs / "a" / "result.json").unlink()
    with pytest.raises(DataError, match="a run writes it when it is finished"):
        collect([runs])


def test_hostile_names_stay_text_elsewhere(run: Write, tmp_path: Path) -> None:
    name = "a|b\n# won\n`x` [y](javascript:z) <b> *c* \x1b[31m \u202etxt"
    board = collect([run("a", preset=name)])
    text = write(board, tmp_path / "out")[0].read_text()
    row = next(line for line in text.splitlines() if "won" in line)
    assert r"a\|b \# won \`x\` \[y\](javascript:z) &lt;b&gt; \*c\*" in row
    assert len(re.findall(r"(?<!\\)\|", row)) == 15  # fourteen columns
    for shown in (row, table(board)):
        assert "\x1b" not in shown
        assert "\u202e" not in shown


def test_missing_secondary_metrics_and_other_units(run: Write, tmp_path: Path) -> None:
    both = {"h_mae": metric(100.0), "h_max": metric(5000.0, ci95=None)}
    run("a", preset="a", metrics=both)
    board = collect([run("b", 200.0, preset="b")])
    lines = table(board).splitlines()
    assert "h_max / uEh" in lines[1]
    assert "5000" in lines[2]
    assert "5000" not in lines[3]
    cells = write(board, tmp_path / "out")[0].read_text().splitlines()[-1].split("|")
    assert cells[5].strip() == ""


def test_published_numbers_stand_apart(run: Write, tmp_path: Path) -> None:
    runs = run("a", 1.0, task="md17_water", preset="better_than_all")
    board = collect([runs])
    assert order(board) == [(1, "better_than_all")]
    title = "Published numbers for md17_water"
    assert [made.title for made in board.tables] == ["md17_water v1", title]
    assert table(board).index("better_than_all") < table(board).index(title)
    text = write(board, tmp_path, ["md"])[0].read_text("utf-8").replace("\\", "")
    assert title in text
    assert "arXiv 2510.00224, Table 2 (Hamiltonian errors)" in text
    other = run("b", preset="on_water_mini").parent / "runs" / "b"
    assert [made.title for made in collect([other]).tables] == ["water_mini v1"]
