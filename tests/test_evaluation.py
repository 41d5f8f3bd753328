"""Scores of a finished run: kept for every molecule, taken from there, completed, broken down."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hambench import evaluation, experiment, prediction, rundir
from hambench.compose import compose
from hambench.data.store import Store
from hambench.data.task import Task
from hambench.errors import ConfigError, DataError
from hambench.files import locked
from hambench.learn.loop import BEST
from hambench.registry import load_task
from hambench.results import Metric, read_result
from hambench.scoring import METRICS
from hambench.scoring.breakdown import Breakdown
from hambench.scoring.breakdown_table import BREAKDOWN, PartRecord, read_breakdown
from hambench.scoring.energy_table import ENERGIES
from hambench.scoring.predictions import Predictions
from hambench.scoring.score_table import SCORES, read_scores, write_scores

_hashed = Task.fingerprint.func  # type: ignore[attr-defined]
_known: dict[str, str] = {}


@pytest.fixture(autouse=True)
def _hash_data_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data stay as they are here, and hashing them takes most of an evaluation's time."""

    def fingerprint(task: Task) -> str:
        if task.name not in _known:
            _known[task.name] = _hashed(task)
        return _known[task.name]

    monkeypatch.setattr(Task, "fingerprint", property(fingerprint))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that kept its predictions, of a model that is cheap to train."""
    root = tmp_path_factory.mktemp("runs")
    words = ["task=water_mini", "model=mean_block", "device=cpu", "save_predictions=true"]
    return experiment.run(compose([*words, f"root={root}"]), progress=False).folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The metrics that were computed, for each time some were."""
    asked: list[list[str]] = []
    score = evaluation._scored

    def noted(cell, *rest):
        asked.append(cell.metrics)
        return score(cell, *rest)

    monkeypatch.setattr(evaluation, "_scored", noted)
    return asked


def evaluate(folder: Path, *metrics: str, **asked: object):
    return evaluation.evaluate(folder, metrics=metrics or None, progress=False, **asked)


def test_a_run_keeps_its_scores(folder: Path) -> None:
    result, table = read_result(folder), read_scores(folder / SCORES)
    task = load_task("water_mini")
    assert (table.task, table.task_version, table.fingerprint) == (
        "water_mini", 1, result.fingerprint,
    )  # fmt: skip
    assert (table.split, table.ids) == ("test", task.split("test").ids)
    assert list(table.settings)[: len(task.metrics)] == task.metrics == list(result.metrics)
    assert {"failure_rate", "s_dropped", "overlap_failure_rate"} < set(table.settings)
    assert table.settings["psi"] == {"threshold": 1e-6}
    for name in task.metrics:
        numerators, denominators = table.of(name).T
        found = numerators.sum() / denominators.sum()
        assert result.metrics[name].value == pytest.approx(found, rel=1e-12), name
    first = Predictions(folder / rundir.PREDICTIONS)
    molecule = task.split("test")[7]
    (hamiltonian,) = first.matrices([molecule.id])
    error = np.abs(hamiltonian - molecule.hamiltonian).mean()
    assert table.of("h_mae")[7, 0] == pytest.approx(error, rel=1e-12)


def test_nothing_is_computed_twice(folder: Path, computed: list[list[str]]) -> None:
    metrics = read_result(folder).metrics
    shutil.rmtree(folder / rundir.CHECKPOINTS)
    (folder / rundir.PREDICTIONS).rename(folder / "aside")
    again = evaluate(folder)
    assert {name: Metric(**score._asdict()) for name, score in again.items()} == metrics
    assert list(evaluate(folder, "gap", "h_mae_elem")) == ["gap", "h_mae_elem"]
    assert not computed
    (folder / "aside").rename(folder / rundir.PREDICTIONS)
    more = evaluate(folder, "h_mae", "h_relative", "eps_all")  # no weights are needed either
    assert computed == [["h_relative", "eps_all"]]
    assert more["h_mae"] == again["h_mae"]
    assert evaluate(folder, "eps_all")["eps_all"] == more["eps_all"]
    assert len(computed) == 1
    assert read_scores(folder / SCORES).of("h_mae")[:, 1].tolist() == [1.0] * 100
    assert read_result(folder).metrics == metrics


