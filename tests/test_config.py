"""Composing a configuration: Hydra's overrides, one sentence for every mistake, run identity."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hambench import registry
from hambench.compose import compose, is_energy_task
from hambench.config import RunConfig, ScoreOptions, read_config
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.learn import Recipe

CELL = ["task=water_mini", "model=helm_main_md17"]


@pytest.mark.parametrize(
    ("task", "model"),
    [
        *((task, "helm_small") for task in registry.task_names()),
        *(("water_mini", model) for model in registry.model_names()),
    ],
)
def test_every_task_and_every_model_composes(task: str, model: str):
    config = compose([f"task={task}", f"model={model}"])
    assert config.task["name"] == task
    assert config.model["name"] == model
    staged = is_energy_task(task)
    assert config.strategy == ("direct" if staged else None)
    assert Recipe.parse(config.training).name == (f"{model}_direct" if staged else model)
    assert RunConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("name", registry.RECIPES.names)
def test_every_recipe_is_a_recipe(name: str):
    assert Recipe.parse(compose([*CELL, f"recipe={name}"]).training).name == name


def test_overrides_reach_every_section():
    config = compose(
        [*CELL, "seed=3", "recipe.batch_size=2", "model.hyperparameters.channels=8",
         "score.metrics=[h_mae,h_max]", "precision=float64", "max_minutes=1e-1"]
    )  # fmt: skip
    assert config.seed == 3
    assert config.training["batch_size"] == 2
    assert config.model["hyperparameters"]["channels"] == 8
    assert config.score.metrics == ["h_mae", "h_max"]
    assert config.training["precision"] == "float64"
    assert config.training["max_minutes"] == 0.1


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ([], "which task? Add task=NAME, one of: md17_ethanol, md17_mal"),
        (["task=water_mini"], "which model? Add model=NAME, one of: element_reference, helm"),
        (["task=water_min", "model=helm"], "no task 'water_min'. Did you mean 'water_mini'?"),
        (["task=water_mini", "model=hlem"], "no model 'hlem'. Did you mean 'helm'?"),
        ([*CELL, "recipe=helm_mian_md17"], "Did you mean 'helm_main_md17'?"),
        ([*CELL, "sed=1"], "unknown key 'sed' in 'sed=1'. Did you mean 'seed'?"),
        ([*CELL, "recipe.batchsize=1"], "Did you mean 'batch_size'?"),
        ([*CELL, "model.hyperparameters.chanels=1"], "Did you mean 'model.hyperparameters.ch"),
        ([*CELL, "pretraning.seed=1"], "Did you mean 'pretraining.seed'?"),
        ([*CELL, "score.cutof=1"], "Did you mean 'score.cutoff'?"),
        ([*CELL, "+sede=1"], "unknown key 'sede' in the configuration. Did you mean 'seed'?"),
        ([*CELL, "seed=one"], "seed=one"),
        ([*CELL, "seed=-1"], "greater than or equal to 0"),
        ([*CELL, "max_steps=0"], "max_steps=0"),
        ([*CELL, "max_minutes=nan"], "finite number"),
        ([*CELL, "device=gpu"], "device=gpu in the configuration: expected auto, cpu, cuda"),
        ([*CELL, "precision=half"], "precision=half"),
        ([*CELL, "seed=0,1"], "names several values, one is needed"),
        ([*CELL, "root="], "root= in the configuration: expected a path; give one, or leave"),
        ([*CELL, "seed"], "cannot read 'seed': expected KEY=VALUE"),
        ([*CELL, "hydra.run.dir=x"], "Hydra's own"),
        ([*CELL, "data=${nowhere}"], "Interpolation key 'nowhere' not found"),
        ([*CELL, "model.hyperparameters.channels.x=1"], "unknown key"),
        ([*CELL, "model.hyperparameters=3"], "expected model.hyperparameters.KEY=VALUE"),
        ([*CELL, "~seed"], "'~seed' takes away a key that a run needs"),
        ([*CELL, "~model.hyperparameters"], "takes away a key"),
        ([*CELL, "score.metrics=h_mae"], "expected a list, e.g. [h_mae,h_max]"),
        ([*CELL, "score.metrics=[]"], "score.metrics=[] in the configuration"),
        ([*CELL, "score.scf.n=0"], "score.scf.n=0 in the configuration: expected greater than 0"),
        ([*CELL, "score.scf.m=1"], "unknown key 'score.scf.m'"),
        ([*CELL, "tracker=mlflow"], "tracker=mlflow in the configuration: expected null, tensorb"),
        ([*CELL, "tracker=[wandb,3]"], "expected null, tensorboard, wandb, or a list of them"),
        ([*CELL, "tensorboard=true"], "tensorboard=true is now tracker=tensorboard"),
        ([*CELL, "+tensorboard=true"], "tensorboard=true is now tracker=tensorboard"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_mistake_gets_one_sentence(overrides: list[str], said: str):
    with pytest.raises(ConfigError) as caught:
        compose(overrides)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_name_is_a_registry_error():
    with pytest.raises(RegistryError):
        compose(["task=x", "model=helm"])


def test_samples_of_dear_metrics():
    """50 molecules for SCFs; a config.yaml from before there were samples means the default."""
    score = compose(CELL).score
    assert (score.scf.n, score.scf.seed, score.energy.n, score.energy.seed) == (50, 43, None, 43)
    changed = compose([*CELL, "score.scf.n=10", "score.energy.seed=1"]).score
    assert (changed.scf.n, changed.scf.seed, changed.energy.seed) == (10, 43, 1)
    assert ScoreOptions.model_validate({"split": "test"}) == score


def test_run_id_is_of_what_decides_the_weights():
    base = compose(CELL)
    same = ("device=cpu", "root=x", "run_dir=y", "overwrite=true", "save_predictions=true",
            "score.split=validation", "score.scf.n=3", "data=z", "tracker=[tensorboard,wandb]",
            "recipe.log_every=7", "recipe.checkpoint_every_steps=9",
            "recipe.accumulate=1")  # fmt: skip
    for override in same:
        assert compose([*CELL, override]).run_id == base.run_id, override
    other = ("seed=1", "max_steps=7", "precision=float64", "recipe.batch_size=3",
             "model.hyperparameters.channels=8", "recipe=helm_main_omol")  # fmt: skip
    ids = {compose([*CELL, override]).run_id for override in other}
    assert len(ids | {base.run_id}) == len(other) + 1


@pytest.mark.parametrize("word", ["task.version=2", "+task.path=x", "model.adapter=minao",
                                  "+model.channels=3"])  # fmt: skip
def test_what_a_name_means_is_not_redefined(word: str):
    with pytest.raises(ConfigError, match=f"'{re.escape(word)}' would redefine"):
        compose([*CELL, word])


def test_a_budget_is_the_same_wherever_it_was_said():
    assert compose([*CELL, "max_steps=7"]).run_id == compose([*CELL, "recipe.max_steps=7"]).run_id


def test_the_run_directory_says_task_model_seed_and_id():
    config = compose([*CELL, "seed=5", "root=somewhere"])
    name = f"seed5-{config.run_id[:8]}"
    assert config.folder == Path("somewhere/water_mini/helm_main_md17") / name
    assert compose([*CELL, "run_dir=here"]).folder == Path("here")


@pytest.mark.parametrize(
    ("word", "names"),
    [("null", ()), ("wandb", ("wandb",)), ("[tensorboard,wandb,wandb]", ("tensorboard", "wandb"))],
)
def test_trackers_are_one_or_several(word: str, names: tuple[str, ...], tmp_path: Path):
    config = compose([*CELL, f"tracker={word}"])
    assert config.tracker == names
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert read_config(tmp_path / "config.yaml") == config


def test_a_run_of_an_earlier_version_goes_on(tmp_path: Path):
    """Its config.yaml has the key that `tracker` replaced, and so has that of its pretraining."""
    words = ["task=organic_mini_energy", "model=helm_small", "strategy=frozen", "max_steps=1"]
    config = compose([*words, "tracker=tensorboard"])
    assert config.pretraining.tracker == ("tensorboard",)
    content = yaml.safe_load(config.to_yaml())
    for section in (content, content["pretraining"]):
        del section["tracker"]
        section["tensorboard"] = True
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    assert read_config(tmp_path / "config.yaml") == config


def test_config_yaml_reads_back_equal(tmp_path: Path):
    config = compose([*CELL, "recipe.optimizer.lr=3e-4", "max_minutes=2.5", "score.cutoff=4"])
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    again = read_config(tmp_path / "config.yaml")
    assert again == config
    assert again.run_id == config.run_id


@pytest.mark.parametrize(
    ("content", "said"),
    [("a: [", "cannot read"), ("- 1", "no configuration of a run"), ("seed: 0", "task")],
)
def test_a_bad_config_yaml_is_named(tmp_path: Path, content: str, said: str):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises((ConfigError, DataError), match=said):
        read_config(tmp_path / "config.yaml")
    with pytest.raises(DataError, match="is no run directory"):
        read_config(tmp_path / "none" / "config.yaml")
