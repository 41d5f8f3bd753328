"""Models in folders that need no installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hambench
from hambench import registry
from hambench.compose import compose
from hambench.config import read_config
from hambench.errors import ConfigError, RegistryError
from hambench.modelfolder import VARIABLE

TOY = Path(__file__).parent / "plugin" / "hambench_toy" / "net.py"
MODEL = 'name: own_net\nadapter: own_net:Toy\ntitle: "mine"\nhyperparameters: {start: 1e-2}\n'
RECIPE = (
    "name: own_net\noptimizer: {name: adam, lr: 3e-2}\nbatch_size: 50\n"
    "max_steps: 2\nvalidate_every: 2\n"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder with the model ``own_net``, which the registry of this process knows."""
    path = tmp_path / "it's, mine"  # Hydra's grammar minds every one of these characters
    (path / "model").mkdir(parents=True)
    (path / "recipe").mkdir()
    (path / "own_net.py").write_text(TOY.read_text("utf-8"), "utf-8")
    (path / "model" / "own_net.yaml").write_text(MODEL, "utf-8")
    (path / "recipe" / "own_net.yaml").write_text(RECIPE, "utf-8")
    monkeypatch.setenv(VARIABLE, str(path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    forget(monkeypatch)
    yield path
    for name in ("own_net", "own_second"):
        sys.modules.pop(name, None)


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MODELS", "RECIPES"):
        old = getattr(registry, name)
        for attribute in ("folders", "entries", "_scan", "presets", "broken"):
            monkeypatch.delitem(vars(old), attribute, raising=False)


def models() -> registry.Registry:
    return registry.Registry("hambench.models", "model")


def test_a_model_of_a_folder_is_one_like_any_other(folder: Path):
    found = registry.MODELS.preset("own_net")
    assert found.origin.startswith(f"folder {folder.name} sha256:")
    model = hambench.build_model("own_net", hambench.load_task("water_mini").basis, cutoff=4.0)
    assert Path(sys.modules[type(model).__module__].__file__).parent == folder
    assert model.hyperparameters == {"start": 0.01, "cutoff": 4.0}
    assert registry.plugins()[f"folder {folder.name}"] == found.origin.split()[-1]


def test_its_run_is_composed_by_hydra(folder: Path):
    config = compose(["task=water_mini", "model=own_net", "recipe.batch_size=20"])
    assert config.model["hyperparameters"] == {"start": 0.01}
    assert (config.training["batch_size"], config.training["max_steps"]) == (20, 2)


def test_the_command_line_trains_it_and_says_what_it_was(folder: Path, tmp_path: Path):
    words = ["run", "task=water_mini", "model=own_net", f"run_dir={tmp_path}/run", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "hambench", *words], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text("utf-8"))
    assert (result["preset"], result["model"]) == ("own_net", "own_net:Toy")
    digest = registry.MODELS.preset("own_net").origin.split()[-1]
    assert result["provenance"]["plugins"][f"folder {folder.name}"] == digest
    assert read_config(tmp_path / "run" / "config.yaml").model["name"] == "own_net"


def test_another_text_of_the_code_is_another_version(folder: Path):
    before = models().preset("own_net").origin
    with (folder / "own_net.py").open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    assert models().preset("own_net").origin != before


def test_a_preset_of_an_installed_model_needs_no_code(folder: Path):
    (folder / "model" / "helm_tiny.yaml").write_text(
        "adapter: helm\nhyperparameters: {channels: 4, layers: 1}\n", "utf-8"
    )
    found = models().preset("helm_tiny")
    assert (found.entry, models().load(found.entry).__name__) == ("helm", "Helm")


def test_without_the_variable_there_is_no_such_model(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(VARIABLE)
    assert "own_net" not in models().names
    monkeypatch.setenv(VARIABLE, os.pathsep)
    assert "own_net" not in models().names


@pytest.mark.parametrize(
    ("preset", "said"),
    [
        ("adapter: os:system", r"module 'os' is not that of .*; rename the file"),
        ("adapter: json:loads", r"module 'json' is not that of"),
        ("adapter: nowhere_at_all:Net", r"there is no .*nowhere_at_all\.py"),
        ("title: x", "add 'adapter: MODULE:CLASS'"),
        ("adapter: [", "no readable YAML"),
    ],
)
def test_a_bad_preset_is_broken_and_imports_nothing(folder: Path, preset: str, said: str):
    (folder / "model" / "bad.yaml").write_text(preset, "utf-8")
    (folder / "json.py").write_text("raise SystemExit\n", "utf-8")
    found = models()
    with pytest.raises(RegistryError, match=f"model 'bad' of folder .* is broken: .*{said}"):
        found.preset("bad")
    assert "own_net" in found.names
    assert "own_net" not in sys.modules  # listing touches no code


def test_a_module_from_elsewhere_is_refused_when_it_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found = models()
    entry = found.preset("own_net").entry
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "own_net.py").write_text("class Toy: ...\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "else"))
    with pytest.raises(RegistryError, match=r"is not that of .*: Python takes .*else/own_net\.py"):
        found.load(entry)


def test_one_name_twice_is_refused(folder: Path):
    (folder / "model" / "helm.yaml").write_text("adapter: helm\n", "utf-8")
    with pytest.raises(RegistryError, match=r"model 'helm' is defined twice.*rename one"):
        _ = models().presets


@pytest.mark.parametrize(
    ("place", "said"), [("none", "is no folder"), ("empty", r"holds no model/NAME\.yaml")]
)
def test_a_wrong_variable_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, said: str
):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path / place))
    with pytest.raises(ConfigError, match=f"HAMBENCH_MODELS names .*{place}, which {said}"):
        _ = models().names
