"""Pictures of a board: they show its numbers, and what they leave out is said."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from board_case import metric, put
from figure_case import PARTS, cost, log_of, put_embeddings, put_model, put_parts

from hambench.errors import ConfigError
from hambench.leaderboard import Board, collect, write
from hambench.leaderboard.costs import front
from hambench.leaderboard.figures import (
    album,
    costs,
    draw,
    embeddings,
    errors,
    parts,
    style,
    training,
)
from hambench.leaderboard.figures.album import MOST, Album
from hambench.leaderboard.logs import validations
from hambench.results import Metric

matplotlib = pytest.importorskip("matplotlib")
pytest.importorskip("seaborn")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three models of two seeds each, and their embeddings."""
    for k in range(3):
        put_model(tmp_path / "runs", k)
    ids = [f"{k:032x}{0:032x}" for k in range(2)]
    put_embeddings(tmp_path / "runs" / "embeddings" / "embeddings.h5", [*ids, "e" * 64])
    return tmp_path / "runs"


def drawn(found: Album, name: str = "") -> Any:
    """The figure of an album that has one, or that of this name."""
    (picture,) = (p for p in found.pictures if p.name == (name or p.name))
    with style.drawing():
        return picture.make()


def panels_of(figure: Any) -> list[Any]:
    """Those that show something."""
    return [axes for axes in figure.axes if axes.get_visible() and axes.axison]


def reasons(found: Album) -> str:
    return "\n".join(f"{name}: {why}" for name, why in found.left_out)


def test_errors_are_those_of_the_board(root: Path) -> None:
    put(root / "failing", preset="failing", metrics={
        "h_mae": metric(50.0, n=99), "failure_rate": Metric(value=0.01, unit="1", ci95=None, n=100),
    })  # fmt: skip
    board = collect([root])
    (panel,) = panels_of(drawn(errors.pictures(board)))
    entries = board.rankings[0].entries
    assert len(panel.containers) == len(entries) == 4
    for k, (bar, entry) in enumerate(zip(panel.containers, entries, strict=True)):
        summary = entry.summary("h_mae")
        line, _, (interval,) = bar.lines
        assert line.get_xydata().tolist() == [[pytest.approx(1e6 * summary.value), k]]
        ends = interval.get_segments()[0][:, 0]
        assert ends == pytest.approx(1e6 * np.array(summary.ci95))
    seeds = panel.collections[-1].get_offsets()
    values = [1e6 * r.metrics["h_mae"].value for e in entries for r in e.results]
    assert sorted(seeds[:, 0]) == pytest.approx(sorted(values))
    assert [t.get_text() for t in panel.get_yticklabels()] == [
        "1. model_0", "2. model_1", "3. model_2", "failing",
    ]  # fmt: skip
    assert panel.containers[3].lines[0].get_marker() != panel.containers[0].lines[0].get_marker()
    assert panel.get_xlabel() == "h_mae / uEh (lower is better)"
    assert panel.get_xscale() == "linear"


def test_rankings_are_never_mixed_and_axes_span_decades(root: Path) -> None:
    put_model(root, 20, 1)
    put(root / "other", 10.0, task="other", fingerprint="cd" * 32)
    first, second = panels_of(drawn(errors.pictures(collect([root]))))
    assert first.get_title("left").startswith(
        "other v1\ntrained on train, scored on test\ngenerated data cdcdcdcd"
    )
    assert [len(panel.containers) for panel in (first, second)] == [1, 4]
    assert [panel.get_xscale() for panel in (first, second)] == ["linear", "log"]


def test_the_best_of_many_are_shown(tmp_path: Path) -> None:
    for k in range(MOST + 5):
        put(tmp_path / f"m{k}", 100.0 + k, preset=f"model_{k}")
    (panel,) = panels_of(drawn(album(collect([tmp_path])), "errors"))
    assert f"best {MOST} of {MOST + 5}" in panel.get_title("left")
    assert len(panel.containers) == len(panel.get_yticklabels()) == MOST
    assert panel.get_yticklabels()[-1].get_text().endswith(f"model_{MOST - 1}")


