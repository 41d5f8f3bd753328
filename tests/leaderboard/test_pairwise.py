"""Runs compared pair by pair: who is compared, what is said, what is refused."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_case import metric, put, ranked, ties
from click.testing import CliRunner

from hambench.cli import cli
from hambench.errors import ConfigError, DataError, VerificationError
from hambench.leaderboard import collect, table, write
from hambench.leaderboard.pairwise import compare, records, remarks, tables
from hambench.leaderboard.text import plain
from hambench.results import Metric
from hambench.scoring.score_table import ScoreTable, read_scores, write_scores

HARD = np.random.default_rng(3).gamma(3, 1 / 3, size=100)


def scored(
    folder: Path, errors: np.ndarray, *, settings: dict[str, Any] | None = None, **changes: Any
) -> Path:
    """A run with errors (n,) in Eh, NaN where a prediction failed, and its scores; its ``runs``."""
    failed = np.isnan(errors)
    x, ones = np.where(failed, 0, errors), np.where(failed, 0.0, 1.0)
    columns = {"h_mae": (x, ones), "h_max": (5 * x, ones), "failure_rate": (1 - ones, ones**0)}
    metrics = {
        "h_mae": metric(1e6 * np.nanmean(errors), n=int(ones.sum())),
        "h_max": metric(5e6 * np.nanmax(errors), ci95=None, n=int(ones.sum())),
    }
    if failed.any():
        share = failed.mean()
        metrics["failure_rate"] = Metric(value=share, unit="1", ci95=None, n=len(errors))
    put(folder, metrics=metrics, **changes)
    ids = tuple(f"m{k:03d}" for k in range(len(errors)))
    found = ScoreTable(
        task=changes.get("task", "water_mini"),
        task_version=1,
        fingerprint=changes.get("fingerprint", "ab" * 32),
        split="test",
        ids=ids,
        groups=ids,
        settings={name: (settings or {}).get(name, {}) for name in columns},
        terms=np.stack([np.stack(pair, axis=1) for pair in columns.values()], axis=1),
    )
    write_scores(folder / "scores.h5", found)
    return folder.parent


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two models that tie, one far behind; three seeds each."""
    rng = np.random.default_rng(5)
    for name, scale in {"good": 1.0, "same": 1.001, "bad": 2.0}.items():
        for seed in range(3):
            luck = np.exp(0.03 * rng.normal())
            errors = 1e-4 * scale * luck * HARD * rng.gamma(9, 1 / 9, size=100)
            scored(tmp_path / "runs" / f"{name}{seed}", errors, preset=name, seed=seed)
    return tmp_path / "runs"


def test_ranks_ties_and_pairs(runs: Path) -> None:
    (contest,) = compare([runs]).contests
    assert contest.metric.name == "h_mae"
    standing = {model.label: model.standing for model in contest.models}
    assert standing["good"] == standing["same"] == (1, "a")
    assert standing["bad"] == (3, "b")
    assert contest.models[-1].label == "bad"
    means = [read_scores(runs / f"bad{s}" / "scores.h5").of("h_mae")[:, 0].mean() for s in range(3)]
    worst = contest.models[-1]
    assert worst.seeds == (0, 1, 2)
    assert worst.estimate.value == pytest.approx(np.mean(means))
    assert worst.estimate.spread == pytest.approx(np.std(means, ddof=1))
    verdicts = {(one, other): d.significant for one, other, d in contest.pairs}
    assert {frozenset(pair): v for pair, v in verdicts.items()} == {
        frozenset({"good", "same"}): False,
        frozenset({"good", "bad"}): True,
        frozenset({"same", "bad"}): True,
    }
    assert all(d.value < 0 and d.n == 100 for one, other, d in contest.pairs)  # the best first


