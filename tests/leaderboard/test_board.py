"""What a board knows beside ranks: all metrics, costs, unfinished cells, published numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from board_case import START, Write, metric, ranked

from hambench.leaderboard import collect, table, write
from hambench.leaderboard.across import relative
from hambench.leaderboard.beside import NOT_COMPARABLE, beside
from hambench.leaderboard.costs import front
from hambench.leaderboard.frame import frame
from hambench.leaderboard.records import as_json
from hambench.leaderboard.table import Table
from hambench.results import Cost, Metric, Status, write_status


def share(value: float, width: float = 1e-3) -> Metric:
    return Metric(value=value, unit="1", ci95=(value - width, value + width), n=100)


def cost(wall_s: float, device: str = "cpu") -> Cost:
    return Cost(
        device=device, wall_s=wall_s, steps=9, epochs=1, steps_per_s=1, molecules_per_s=1,
        peak_memory=2**30, stopped_by="max_steps",
    )  # fmt: skip


def unfinished(folder: Path, state: str, seed: int, **config: Any) -> None:
    """A cell as `put` writes it, without a result."""
    content = {
        "task": {"name": "water_mini"},
        "model": {"name": "helm_small", "hyperparameters": {"channels": 16}},
        "recipe": {"optimizer": {"name": "adam"}, "title": "words"},
        "seed": seed,
        "strategy": None,
        "max_steps": None,
    }
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content | config))
    reason = "the loss is not finite" if state == "failed" else ""
    write_status(folder, Status(state=state, step=7, reason=reason, started=START, updated=START))


def cells(made: Table, column: str) -> list[str]:
    place = [c.label for c in made.columns].index(column)
    return [row[place].text for row in made.rows]


def test_every_metric_has_places_of_its_own(run: Write) -> None:
    run("a", preset="a", metrics={"h_mae": metric(100.0), "psi": share(0.90)})
    run("b", preset="b", metrics={"h_mae": metric(200.0), "psi": share(0.99)})
    (ranking,) = collect([run("c", preset="c", metrics={"h_mae": metric(300.0)})]).rankings
    assert [e.preset for e in ranking.entries] == ["a", "b", "c"]
    assert [place and place.rank for place in ranking.contests["psi"].places] == [2, 1, None]
    (made,) = collect([run("c", preset="c", metrics={"h_mae": metric(300.0)})]).tables
    bold = [[cell.text for cell in row if cell.bold] for row in made.rows]
    assert bold == [["100.0 [95.0, 105.0]"], ["99.000 [98.900, 99.100]"], []]


def test_a_lone_entry_is_not_the_best_of_any(run: Write) -> None:
    (made,) = collect([run("a")]).tables
    assert not any(cell.bold for row in made.rows for cell in row)


def test_the_front_is_of_one_device_and_of_what_is_ranked(run: Write) -> None:
    run("slow", 10.0, preset="slow", cost=cost(100))
    run("middle", 20.0, preset="middle", cost=cost(200))
    run("fast", 30.0, preset="fast", cost=cost(10))
    run("gpu", 40.0, preset="gpu", cost=cost(50, "an H200"))
    failures = Metric(value=0.1, unit="1", ci95=None, n=10)
    run("failing", preset="failing", cost=cost(1),
        metrics={"h_mae": metric(1.0), "failure_rate": failures})  # fmt: skip
    (ranking,) = collect([run("equal", 30.0, preset="equal", cost=cost(10))]).rankings
    names = [entry.preset for entry in ranking.entries]
    assert {names[k] for k in front(ranking, "training")} == {"slow", "fast", "equal", "gpu"}
    assert {names[k] for k in front(ranking, "parameters")} == {"slow"}
    assert front(ranking, "prediction") == frozenset()


def test_tasks_stand_side_by_side_without_a_total(run: Write) -> None:
    run("a1", 100.0, preset="a")
    run("b1", 250.0, preset="b")
    run("b2", 10.0, preset="b", task="organic_mini")
    board = collect([run("c2", 40.0, preset="c", task="organic_mini")])
    across = next(made for made in board.tables if made.kind == "across")
    assert cells(across, "model") == ["b", "a", "c"]
    assert cells(across, "rank on water_mini") == ["2", "1", ""]
    assert cells(across, "error / best on water_mini") == ["2.5", "1", ""]
    assert cells(across, "error / best on organic_mini") == ["1", "", "4"]
    assert [one.ratio for one in relative(board.rankings[1])] == pytest.approx([1, 2.5])
    assert not [c for c in across.columns if "total" in c.label or "mean" in c.label]


def test_two_settings_of_a_model_are_both_there(run: Write) -> None:
    run("a", 10.0, preset="m", hyperparameters={"channels": 1})
    run("b", 30.0, preset="m", hyperparameters={"channels": 2})
    board = collect([run("c", 5.0, preset="m", task="organic_mini")])
    across = next(made for made in board.tables if made.kind == "across")
    assert cells(across, "rank on water_mini") == ["1, 2"]
    assert cells(across, "error / best on water_mini") == ["1, 3"]


def test_other_data_of_one_task_are_told_apart_by_name(run: Write) -> None:
    run("a", preset="m")
    board = collect([run("b", preset="m", fingerprint="cd" * 32)])
    across = next(made for made in board.tables if made.kind == "across")
    heads = [c.label for c in across.columns]
    assert "rank on water_mini abababab" in heads
    assert "rank on water_mini cdcdcdcd" in heads


def test_unfinished_cells_are_shown_with_the_entry_they_belong_to(run: Write) -> None:
    runs = run("a", seed=0)
    unfinished(runs / "b", "failed", 1)
    unfinished(runs / "c", "running", 2, model={"name": "other"})
    unfinished(runs / "d", "interrupted", 3, recipe={"optimizer": {"name": "sgd"}})
    board = collect([runs])
    first = board.tables[0]
    assert cells(first, "seeds") == ["1 (seed 1 failed)"]
    made = next(t for t in board.tables if t.kind == "unfinished")
    assert cells(made, "state") == ["failed", "running", "interrupted"]
    assert cells(made, "why") == ["the loss is not finite", "", ""]
    assert "the loss is not finite" in table(board)


def test_a_board_of_unfinished_cells_alone(run: Write, tmp_path: Path) -> None:
    unfinished(tmp_path / "runs" / "a", "failed", 1)
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "status.json").write_text("{")
    (tmp_path / "runs" / "a" / "config.yaml").write_text("a: [")
    board = collect([tmp_path / "runs" / "a"])
    assert board.rankings == ()
    assert "the loss is not finite" in table(board)
    assert len(write(board, tmp_path / "out", ["md", "html", "tex", "json", "csv"])) == 5


def test_published_numbers_are_marked_where_they_cannot_be_compared(run: Write) -> None:
    run("a", 12.0, task="md17_water", variant="qhnet42", source="published", model="qhnet",
        preset="qhnet")  # fmt: skip
    board = collect([run("b", 1.0, task="md17_water", model="toy", preset="toy", source="published",
                         variant="qhnet42")])  # fmt: skip
    (ranking,) = board.rankings
    found = beside(ranking)
    numbers = {row.setting: why for one in found.values() for row, why in one.numbers}
    assert numbers
    assert {row.model for one in found.values() for row, _ in one.numbers} == {"qhnet"}
    made = board.tables[0]
    for heading in found:
        mine = dict(zip(cells(made, "model"), cells(made, heading), strict=True))
        assert mine["toy"] == ""
        assert mine["qhnet"] != ""
    marked = [h for h, one in found.items() if any(why for _, why in one.numbers)]
    assert any(NOT_COMPARABLE in text for h in marked for text in cells(made, h))
    assert all(note.startswith(NOT_COMPARABLE) for note in made.notes)
    generated = run("c", 12.0, task="md17_water", model="qhnet", preset="q") / "c"
    (other,) = collect([generated]).rankings
    reasons = [why for one in beside(other).values() for _, why in one.numbers]
    assert all("labels of the runs are generated" in why for why in reasons)


def test_the_frame_is_tidy(run: Write) -> None:
    pytest.importorskip("pandas")
    both = {"h_mae": metric(100.0), "psi": share(0.9)}
    for seed in range(2):
        run(f"a{seed}", seed=seed, metrics=both)
    runs = run("b", 200.0, preset="other")
    (runs / "broken").mkdir()
    (runs / "broken" / "result.json").write_text("{}")
    found = frame(collect([runs]))
    assert len(found) == 5
    assert not found.duplicated(["run", "metric"]).any()
    mine = found[(found.preset == "helm_small") & (found.metric == "h_mae")]
    assert mine.value.tolist() == pytest.approx([1e-4, 1e-4])
    assert mine.primary.all()
    assert found.groupby("metric")["rank"].max().to_dict() == {"h_mae": 2, "psi": 1}


def test_json_holds_numbers_in_the_units_of_results(run: Write) -> None:
    run("a", 100.0, seed=0)
    board = collect([run("b", 120.0, seed=1)])
    (ranking,) = json.loads(as_json(board))["rankings"]
    (entry,) = ranking["entries"]
    assert entry["metrics"]["h_mae"]["value"] == pytest.approx(1.1e-4)
    assert entry["metrics"]["h_mae"]["unit"] == "Eh"
    assert [one["run"] for one in entry["runs"]] == ["runs/a", "runs/b"]
    assert entry["relative_error"] == 1


def test_formats_are_written_as_asked(run: Write, tmp_path: Path) -> None:
    board = collect([run("a")])
    (path,) = write(board, tmp_path / "out", ["json"])
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["leaderboard.json"] == [path.name]
    csv = write(board, tmp_path / "out", ["csv"])[0].read_text().splitlines()
    assert csv[0].startswith("run,task,version,fingerprint,source,")
    assert csv[1].startswith("runs/a,water_mini,1,")


def test_results_of_another_budget_say_so(run: Write) -> None:
    made = collect([run("a", step_budget=20_000)]).tables[0]
    assert cells(made, "steps") == ["5,000 of 20,000"]


def test_more_models_than_tests_can_tell_apart_are_ranked_by_intervals(run: Write) -> None:
    for k in range(40):
        runs = run(f"r{k}", 100.0 * 1.2**k, preset=f"m{k:02d}")
    (ranking,) = collect([runs]).rankings
    assert [rank for rank, _ in ranked(ranking)] == list(range(1, 41))
    assert "cannot tell more than 32 models apart" in ranking.contests["h_mae"].untested


def test_a_broken_link_is_left_out(run: Write) -> None:
    runs = run("a")
    (runs / "gone").mkdir()
    (runs / "gone" / "result.json").symlink_to(runs / "nowhere")
    board = collect([runs])
    assert [name for name, _ in board.left_out] == ["runs/gone/result.json"]


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (Metric(value=-5.0, unit="Eh", ci95=(-6.0, -4.0), n=9), "is -5, no metric is negative"),
        (Metric(value=1e-3, unit="Eh", ci95=(5.0, 6.0), n=9), "far outside of its interval"),
        (Metric(value=1e-3, unit="D", ci95=None, n=9), "is in 'D', expected 'Eh'"),
    ],
)
def test_numbers_that_cannot_be_are_left_out(run: Write, found: Metric, reason: str) -> None:
    run("honest")
    board = collect([run("other", preset="other", metrics={"h_mae": found})])
    assert reason in dict(board.left_out)["runs/other"]
    assert [entry.preset for entry in board.rankings[0].entries] == ["helm_small"]


def test_shares_are_at_most_one(run: Write) -> None:
    board = collect([run("honest"), run("b", metrics={"h_mae": metric(1.0), "psi": share(7.0)})])
    assert "a share of at most 1" in dict(board.left_out)["runs/b"]


def test_what_is_no_file_is_left_out(run: Write) -> None:
    runs = run("a")
    for name in ("folder", "pipe"):
        (runs / name).mkdir()
    (runs / "folder" / "result.json").mkdir()
    os.mkfifo(runs / "pipe" / "result.json")
    found = dict(collect([runs]).left_out)
    assert found.keys() == {"runs/folder/result.json", "runs/pipe/result.json"}
    assert "is no regular file" in found["runs/pipe/result.json"]


def test_csv_holds_no_formulas_and_no_control_characters(run: Write, tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    run("a", preset="=cmd|' /C calc'!A0", model="a\x00\x1bb")
    (path,) = write(collect([tmp_path / "runs"]), tmp_path / "out", ["csv"])
    text = path.read_text("utf-8")
    assert ",'=cmd|" in text
    assert not {"\x00", "\x1b"} & set(text)