def test_other_settings_are_computed_and_take_the_place(
    folder: Path, computed: list[list[str]]
) -> None:
    near = evaluate(folder, "h_mae_in_cutoff", "h_mae", cutoff=0.5)["h_mae_in_cutoff"]
    far = evaluate(folder, "h_mae_in_cutoff")["h_mae_in_cutoff"]
    assert far.value != near.value
    assert computed == [["h_mae_in_cutoff"]] * 2
    assert evaluate(folder, "h_mae_in_cutoff")["h_mae_in_cutoff"] == far
    assert len(computed) == 2
    assert read_scores(folder / SCORES).settings["h_mae_in_cutoff"] == {"cutoff": None}


def test_of_another_split_nothing_is_kept(folder: Path, computed: list[list[str]]) -> None:
    before = (folder / SCORES).read_bytes()
    other = evaluate(folder, "eps_occ", split="validation")
    assert other != evaluate(folder, "eps_occ")
    assert len(computed) == 1
    assert (folder / SCORES).read_bytes() == before


@pytest.mark.parametrize("damage", ["missing", "foreign", "old"])
def test_scores_of_no_use_are_made_anew(
    folder: Path, computed: list[list[str]], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder / SCORES
    wanted = evaluate(folder)
    table = read_scores(path)
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        write_scores(path, replace(table, fingerprint="another"))
    else:
        import h5py

        with h5py.File(path, "a") as file:
            file.attrs["version"] = 0
    with caplog.at_level(logging.WARNING):
        assert evaluate(folder) == wanted
    assert len(computed) == 1
    assert ("metrics are computed anew" in caplog.text) == (damage != "missing")
    again = read_scores(path)
    assert again.settings == table.settings
    np.testing.assert_array_equal(again.terms, table.terms)


def test_damaged_scores_come_back_whole(folder: Path) -> None:
    """Also those that were not asked for, which the result has."""
    (folder / SCORES).write_bytes(b"no HDF5")
    assert list(evaluate(folder, "h_max")) == ["h_max"]
    assert set(read_result(folder).metrics) | {"h_max"} <= set(
        read_scores(folder / SCORES).settings
    )


def test_damaged_predictions_are_made_anew_where_there_are_weights(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, weights = folder / rundir.PREDICTIONS, folder / rundir.CHECKPOINTS / BEST
    wanted = evaluate(folder, "h_rmse")
    (folder / SCORES).unlink()
    kept.write_bytes(kept.read_bytes()[:900])
    with caplog.at_level(logging.WARNING):
        assert evaluate(folder, "h_rmse") == wanted
        assert evaluation.breakdown(folder, "pairs", progress=False)
    assert caplog.text.count(f"predicting anew with {weights}") == 2
    weights.unlink()
    (folder / SCORES).unlink()
    with pytest.raises(DataError, match=r"predictions\.h5 cannot be read"):
        evaluate(folder, "h_rmse")


def test_what_cannot_be_kept_is_shown(
    folder: Path, computed: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    before = (folder / SCORES).read_bytes()
    with locked(folder / rundir.LOCK), caplog.at_level(logging.WARNING):
        assert evaluate(folder, "h_max")["h_max"].value > 0
    assert "shown and not kept" in caplog.text
    assert (folder / SCORES).read_bytes() == before
    (folder / "result.json").unlink()  # a run that goes on
    evaluate(folder, "h_max")
    assert (folder / SCORES).read_bytes() == before


@pytest.mark.usefixtures("toy")
def test_training_reads_no_overlaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scoring does: the two are told apart by the moment at which predicting begins."""
    read: list[tuple[str, str]] = []
    triangle, predict = Store._triangle, prediction.predict

    def noted(store: Store, index: int, name: str):
        read.append((name, store.ids[index]))
        return triangle(store, index, name)

    def marked(*words: object):
        read.append(("predict", ""))
        yield from predict(*words)

    task = load_task("water_mini")
    assert task.fingerprint  # reads all rows
    monkeypatch.setattr(Store, "_triangle", noted)
    monkeypatch.setattr(prediction, "predict", marked)
    words = ["task=water_mini", "model=toy", "device=cpu", "max_steps=5", f"root={tmp_path}"]
    experiment.run(compose(words), progress=False)
    begun = read.index(("predict", ""))
    train, test = (set(task.split(name).ids) for name in ("train", "test"))
    assert sum(name == "hamiltonian" and row in train for name, row in read[:begun]) >= 30
    assert not [row for name, row in read if name == "overlap" and row in train]
    # of one test molecule, to see whether there are any
    assert sum(name == "overlap" and row in test for name, row in read[:begun]) == 1
    assert {row for name, row in read[begun:] if name == "overlap"} == test


def test_spectra_without_overlaps_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = type(load_task("water_mini"))
    rows, split = load_task("water_mini").split("test"), task.split
    bare = replace(rows[0], overlap=None)
    monkeypatch.setattr(
        task, "split", lambda own, name: [bare] if name == "test" else split(own, name)
    )
    monkeypatch.setitem(__import__("sys").modules, "pyscf", None)
    with pytest.raises(ConfigError, match=r"'water_mini' have no overlaps.*hambench\[pyscf\]"):
        experiment.Cell.build(compose(["task=water_mini", "model=mean_block"])).check_overlaps()
    only = compose(["task=water_mini", "model=mean_block", "score.metrics=[h_mae]"])
    experiment.Cell.build(only).check_overlaps()


@pytest.mark.parametrize("by", ["distance", "pairs"])
def test_parts_add_up_to_the_whole(folder: Path, by: str) -> None:
    parts = evaluation.breakdown(folder, by, progress=False)
    whole = read_result(folder).metrics
    assert sum(p.elements for p in parts) == pytest.approx(1)
    assert sum(p.error for p in parts) == pytest.approx(1)
    total = sum(p.score.value * p.elements for p in parts)
    assert total == pytest.approx(whole["h_mae_elem"].value, rel=1e-10)
    names = [p.name for p in parts]
    if by == "distance":
        assert names[:3] == ["on-site", "0-1 A", "1-2 A"]
        assert parts[0].score.value == pytest.approx(whole["h_mae_diag"].value, rel=1e-10)
    else:
        assert names == ["H", "O", "H-H", "H-O"]
    assert all(p.score.ci95[0] < p.score.value < p.score.ci95[1] for p in parts)
    if by == "pairs":  # from the weights too
        (folder / rundir.PREDICTIONS).unlink()
        again = evaluation.breakdown(folder, by, progress=False)
        assert [p.score.value for p in again] == pytest.approx([p.score.value for p in parts])


def test_parts_by_hand() -> None:
    """Water off by 1 everywhere but in the block of the two hydrogens, where it is off by 4."""
    water = load_task("water_mini").split("test")[0]
    places = {z: np.flatnonzero(water.numbers == z) for z in (1, 8)}
    starts = np.cumsum([0, *load_task("water_mini").basis.ao_counts(water.numbers)])
    h = [slice(starts[k], starts[k + 1]) for k in places[1]]
    off = np.ones_like(water.hamiltonian)
    off[h[0], h[1]] = off[h[1], h[0]] = -4
    pairs = Breakdown("pairs", load_task("water_mini").basis)
    pairs.add(water.hamiltonian + off, water)
    pairs.add(np.full_like(off, np.nan), water)
    found = {p.name: p for p in pairs.parts()}
    values = {name: round(p.score.value, 9) for name, p in found.items()}
    assert values == {"H": 1, "O": 1, "H-H": 4, "H-O": 1}
    assert found["H-H"].elements == pytest.approx(50 / 24**2)
    assert found["H-H"].error == pytest.approx(200 / (24**2 + 150))
    assert {(p.score.n, p.score.ci95) for p in found.values()} == {(1, None)}
    bins = Breakdown("distance", load_task("water_mini").basis)
    bins.add(water.hamiltonian + off, water)
    apart = np.linalg.norm(np.subtract(*water.positions[places[1]]))
    low = int(apart)
    assert {p.name: round(p.score.value, 9) for p in bins.parts()}[f"{low}-{low + 1} A"] == 4


def test_energies_have_no_parts_and_their_scores_are_kept(
    computed: list[list[str]], tmp_path: Path
) -> None:
    data = Path(__file__).parent / "fixtures" / "organic_mini_24.h5"
    words = [
        "task=organic_mini_energy",
        "model=element_reference",
        "strategy=direct",
        f"data={data}",
        f"root={tmp_path}",
    ]
    folder = experiment.run(compose(words), progress=False).folder
    table = read_scores(folder / SCORES)
    assert list(table.settings) == [*load_task("organic_mini_energy", data).metrics, "failure_rate"]
    assert table.ids == load_task("organic_mini_energy", data).split("test").ids
    assert len(set(table.groups)) < len(table.ids)
    found = evaluate(folder)
    assert found["energy_mae"].value == read_result(folder).metrics["energy_mae"].value
    (folder / ENERGIES).rename(folder / "aside")
    assert evaluate(folder) == found
    assert not computed
    with pytest.raises(ConfigError, match="predicts energies"):
        evaluation.breakdown(folder, "pairs", progress=False)


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from hambench.cli import main

    def said(*words: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as left:
            main(["evaluate", str(folder), *words])
        return left.value.code, capsys.readouterr().out

    code, table = said("--metrics", "eps_occ,psi,p_occ")
    assert code == 0
    rows = dict(line.split(maxsplit=1) for line in table.splitlines()[2:])
    assert rows["eps_occ"].split()[-2:] == ["uEh", "100"]
    assert rows["psi"].split()[-2:] == ["%", "100"]
    code, table = said("--breakdown=distance")
    assert code == 0
    assert table.splitlines()[2].startswith("on-site")
    code, text = said("--breakdown=pairs", "--json")
    parts = json.loads(text)
    assert [part["part"] for part in parts] == ["H", "O", "H-H", "H-O"]
    assert set(parts[0]) == {"part", "value", "unit", "ci95", "n", "std", "elements", "error"}
    assert said("--breakdown=pairs", "--metrics=h_mae")[0] == 2
    assert said("--breakdown=angle")[0] == 2


def test_spectra_join_the_tasks() -> None:
    spectral = [n for n, m in METRICS.items() if m.needs_spectrum and not m.alarm]
    for name in ("water_mini", "organic_mini", "md17_water", "md17_uracil", "nabla2dft_2k",
                 "nabla2dft_100k", "qh9_stable", "qh9_dynamic_300k"):  # fmt: skip
        task = load_task(name)
        assert task.metrics[0] == "h_mae"
        assert [n for n in task.metrics if n in spectral] == [n for n in spectral if n != "eps_all"]
        for one in task._described.metrics:
            assert one.direction == METRICS[one.name].direction
    assert not set(spectral) & set(load_task("omol_csh_58k").metrics)


def test_breakdowns_are_kept_beside_the_result(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both kinds in one file, of the scored split alone; a damaged file is replaced."""
    pairs = evaluation.breakdown(folder, "pairs", progress=False)
    result, kept = read_result(folder), read_breakdown(folder / BREAKDOWN)
    assert kept.scored == (result.task, result.task_version, result.fingerprint, result.split)
    assert (kept.distance, kept.pairs) == (None, tuple(map(PartRecord.of, pairs)))
    distance = evaluation.breakdown(folder, "distance", progress=False)
    both = read_breakdown(folder / BREAKDOWN)
    assert (both.of("distance"), both.of("pairs")) == (
        tuple(map(PartRecord.of, distance)),
        kept.pairs,
    )
    (folder / BREAKDOWN).write_text("{")
    evaluation.breakdown(folder, "pairs", progress=False)
    assert read_breakdown(folder / BREAKDOWN) == kept
    before = (folder / BREAKDOWN).read_bytes()
    with locked(folder / rundir.LOCK), caplog.at_level(logging.WARNING):
        evaluation.breakdown(folder, "distance", progress=False)
    assert "shown and not kept" in caplog.text
    evaluation.breakdown(folder, "distance", split="validation", progress=False)
    (folder / "result.json").unlink()
    evaluation.breakdown(folder, "distance", progress=False)
    assert (folder / BREAKDOWN).read_bytes() == before