def test_the_leaderboard_ties_as_the_comparison_does(runs: Path, tmp_path: Path) -> None:
    board = collect([runs])
    (ranking,) = board.rankings
    assert [place for place, _ in ranked(ranking)] == [1, 1, 3]
    assert ties(ranking) == ("a", "a", "b")
    assert table(board).splitlines()[1].split()[:3] == ["rank", "ties", "model"]
    assert "<td>a</td>" in write(board, tmp_path / "out")[1].read_text()
    assert ranking.contests["h_mae"].untested == ""
    (runs / "same1" / "scores.h5").unlink()
    board = collect([runs])
    (ranking,) = board.rankings
    assert ties(ranking) == ("a", "a", "b")  # good and bad are tested, whatever the third lacks
    assert [place for place, _ in ranked(ranking)] == [1, 1, 3]
    head = table(board).splitlines()[0]
    assert re.search(
        r"some ties are by overlap of intervals: same \w{8} seed 1: no scores\.h5.*evaluate", head
    )
    (runs / "same1" / "scores.h5").write_bytes(b"no HDF5")
    assert "is truncated or corrupt; `hambench evaluate" in collect([runs]).tables[0].subtitle
    for name in ("good1", "bad1"):
        (runs / name / "scores.h5").unlink()
    (other,) = collect([runs]).rankings
    assert ties(other) is None
    assert [place for place, _ in ranked(other)] == [1, 1, 3]


@pytest.mark.parametrize("board", [4, 37])
def test_leaderboard_and_comparison_agree_close_to_significance(board: int, tmp_path: Path) -> None:
    """Where the draws of a test decide, which depend on the order the models stand in."""
    rng, runs = np.random.default_rng(board), tmp_path / "runs"
    for k in range(4):
        for seed in range(3):
            errors = 1e-4 * (1 + 0.1 * k) * np.exp(0.02 * rng.normal()) * HARD
            scored(runs / f"m{k}{seed}", errors, preset=f"m{3 - k}", seed=seed)
    (ranking,), (contest,) = collect([runs]).rankings, compare([runs]).contests
    standing = [model.standing for model in contest.models]
    assert [(place, e.preset) for place, e in ranked(ranking)] == [
        (s.rank, model.label) for s, model in zip(standing, contest.models, strict=True)
    ]
    assert ties(ranking) == tuple(s.ties for s in standing)


def test_pairing_tells_apart_what_intervals_do_not(tmp_path: Path) -> None:
    """Always 3 % worse on the same molecules, among molecules that differ by more than that."""
    scored(tmp_path / "runs" / "a", 1e-4 * HARD, preset="first")
    runs = scored(tmp_path / "runs" / "b", 1.03e-4 * HARD, preset="second")
    (ranking,) = collect([runs]).rankings
    assert [(place, e.preset) for place, e in ranked(ranking)] == [(1, "first"), (2, "second")]
    (runs / "b" / "scores.h5").unlink()
    (ranking,) = collect([runs]).rankings
    assert [place for place, _ in ranked(ranking)] == [1, 1]


def test_scores_of_other_settings_do_not_rank(tmp_path: Path) -> None:
    scored(tmp_path / "runs" / "a", 1e-4 * HARD, preset="first")
    runs = scored(
        tmp_path / "runs" / "b", 2e-4 * HARD, preset="second", settings={"h_mae": {"cutoff": 5.0}}
    )
    assert ties(collect([runs]).rankings[0]) is None
    with pytest.raises(VerificationError, match=r"h_mae of runs/b and runs/a cannot"):
        compare([runs])
    assert compare([runs], ["h_max"]).contests[0].models[0].label == "first"


def test_failures_are_counted_and_not_ranked(runs: Path) -> None:
    errors = 1e-6 * HARD
    errors[[3, 8]] = np.nan
    scored(runs / "failing", errors, preset="failing")
    found = compare([runs])
    (contest,) = found.contests
    last = contest.models[-1]
    assert (last.label, last.failures, last.standing, last.estimate.n) == (
        "failing",
        (2,),
        None,
        98,
    )
    assert contest.models[0].standing == (1, "a")
    ((_, _, difference), *_) = [pair for pair in contest.pairs if "failing" in pair]
    assert (difference.n, difference.left_out) == (98, (2, 0))
    assert difference.value > 0
    said = " ".join(remarks(found))
    assert "one seed of failing" in said
    assert "failing failed on some molecules" in said
    shown = plain(tables(found.contests), found.left_out)
    assert "2 + 0" in shown
    board = collect([runs])
    assert ties(board.rankings[0]) == ("a", "a", "b", "")
    assert board.rankings[0].places[-1] is None
    assert "2 of 100" in table(board)