def test_costs_show_the_front_of_each_device(root: Path) -> None:
    put_model(root, 3, 1, cost=cost(0, wall_s=50_000.0, inference=None))  # worse and dearer
    put_model(root, 5, 1, cost=cost(5, wall_s=0.0))
    board = collect([root])
    training_panel, prediction, *_ = drawn(costs.pictures(board)).axes
    (ranking,) = board.rankings
    for panel, kind, unit in ((training_panel, "training", 3600), (prediction, "prediction", 1e-3)):
        found = {
            int(text.get_text()): point
            for text, point in zip(panel.texts, _points(panel), strict=True)
        }
        for k, entry in enumerate(ranking.entries):
            price = {"training": entry.results[0].cost.wall_s}
            if entry.results[0].cost.inference is not None:
                price["prediction"] = entry.results[0].cost.inference.molecule_s
            if kind not in price:
                assert k + 1 not in found
                continue
            point = found[k + 1]
            place = [price[kind] / unit, 1e6 * entry.summary("h_mae").value]
            assert point.get_xydata()[0] == pytest.approx(place)
            assert (point.get_markerfacecolor() != "white") == (k in front(ranking, kind))
            device = entry.results[0].cost.device
            assert point.get_marker() == {"cpu": "o", "cuda": "s"}[device]
    assert training_panel.get_xscale() == "symlog"  # something is free
    assert training_panel.get_xlabel() == "training time / h"
    assert prediction.get_title("right") == "not known of 4"
    stairs = {
        line.get_color(): line.get_xydata()
        for line in training_panel.lines
        if len(line.get_xydata()) > 1
    }
    assert sorted(map(len, stairs.values())) == [2, 2]


def _points(panel: Any) -> list[Any]:
    return [line for line in panel.lines if line.get_marker() in ("o", "s")]


def test_a_lone_model_has_no_cost_picture(tmp_path: Path) -> None:
    put(tmp_path / "a")
    found = costs.pictures(collect([tmp_path]))
    assert found.pictures == ()
    assert "water_mini: fewer than two ranked models have a known cost" in reasons(found)


def test_training_curves_are_those_of_the_logs(root: Path) -> None:
    board = collect([root])
    found = training.pictures(board)
    by_step, by_time = panels_of(drawn(found))
    assert found.left_out == ()
    for panel, column, unit in ((by_step, 0, 1.0), (by_time, 1, 60.0)):
        lines = [line.get_xydata() for line in panel.lines]
        wanted = []
        for run in board.runs:
            table = np.array(validations(run.folder, run.result))
            wanted.append(np.stack([table[:, column] / unit, 1e6 * table[:, 2]], axis=1))
        assert len(lines) == len(wanted) == 6
        for line, rows in zip(lines, wanted, strict=True):
            np.testing.assert_allclose(line, rows)
    assert by_step.get_ylabel() == "validation MAE of H / uEh"
    assert len({line.get_marker() for line in by_step.lines}) == 3


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (None, "it has no log.jsonl"),
        ("", "log.jsonl has no val_h_mae"),
        ('{"val_h_mae": 1e-4', "log.jsonl, line 1 is no row of a log"),
        ('"val_h_mae"\n', "line 1 is no row of a log"),
        ("7\n", "line 1 is no row of a log"),
        ("[" * 5000, "line 1 is no row of a log"),
        (log_of(1.0) + "\x00\x1b[31m\n", "line 12 is no row of a log: \ufffd\ufffd[31m"),
        ('{"step": 1, "elapsed_s": 1, "val_h_mae": NaN}\n', "val_h_mae that is no number"),
        ('{"step": 1, "elapsed_s": 1, "val_h_mae": 1e300}\n', "val_h_mae that is no number"),
        ('{"step": 1' + "0" * 400 + ', "elapsed_s": 1, "val_h_mae": 1}\n', "log.jsonl"),
        ('{"step": [], "elapsed_s": 1, "val_h_mae": 1}\n', "line 1 is no row of a log"),
        ('{"val_h_mae": 1}\n', "line 1 is no row of a log"),
    ],
)
def test_logs_of_strangers_break_nothing(root: Path, log: str | None, said: str) -> None:
    path = root / "m1-s1" / "log.jsonl"
    path.unlink()
    if log is not None:
        path.write_text(log)
    found = training.pictures(collect([root]))
    assert f"training: runs/m1-s1: {said}" in reasons(found) or said in reasons(found)
    assert len(found.pictures) == 1


