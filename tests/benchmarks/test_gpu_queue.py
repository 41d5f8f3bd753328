"""The GPU queue, from packing to collecting, on a CPU and without PySCF and ASE where it runs."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import collect
import forked
import pack
import pytest
import records
import rows
import run
from entries import MODELS, ROOT, Entry, Scale, queue

from hambench.compose import compose
from hambench.data import manifest
from hambench.data.guess import guess_of
from hambench.data.manifest import Manifest
from hambench.data.store import Store
from hambench.errors import DataError
from hambench.registry import load_task
from hambench.results import read_result, read_status
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.organic_mini import OrganicMini

QUEUE = ROOT / "benchmarks" / "gpu" / "QUEUE.md"
FIXTURES = ROOT / "tests" / "fixtures"


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which PySCF and ASE cannot be imported."""
    folder = tmp_path_factory.mktemp("bare")
    for name in ("pyscf", "ase"):
        (folder / name).mkdir()
        text = f"raise ModuleNotFoundError('no {name} here', name='{name}')\n"
        (folder / name / "__init__.py").write_text(text)
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"PYTHONPATH": path}


KINDS = (
    "first_light", "gpu_tests", "bench_float32", "bench_oracles", "water_helm", "water_sphnet",
    "organic_helm", "organic_direct", "organic_frozen", "ethanol_helm",
)  # fmt: skip
"""Entries of every kind; further ones differ in the model, the recipe or a command of `bench`."""


@pytest.fixture(scope="module", params=["kinds", pytest.param("all", marks=pytest.mark.slow)])
def smoke(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, bare: dict[str, str]
) -> SimpleNamespace:
    """What `run.py --smoke` leaves: its folder, its archive unpacked, and the records."""
    work, out, unpacked = (tmp_path_factory.mktemp(name) for name in ("work", "out", "unpacked"))
    few = request.param == "kinds"
    names = KINDS if few else [e.name for e in queue(Scale("cpu", work, work, smoke=True))]
    words = [
        *(KINDS if few else ["--all"]),
        "--smoke",
        "--device",
        "cpu",
        "--work",
        str(work),
        "--out",
        str(out),
    ]
    script = [sys.executable, str(ROOT / "benchmarks" / "gpu" / "run.py")]
    done = subprocess.run([*script, *words], env=bare, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    archive = out / records.ARCHIVE
    records.unpack(archive, unpacked)
    found = [records.read_record(path) for path in (unpacked / "entries").glob("*.json")]
    return SimpleNamespace(
        names=names, work=work, archive=archive, unpacked=unpacked, said=done.stdout,
        records={record.entry: record for record in found},
    )  # fmt: skip


def small(tmp_path: Path, **changes: object) -> Scale:
    """The scale of a smoke test, in a folder of its own."""
    scale = Scale("cpu", tmp_path / "data", tmp_path / "work", smoke=True)
    return dataclasses.replace(scale, **changes)


def test_entries_run_without_pyscf_and_ase(smoke: SimpleNamespace) -> None:
    assert sorted(smoke.records) == sorted(smoke.names)
    troubles = {r.entry: r.reason for r in smoke.records.values() if r.outcome != "done"}
    assert not troubles
    assert all(record.smoke and record.device == "cpu" for record in smoke.records.values())
    assert len(smoke.said.splitlines()) > len(smoke.names)


def test_records_hold_what_was_measured(smoke: SimpleNamespace) -> None:
    light = smoke.records["first_light"].commands[0].output
    assert len(light) == 6
    assert all(found["agrees"] for found in light.values())
    assert light["helm_small, water x2, torch.float64"]["gradients"] == 0.0
    (one, *_) = smoke.records["water_helm"].commands
    result = read_result(smoke.unpacked / "runs" / one.run)
    assert one.output["steps"] == result.cost.steps == 2
    assert one.output["h_mae"]["value"] == result.metrics["h_mae"].value
    assert smoke.records["bench_float32"].commands[0].output
    (compared,) = smoke.records["bench_oracles"].commands
    (oracle,) = compared.output["results"]
    assert oracle["eager_ratio"] == oracle["oracle"]["median"] / oracle["eager"]["median"]
    assert oracle["agreement"]["elements"] < 1e-4
    before = smoke.records["organic_frozen"].commands[0].run
    assert read_result(smoke.unpacked / "runs" / before).pretraining.steps == 2
    assert (smoke.unpacked / "runs" / one.run / "predictions.h5").is_file()


def test_what_comes_back_is_filed(smoke: SimpleNamespace, tmp_path: Path, monkeypatch) -> None:
    """As if it were no smoke test. The run on water is refused: its rows here are all of them."""
    monkeypatch.setenv("HAMBENCH_DATA", str(smoke.work / "data"))
    archive, root = tmp_path / "real.tar.gz", tmp_path / "root"
    work = tmp_path / "work"
    for record in smoke.records.values():
        records.write_record(work, record.model_copy(update={"smoke": False}))
    for name in ("water_helm", "organic_helm", "organic_direct", "ethanol_helm"):
        run_ = smoke.records[name].commands[0].run
        shutil.copytree(smoke.unpacked / "runs" / run_, work / "runs" / run_)
    records.write_archive(archive, work)
    refused = collect.collect(archive, root, tmp_path / "first")
    filed = {path.parent for path in root.rglob("result.json")}
    tasks = {path.relative_to(root / collect.BOARD).parts[0] for path in filed}
    assert tasks == {"md17_ethanol", "organic_mini", "organic_mini_energy"}
    assert refused == 1
    assert all((folder / "log.jsonl").is_file() for folder in filed)
    assert not list(root.rglob("config.yaml"))
    measured = {p.name.partition("-")[0] for p in (root / collect.MEASURED).iterdir()}
    assert {"first_light", "gpu_tests", "bench_float32", "bench_oracles"} <= measured
    assert not any(name.startswith(("water", "organic", "ethanol")) for name in measured)

    before = sorted(path.stat().st_mtime_ns for path in root.rglob("*"))
    assert collect.collect(archive, root, tmp_path / "again") == refused  # and nothing changes
    assert sorted(path.stat().st_mtime_ns for path in root.rglob("*")) == before
    (folder,) = (p for p in filed if p.parts[-3] == "organic_mini")
    (folder / "result.json").write_text("{}")
    assert collect.collect(archive, root, tmp_path / "third") == refused + 1
    assert (folder / "result.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name some entries, or give --all"),
        (["first_ligt"], "no entry 'first_ligt'. Did you mean 'first_light'?"),
        (["first_light", "--out", __file__], "cannot make the folder"),
        (["first_light", "--out", f"{__file__}/a"], "cannot make the folder"),
        (["first_light", "--work", f"{__file__}/a"], "cannot make the folder"),
        (["first_light", "--all"], "--all is every entry, 'first_light' too"),
        (["first_light", "--device", "tpu"], "--device tpu cannot be used here: device is 'tpu'"),
    ],
)
def test_wrong_words(tmp_path: Path, monkeypatch, capsys, words: list[str], said: str) -> None:
    for name in ("HAMBENCH_DATA", "PYTORCH_NVML_BASED_CUDA_CHECK"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # `_prepare` changes them
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run.py", "--work", str(tmp_path / "work"), *words])
    with pytest.raises(SystemExit) as left:
        run.main()
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob(records.ARCHIVE))


