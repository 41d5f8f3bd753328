"""Exports of real runs: what is in the folder, what is not, what is refused, who is believed."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from hambench import experiment
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.config import RunConfig, read_config
from hambench.embedding import embed
from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.export import export, portable
from hambench.exported import BASIS, CARD, FILES, MANIFEST, WEIGHTS, File
from hambench.model_card import card
from hambench.registry import load_task
from hambench.results import Domain, read_result, write_result
from hambench.rundir import CHECKPOINTS, CONFIG
from hambench.trained import load_trained

markdown = pytest.importorskip("markdown")

WORDS = ["task=water_mini", "device=cpu", "score.metrics=[h_mae,h_max]"]
SMALL = [f"model.hyperparameters.{word}" for word in ("channels=4", "layers=1", "gaussians=8")]


def cell(root: Path, *overrides: str) -> RunConfig:
    return compose([*WORDS, f"root={root}", *overrides])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a short run of a network, at a place with a name to look for."""
    root = tmp_path_factory.mktemp("runs") / "private place"
    config = cell(root, "model=helm_small", *SMALL, "max_steps=2")
    return experiment.run(config, progress=False).folder


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of a model without parameters."""
    config = cell(tmp_path_factory.mktemp("runs"), "model=mean_block")
    return experiment.run(config, progress=False).folder


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, which no test may change."""
    return export(run, tmp_path_factory.mktemp("exports") / "mine", "cc-by-4.0")


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """One that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def front_matter(text: str) -> dict[str, Any]:
    """As Hugging Face finds it."""
    found = re.match(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\n|$))", text)
    assert found is not None
    content: dict[str, Any] = yaml.safe_load(found[2])
    return content


def test_what_is_in_the_folder(run: Path, made: Path):
    assert sorted(path.name for path in made.iterdir()) == sorted([*FILES, MANIFEST])
    assert (made / WEIGHTS).read_bytes() == (run / CHECKPOINTS / "best.safetensors").read_bytes()
    manifest = json.loads((made / MANIFEST).read_text())
    assert (manifest["format"], manifest["version"]) == ("hambench-export", 1)
    assert set(manifest["files"]) == set(FILES)
    for name, said in manifest["files"].items():
        assert File.model_validate(said) == File.of(made / name)
    basis = json.loads((made / BASIS).read_text())
    assert OrbitalBasis.from_dict(basis["basis"]) == load_task("water_mini").basis
    assert basis["conventions"]["units"]["hamiltonian"] == "Eh"
    was, result = read_result(run), read_result(made)
    assert was.provenance.command != result.provenance.command == was.reproduce
    made_there = was.provenance.model_copy(update={"command": was.reproduce})
    assert result == was.model_copy(update={"provenance": made_there})
    config = read_config(made / CONFIG)
    assert (config.run_id, config.spec) == (result.run_id, read_config(run / CONFIG).spec)
    assert (config.device, config.root, config.run_dir) == ("auto", Path("runs"), None)


def test_no_path_of_the_machine_is_in_it(run: Path, made: Path):
    assert "private place" in (run / CONFIG).read_text()
    for path in made.iterdir():
        content = path.read_bytes()
        for place in ("private place", str(run), str(Path.cwd()), str(Path.home()) + "/"):
            assert place.encode() not in content, (path, place)


def test_settings_of_a_machine_do_not_survive_in_a_pretraining_either(tmp_path: Path):
    words = ["task=organic_mini_energy", "model=helm_small", "strategy=frozen", "max_steps=1"]
    config = compose([*words, f"root={tmp_path}", f"data={tmp_path}/a.h5", "tracker=wandb"])
    found = portable(config)
    assert str(tmp_path) in config.to_yaml()
    assert str(tmp_path) not in found.to_yaml()
    assert found.run_id == config.run_id
    assert found.pretraining.run_id == config.pretraining.run_id
    assert found.tracker == found.pretraining.tracker == ()


def test_the_model_card(run: Path, made: Path):
    text = (made / CARD).read_text()
    assert front_matter(text) == {
        "license": "cc-by-4.0",
        "library_name": "hambench",
        "tags": ["chemistry", "density-functional-theory", "hamiltonian", "water_mini",
                 "helm_small"],
    }  # fmt: skip
    result, task = read_result(run), load_task("water_mini")
    shown = markdown.markdown(text.partition("---\n\n")[2], extensions=["tables", "fenced_code"])
    for said in (
        "<h1>helm_small of water_mini v1</h1>", "pbe/def2-svp", "molecules of H O", "<td>300</td>",
        result.fingerprint, result.run_id, f"{result.parameters:,}", "<td>H O</td>",
        "no molecule of more than 3 atoms", "<td>CC-BY-4.0</td>", f"<td>{task.spec.license}</td>",
        "hambench predict FOLDER", "uEh</td>", "own calculations with PySCF",
    ):  # fmt: skip
        assert said in shown, said
    assert "of none" not in text
    trained = load_trained(run)
    assert "license" not in front_matter(card(trained, result, None))
    assert "none stated; ask whoever made this folder" in card(trained, result, None)
    unknown = card(trained, result.model_copy(update={"domain": None}), None)
    assert "What the training set was made of is not recorded." in unknown
    narrow = Domain(elements=("O",), charges=(-1, 0), atoms=2)
    said = card(trained, result.model_copy(update={"domain": narrow}), None)
    assert "It takes H, and saw none of them in training." in said
    assert "It saw charges -1, 0 alone." in said


EVIL = "x\n---\n\n# head\n<script>alert(1)</script> `rm` | a [b](http://c) **d** ![e](f) \x1b[1m"


def test_names_cannot_break_out_of_the_card(run: Path):
    trained, result = load_trained(run), read_result(run)
    bad = result.model_copy(update={
        "task": EVIL, "preset": EVIL, "model": EVIL, "split": EVIL, "run_id": EVIL,
        "fingerprint": EVIL, "training_split": EVIL, "metrics": {EVIL: result.metrics["h_mae"]},
        "cost": result.cost.model_copy(update={"device": EVIL, "stopped_by": EVIL}),
        "domain": Domain(elements=("H", "O", EVIL), charges=(0,), atoms=1),
        "provenance": result.provenance.model_copy(update={
            "package": EVIL, "commit": EVIL, "python": EVIL, "plugins": {EVIL: EVIL},
            "libraries": {"torch": EVIL},
        }),
    })  # fmt: skip
    texts = [card(trained, one, "MIT") for one in (result, bad)]
    fronts = [front_matter(text) for text in texts]
    assert fronts[0].keys() == fronts[1].keys()
    assert len(fronts[0]["tags"]) == len(fronts[1]["tags"])
    assert all("\n" not in tag for tag in fronts[1]["tags"])
    bodies = [text[text.index("\n---\n\n") + 6 :] for text in texts]
    pages = [markdown.markdown(body, extensions=["tables", "fenced_code"]) for body in bodies]
    for tag in ("<h1", "<h2", "<table", "<script", "<a ", "<img", "<strong", "<em", "<hr", "<pre",
                "<code", "<li"):  # fmt: skip
        assert pages[0].count(tag) == pages[1].count(tag), tag
    rows = [re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL) for page in pages]
    cells = [{row.count("<td>") for row in found} for found in rows]
    assert cells[0] == cells[1]
    assert "\x1b" not in texts[1]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in pages[1]


def test_only_an_export_of_the_same_run_is_replaced(
    run: Path, floor: Path, copy: Path, tmp_path: Path
):
    before = (copy / CARD).read_bytes()
    (copy / CARD).write_text("edited")
    export(run, copy, "CC-BY-4.0")
    assert (copy / CARD).read_bytes() == before
    assert export(run, tmp_path / "new" / "folder").is_dir()
    (tmp_path / "empty").mkdir()
    assert export(run, tmp_path / "empty") == tmp_path / "empty"
    (copy / "notes.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for target, said in (
        (copy, r"holds other files \(notes.txt\)"), (tmp_path, "holds other files"),
        (run, "holds other files"), (tmp_path / "file", "is no folder"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said):
            export(run, target)
    with pytest.raises(ConfigError, match="holds the export of another run"):
        export(floor, tmp_path / "empty")
    with pytest.raises(ConfigError, match="is an export already"):
        export(copy, tmp_path / "again")
    assert (copy / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.rglob(".*"))


def test_a_model_without_parameters_too(
    floor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    found = export(floor)
    assert found == Path(f"water_mini-mean_block-{floor.name}")
    models = [load_trained(path).model.state_dict() for path in (floor, found)]
    assert models[0].keys() == models[1].keys()
    assert all(tensor.equal(models[1][name]) for name, tensor in models[0].items())
    assert models[0]


@pytest.mark.parametrize("step", ["write", "load", "rename"])
def test_a_failure_leaves_what_was_there(
    run: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, step: str
):
    before = {path.name: path.read_bytes() for path in copy.iterdir()}
    rename = os.replace

    def full(path: object, to: object = None) -> None:
        if step == "rename" and to is not None and Path(str(to)) != copy:
            return rename(path, to)
        if step == "rename" and Path(str(path)).name == "old":
            return rename(path, to)
        raise OSError(28, "No space left on device")

    place = {"write": "hambench.export.File.of", "load": "hambench.export.load_trained",
             "rename": "os.replace"}[step]  # fmt: skip
    loaded = load_trained(run)
    if step == "load":
        answers = iter([lambda: loaded, lambda: full("")])
        monkeypatch.setattr(place, lambda *_: next(answers)())
    else:
        monkeypatch.setattr(place, full)
    with pytest.raises(RunError, match="no space left"):
        export(run, copy)
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


@pytest.mark.parametrize("license", ["my own", "", "MIT AND", "GPL-3.0-or-later OR x", "MIT\n---"])
def test_a_licence_is_an_spdx_expression(run: Path, tmp_path: Path, license: str):
    with pytest.raises(ConfigError, match="is no SPDX expression; give one such as MIT"):
        export(run, tmp_path / "out", license)
    assert not list(tmp_path.iterdir())


def test_licences_that_are_no_single_name(run: Path, tmp_path: Path):
    for given, name in (("mit or apache-2.0", "MIT OR Apache-2.0"), ("LicenseRef-Ours",) * 2):
        text = (export(run, tmp_path / "out", given) / CARD).read_text()
        front = front_matter(text)
        assert (front["license"], front["license_name"]) == ("other", name)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, "result.json", BASIS])
@pytest.mark.parametrize("how", ["one bit", "longer", "gone"])
def test_a_changed_file_is_named(copy: Path, name: str, how: str):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if how == "gone":
        path.unlink()
    else:
        path.write_bytes(content if how == "one bit" else path.read_bytes() + b" ")
    with pytest.raises(DataError) as caught:
        load_trained(copy)
    assert str(path) in str(caught.value)
    assert str(caught.value).endswith("get the folder again")


def test_an_edited_card_is_told_and_no_more(copy: Path, caplog: pytest.LogCaptureFixture):
    (copy / CARD).write_text("# mine")
    load_trained(copy)
    assert [line for line in caplog.messages if "README.md was changed since the export" in line]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "is of version 2, this hambench reads 1; update hambench"),
        ({"format": "x"}, "format: Input should be 'hambench-export'"),
        ({"files": {}}, "expected the files model.safetensors"),
        ({"files": {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}}, "expected the files"),
        ({"more": 1}, "more: Extra inputs"),
        ("[]", "valid dictionary"),
        ("{", "is no manifest of an export"),
        ("[" * 100_000, "is no manifest of an export"),
    ],
)  # fmt: skip
def test_a_manifest_of_something_else(copy: Path, change: Any, said: str):
    path = copy / MANIFEST
    content = json.loads(path.read_text())
    path.write_text(change if isinstance(change, str) else json.dumps(content | change))
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        load_trained(copy)
    assert len(str(caught.value).splitlines()) == 1


def sealed(folder: Path) -> Path:
    """The folder as one who changed it would pass it on, with a manifest that fits."""
    content = json.loads((folder / MANIFEST).read_text())
    content["files"] = {name: File.of(folder / name).model_dump() for name in FILES}
    (folder / MANIFEST).write_text(json.dumps(content))
    return folder


def weights(path: Path, **metadata: str) -> None:
    from safetensors.torch import load_file, save_file

    from hambench.learn.weights import _opened

    with _opened(path) as (_, found):
        found = dict(found)
    save_file(load_file(path), path, found | metadata)


def test_a_folder_made_to_harm_runs_nothing(copy: Path):
    """Whoever made it can make a manifest too: every content has to be harmless by itself."""
    config, bomb = (copy / CONFIG).read_text(), "a: &a [1, 1]\nb: &b [*a, *a]\n"
    call = "seed: !!python/object/apply:os.abort []"
    for change in (f"{bomb}{config}", config.replace("seed: 0", call), "]", config + "more: 1\n",
                   config.replace("helm_small", "nobody"),
                   config.replace("channels: 4", "channels: 99999999")):  # fmt: skip
        (copy / CONFIG).write_text(change)
        with pytest.raises(HambenchError) as caught:
            load_trained(sealed(copy))
        assert len(str(caught.value).splitlines()) == 1
    (copy / CONFIG).write_text(config)
    safe = (copy / WEIGHTS).read_bytes()
    for metadata in ({"dtype": "load"}, {"identity": "[]"}, {"identity": "{"}, {"step": "x"},
                     {"format": "x"}, {"identity": '{"class": "os.system"}'}):  # fmt: skip
        weights(copy / WEIGHTS, **metadata)
        with pytest.raises(ConfigError):
            load_trained(sealed(copy))
        (copy / WEIGHTS).write_bytes(safe)
    (copy / WEIGHTS).write_bytes(b"\x80\x04cos\nsystem\n")
    with pytest.raises(DataError):
        load_trained(sealed(copy))
    (copy / WEIGHTS).write_bytes(safe)
    load_trained(sealed(copy))


def test_a_model_that_needs_a_file_of_this_machine(run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    result = read_result(other)
    for text in ("/data/other.pt", "~/other.pt", f"file:{tmp_path}/run/x"):
        more = {"hyperparameters": {**result.hyperparameters, "weights": [text]}}
        write_result(other, result.model_copy(update=more))
        with pytest.raises(ConfigError, match=r"hyperparameters\.weights\.0=.* names a path"):
            export(other, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_in_an_environment_of_its_own(run: Path, tmp_path: Path):
    other = Path(shutil.copytree(run, tmp_path / "run"))
    config = compose(["task=organic_mini_energy", "model=mace_small", "max_steps=1"])
    (other / CONFIG).write_text(config.to_yaml())
    with pytest.raises(ConfigError, match="lives in an environment of its own"):
        export(other, tmp_path / "out")
    (other / "result.json").unlink()
    with pytest.raises(DataError, match="is not finished"):
        export(other, tmp_path / "out")


@pytest.mark.slow  # UMAP takes its time to begin
def test_embeddings_of_an_export_are_those_of_the_run(run: Path, copy: Path, tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    pytest.importorskip("umap")
    found = []
    for place, folder in enumerate((run, copy)):
        done = embed([folder], tmp_path / str(place), device="cpu", progress=False)
        with h5py.File(done.files[0]) as file:
            found.append({name: file[name][()] for name in file if hasattr(file[name], "shape")})
        found[-1]["findings"] = str(list(done.findings.values()))
    assert found[0].keys() == found[1].keys()
    assert found[0]["findings"] == found[1]["findings"]