def test_parts_of_errors_are_those_of_the_runs(root: Path) -> None:
    board = collect([root])
    found = parts.pictures(board)
    assert [p.name for p in found.pictures] == ["error_by_distance", "error_by_pair"]
    for picture, (by, names) in zip(found.pictures, PARTS.items(), strict=True):
        with style.drawing():
            (panel,) = panels_of(picture.make())
        labels = [text.get_text() for text in panel.get_xticklabels()]
        assert labels == [name.removesuffix(" A") for name in names]
        for entry, bar in zip(board.rankings[0].entries, panel.containers, strict=True):
            tables = [
                parts.read_breakdown(run.folder / "breakdown.json").of(by) for run in entry.runs
            ]
            means = np.mean([[1e6 * p.value for p in table] for table in tables], axis=0)
            lows = np.mean([[1e6 * p.ci95[0] for p in table] for table in tables], axis=0)
            line, _, (intervals,) = bar.lines
            np.testing.assert_allclose(line.get_xydata()[:, 1], means)
            np.testing.assert_allclose([s[0, 1] for s in intervals.get_segments()], lows)


def test_breakdowns_of_other_runs_are_not_shown(root: Path) -> None:
    (root / "m0-s0" / "breakdown.json").unlink()
    put_parts(root / "m1-s0", 1.0)  # does not add up
    path = root / "m2-s0" / "breakdown.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "other"}))
    found = parts.pictures(collect([root]))
    said = reasons(found)
    assert "runs/m0-s0: there is no breakdown.json; `hambench evaluate RUN_DIR --breakdown" in said
    assert "runs/m1-s0: breakdown.json does not add up to the h_mae_elem of its result" in said
    assert "runs/m2-s0: breakdown.json is of other data than its result" in said
    assert found.pictures == ()


def test_embeddings_of_runs_on_the_board_are_drawn_anew(root: Path) -> None:
    (root / "embeddings" / "embeddings.svg").write_text("<svg><script>alert(1)</script></svg>")
    path = root / "embeddings" / "embeddings.h5"
    places = put_embeddings(path, [f"{k:032x}{0:032x}" for k in (0, 2)] + ["e" * 64])
    found = panels_of(drawn(embeddings.pictures(collect([root]))))
    assert [axes.get_title() for axes in found] == ["model_0 seed 0", "model_2 seed 0"]
    for axes, mine in zip(found, places, strict=False):
        shown = np.concatenate([c.get_offsets() for c in axes.collections])
        assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, mine.tolist()))
        assert len(axes.collections) == 3  # elements


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda file: file.attrs.update(version=2), "holds no embeddings of version 1"),
        (lambda file: _replaced(file, "drawn", np.arange(1000)), "draws atoms that it has not"),
        (lambda file: _replaced(file, "drawn", np.array([-1])), "draws atoms that it has not"),
        (lambda file: _replaced(file, "models/0/umap", np.full((30, 2), np.nan)), "no numbers"),
        (lambda file: _replaced(file, "models/0/umap", np.zeros((30, 3))), r"umap has shape"),
        (lambda file: _replaced(file, "atoms/environment", np.array([b"<b>"] * 60)), "an element"),
        (lambda file: file.pop("models"), "cannot be read"),
        (lambda file: _linked(file), "no data set of the file"),
    ],
)
def test_embeddings_of_strangers_break_nothing(root: Path, change: Any, said: str) -> None:
    import h5py

    path = root / "embeddings" / "embeddings.h5"
    with h5py.File(root / "elsewhere.h5", "w") as other:
        other["drawn"] = np.arange(30)
    with h5py.File(path, "r+") as file:
        change(file)
    found = embeddings.pictures(collect([root]))
    assert found.pictures == ()
    assert said in reasons(found)
    path.write_bytes(path.read_bytes()[:3000])
    assert "cannot be read" in reasons(embeddings.pictures(collect([root])))


def _replaced(file: Any, name: str, content: Any) -> None:
    del file[name]
    file[name] = content


def _linked(file: Any) -> None:
    import h5py

    del file["drawn"]
    file["drawn"] = h5py.ExternalLink("../elsewhere.h5", "drawn")


HOSTILE = (
    r"$\frac{1}{0}$ and $x",
    "two\nlines \x1b[31m \u202etxt",
    "<script>alert(1)</script>",
    "]]> & \" '",
    "\u6c34" * 200,
    "W" * 200,
)