@pytest.mark.parametrize("seconds", ["nan", "59", "-1", "soon"])
def test_too_few_seconds(monkeypatch, capsys, seconds: str) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "first_light", "--seconds", seconds])
    with pytest.raises(SystemExit) as left:
        run.main()
    assert left.value.code == 2
    assert "argument --seconds" in capsys.readouterr().err


@pytest.mark.parametrize("smoke", [False, True])
def test_a_smoke_test_and_measurements_are_kept_apart(
    tmp_path: Path, monkeypatch, capsys, smoke: bool
) -> None:
    scale = small(tmp_path, smoke=not smoke)
    entry = Entry("first_light", "what", 60, ())
    records.write_record(scale.work, run._do(entry, 60.0, scale, run._machine(scale)))
    words = ["first_light", "--work", str(scale.work), "--device=cpu", *["--smoke"] * smoke]
    monkeypatch.setattr(sys, "argv", ["run.py", *words])
    with pytest.raises(SystemExit) as left:
        run.main()
    assert left.value.code == 2
    before = "measurements" if smoke else "a smoke test"
    assert f"holds what {before} left (first_light)" in capsys.readouterr().err


def test_variables_stand_before_a_command(tmp_path: Path) -> None:
    words = ("hambench", "bench", "model", "model=helm_small", "case=water", "batch_size=1")
    code, stopped = forked.run(("HAMBENCH_TRITON=2", *words), 90, tmp_path / "said")
    assert (code, stopped) == (2, False)
    assert "HAMBENCH_TRITON is '2'" in (tmp_path / "said.err").read_text()
    assert "HAMBENCH_TRITON" not in os.environ


def test_a_smoke_test_is_not_filed(smoke: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is of a smoke test"):
        collect.collect(smoke.archive, tmp_path / "root", tmp_path / "unpacked")
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    "name", ["../out.json", "entries/../../out.json", "runs/a/b/code.py", "entries/a/b.json", "/a"]
)
def test_other_archives_are_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo(name)
        member.size = 2
        file.addfile(member, io.BytesIO(b"{}"))
    to = tmp_path / "to"
    with pytest.raises(DataError, match="which the queue does not write"):
        records.unpack(archive, to)
    assert not to.exists()


