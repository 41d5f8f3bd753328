"""Names to tasks and models, of this package and of others."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hambench
from hambench import registry
from hambench.errors import CheckpointError, ConfigError, DataError, RegistryError
from hambench.models import is_external

PLUGIN = Path(__file__).parent / "plugin"

BASIS = hambench.OrbitalBasis.load("def2-svp", [1, 8])


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes installed packages: ``package(name, init, {"model/x.yaml": text})``."""

    def make(name: str, init: str, files: dict[str, str], entry: str = "") -> Path:
        site = tmp_path / f"site-{name}"
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        point = entry or f"{name} = {name}:Net"
        (info / "entry_points.txt").write_text(f"[hambench.models]\n{point}\n")
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(init)
        for path, text in files.items():
            (site / name / path).parent.mkdir(exist_ok=True)
            (site / name / path).write_text(text)
        monkeypatch.syspath_prepend(str(site))
        return site

    yield make
    for name in list(sys.modules):
        if name.partition(".")[0].startswith("plug"):
            del sys.modules[name]


def models() -> registry.Registry:
    return registry.Registry("hambench.models", "model")


def test_our_own_names_are_there():
    assert {"helm", "helm_small", "helm_paper_omol"} <= set(registry.model_names())
    assert "water_mini" in registry.task_names()
    assert not registry.MODELS.broken
    assert not registry.TASKS.broken
    assert not registry.RECIPES.broken
    assert set(registry.search_path()) >= {"pkg://hambench.helm", "pkg://hambench.tasks"}
    assert registry.plugins()["hambench"] == hambench.__version__


@pytest.mark.parametrize("name", registry.model_names())
def test_every_preset_says_what_it_is_and_has_a_recipe(name: str):
    content = registry.MODELS.preset(name).content
    assert content["title"]
    assert content["source"]
    assert isinstance(content["hyperparameters"], dict)
    assert registry.RECIPES.preset(name).content["source"]


@pytest.mark.parametrize("name", [n for n in registry.MODELS.names if not is_external(n)])
def test_every_preset_lists_all_hyperparameters(name: str):
    """So that `--cfg` shows them and each can be set on the command line."""
    preset = registry.MODELS.preset(name)
    arguments = inspect.signature(registry.MODELS.load(preset.entry)).parameters.values()
    known = {a.name for a in arguments if a.kind is a.KEYWORD_ONLY}
    assert set(preset.content.get("hyperparameters", {})) == known


def test_a_real_installed_package_shows_up(tmp_path: Path):
    source = shutil.copytree(PLUGIN, tmp_path / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(source)], check=True)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-m", "hambench", "list", "models", "--json"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    listed = {row["name"]: row for row in json.loads(done.stdout)}
    assert listed["toy"] == {
        "name": "toy",
        "title": "Constant blocks per element pair",
        "from": "hambench-toy 1.2.3",
    }
    assert "helm" in listed


def test_a_miss_suggests_the_nearest_name():
    with pytest.raises(RegistryError, match=r"no model 'helm_smal'\. Did you mean 'helm_small'\?"):
        registry.MODELS.preset("helm_smal")
    with pytest.raises(RegistryError, match=r"no task 'qqq'. Known: .*water_mini"):
        registry.TASKS.preset("qqq")


def test_listing_does_not_touch_the_class(package):
    package("plug_lazy", "", {"model/lazy.yaml": "title: x\nadapter: plug_lazy"})
    found = models()
    assert found.preset("lazy").origin == "plug_lazy 1.0"
    with pytest.raises(RegistryError, match=r"plug_lazy 1.0 cannot be imported: AttributeError"):
        found.load("plug_lazy")


def test_a_plugin_that_fails_to_import_is_listed_as_broken(package):
    package("plug_bad", "raise RuntimeError('no\\nlicence')", {"model/bad.yaml": "title: x"})
    found = models()
    assert found.broken == [registry.Broken("plug_bad", "plug_bad 1.0", "RuntimeError: no licence")]
    assert "helm" in found.names
    with pytest.raises(RegistryError, match=r"'plug_bad' of plug_bad 1.0 is broken: RuntimeError"):
        found.preset("plug_bad")


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [", "no readable YAML"), ("- 1", "must hold a mapping"), ("name: other", "names itself")],
)
def test_a_bad_yaml_is_listed_as_broken(package, text: str, said: str):
    package("plug_yaml", "", {"model/bad.yaml": text, "model/good.yaml": "title: good"})
    found = models()
    assert [bad.name for bad in found.broken] == ["bad"]
    assert said in found.broken[0].reason
    assert "good" in found.names


def test_one_name_twice_is_refused(package):
    package("plug_one", "", {"model/helm.yaml": "title: theirs"})
    with pytest.raises(RegistryError, match="model 'helm' is defined twice") as caught:
        _ = models().presets
    assert "plug_one" in str(caught.value)


def test_one_entry_point_twice_is_refused(package):
    package("plug_two", "", {}, entry="helm = plug_two:Net")
    with pytest.raises(RegistryError, match=r"'helm' is claimed by .* and by"):
        _ = models().entries


