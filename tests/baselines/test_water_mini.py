"""The floors of water_mini, as the README quotes them, through registry and scoring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import hambench
from hambench.chem.molecule import Molecule
from hambench.data.graph import collate
from hambench.data.task import Task
from hambench.model import Model
from hambench.scoring import Score, score


@pytest.fixture(scope="module")
def task() -> Task:
    return hambench.load_task("water_mini")


def scores(model: Model, molecules: Sequence[Molecule]) -> dict[str, Score]:
    matrices = model(collate(molecules, model.graph)).matrices()
    return score(matrices, molecules)


def test_mean_block(task: Task) -> None:
    model = hambench.build_model("mean_block", task.basis)
    model.prepare(task.split("train"))
    test = task.split("test")
    found = scores(model, test)
    assert found["h_mae"].value == pytest.approx(33008e-6, abs=1e-6)
    assert found["h_mae"].n == 100
    matrices = [h.numpy() for h in model(collate(test, model.graph)).matrices()]
    errors = [np.abs(p - m.hamiltonian).mean() for p, m in zip(matrices, test, strict=True)]
    assert found["h_mae"].value == pytest.approx(np.mean(errors), rel=1e-12)


def test_minao(task: Task) -> None:
    """Half as far off as the mean, with no label: what learning has to beat."""
    model = hambench.build_model("minao", task.basis, theory=task.theory)
    error = scores(model, task.split("test")[:5])["h_mae"].value
    assert error == pytest.approx(17180e-6, rel=0.1)


@pytest.mark.slow
def test_minao_on_the_whole_test_set(task: Task) -> None:
    model = hambench.build_model("minao", task.basis, theory=task.theory)
    assert scores(model, task.split("test"))["h_mae"].value == pytest.approx(17180e-6, abs=1e-6)
