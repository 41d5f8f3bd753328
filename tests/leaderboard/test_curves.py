"""Learning curves from run folders: what becomes a line, what is compared, what is left out."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from curve_case import CONFORMERS, audit, pretraining, put, table

from hambench.errors import ConfigError, DataError
from hambench.leaderboard import collect
from hambench.leaderboard import table as table_text
from hambench.leaderboard.arms import Analysis, Comparison, analyse
from hambench.leaderboard.convergence import courses
from hambench.leaderboard.curve_report import analyse_all, as_json, tables, write_curves
from hambench.leaderboard.curves import Curves, collect_curves
from hambench.leaderboard.figures.curves import draw_convergence
from hambench.leaderboard.text import plain
from hambench.results import Status, write_status
from hambench.scoring.energy_table import ENERGIES, write_energies

MOLECULES = 12


def errors(
    rng: np.random.Generator, scale: float, molecules: int = MOLECULES, noise: float = 0.1
) -> np.ndarray:
    """(n,) errors in meV whose difficulty is that of the molecule, for all alike."""
    hard = np.random.default_rng(5).gamma(3, 1 / 3, size=molecules).repeat(CONFORMERS)
    return scale * hard * np.exp(noise * rng.normal(size=len(hard)))


@pytest.fixture
def runs(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Three strategies, three sizes, two seeds: finetuned has half, frozen the error of direct."""
    for strategy, share in {"direct": 1.0, "finetuned": 0.5, "frozen": 1.0}.items():
        for size in (10, 20, 40):
            for seed in (0, 1):
                put(
                    tmp_path / "runs" / f"{strategy}-{size}-{seed}", strategy, size,
                    errors(rng, share * 4000 / size), seed=seed,
                    wall_s=200 if strategy == "direct" else 100,
                )  # fmt: skip
    return tmp_path / "runs"


def only(found: Curves, metric: Any = "energy_mae") -> Analysis:
    (study,) = found.studies
    return analyse(study, metric)


def compared(analysis: Analysis, strategy: str, size: int) -> Comparison:
    (found,) = (
        c
        for c in analysis.comparisons
        if c.other.line.strategy == strategy and c.other.point.molecules == size
    )
    return found


def pair(folder: Path, **changes: Any) -> Comparison:
    """Finetuned against direct, both with 10 molecules and one seed; ``changes`` of finetuned."""
    put(folder / "a", "direct", 10, [300.0] * 24, wall_s=200)
    put(folder / "b", "finetuned", 10, [200.0] * 24, **{"wall_s": 100.0, **changes})
    return compared(only(collect_curves([folder])), "finetuned", 10)


def test_errors_by_hand(tmp_path: Path) -> None:
    """Molecules of 3, 4 and 5 atoms with two conformers each; two seeds."""
    put(tmp_path / "a", "direct", 4, [30, 60, 80, 80, 50, 150], seed=0, train_error=7.0)
    put(tmp_path / "b", "direct", 4, [60] * 6, seed=1, train_error=9.0)
    found = collect_curves([tmp_path])
    (point,) = only(found).points
    assert point.error == pytest.approx((75 + 60) / 2)
    assert point.spread == pytest.approx(15 / 2**0.5)
    assert point.train_error == pytest.approx(8.0)
    assert (point.point.molecules, point.point.seeds) == (4, (0, 1))
    (per_atom,) = only(found, "energy_mae_per_atom").points
    by_hand = [(90 / 3 + 160 / 4 + 200 / 5) / 6, 60 * 2 * (1 / 3 + 1 / 4 + 1 / 5) / 6]
    assert per_atom.error == pytest.approx(np.mean(by_hand))
    low, high = point.ci95
    assert 45 < low < point.error < high < 100


