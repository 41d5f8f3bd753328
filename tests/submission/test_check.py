"""Results that are handed in: what is accepted, and what is refused for which reason."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from hambench.compose import compose
from hambench.errors import DataError
from hambench.experiment import run as run_cell
from hambench.submission import Checked, check

RESULTS = Path(__file__).resolve().parents[2] / "leaderboard" / "results"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that kept its predictions."""
    root = tmp_path_factory.mktemp("runs")
    words = ["task=water_mini", "model=mean_block", "save_predictions=true", "device=cpu"]
    return run_cell(compose([*words, f"root={root}"]), progress=False).folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoiled."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "mine"))


def changed(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the content of a result."""
    path = run / "result.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def errors(checked: list[Checked]) -> list[str]:
    return [f.text for one in checked for f in one.findings if f.level == "error"]


def said(checked: list[Checked]) -> str:
    return "\n".join(f"{f.level}: {f.text}" for one in checked for f in one.findings)


def test_an_honest_run_is_accepted(run: Path) -> None:
    (run.parent / "submission.yaml").write_text("authors: [A. Nother]\nurl: https://example.org\n")
    found = check([run])
    assert errors(found) == []
    assert found[0].accepted
    for text in (
        "ok: handed in by A. Nother",
        "ok: is of the data that are here",
        "ok: its command composes this cell",
        "ok: 12 metrics agree with the scores of every molecule",
        "ok: 12 metrics agree with the predictions in predictions.h5",
    ):
        assert text in said(found)


def test_a_better_number_is_refused_by_scores_and_predictions(run: Path) -> None:
    changed(run, lambda r: r["metrics"]["h_mae"].update(value=1e-6, ci95=[0.9e-6, 1.1e-6]))
    found = errors(check([run]))
    assert len(found) == 2
    assert all(text.startswith("h_mae is 1e-06 [9e-07, 1.1e-06] (n 100), by the") for text in found)
    (run / "scores.h5").unlink()
    assert len(errors(check([run]))) == 1
    (run / "predictions.h5").unlink()
    found = check([run])
    assert errors(found) == []
    assert "warning: metrics not computed again: no predictions are given" in said(found)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fingerprint": "00" * 32}, "fingerprints 000000000000, "),
        ({"task_version": 7}, "is of water_mini v7, the task is at v1"),
        ({"task": "water_max"}, "water_max"),
        ({"split": "train"}, "has the molecules of split 'test'"),
        ({"split": "nowhere"}, "has no split 'nowhere'"),
        ({"primary": "psi"}, "primary metric is 'psi', that of the task h_mae"),
        ({"run_id": "ab" * 32}, "is that of cell"),
        ({"seed": 5}, "seed or preset of its command"),
        ({"reproduce": "rm -rf /"}, "is no command line of hambench run"),
        ({"reproduce": "hambench run task=water_mini model=minao 'a"}, "no command line"),
        ({"reproduce": "hambench run task=water_mini model=mean_block hydra.x=1"}, "Hydra's own"),
        ({"schema_version": 99}, "schema version 99"),
    ],
)
def test_what_does_not_fit_is_refused(run: Path, change: dict[str, Any], reason: str) -> None:
    changed(run, lambda r: r.update(change))
    found = errors(check([run]))
    assert any(reason in text for text in found), found


def test_an_unknown_model_is_not_refused(run: Path) -> None:
    """Its package may be elsewhere."""
    changed(run, lambda r: r.update(reproduce="hambench run task=water_mini model=theirs"))
    found = check([run])
    assert found[0].accepted
    assert "is of something that is not here" in said(found)


def test_predictions_of_other_molecules_are_refused(run: Path) -> None:
    with h5py.File(run / "predictions.h5", "a") as file:
        ids = file["id"].asstr()[:]
        file["id"][:] = np.array([*ids[:-1], "somebody"], dtype=object)
    assert any("somebody" in text or "molecule" in text for text in errors(check([run])))
    (run / "predictions.h5").write_bytes(b"no HDF5")
    assert not check([run])[0].accepted


def test_one_seed_counts_once(run: Path) -> None:
    shutil.copytree(run, run.parent / "again")
    found = check([run.parent])
    assert [one.accepted for one in found] == [False, False]
    assert "seed 0 of this model is in runs/again too" in said(found)


def test_copied_scores_of_another_seed_are_refused(run: Path) -> None:
    changed(run, lambda r: r.update(parameters=5))
    again = Path(shutil.copytree(run, run.parent / "seed1"))
    changed(again, lambda r: r.update(seed=1, reproduce=r["reproduce"].replace("d=0", "d=1")))
    found = errors(check([run.parent]))
    assert any("the very scores of runs/mine, which is of another seed" in text for text in found)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("authors: []", "authors"),
        ("authors: [a]\nnotes: 7", "notes"),
        ("just text", "Input should be"),
        ("a: [", "cannot read"),
        ("!!python/object/apply:os.system ['true']", "cannot read"),
    ],
)
def test_a_bad_submission_file_is_named(run: Path, text: str, reason: str) -> None:
    (run / "submission.yaml").write_text(text)
    (found,) = check([run])
    assert not found.accepted
    assert reason in said([found])
    assert "submission.yaml" in said([found])


def test_energies_are_checked_by_their_table(tmp_path: Path) -> None:
    some = RESULTS / "organic_mini_energy" / "element_reference" / "direct-seed0-080a1c67"
    run = Path(shutil.copytree(some, tmp_path / "mine"))
    assert "ok: 2 metrics agree with the scores of every molecule" in said(check([run]))
    changed(run, lambda r: r["metrics"]["energy_mae"].update(value=1e-3, ci95=[0.9e-3, 1.1e-3]))
    assert "energy_mae is 0.001" in errors(check([run]))[0]


def test_a_pretraining_that_saw_the_test_molecules_is_refused(tmp_path: Path) -> None:
    (some,) = (RESULTS / "organic_mini_energy" / "helm_small").glob("frozen-seed0-8ddd47a8")
    run = Path(shutil.copytree(some, tmp_path / "mine"))
    changed(run, lambda r: r["pretraining"]["audit"].update(same_geometries=3))
    assert "its pretraining saw 3 of 120 scored molecules" in errors(check([run]))


def test_nothing_to_check_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no result\.json"):
        check([tmp_path])


@pytest.mark.slow
def test_the_results_of_the_project_are_accepted() -> None:
    refused = {one.name: one.findings for one in check([RESULTS]) if not one.accepted}
    assert refused == {}
