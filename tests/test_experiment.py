"""One cell from start to finish: the files it leaves, resuming, refusing, scoring again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hambench import evaluation, experiment, prediction, rundir
from hambench.compose import compose
from hambench.config import RunConfig, read_config
from hambench.data.store import Store, write_store
from hambench.domain import domain_of
from hambench.errors import ConfigError, DataError, RegistryError, RunError
from hambench.learn.loop import BEST
from hambench.registry import load_task
from hambench.results import read_result, read_status
from hambench.scoring.predictions import Predictions
from hambench.scoring.score_table import SCORES


def cell(root: Path, *overrides: str) -> RunConfig:
    return compose(["task=water_mini", "model=toy", "device=cpu", f"root={root}", *overrides])


def run(config: RunConfig) -> experiment.Outcome:
    return experiment.run(config, progress=False)


@pytest.mark.usefixtures("toy")
def test_a_cell_leaves_its_files_and_a_full_result(tmp_path: Path):
    config = cell(tmp_path, "save_predictions=true")
    outcome = run(config)
    assert outcome.fresh
    assert outcome.folder == config.folder
    names = {path.name for path in config.folder.iterdir()}
    assert names == {
        "config.yaml", "status.json", "log.jsonl", "checkpoints", "predictions.h5", "result.json",
        "scores.h5",
    }  # fmt: skip
    status = read_status(config.folder)
    assert (status.state, status.step, status.restarts, status.reason) == ("done", 30, 0, "")
    result = read_result(config.folder)
    assert result == outcome.result
    task = load_task("water_mini")
    assert (result.task, result.task_version, result.source) == ("water_mini", 1, "generated")
    assert result.fingerprint == task.fingerprint
    assert result.domain == domain_of(task.split("train"))
    assert (result.model, result.preset, result.seed) == ("toy", "toy", 0)
    assert result.hyperparameters == {"cutoff": 5.0, "start": 0.1}
    assert result.parameters == (9 + 81) * _block_size()
    assert result.recipe["optimizer"]["lr"] == 0.03
    assert list(result.metrics) == task.metrics
    for metric in result.metrics.values():
        assert metric.ci95 is not None
        assert metric.ci95[0] <= metric.value <= metric.ci95[1]
        assert (metric.n, metric.unit in ("Eh", "1")) == (100, True)
    assert (result.cost.steps, result.cost.stopped_by, result.cost.device) == (
        30,
        "max_steps",
        "cpu",
    )
    assert result.cost.epochs == 5.0
    assert result.cost.inference is not None
    assert (result.scoring, result.energy_steps) == ({}, 0)
    assert result.provenance.plugins["hambench-toy"] == "1.2.3"


def _block_size() -> int:
    from hambench.data.graph import GraphSpec

    return GraphSpec(load_task("water_mini").basis).layout.size


@pytest.mark.usefixtures("toy")
def test_training_lowers_the_error(tmp_path: Path):
    short = run(cell(tmp_path, "max_steps=1")).result.metrics["h_mae"].value
    long = run(cell(tmp_path, "max_steps=400")).result.metrics["h_mae"].value
    assert long < 0.5 * short


@pytest.mark.usefixtures("toy")
def test_same_seed_same_result_and_another_seed_another(tmp_path: Path):
    one, two = (run(cell(tmp_path / name)).result for name in "ab")
    assert one.metrics == two.metrics
    assert one.run_id == two.run_id
    other = run(cell(tmp_path, "seed=1")).result
    assert other.metrics != one.metrics
    assert other.fingerprint == one.fingerprint


@pytest.mark.usefixtures("toy")
def test_a_finished_run_is_not_computed_again(tmp_path: Path):
    config = cell(tmp_path)
    first = run(config)
    before = {p: p.stat().st_mtime_ns for p in config.folder.rglob("*")}
    again = run(config)
    assert not again.fresh
    assert again.result == first.result
    assert {p: p.stat().st_mtime_ns for p in config.folder.rglob("*")} == before
    assert run(config.model_copy(update={"overwrite": True})).fresh


@pytest.mark.usefixtures("toy")
def test_a_finished_run_is_given_as_asked_for_or_not_at_all(tmp_path: Path):
    config = cell(tmp_path)
    first = run(config)
    said = r"was scored with .*; score it otherwise with `hambench evaluate \S+ --split validation`"
    with pytest.raises(ConfigError, match=said):
        run(cell(tmp_path, "score.split=validation"))
    with pytest.raises(ConfigError, match=r"on data with fingerprint .*overwrite=true"):
        run(cell(tmp_path, f"data={other_water(tmp_path)}"))
    own = load_task("water_mini").path
    assert run(cell(tmp_path, f"data={own}")).result == first.result
    assert not (first.folder / rundir.PREDICTIONS).exists()
    again = run(cell(tmp_path, "save_predictions=true"))
    assert (again.fresh, again.result) == (False, first.result)
    (first.folder / SCORES).unlink()
    scores = evaluation.evaluate(first.folder, progress=False)
    assert Predictions(first.folder / rundir.PREDICTIONS).fingerprint == first.result.fingerprint
    assert scores["h_mae"].value == first.result.metrics["h_mae"].value
    kept = first.folder / rundir.PREDICTIONS
    kept.write_bytes(kept.read_bytes()[:5000])  # they are made anew, not taken for whole
    run(cell(tmp_path, "save_predictions=true"))
    (first.folder / SCORES).unlink()
    assert evaluation.evaluate(first.folder, progress=False) == scores


@pytest.mark.usefixtures("toy")
def test_predictions_may_be_kept_in_half_the_space(tmp_path: Path):
    first = run(cell(tmp_path, "save_predictions=float32"))
    kept = first.folder / rundir.PREDICTIONS
    assert Predictions(kept).dtype == "float32"
    (first.folder / SCORES).unlink()
    scores = evaluation.evaluate(first.folder, progress=False)
    exact = first.result.metrics["h_mae"].value
    assert scores["h_mae"].value == pytest.approx(exact, rel=1e-5)
    assert scores["h_mae"].value != exact
    size = kept.stat().st_size
    run(cell(tmp_path, "save_predictions=true"))  # finer is asked for: they are made anew
    assert Predictions(kept).dtype == "float64"
    assert kept.stat().st_size > 1.5 * size
    run(cell(tmp_path, "save_predictions=float32"))  # coarser: they serve
    assert Predictions(kept).dtype == "float64"
    (first.folder / SCORES).unlink()
    assert evaluation.evaluate(first.folder, progress=False)["h_mae"].value == exact


@pytest.mark.usefixtures("toy")
def test_data_that_changed_in_place_are_found(tmp_path: Path):
    data = Path(shutil.copy(load_task("water_mini").path, tmp_path / "water.h5"))
    config = cell(tmp_path, f"data={data}")
    folder = run(config).folder
    shutil.copy(other_water(tmp_path), data)
    for call in (lambda: run(config), lambda: evaluation.evaluate(folder, progress=False)):
        with pytest.raises(ConfigError, match="on data with fingerprint"):
            call()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan")])
def test_a_cutoff_that_is_none_is_refused(tmp_path: Path, cutoff: float):
    folder = run(cell(tmp_path)).folder
    with pytest.raises(ConfigError, match="cutoff="):
        evaluation.evaluate(folder, cutoff=cutoff, progress=False)


def other_water(folder: Path) -> Path:
    """Data of water_mini, one number of them changed."""
    task = load_task("water_mini")
    store = Store(task.path)
    rows = [replace(row, energy=row.energy + (i == 7)) for i, row in enumerate(store)]
    write_store(folder / "other.h5", rows, basis=store.basis, theory=store.theory)
    return folder / "other.h5"


@pytest.mark.usefixtures("toy")
def test_a_run_goes_on_with_its_own_data_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stopped(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prediction, "predict", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(cell(tmp_path))
    folder = cell(tmp_path).folder
    status = read_status(folder)
    assert (status.state, status.step, status.reason) == ("interrupted", 30, "Ctrl-C")
    with pytest.raises(ConfigError, match=r"on data with fingerprint .* give it its own data"):
        run(cell(tmp_path, f"data={other_water(tmp_path)}"))
    assert read_status(folder) == status
    assert run(cell(tmp_path)).result.cost.steps == 30


@pytest.mark.usefixtures("toy")
def test_lost_parts_of_a_finished_run_are_named_with_a_way_out(tmp_path: Path):
    config = cell(tmp_path)
    folder = run(config).folder
    (folder / rundir.CHECKPOINTS / BEST).unlink()
    (folder / SCORES).unlink()
    with pytest.raises(DataError, match=r"there is no weights file .*overwrite=true"):
        evaluation.evaluate(folder, progress=False)
    (folder / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"is no valid result of schema .*overwrite=true"):
        run(config)
    assert run(config.model_copy(update={"overwrite": True})).fresh


@pytest.mark.usefixtures("toy")
def test_a_second_start_does_not_score_again_what_the_first_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = cell(tmp_path)
    finished = iter([False, True])  # asked before the lock, and in it
    run(config)
    monkeypatch.setattr(rundir, "is_finished", lambda folder: next(finished))
    assert not run(config).fresh


@pytest.mark.usefixtures("toy")
def test_another_configuration_in_the_directory_is_refused(tmp_path: Path):
    config = cell(tmp_path, f"run_dir={tmp_path / 'here'}")
    run(config)
    result = (tmp_path / "here" / "result.json").read_bytes()
    with pytest.raises(ConfigError, match=r"seed=0, this one has seed=1.*overwrite=true"):
        run(config.model_copy(update={"seed": 1}))
    assert (tmp_path / "here" / "result.json").read_bytes() == result


def start(root: Path, site: Path, *words: str) -> subprocess.Popen:
    """``hambench run`` of a longer cell in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "hambench",
        "run",
        "task=water_mini",
        "model=toy",
        "max_steps=400",
    ]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.Popen(
        [*command, f"root={root}", "device=cpu", *words],
        env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_step(root: Path, step: int) -> Path:
    """Folder of the only run below ``root``, once its log has reached ``step``."""
    while True:
        for log in root.rglob("log.jsonl"):
            rows = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
            if rows and rows[-1]["step"] >= step:
                return log.parent
        time.sleep(0.02)


def test_ctrl_c_keeps_a_checkpoint_and_the_same_command_goes_on(
    toy_site: Path, tmp_path: Path, toy: str
):
    process = start(tmp_path / "cut", toy_site)
    folder = wait_for_step(tmp_path / "cut", 20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "interrupted: " in said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    status = read_status(folder)
    assert status.state == "interrupted"
    assert not rundir.is_finished(folder)

    process = start(tmp_path / "cut", toy_site)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    whole = run(cell(tmp_path / "whole", "max_steps=400")).result
    resumed = read_result(folder)
    assert resumed.metrics == whole.metrics
    assert resumed.provenance.restarts == read_status(folder).restarts == 1


def test_kill_9_and_a_restart_give_the_same_bits(toy_site: Path, tmp_path: Path, toy: str):
    process = start(tmp_path / "cut", toy_site)
    folder = wait_for_step(tmp_path / "cut", 20)
    process.kill()
    process.wait()
    assert read_status(folder).state == "running"
    resumed = run(cell(tmp_path / "cut", "max_steps=400"))
    whole = run(cell(tmp_path / "whole", "max_steps=400"))
    assert resumed.folder == folder
    assert resumed.result.metrics == whole.result.metrics
    one, other = (load_file(f / rundir.CHECKPOINTS / BEST) for f in (folder, whole.folder))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_outside_training_is_an_interruption_too(tmp_path: Path, number: signal.Signals):
    pytest.importorskip("pyscf")  # of the minao guess, whose predictions take their time
    words = ["run", "task=water_mini", "model=minao", "save_predictions=true", f"root={tmp_path}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "hambench", *words], stderr=subprocess.PIPE, text=True
    )
    while not (begun := list(tmp_path.rglob(".predictions.h5*"))):
        time.sleep(0.02)
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert f"interrupted: stopped by {number.name}; the same command goes on" in said
    folder = begun[0].parent
    assert read_status(folder).state == "interrupted"
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "status.json", "checkpoints"}


@pytest.mark.usefixtures("toy")
def test_a_failure_is_written_down(tmp_path: Path):
    config = cell(tmp_path, "recipe.optimizer.lr=1e38", "max_steps=50")
    with pytest.raises(RunError) as caught:
        run(config)
    status = read_status(config.folder)
    assert (status.state, status.reason) == ("failed", str(caught.value))
    assert not (config.folder / "result.json").exists()


@pytest.mark.usefixtures("toy")
def test_a_defect_leaves_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(experiment, "fit", broken)
    config = cell(tmp_path)
    with pytest.raises(ZeroDivisionError):
        run(config)
    assert "ZeroDivisionError: of ours" in (config.folder / "traceback.txt").read_text()
    assert read_status(config.folder).reason == "ZeroDivisionError: of ours"
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["+model.hyperparameters.x=1"], ConfigError, "no hyperparameter 'x'"),
        (["score.metrics=[failure_rat]"], RegistryError, "'failure_rate'"),
        (["score.split=tset"], RegistryError, "Did you mean 'test'"),
        (["data=/no/where.h5"], DataError, "/no/where.h5"),
        (["device=cuda:99"], ConfigError, "device=cuda:99 is not there"),
        (["model.hyperparameters.cutoff=far"], ConfigError, "cutoff of model 'toy' is 'far'"),
        (["run_dir=/dev/null"], ConfigError, "is a file"),
        (["recipe.max_steps=null"], ConfigError, "no budget"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.usefixtures("toy")
def test_a_mistake_is_found_before_anything_is_written(
    tmp_path: Path, overrides: list[str], error: type[Exception], said: str
):
    with pytest.raises(error, match=said) as caught:
        run(cell(tmp_path / "runs", *overrides))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.usefixtures("toy")
def test_evaluate_gives_the_very_numbers(tmp_path: Path):
    config = cell(tmp_path, "save_predictions=true")
    outcome = run(config)
    wanted = {
        name: tuple(metric.model_dump().values()) for name, metric in outcome.result.metrics.items()
    }
    for lost in (None, SCORES, rundir.PREDICTIONS):  # from scores, predictions, weights
        if lost is not None:
            (outcome.folder / SCORES).unlink()
            (outcome.folder / lost).unlink(missing_ok=True)
        again = evaluation.evaluate(outcome.folder, progress=False)
        assert {name: tuple(score) for name, score in again.items()} == wanted
    other = evaluation.evaluate(
        outcome.folder, metrics=["h_max", "h_mae_in_cutoff"], split="validation", cutoff=0.5,
        progress=False,
    )  # fmt: skip
    assert list(other) == ["h_max", "h_mae_in_cutoff"]
    assert other["h_mae_in_cutoff"].value != wanted["h_mae"][0]


@pytest.mark.usefixtures("toy")
def test_predictions_are_of_the_test_split(tmp_path: Path):
    outcome = run(cell(tmp_path, "save_predictions=true"))
    predictions = Predictions(outcome.folder / "predictions.h5")
    test = load_task("water_mini").split("test")
    assert predictions.ids == test.ids
    assert predictions.fingerprint == outcome.result.fingerprint
    errors = [
        np.abs(h - molecule.hamiltonian).mean()
        for h, molecule in zip(predictions.matrices(), test, strict=True)
    ]
    assert np.mean(errors) == pytest.approx(outcome.result.metrics["h_mae"].value, rel=1e-12)


@pytest.mark.usefixtures("toy")
def test_evaluate_refuses_what_does_not_belong(tmp_path: Path):
    with pytest.raises(DataError, match="is no run directory"):
        evaluation.evaluate(tmp_path)
    one = run(cell(tmp_path)).folder
    wide = run(cell(tmp_path, "model.hyperparameters.cutoff=4")).folder
    shutil.copy(one / rundir.CHECKPOINTS / BEST, wide / rundir.CHECKPOINTS / BEST)
    (wide / SCORES).unlink()
    with pytest.raises(ConfigError, match=r"holds another model: its hyperparameters.cutoff is 5"):
        evaluation.evaluate(wide, progress=False)


def test_a_model_without_parameters_runs_and_is_scored_again(tmp_path: Path):
    config = compose(["task=water_mini", "model=mean_block", f"root={tmp_path}"])
    outcome = run(config)
    assert (outcome.result.parameters, outcome.result.cost.steps) == (0, 0)
    (outcome.folder / SCORES).unlink()
    scores = evaluation.evaluate(outcome.folder, progress=False)
    assert scores["h_mae"].value == outcome.result.metrics["h_mae"].value


@pytest.mark.usefixtures("toy")
def test_dear_metrics_are_scored_on_samples_at_the_level_of_the_task(tmp_path: Path):
    pytest.importorskip("pyscf")
    asked = ["h_mae", "e_dft_mae", "e_dft_mae_floor", "e_mix_mae", "dipole_mae"]
    words = [f"score.metrics=[{','.join(asked)},scf_optimal_ratio]", "score.scf.n=1"]
    config = cell(tmp_path, *words, "score.energy.n=3", "save_predictions=true")
    result = run(config).result
    found = result.metrics
    assert [found[name].n for name in asked] == [100, 3, 3, 3, 3]
    assert (found["scf_optimal_ratio"].n, found["scf_convergence_rate"].n) == (1, 1)
    assert 1 / 15 < found["scf_optimal_ratio"].value < 1 / 5
    assert found["e_dft_mae_floor"].value < 1e-10 < 1e-3 < found["e_dft_mae"].value
    assert result.scoring["energy"] == {"n": 3, "seed": 43}
    scf = result.scoring["scf"]
    assert (scf["n"], scf["max_cycles"], scf["conv_tol"], scf["grid_level"]) == (1, 50, 1e-12, 5)
    assert read_config(config.folder / rundir.CONFIG).score.energy.n == 3
    again = evaluation.evaluate(config.folder, metrics=["dipole_mae"], progress=False)
    assert again["dipole_mae"].value == pytest.approx(found["dipole_mae"].value, rel=1e-9)
    one = evaluation.evaluate(config.folder, metrics=["dipole_mae"], energy_n=1, progress=False)
    assert one["dipole_mae"].n == 1
    with pytest.raises(ConfigError, match=r"scf\.n=0: expected greater than"):
        evaluation.evaluate(config.folder, scf_n=0, progress=False)
    with pytest.raises(ConfigError, match=r"was scored with score\.energy\.n=3; score it"):
        run(cell(tmp_path, *words))


@pytest.mark.usefixtures("toy")
def test_energies_without_pyscf_are_refused_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(ConfigError, match=r"hambench\[pyscf\]"):
        run(cell(tmp_path, "score.metrics=[h_mae,e_dft_mae]"))
    assert not list(tmp_path.iterdir())