def test_numbers_are_read_as_hydra_reads_them(package):
    package("plug_num", "", {"model/num.yaml": "a: 1e-3\nb: 1.5\nc: 2\nd: x1e3"})
    content = models().preset("num").content
    assert content == {"a": 0.001, "b": 1.5, "c": 2, "d": "x1e3"}


def test_build_model_keeps_all_hyperparameters():
    task = hambench.load_task("water_mini")
    model = hambench.build_model("helm_small", task.basis, channels=4, layers=1)
    preset = registry.MODELS.preset("helm_small").content["hyperparameters"]
    defaults = {"gaussian_width": 1.0, "node_weight": 1.0, "edge_weight": 1.0, "envelope": False}
    expected = {**preset, **defaults, "channels": 4, "layers": 1}
    assert model.hyperparameters == expected  # the defaults that no preset sets, too
    assert model.basis == task.basis


def test_build_model_names_a_wrong_hyperparameter():
    basis = hambench.load_task("water_mini").basis
    with pytest.raises(ConfigError, match=r"'chanels'\. Did you mean 'channels'\?"):
        hambench.build_model("helm_small", basis, chanels=4)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("channels", "abc", "is 'abc', it should be a valid integer"),
        ("channels", 3.5, "is 3.5, it should be a valid integer"),
        ("channels", 0, "is 0, it should be greater than or equal to 1"),
        ("channels", -4, "greater than or equal to 1"),
        ("channels", True, "should be a valid integer"),
        ("layers", -1, "greater than or equal to 1"),
        ("gaussians", 1, "greater than or equal to 2"),
        ("cutoff", float("nan"), "should be a finite number"),
        ("cutoff", -1, "greater than 0"),
        ("reduce_node", "maybe", "should be a valid boolean"),
        ("label_scaling", "z-score", "should be 'none', 'shift' or 'standardize'"),
        ("channels", {4}, "not JSON serializable"),
    ],
)
def test_build_model_names_a_wrong_value(key: str, value: object, said: str):
    basis = hambench.load_task("water_mini").basis
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        hambench.build_model("helm_small", basis, **{key: value})
    assert "'helm_small'" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("basis", ["def2-svp", None])
def test_build_model_wants_a_basis(basis: object):
    with pytest.raises(ConfigError, match="expected an OrbitalBasis"):
        hambench.build_model("helm_small", basis)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class Net: pass", "is no subclass of hambench.model.Model"),
        ("from hambench.model import Model\nclass Net(Model): pass", "lacks forward, graph, loss"),
    ],
)
def test_an_incomplete_plugin_is_named(package, monkeypatch, source: str, said: str):
    package("plug_half", source, {"model/half.yaml": "title: x\nadapter: plug_half"})
    monkeypatch.setattr(registry, "MODELS", models())
    with pytest.raises(RegistryError, match=f"plug_half 1.0 {said}"):
        hambench.build_model("half", hambench.load_task("water_mini").basis)


def test_open_data_reads_what_a_task_reads():
    task = hambench.load_task("water_mini")
    rows = hambench.open_data(task.path)
    assert len(rows) == 500
    first = task.split("test")[0]
    same = next(row for row in rows if row.id == first.id)
    np.testing.assert_array_equal(same.hamiltonian, first.hamiltonian)


def test_open_data_refuses_what_it_does_not_know(tmp_path: Path):
    whole = hambench.load_task("water_mini").path.read_bytes()
    (tmp_path / "text.h5").write_text("not HDF5")
    (tmp_path / "half.h5").write_bytes(whole[: len(whole) // 2])
    for name, said in (
        ("none.h5", "none.h5 does not exist"),
        ("", "is a folder"),
        ("text.h5", "text.h5 is of no format that an installed reader knows"),
        ("half.h5", "half.h5 is an HDF5 file that is truncated, corrupt or of no format"),
    ):
        with pytest.raises(DataError, match=said):
            hambench.open_data(tmp_path / name)


def test_load_published_goes_to_the_models_package():
    model = hambench.build_model("helm_small", hambench.load_task("water_mini").basis, channels=4)
    with pytest.raises(CheckpointError):
        hambench.load_published(model, {})
    with pytest.raises(ConfigError, match=r"'a\.pt', expected the checkpoint's tensors by name"):
        hambench.load_published(model, "a.pt")
    with pytest.raises(ConfigError, match="weights of hambench itself"):
        hambench.load_published(model, model.state_dict())
    with pytest.raises(ConfigError, match=r"holds state_dict, expected tensors alone"):
        hambench.load_published(model, {"state_dict": model.state_dict()})
    with pytest.raises(ConfigError, match=r"expected what hambench\.build_model gives"):
        hambench.load_published(None, {})


def test_what_is_no_name_is_said():
    for call in (hambench.load_task, lambda name: hambench.build_model(name, BASIS)):
        with pytest.raises(RegistryError, match="is called by its name, got None"):
            call(None)


def test_a_model_larger_than_the_memory_is_named(monkeypatch: pytest.MonkeyPatch):
    def no_room(*shape: int) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr("torch.nn.Linear.__init__", lambda self, *args, **options: no_room())
    with pytest.raises(ConfigError, match=r"larger than the memory here; .* \(channels=64\)"):
        hambench.build_model("helm_small", BASIS, channels=64)