def test_links_and_texts_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        member = tarfile.TarInfo("entries/a.json")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(member)
    with pytest.raises(DataError, match="does not write"):
        records.unpack(archive, tmp_path / "to")
    archive.write_text("no archive")
    with pytest.raises(DataError, match="cannot read"):
        records.unpack(archive, tmp_path / "to")
    (tmp_path / "a.json").write_text('{"entry": "../a"}')
    with pytest.raises(DataError, match="is no record of an entry"):
        records.read_record(tmp_path / "a.json")


def test_predictions_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for run_, size in (("a", 3000), ("b", 300_000)):
        folder = work / "runs" / "task" / run_
        folder.mkdir(parents=True)
        (folder / "result.json").write_text("{}")
        (folder / "predictions.h5").write_bytes(os.urandom(size))
        (folder / "last.pt").write_bytes(b"a checkpoint")
    archive = tmp_path / "a.tar.gz"
    left_out = records.write_archive(archive, work, limit=400_000)
    assert left_out == ["runs/task/b/predictions.h5"]
    assert archive.stat().st_size < 400_000
    with tarfile.open(archive) as file:
        kept = sorted(file.getnames())
    assert kept == [
        "runs/task/a/predictions.h5", "runs/task/a/result.json", "runs/task/b/result.json",
    ]  # fmt: skip


def test_the_page_is_the_queue() -> None:
    """Entries, order and limits of QUEUE.md are those of `entries`."""
    table = re.findall(r"^\| `(\w+)` \|[^|]+\| (\d+) \|", QUEUE.read_text("utf-8"), re.MULTILINE)
    real = queue(Scale("cpu", Path("data"), Path("work")))
    assert table == [(entry.name, str(entry.seconds)) for entry in real]
    assert all(entry.seconds <= 540 for entry in real)


def test_trainings_end_within_their_limit() -> None:
    """Every cell composes; the minutes of an entry leave one at least to start and to score."""
    for entry in queue(Scale("cpu", Path("data"), Path("work"))):
        cells = [compose(words[2:]) for words in entry.commands if words[:2] == ("hambench", "run")]
        minutes = [cell.training["max_minutes"] for cell in cells]
        before = {c.pretraining.run_id: c.pretraining.training for c in cells if c.pretraining}
        minutes += [training["max_minutes"] for training in before.values()]
        if cells and entry.name != "water_tf32":  # whose cells have to end after the same steps
            assert 60 * sum(minutes) <= entry.seconds - forked.GRACE - 30, entry.name
    precisions = [c.training for c in cells_of("water_tf32")]
    assert len({t["max_steps"] for t in precisions}) == 1
    assert {t["precision"] for t in precisions} == {"float32", "tf32"}
    assert {t["max_minutes"] for t in precisions} == {None}


def cells_of(name: str) -> list:
    (entry,) = (e for e in queue(Scale("cpu", Path("data"), Path("work"))) if e.name == name)
    return [compose(words[2:]) for words in entry.commands]


def test_graphs_are_asked_for_with_cuda_alone() -> None:
    """Where batches have one shape; each measurement of a graph beside an eager one."""
    there, here = (
        {e.name: e for e in queue(Scale(device, Path("d"), Path("w")))}
        for device in ("cuda", "cpu")
    )
    graph = "cuda_graph=true"
    assert not any(graph in words for entry in here.values() for words in entry.commands)
    assert all(graph in there[f"water_{model}"].commands[0] for model in MODELS)
    assert [graph in words for words in there["bench_graph"].commands] == [False, True] * 5
    assert len(here["bench_graph"].commands) == 5


@pytest.mark.slow
def test_a_training_that_is_stopped_goes_on(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(forked, "GRACE", 6.0)
    scale = small(tmp_path)
    words = scale.train("water_mini", "helm", "max_steps=100000", "recipe.batch_size=2")
    entry = Entry("endless", "does it stop", 10, (words, words))
    machine = run._machine(scale)
    first = run._do(entry, 20.0, scale, machine)
    assert (first.outcome, first.seconds < 40) == ("stopped", True)
    stopped, not_begun = first.commands
    assert (stopped.exit_code, not_begun.exit_code) == (130, None)
    folder = scale.work / "runs" / stopped.run
    status = read_status(folder)
    assert status.state == "interrupted"
    assert stopped.output["step"] == status.step > 0
    run._do(entry, 20.0, scale, machine)
    again = read_status(folder)
    assert again.restarts == 1
    assert again.step > status.step


def test_a_failure_is_told_and_does_not_stop_others(tmp_path: Path) -> None:
    scale = small(tmp_path)
    wrong = ("hambench", "bench", "model", "model=nothing", "--json")
    entry = Entry("wrong", "what then", 60, (wrong, ("hambench", "list", "models", "--json")))
    record = run._do(entry, 70.0, scale, run._machine(scale))
    assert [one.outcome for one in record.commands] == ["failed", "done"]
    assert record.outcome == "failed"
    assert "no model 'nothing'" in record.commands[0].said
    assert "helm" in json.dumps(record.commands[1].output)


def test_without_its_data_an_entry_is_skipped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path))
    scale = small(tmp_path)
    (entry,) = (e for e in queue(scale) if e.name == "ethanol_helm")
    record = run._do(entry, 60.0, scale, run._machine(scale))
    assert record.outcome == "skipped"
    assert "the data of task 'md17_ethanol' are not here" in record.reason
    assert record.commands == ()


