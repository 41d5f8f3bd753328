"""MACE: what its trainer is told; and, slow, that it really trains."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hambench.baselines.mace.model import Mace, _course, arguments
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.environments import make
from hambench.errors import ConfigError
from hambench.experiment import run
from hambench.learn import FitResult, Interrupted, Recipe
from hambench.learn.reporters import Reporter
from hambench.models import build_model
from hambench.registry import RECIPES, load_task


class TestMaceSettings:
    def recipe(self, **changes: object) -> Recipe:
        content = dict(RECIPES.preset("mace").content)
        for key, value in changes.items():
            if isinstance(value, dict) and "name" not in value:
                value = content[key] | value
            content[key] = value
        return Recipe.parse(content)

    def test_the_recipe_of_the_readme_becomes_words_of_mace(self):
        words = arguments(self.recipe())
        assert words["lr"] == 0.01
        assert words["weight_decay"] == 5e-7
        assert words["batch_size"] == 10
        assert words["ema"] is True
        assert words["ema_decay"] == 0.99
        assert words["default_dtype"] == "float64"
        assert words["lr_factor"] == 0.8

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"optimizer": {"name": "muon"}}, "recipe.optimizer.name is 'muon'"),
            ({"optimizer": {"amsgrad": False}}, "recipe.optimizer.amsgrad is False"),
            ({"optimizer": {"betas": [0.9, 0.99]}}, "recipe.optimizer.betas.1 is 0.99"),
            ({"schedule": {"name": "cosine"}}, "recipe.schedule.name is 'cosine'"),
            ({"schedule": {"monitor": "metric"}}, "recipe.schedule.monitor is 'metric'"),
            ({"precision": "tf32"}, "recipe.precision is 'tf32'"),
            ({"accumulate": 2}, "recipe.accumulate is 2"),
            ({"batch_size": None, "max_edges": 100}, "recipe.max_edges is 100"),
            ({"validate_every": None, "validate_every_minutes": 1.0}, "validate_every_minutes"),
        ],
    )
    def test_what_mace_cannot_do_is_refused(self, changes: dict, said: str):
        with pytest.raises(ConfigError, match=said):
            arguments(self.recipe(**changes))

    @pytest.mark.parametrize(
        ("rows", "max_steps", "validate_every", "epochs", "every"),
        [(240, 2400, 1, 100, 1), (30, 100, 1, 33, 1), (30, 100, 12, 33, 4), (30, 2, 1, 1, 1)],
    )
    def test_a_budget_of_steps_becomes_whole_epochs_that_end_with_a_validation(
        self, rows: int, max_steps: int, validate_every: int, epochs: int, every: int
    ):
        course = _course(self.recipe(max_steps=max_steps, validate_every=validate_every), rows)
        assert (course.epochs, course.every) == (epochs, every)
        assert (course.epochs - 1) % course.every == 0
        assert course.max_steps == course.epochs * (rows // 10)

    def test_fewer_molecules_than_a_batch_are_refused(self):
        with pytest.raises(ConfigError, match=r"set recipe\.batch_size=7 or less"):
            _course(self.recipe(), 7)

    def test_the_network_is_not_built_here(self):
        basis = OrbitalBasis.load("def2-svp", [1, 8])
        with pytest.raises(ConfigError, match="runs in an environment of its own"):
            build_model("mace", basis)
        assert Mace(basis, channels=8).arguments["num_channels"] == 8
        assert Mace(basis).arguments["atomic_numbers"] == "[1, 8]"


def test_a_task_of_hamiltonians_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="trained on energies and nothing else"):
        run(compose(["task=water_mini", "model=mace_small", f"root={tmp_path}"]))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The environment of MACE: that in HAMBENCH_ENVS where it is set, else made for these tests."""
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("HAMBENCH_ENVS"):
            patch.setenv("HAMBENCH_ENVS", str(tmp_path_factory.mktemp("envs")))
        make("mace")
        yield


class Stopping(Reporter):
    """Asks the run to stop at a step, once."""

    def __init__(self, at: int) -> None:
        self.at = at

    def step(self, step: int, elapsed_s: float) -> None:
        if step == self.at:
            self.at = -1
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.slow
@pytest.mark.usefixtures("own_environment")
@pytest.mark.parametrize(("forces", "count"), [(False, 40), (True, 12)])
def test_it_trains_goes_on_after_a_stop_and_predicts(forces: bool, count: int, tmp_path: Path):
    task = load_task("water_mini")
    train = [task.split("train")[k] for k in range(10)]
    validation = [task.split("validation")[k] for k in range(5)]
    content = dict(RECIPES.preset("mace_small").content)
    recipe = Recipe.parse(content | {"batch_size": 5, "max_steps": count, "log_every": 1})
    model = Mace(task.basis, channels=8, forces=forces)
    folder = tmp_path / "external"

    def fit() -> FitResult:
        return model.fit(
            train, validation, recipe, folder,
            seed=3, device="cpu", progress=False, reporters=[stopping],
        )  # fmt: skip

    stopping = Stopping(at=9)
    with pytest.raises(Interrupted):
        fit()
    assert not (folder / "mace.model").exists()
    fitted = fit()
    assert (fitted.steps, fitted.epochs, fitted.stopped_by) == (count, count / 2, "max_steps")
    assert fitted.restarts == 1
    assert model.count_parameters() > 1000
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "val_e_mae" in row]
    assert steps == list(range(2, count + 1, 2))
    assert fitted.best_value == min(row["val_e_mae"] for row in rows if "val_e_mae" in row)

    def predict(molecules: list[Molecule]) -> np.ndarray:
        return model.predict(molecules, folder, device="cpu", progress=False)

    energies = predict(validation)
    errors = np.abs(energies - [m.energy for m in validation])
    assert errors.mean() == pytest.approx(fitted.best_value, rel=1e-9, abs=1e-12)
    if not forces:  # which outweigh energies by far until they are learned
        mean = np.mean([m.energy for m in train])
        assert errors.mean() < np.abs(mean - np.array([m.energy for m in validation])).mean()
    turn = Rotation.from_rotvec([0.4, -1.1, 0.7]).as_matrix()
    turned = [
        replace(m, numbers=m.numbers[::-1], positions=(m.positions @ turn.T)[::-1], **BARE)
        for m in validation
    ]
    assert np.abs(predict(turned) - energies).max() < 1e-10
    again = fit()
    assert (again.steps, again.restarts) == (count, 1)  # finished: nothing is trained anew


BARE = {"hamiltonian": None, "overlap": None, "energy": None, "forces": None}
