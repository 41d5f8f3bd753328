"""Runs of a model that learns beyond initial guesses: training, scoring, loading, going on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import hambench
from hambench import evaluation, experiment
from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory
from hambench.compose import compose
from hambench.config import RunConfig
from hambench.data.graph import collate
from hambench.embedding import vectors_of
from hambench.errors import ConfigError
from hambench.models import build_energy_model, build_model
from hambench.registry import load_task
from hambench.scoring.score_table import SCORES
from hambench.trained import load_trained

pytestmark = pytest.mark.usefixtures("toy")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Theory]]:
    """Guesses that were computed: by id, the labels themselves, less a hundredth of a Hartree."""
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path / "data"))
    rows = load_task("water_mini").rows
    labels = {m.positions.tobytes(): m for m in rows}
    found: list[tuple[str, Theory]] = []

    def near(molecule: Molecule, theory: Theory) -> np.ndarray:
        row = labels[molecule.positions.tobytes()]
        assert row.hamiltonian is not None
        found.append((row.id, theory))
        return row.hamiltonian - 0.01

    monkeypatch.setattr(dft, "initial_fock", near)
    return found


def cell(root: Path, *overrides: str) -> RunConfig:
    words = ["task=water_mini", "model=toy_residual", "device=cpu", f"root={root}"]
    words += ["max_steps=4", "recipe.validate_every=2", "recipe.optimizer.lr=1e-4"]
    return compose([*words, *overrides])


def run(config: RunConfig) -> experiment.Outcome:
    return experiment.run(config, progress=False)


def test_a_run_from_training_to_predictions(tmp_path: Path, asked: list[tuple[str, Theory]]):
    outcome = run(cell(tmp_path, "model.hyperparameters.start=0"))
    task = load_task("water_mini")
    assert {theory for _, theory in asked} == {task.level}
    assert len(asked) == len({row for row, _ in asked}) == 500
    found = outcome.result.metrics["h_mae"].value
    assert 0.009 < found < 0.01  # without the guess the same model is off by 0.4
    rows = [json.loads(line) for line in (outcome.folder / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["val_h_mae"] == pytest.approx(found, rel=0.01)

    (outcome.folder / SCORES).unlink()
    again = evaluation.evaluate(outcome.folder, metrics=["h_mae"], progress=False)["h_mae"].value
    assert again == pytest.approx(found, rel=1e-12)

    trained = load_trained(outcome.folder)
    rows = [trained.task.split("test")[k] for k in range(3)]
    bare = [Molecule(m.numbers, m.positions, m.charge) for m in rows]
    with torch.no_grad():
        predicted = trained.model(collate(bare, trained.model.graph)).matrices()
    errors = [np.abs(h.numpy() - m.hamiltonian).max() for h, m in zip(predicted, rows, strict=True)]
    assert max(errors) < 0.011
    other = build_model("toy_residual", task.basis, theory=task.theory)
    assert other.graph.guess is not None
    assert other.graph.guess.missing(task.rows) == []
    assert len(asked) == 500


def test_what_is_missing_is_said_before_anything_is_written(
    tmp_path: Path, asked: list[tuple[str, Theory]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine, "is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"toy_residual learns beyond initial guesses, 100 of .*"):
        run(cell(tmp_path))
    with pytest.raises(ConfigError, match="basis def2-tzvpd, expected def2-svp"):
        run(cell(tmp_path, "model.hyperparameters.theory=wb97m-v/def2-tzvpd"))
    with pytest.raises(ConfigError, match="toy_residual needs the level of theory of the labels"):
        run(cell(tmp_path, "model.hyperparameters.theory=null"))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]

    basis = load_task("water_mini").basis
    assert build_model("toy_residual", basis, initial_guess="none").graph.guess is None
    model = build_model("toy_residual", basis)  # parameters need none
    assert model.count_parameters() > 0
    energies = build_energy_model("toy_residual", model.basis, {}, {})
    assert energies.graph.guess is None
    rows = load_task("water_mini").split("test")[:2]
    assert len(list(vectors_of(model, rows, batch_size=2))) == 2  # nor do embeddings
    with pytest.raises(ConfigError, match=r"theory=task\.theory"):
        collate([hambench.load_task("water_mini").rows[0]], model.graph)
