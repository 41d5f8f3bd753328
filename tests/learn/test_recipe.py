"""Recipes: every key documented, every mistake one sentence."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import BaseModel

from hambench.errors import ConfigError
from hambench.learn import recipe
from hambench.learn.recipe import Recipe

GOOD = {
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "batch_size": 4,
    "validate_every": 10,
    "max_steps": 100,
}


def test_every_key_is_documented():
    sections = [v for v in vars(recipe).values() if isinstance(v, type)]
    sections = [s for s in sections if issubclass(s, BaseModel) and s is not BaseModel]
    assert len(sections) >= 10
    for section in sections:
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"


def test_defaults_and_values():
    read = Recipe.parse(GOOD)
    assert read.schedule.name == "constant"
    assert (read.accumulate, read.precision, read.clip_norm) == (1, "float32", None)
    assert read.optimizer.weight_decay == 0.01
    muon = Recipe.parse({**GOOD, "optimizer": {"name": "muon"}, "schedule": {"name": "plateau"}})
    assert (muon.optimizer.lr, muon.optimizer.adamw_lr) == (0.02, 5e-4)
    assert muon.schedule.factor == 0.5


def test_what_may_differ_between_a_run_and_its_continuation():
    one = Recipe.parse(GOOD)
    assert one.comparable() == Recipe.parse({**GOOD, "max_steps": 7, "title": "x"}).comparable()
    assert one.comparable() != Recipe.parse({**GOOD, "batch_size": 7}).comparable()


def test_an_alignment_loss_that_is_off_leaves_no_trace():
    """So that ids and checkpoints of runs from before there was one are as they were."""
    off, on = Recipe.parse(GOOD), Recipe.parse({**GOOD, "alignment": {"weight": 2.0}})
    assert off.alignment is None
    for content in (off.model_dump(), off.comparable()):
        assert "alignment" not in content
    assert Recipe.parse({**GOOD, "alignment": None}).comparable() == off.comparable()
    assert on.comparable()["alignment"] == {
        "weight": 2.0, "occupied": 1.0, "virtual": 0.1, "off_diagonal": 0.0,
    }  # fmt: skip
    assert Recipe.parse(on.model_dump(mode="json")) == on


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"alignment": {"weight": 2, "ocupied": 1}},
            r"unknown key 'recipe.alignment.ocupied'. Did you mean 'occupied'\?",
        ),
        ({"alignment": {"wieght": 1}}, r"key 'recipe.alignment.wieght'. Did you mean 'weight'\?"),
        ({"alignment": {}}, r"recipe.alignment.weight is not set; it is needed \(factor of"),
        ({"alignment": {"weight": 0}}, "recipe.alignment.weight is 0, it should be greater than 0"),
        ({"batchsize": 4}, r"unknown key 'recipe.batchsize'. Did you mean 'batch_size'\?"),
        (
            {"optimizer": {"name": "adam", "lr": 1, "momentun": 0.9}},
            r"unknown key 'recipe.optimizer.momentun'.*eps, lr",
        ),
        ({"optimizer": {"name": "admw"}}, r"recipe.optimizer.name is 'admw'. Did you mean 'adamw'"),
        ({"optimizer": {"lr": 1}}, "recipe.optimizer.name is not set; choose one of adam, adamw,"),
        ({"optimizer": {"name": "adam"}}, r"recipe.optimizer.lr is not set; it is needed \(learn"),
        ({"optimizer": {"name": "adam", "lr": -1}}, "recipe.optimizer.lr is -1, it should be gr"),
        ({"optimizer": {"name": "adam", "lr": "x"}}, "recipe.optimizer.lr is 'x', it should be a"),
        ({"schedule": {"name": "plateau", "factor": 2}}, "recipe.schedule.factor is 2, it should"),
        ({"max_edges": 10}, "exactly one of batch_size and max_edges must be set, both is"),
        ({"batch_size": None}, "exactly one of batch_size and max_edges must be set, neither is"),
        ({"precision": "bf16"}, "recipe.precision is 'bf16', it should be 'float32', 'float64'"),
        ({"ema_decay": 1.0}, "recipe.ema_decay is 1.0, it should be less than 1"),
    ],
)
def test_mistakes_are_told_in_a_sentence(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.parse({**GOOD, **change})
    assert "\n" not in str(caught.value)


def test_reading_a_recipe_needs_no_torch():
    code = (
        "import sys; from hambench.learn import Recipe; "
        f"Recipe.parse({GOOD!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