def test_training_sets_and_settings_are_models_of_their_own(tmp_path: Path) -> None:
    for k, other in enumerate(
        ({}, {"training_split": "train_10"}, {"hyperparameters": {"channels": 8}}, {"seed": 1})
    ):
        runs = scored(tmp_path / "runs" / f"r{k}", (1 + k) * 1e-4 * HARD, **other)
    labels = sorted(model.label for model in compare([runs]).contests[0].models)
    assert len(labels) == 3
    assert labels[0].startswith("helm_small on train ")
    assert labels[2] == "helm_small on train_10"


def test_a_cell_run_twice_counts_once(tmp_path: Path) -> None:
    scored(tmp_path / "runs" / "a", 1e-4 * HARD, preset="a")
    scored(tmp_path / "runs" / "b", 2e-4 * HARD, preset="b", finished=500)
    runs = scored(tmp_path / "runs" / "b_before", 3e-4 * HARD, preset="b")
    (runs / "b_before" / "scores.h5").unlink()
    found = compare([runs])
    assert found.contests[0].models[1].estimate.value == pytest.approx(2e-4 * HARD.mean())
    assert found.left_out[0][0] == "runs/b_before"


def test_what_cannot_be_compared(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"this one run is of a single model, good; give runs of"):
        compare([runs / "good0"])
    with pytest.raises(ConfigError, match=r"these 2 runs are of a single model, good"):
        compare([runs / "good0", runs / "good1"])
    with pytest.raises(ConfigError, match="has no 'h_mae_elem'"):
        compare([runs], ["h_mae_elem"])
    other = scored(tmp_path / "elsewhere" / "a", HARD, task="md17_water")
    with pytest.raises(VerificationError, match=r"task (md17_water|water_mini) against"):
        compare([runs, other])
    other = scored(tmp_path / "data" / "a", HARD, fingerprint="cd" * 32)
    with pytest.raises(VerificationError, match="data with fingerprint"):
        compare([runs, other])
    path = runs / "bad1" / "scores.h5"
    write_scores(path, dataclasses.replace(read_scores(path), split="validation"))
    with pytest.raises(DataError, match=r"is of split validation, result\.json beside it of test"):
        compare([runs])
    path.unlink()
    with pytest.raises(
        DataError, match=r"bad1: no scores\.h5 \(`hambench evaluate RUN_DIR` writes"
    ):
        compare([runs])
    (runs / "bad1" / "result.json").write_text("{")
    assert compare([runs]).left_out[0][0] == "runs/bad1/result.json"
    for given in (runs / "bad1", runs / "bad1" / "result.json"):
        with pytest.raises(DataError, match=r"bad1/result\.json is no valid result"):
            compare([runs / "good0", given])
    (runs / "same0" / "status.json").write_text("{}")
    (runs / "same0" / "result.json").unlink()
    with pytest.raises(DataError, match=r"same0 has no result\.json: the run is not finished"):
        compare([runs / "good0", runs / "same0"])


def test_command(runs: Path) -> None:
    shown = CliRunner().invoke(cli, ["compare", str(runs), "metric=h_mae, h_max"])
    assert shown.exit_code == 0, shown.output
    for text in ("h_max on water_mini v1", "h_mae on water_mini v1", "p (Holm)", "better", "tie"):
        assert text in shown.output
    said = CliRunner().invoke(cli, ["compare", str(runs), "--metric", "h_max", "--json"]).output
    found = json.loads(said)
    assert found == json.loads(json.dumps(records(compare([runs], ["h_max"]))))
    one = found["metrics"]["h_max"]
    assert one["models"][0]["rank"] == 1
    assert one["models"][0]["ci95"] is None
    assert {len(model["seeds"]) for model in one["models"]} == {3}
    assert len(one["pairs"]) == 3