@pytest.mark.filterwarnings("error:constrained_layout")
def test_hostile_names_stay_text(root: Path, tmp_path: Path) -> None:
    for k, name in enumerate(HOSTILE):
        put_model(
            root, k, 1, preset=name, task=HOSTILE[0], fingerprint=HOSTILE[1], split=HOSTILE[2],
            training_split=HOSTILE[5], cost=cost(k, device=name),
        )  # fmt: skip
    given = [*(root / f"m{k}-s0" for k in range(len(HOSTILE))), root / "embeddings"]
    board = collect(given)
    written = draw(board, tmp_path / "out", ["svg"])
    assert [path.stem for path in written] == [
        "errors", "costs", "training", "error_by_distance", "error_by_pair", "embeddings",
    ]  # fmt: skip
    for path in written:
        tree = ElementTree.parse(path)
        assert not [node for node in tree.iter() if node.tag.endswith("script")]
        texts = [node for node in tree.iter() if node.tag.endswith("text")]
        said = "\n".join(text for node in texts for text in node.itertext())
        for name in HOSTILE if path.stem != "embeddings" else HOSTILE[:2]:
            assert style.shown(name, 12)[:-1] in said, (path, name)
        assert style.shown(HOSTILE[0], 16)[:-1] in said  # the task


def test_names_that_are_alike_are_told_apart(tmp_path: Path) -> None:
    for k in range(3):
        put(tmp_path / f"m{k}", 100.0 + k, preset="x" * 50 + str(k % 2), hyperparameters={"k": k})
    (panel,) = panels_of(drawn(errors.pictures(collect([tmp_path]))))
    assert len({text.get_text()[3:] for text in panel.get_yticklabels()}) == 3


def test_what_a_board_lacks_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(tmp_path / "runs" / "a")
    with caplog.at_level(logging.INFO):
        written = draw(collect([tmp_path / "runs"]), tmp_path / "out", ["svg"])
    assert [path.name for path in written] == ["errors.svg"]
    said = {name for name, _ in album(collect([tmp_path / "runs"])).left_out}
    assert said == {
        "costs", "training", "learning_curves", "error_by_distance", "error_by_pair", "embeddings",
    }  # fmt: skip
    assert all(f"not in picture {name}: " in caplog.text for name in said)
    assert draw(Board((), (), ()), tmp_path / "none", ["png", "svg"]) == []
    assert not (tmp_path / "none").exists()


def test_the_same_board_gives_the_same_bytes(root: Path, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt
    from PIL import Image

    before = dict(matplotlib.rcParams)
    first = write(collect([root]), tmp_path / "one", ["svg"])
    first += _png(root, tmp_path / "one")
    assert dict(matplotlib.rcParams) == before
    moved = root.rename(tmp_path / "elsewhere")
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True}):  # of somebody else
        second = write(collect([moved]), tmp_path / "two", ["svg"])
        second += _png(moved, tmp_path / "two")
    assert plt.get_fignums() == []
    assert [p.relative_to(tmp_path / "one").as_posix() for p in first] == [
        "figures/errors.svg", "figures/costs.svg", "figures/training.svg",
        "figures/error_by_distance.svg", "figures/error_by_pair.svg", "figures/embeddings.svg",
        "figures/errors.png",
    ]  # fmt: skip
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
    with Image.open(first[-1]) as image:
        assert image.info["dpi"] == pytest.approx((160, 160), abs=0.1)
    assert b"<dc:date>" not in first[0].read_bytes()


def _png(runs: Path, folder: Path) -> list[Path]:
    """The pictures of a run alone, which are one."""
    return write(collect([runs / "m0-s0" / "result.json"]), folder, ["png"])[:1]


def test_pictures_of_an_earlier_board_go(tmp_path: Path) -> None:
    put(tmp_path / "runs" / "a")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("errors_2.svg", "training.svg", "training.png", "mine.svg", "errors_old.svg"):
        (out / name).write_text("earlier")
    draw(collect([tmp_path / "runs"]), out, ["svg"])
    assert sorted(path.name for path in out.iterdir()) == [
        "errors.svg", "errors_old.svg", "mine.svg", "training.png",
    ]  # fmt: skip


def test_without_matplotlib_nothing_is_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(
        ConfigError, match=r"pictures need matplotlib and seaborn.*hambench\[plots\]"
    ):
        draw(collect([root]), tmp_path / "out", ["png"])
    assert not (tmp_path / "out").exists()


def test_extreme_numbers_are_drawn(tmp_path: Path) -> None:
    """Of diverged and perfect models."""
    values = (1e-6, 1.0, 1e60)
    for k, value in enumerate(values):
        put(tmp_path / f"m{k}", preset=f"model_{k}", cost=cost(k, wall_s=1e12 if k else 0.0),
            metrics={"h_mae": Metric(value=value, unit="Eh", ci95=(-1e60, 1e60), n=1)})  # fmt: skip
    put(
        tmp_path / "zero",
        preset="zero",
        metrics={"h_mae": Metric(value=0, unit="Eh", ci95=None, n=1)},
    )
    assert len(draw(collect([tmp_path]), tmp_path / "out", ["svg"])) == 2