def test_a_gain_of_two_and_a_null(runs: Path) -> None:
    analysis = only(collect_curves([runs]))
    labels = [line.label for line in analysis.study.lines]
    assert labels == ["helm_small direct", "helm_small finetuned", "helm_small frozen"]
    for size in (10, 20, 40):
        c = compared(analysis, "finetuned", size)
        low, high = c.gain.ci95
        assert low < 2 < high
        assert high - low < 0.5
        assert c.gain.verdict == "better"
        null = compared(analysis, "frozen", size)
        assert null.gain.verdict == "no difference"
        assert null.gain.ci95[0] < 1 < null.gain.ci95[1]
    # half the error of a curve that falls as 1 / n: twice the labels, and the end of the curve
    found = [compared(analysis, "finetuned", size).labels for size in (10, 20, 40)]
    assert found[0].value.value == pytest.approx(2, rel=0.15)
    assert found[0].ci95[0].value < 2 < found[0].ci95[1].value
    assert found[1].value.value == pytest.approx(2, rel=0.15)
    assert found[1].ci95[1].sign == ">"
    assert (found[2].value.value, found[2].value.sign) == (1.0, ">")


def test_molecules_are_drawn_with_their_conformers(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Ten equal conformers tell no more than one, and far less than ten molecules."""
    once = rng.gamma(2, 100, size=15)
    widths = {}
    for name, values, conformers in [
        ("one", once, 1),
        ("ten", once.repeat(10), 10),
        ("free", once.repeat(10), 1),
    ]:
        put(tmp_path / name, "direct", 5, values, conformers=conformers)
        (point,) = only(collect_curves([tmp_path / name])).points
        widths[name] = np.ptp(point.ci95)
    assert widths["ten"] == pytest.approx(widths["one"], rel=1e-9)
    assert widths["free"] < 0.5 * widths["ten"]


def test_one_test_molecule_has_no_interval(tmp_path: Path) -> None:
    put(tmp_path / "a", "direct", 10, [300, 310])
    put(tmp_path / "b", "frozen", 10, [200, 210])
    found = collect_curves([tmp_path])
    c = compared(only(found), "frozen", 10)
    assert (c.direct.ci95, c.gain.ci95, c.gain.verdict, c.labels.ci95) == (None,) * 4
    assert "1 test molecule" in c.remarks
    assert "1.488" in plain(tables([only(found)]), ())


def test_compute_of_both_arms(tmp_path: Path) -> None:
    """200 s of direct against 50 s of pretraining and the energy stage."""
    fair = pair(tmp_path / "fair", wall_s=150.0)
    assert fair.fair is True
    assert fair.other.compute == (150.0, 500.0, 50.0, 400.0)
    assert fair.remarks == ("one seed of direct and finetuned",)
    less = pair(tmp_path / "less", wall_s=200.0)
    assert less.fair is False
    assert less.remarks[0] == "direct had less compute: 80% of the time, stopped by max_steps"
    gpu = put(tmp_path / "x", "frozen", 10, [1.0] * 24)
    cost = json.loads((gpu / "result.json").read_text())["cost"] | {"device": "H100"}
    other = pair(tmp_path / "other", cost=cost)
    assert other.fair is None
    assert other.remarks[0] == "compute on different devices: cpu and H100"


def test_pretraining_that_saw_test_molecules_is_marked(tmp_path: Path) -> None:
    def remark(name: str, before: Any) -> str:
        found = pair(tmp_path / name, pretraining=before)
        assert name != "unknown" or found.fair is None
        return found.remarks[0]

    assert remark("unknown", None) == "pretraining not recorded"
    leaked = pretraining(audit=audit(same_molecules=8, same_geometries=0))
    assert remark("leaked", leaked).startswith("PRETRAINED ON TEST DATA: 8 of 12")
    rows = pretraining(audit=audit(unseen="rows", same_molecules=8))
    assert "other conformers of molecules in the pretraining data, as the" in remark("rows", rows)
    same = pretraining(audit=audit(unseen="rows", same_molecules=8, same_geometries=3))
    assert remark("same", same).startswith("PRETRAINED ON TEST DATA")


def test_other_presets_are_lines_without_comparison(runs: Path) -> None:
    put(runs / "ref", "direct", 10, [900.0] * 24, preset="element_reference", hyperparameters={})
    put(runs / "mace", "direct", 20, [90.0] * 24, preset="mace", hyperparameters={})
    analysis = only(collect_curves([runs]))
    labels = [line.label for line in analysis.study.lines]
    assert labels[0] == "element_reference direct"
    assert labels[-1] == "mace direct"
    assert {c.direct.line.preset for c in analysis.comparisons} == {"helm_small"}
    assert len(analysis.comparisons) == 6


def test_settings_along_the_curve_and_settings_in_competition(tmp_path: Path) -> None:
    for size, steps in ((10, 100), (20, 200)):
        put(tmp_path / f"{size}", "direct", size, [300.0] * 24, recipe={"max_steps": steps})
    put(tmp_path / "pre", "frozen", 10, [100.0] * 24)
    put(tmp_path / "pre2", "frozen", 20, [90.0] * 24,
        pretraining=pretraining(training_split="train_20"))  # fmt: skip
    lines = only(collect_curves([tmp_path])).study.lines
    assert [(line.label, len(line.points)) for line in lines] == [
        ("helm_small direct", 2),
        ("helm_small frozen", 2),
    ]
    put(tmp_path / "rival", "direct", 20, [200.0] * 24, recipe={"max_steps": 900}, seed=3)
    put(tmp_path / "wide", "direct", 20, [100.0] * 24, hyperparameters={"channels": 64})
    analysis = only(collect_curves([tmp_path]))
    direct = [line for line in analysis.study.lines if line.strategy == "direct"]
    assert sorted(len(line.points) for line in direct) == [1, 1, 1, 1]
    assert len({line.label for line in direct}) == 4
    assert all(len(line.settings) == 8 for line in direct)
    at_20 = [c for c in analysis.comparisons if c.other.point.molecules == 20]
    assert sorted("other hyperparameters" in c.remarks for c in at_20) == [False, False, True]


def test_studies_hold_the_same_test_rows(tmp_path: Path) -> None:
    put(tmp_path / "a", "direct", 10, [300.0] * 24)
    put(tmp_path / "b", "direct", 20, [200.0] * 24, task="larger_energy", fingerprint="ef" * 32)
    (shared,) = collect_curves([tmp_path]).studies
    assert shared.title == "larger_energy, organic_mini_energy v1"
    assert [p.molecules for p in shared.lines[0].points] == [10, 20]
    put(tmp_path / "c", "direct", 40, [100.0] * 26)  # another test set
    put(tmp_path / "d", "direct", 40, [100.0] * 24, task_version=2)
    put(tmp_path / "e", "direct", 40, [100.0] * 24, source="published")
    assert len(collect_curves([tmp_path]).studies) == 4
    put(tmp_path / "f", "direct", 40, [100.0] * 24, fingerprint="99" * 32)  # other training rows
    assert len(collect_curves([tmp_path]).studies) == 6  # the two tasks come apart as well


def test_a_cell_run_twice_counts_once(tmp_path: Path) -> None:
    put(tmp_path / "old", "finetuned", 10, [100.0] * 24, finished=5)
    put(tmp_path / "new", "finetuned", 10, [300.0] * 24, finished=9,
        pretraining=pretraining(run_id="e" * 64, steps=4000))  # fmt: skip
    found = collect_curves([tmp_path])
    assert only(found).points[0].error == pytest.approx(300)
    ((name, why),) = found.left_out
    assert name == f"{tmp_path.name}/old/result.json"
    assert why == (
        f"{tmp_path.name}/new/result.json is the same cell (with another pretraining: 4,000 steps, "
        "not 400), finished later"
    )


def test_what_cannot_be_used_is_listed(tmp_path: Path) -> None:
    good = [100.0] * 24
    put(tmp_path / "fine", "direct", 10, good)
    put(tmp_path / "hamiltonians", None, 10, good)
    (put(tmp_path / "no_table", "direct", 20, good) / ENERGIES).unlink()
    put(tmp_path / "broken", "direct", 20, good)
    (tmp_path / "broken" / "result.json").write_text("{")
    failed = put(tmp_path / "failed", "direct", 20, good)
    rows = [*table("test", np.array([np.nan, *good[1:]])), *table("train_20", np.ones(40))]
    write_energies(failed / ENERGIES, rows)
    foreign = put(tmp_path / "foreign", "direct", 20, good)
    rows = [*table("test", 2 * np.array(good)), *table("train_20", np.ones(40))]
    write_energies(foreign / ENERGIES, rows)
    write_energies(put(tmp_path / "short", "direct", 20, good) / ENERGIES, rows[:-1])
    put(tmp_path / "perfect", "direct", 20, [0.0] * 24)
    now = datetime.now(UTC)
    for name, strategy in (("stopped", "frozen"), ("pretraining", None)):
        status = Status(state="failed", step=7, reason="loss is nan", started=now, updated=now)
        (tmp_path / name).mkdir()
        write_status(tmp_path / name, status)
        (tmp_path / name / "config.yaml").write_text(f"strategy: {strategy or 'null'}\n")
    found = collect_curves([tmp_path])
    assert len(only(found).points) == 1
    reasons = {Path(name).parent.name: why for name, why in found.left_out}
    assert {name: why.split(";")[0] for name, why in reasons.items()} == {
        "no_table": "there is no energies.csv",
        "broken": reasons["broken"].split(";")[0],
        "failed": "1 of 24 test predictions failed",
        "foreign": "energies.csv gives energy_mae = 200 meV, result.json 100 meV",
        "short": "energies.csv has 39 rows of 'train_20' and 24 of 'test', result.json says 40 and "
        "some",
        "perfect": "its test error is exactly zero, which has no logarithm and no ratio",
        "stopped": "no result.json: failed at step 7: loss is nan",
    }
    assert reasons["broken"].startswith("result.json is no valid result")
    assert not any(str(tmp_path) in why for why in reasons.values())
    assert "left out:" in plain(tables([only(found)]), found.left_out)


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    put(tmp_path / "h", None, 10, [100.0] * 24)
    with pytest.raises(DataError, match=r"no run of an energy task in .*strategy=finetuned"):
        collect_curves([tmp_path])
    (put(tmp_path / "e", "direct", 10, [100.0] * 24) / ENERGIES).unlink()
    with pytest.raises(DataError, match=r"none of 1 energy runs .* the first, .*e/result\.json: "):
        collect_curves([tmp_path])
    with pytest.raises(DataError, match=r"there is no .*nowhere"):
        collect_curves([tmp_path / "nowhere"])


def test_files(runs: Path, tmp_path: Path) -> None:
    """Same runs, same bytes, wherever they are; both metrics in the files."""
    (runs / "direct-10-0" / "log.jsonl").write_text("{]\n")
    (runs / "direct-20-0" / "log.jsonl").unlink()

    def written(folder: Path) -> dict[str, bytes]:
        found = collect_curves([runs])
        files = write_curves(found, analyse_all(found), "energy_mae", folder)
        return {path.name: path.read_bytes() for path in files}

    first = written(tmp_path / "one")
    runs = runs.rename(tmp_path / "elsewhere").rename(tmp_path / "deep" if False else runs)
    second = written(tmp_path / "two")
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == sorted(first)
    assert first == second
    curves = list(csv.DictReader(first["curves.csv"].decode().splitlines()))
    assert len(curves) == 2 * 9
    assert {row["unit"] for row in curves} == {"meV per molecule", "meV per atom"}
    gains = list(csv.DictReader(first["gains.csv"].decode().splitlines()))
    content = json.loads(first["curves.json"])
    assert len(gains) == len(content["gains"]) == 2 * 6
    assert float(gains[0]["gain"]) == content["gains"][0]["gain"] == pytest.approx(2, rel=0.1)
    assert content["gains"][0]["fair_compute"] is True
    reasons = {row["run"]: row["reason"] for row in content["left_out"]}
    assert reasons == {
        "runs/direct-10-0/result.json": "no convergence curve: log.jsonl, line 1 is no row of a "
        "log: {]",
        "runs/direct-20-0/result.json": "no convergence curve: it has no log.jsonl",
    }
    text = first["curves.md"].decode()
    assert text.startswith("# Learning curves\n")
    assert "| helm\\_small direct / helm\\_small finetuned | 10 |" in text


def test_courses_begin_with_pretraining(runs: Path) -> None:
    found, lost = courses(collect_curves([runs]).studies)
    assert (len(found), lost) == (18, [])
    by_label = {c.label: c for c in found if c.trained_on[0] == 10}
    assert by_label["helm_small direct"].seconds[:2] == (0.0, 10.0)
    assert by_label["helm_small frozen"].seconds[:2] == (50.0, 60.0)
    assert by_label["helm_small direct"].errors[-1] == pytest.approx(400, rel=0.2)


def test_every_line_is_in_the_pictures(runs: Path, tmp_path: Path) -> None:
    """Two studies with unequal numbers of training sets; every colour is somewhere."""
    image = pytest.importorskip("matplotlib.image")
    import seaborn as sns

    put(runs / "other", "direct", 10, [100.0] * 30)
    found = collect_curves([runs])
    write_curves(found, analyse_all(found), "energy_mae_per_atom", tmp_path / "out")
    draw_convergence(found.studies[:1], courses(found.studies[:1])[0], tmp_path / "one")
    for path in (tmp_path / "out" / "learning_curves.png", tmp_path / "out" / "convergence.png"):
        pixels = (255 * image.imread(path)[..., :3]).round().astype(int)
        assert min(pixels.shape[:2]) > 700
        for colour in sns.color_palette("colorblind", 3):
            wanted = [round(255 * channel) for channel in colour]
            assert (pixels == wanted).all(-1).sum() > 50
    assert b"<svg" in (tmp_path / "out" / "learning_curves.svg").read_bytes()
    assert (tmp_path / "one" / "convergence.png").stat().st_size > 10_000


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "seaborn", None)
    return


@pytest.mark.usefixtures("without_plots")
def test_missing_plots_are_said_and_nothing_is_written(runs: Path, tmp_path: Path) -> None:
    found = collect_curves([runs])
    with pytest.raises(ConfigError, match=r"pip install 'hambench\[plots\]'"):
        write_curves(found, analyse_all(found), "energy_mae", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert "helm_small frozen" in as_json(analyse_all(found), ())


def test_command_line(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hambench.cli import main

    def called(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            main(["curves", *words])
        return left.value.code, *capsys.readouterr()

    code, out, _ = called(str(runs), "--metric", "energy_mae_per_atom")
    assert code == 0
    assert "mean absolute error in meV per atom on test, 12 molecules in 24 rows" in out
    code, out, err = called(str(runs), "--json", "--out", str(tmp_path / "out"))
    assert code == 0
    assert len(json.loads(out)["curves"]) == 18
    assert err.count("written: ") == 7
    code, _, err = called(str(tmp_path / "out"))
    assert (code, err.count("\n")) == (3, 1)


def test_the_leaderboard_tells_strategies_apart(tmp_path: Path) -> None:
    """Of one preset and recipe, trained on the same rows."""
    for name, strategy in (("a", "direct"), ("b", "frozen"), ("c", "finetuned")):
        put(tmp_path / name, strategy, 10, [100.0] * 24, recipe={"max_steps": 9})
    put(tmp_path / "d", "frozen", 10, [100.0] * 24, recipe={"max_steps": 9}, seed=1,
        pretraining=pretraining(task="other"))  # fmt: skip
    (ranking,) = collect([tmp_path]).rankings
    assert sorted(entry.label for entry in ranking.entries) == [
        "helm_small direct", "helm_small finetuned", "helm_small frozen", "helm_small frozen",
    ]  # fmt: skip
    assert table_text(collect([tmp_path])).count(" helm_small frozen  ") == 2


def test_boards_show_the_curves_of_their_energy_runs(runs: Path) -> None:
    """The best lines of many, the same numbers as of `hambench curves`."""
    pytest.importorskip("seaborn")
    from hambench.leaderboard import collect
    from hambench.leaderboard.figures import learning, style

    found = learning.pictures(collect([runs]))
    assert [picture.name for picture in found.pictures] == ["learning_curves"]
    with style.drawing():
        test, *_ = found.pictures[0].make().axes
    (study, *_) = collect_curves([runs]).studies
    points = analyse(study, "energy_mae").points
    assert len(test.lines) == len(study.lines) > 1
    errors = sorted(m.error for m in points)
    assert sorted(y for line in test.lines for y in line.get_ydata()) == pytest.approx(errors)


def test_boards_without_training_sets_of_several_sizes_have_no_curves(tmp_path: Path) -> None:
    from hambench.leaderboard import collect
    from hambench.leaderboard.figures import learning

    put(tmp_path / "one", "direct", 10, [100.0] * 30)
    found = learning.pictures(collect([tmp_path]))
    assert found.pictures == ()
    assert found.left_out[0][1].endswith("its runs were trained on one number of molecules")
