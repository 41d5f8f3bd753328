"""Runs of models that are not equivariant, and of one that is: their measured rotation error."""

from __future__ import annotations

from pathlib import Path

import pytest

from hambench import evaluation, experiment, rundir
from hambench.compose import compose
from hambench.results import read_result
from hambench.scoring.predictions import Predictions
from hambench.scoring.score_table import SCORES

NAME = "h_rotation_mae"
TINY = {
    "schnorb_small": {"width": 8, "factors": 8, "directions": 2, "layers": 1, "gaussians": 8},
    "helm_small": {"channels": 4, "layers": 1, "gaussians": 8},
}


def run(root: Path, model: str, *words: str) -> experiment.Outcome:
    """A tiny model, trained for three steps in float64."""
    tiny = [f"model.hyperparameters.{key}={value}" for key, value in TINY[model].items()]
    fixed = ["device=cpu", "max_steps=3", "recipe.validate_every=3", "precision=float64"]
    config = compose(["task=water_mini", f"model={model}", f"root={root}", *fixed, *tiny, *words])
    return experiment.run(config, progress=False)


def test_a_model_that_is_not_equivariant_says_how_far_it_is(tmp_path: Path) -> None:
    outcome = run(tmp_path, "schnorb_small", "save_predictions=true")
    metrics = read_result(outcome.folder).metrics
    assert next(iter(metrics)) == "h_mae"
    assert list(metrics)[-1] == NAME
    assert 1e-3 < metrics[NAME].value < 10
    assert metrics[NAME].n == metrics["h_mae"].n == 100
    kept = outcome.folder / rundir.PREDICTIONS
    assert Predictions(kept).has_turned
    wanted = {name: tuple(metric.model_dump().values()) for name, metric in metrics.items()}
    for _ in range(2):  # from what was kept, then from the weights
        (outcome.folder / SCORES).unlink()
        again = evaluation.evaluate(outcome.folder, progress=False)
        assert list(again) == list(wanted)
        assert again[NAME].value == pytest.approx(wanted[NAME][0], rel=1e-9)
        kept.unlink(missing_ok=True)
    alone = evaluation.evaluate(outcome.folder, metrics=["h_mae"], progress=False)
    assert list(alone) == ["h_mae"]


def test_an_equivariant_model_is_measured_when_asked(tmp_path: Path) -> None:
    outcome = run(tmp_path, "helm_small", "save_predictions=true")
    assert NAME not in read_result(outcome.folder).metrics
    assert not Predictions(outcome.folder / rundir.PREDICTIONS).has_turned
    # what was kept does not tell: the weights do
    found = evaluation.evaluate(outcome.folder, metrics=[NAME], progress=False)
    assert found[NAME].value < 1e-10