def test_rows_of_another_format_are_packed_as_they_are(tmp_path: Path, monkeypatch) -> None:
    """A verified file of our own labels in nabla2DFT's layout; here of other molecules."""
    path = Path(shutil.copy(FIXTURES / "nabla_mini_lm.db", tmp_path / "organic.db"))
    source = Nabla2dftHamiltonians(path)
    spec = load_task("organic_mini").spec
    elements = [symbol for symbol in ("H", "C", "N", "O", "F", "S", "Cl", "Br")]
    with pytest.raises(DataError, match="was not verified"):
        rows.pack_rows(OrganicMini(spec, path), tmp_path)
    found = Manifest(
        rows=len(source), sample=source.ids, sha256="0" * 64, unit="bohr", order="canonical",
        checks={}, theory=None, versions={},
    )  # fmt: skip
    manifest.write(path, found)
    task = OrganicMini(spec.model_copy(update={"elements": elements}), path)
    monkeypatch.setattr(rows, "_same", lambda task, copy: True)  # it has not the rows of the splits
    assert rows.pack_rows(task, tmp_path) == f"{len(source)} rows"
    packed = Store(tmp_path / "organic_mini.h5")
    assert packed.ids == source.ids
    assert packed.provenance["converted"]["verified"]["sha256"] == "0" * 64
    monkeypatch.setattr(rows, "_same", lambda task, copy: False)
    with pytest.raises(DataError, match="does not hold the data of"):
        rows.pack_rows(task, tmp_path)
    for one, other in zip(packed, task.rows, strict=True):
        for name in ("positions", "hamiltonian", "overlap", "forces"):
            assert (getattr(one, name) == getattr(other, name)).all()
        assert one.energy == other.energy


def test_a_store_is_copied(tmp_path: Path) -> None:
    rows.tiny(tmp_path)
    task = load_task("organic_mini", tmp_path / "organic_mini.h5")
    other = tmp_path / "other"
    other.mkdir()
    assert rows.pack_rows(task, other) == f"{len(task.rows)} rows"
    assert load_task("organic_mini", other / "organic_mini.h5").fingerprint == task.fingerprint
    assert rows.pack_rows(task, other) == "is there"
    assert rows.pack_rows(load_task("water_mini"), other) == "ships with the package"


def test_guesses_are_packed(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("pyscf")
    here, there = tmp_path / "here", tmp_path / "there"
    rows.tiny(here)
    shutil.rmtree(here / "guesses")  # which are not those of PySCF
    monkeypatch.setenv("HAMBENCH_DATA", str(here))
    file = here / "water_mini.h5"
    config = compose(["task=water_mini", f"data={file}", "model=sphnet_small"])
    task = load_task("water_mini", file)
    assert rows.pack_guesses(config, task, there) == len(task.rows)
    guess = guess_of("minao", task.theory, task.basis, "a test")
    computed = [guess.packed(water) for water in task.rows]
    monkeypatch.setenv("HAMBENCH_DATA", str(there))
    assert guess.missing(task.rows) == []
    assert all(
        (guess.packed(water) == one).all() for water, one in zip(task.rows, computed, strict=True)
    )
    assert rows.pack_guesses(compose(["task=water_mini", "model=helm_small"]), task, there) == 0


def test_the_limit_of_what_travels(tmp_path: Path, capsys) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.h5").write_bytes(bytes(3 * 2**20))
    assert pack.check_size(tmp_path, 1000.0) is None
    assert "data            3.0 MiB" in capsys.readouterr().out
    assert "too much; name fewer entries" in pack.check_size(tmp_path, 3.0)


def test_packages_are_of_the_known_versions() -> None:
    assert "hydra-core==1.3.8" in pack._pinned(pack.PACKAGES)
    assert len(pack._pinned(pack.PACKAGES)) == len(pack.PACKAGES)


def test_only_known_entries_are_packed(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no entry 'nothing'"):
        pack.pack_data(["nothing"], tmp_path, {})
    found = [(c.task["name"], c.model["name"]) for c in pack._trainings(["organic_frozen"])]
    assert found == [("organic_mini", "helm"), ("organic_mini_energy", "helm")]
