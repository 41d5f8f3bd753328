"""Real event files of TensorBoard, and real offline runs of Weights & Biases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from hambench import experiment, rundir
from hambench.compose import compose
from hambench.config import RunConfig
from hambench.errors import ConfigError, RunError
from hambench.learn.trackers import TensorBoard, WeightsAndBiases, tracked
from hambench.results import read_result

wandb = pytest.importorskip("wandb")
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


@pytest.fixture(autouse=True)
def _no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, no settings of whoever runs the tests, and the settings of each test anew."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()


WORDS = ["task=water_mini", "model=toy", "device=cpu", "score.metrics=[h_mae]"]


def cell(root: Path, *overrides: str) -> RunConfig:
    return compose([*WORDS, f"root={root}", *overrides])


def run(config: RunConfig) -> experiment.Outcome:
    return experiment.run(config, progress=False)


def log(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / rundir.LOG).read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def curve(folder: Path, name: str) -> dict[int, float]:
    return {row["step"]: row[name] for row in log(folder) if row.get(name) is not None}


def offline(folder: Path) -> list[Any]:
    """The records of the one offline run in a run directory."""
    from wandb.proto import wandb_internal_pb2
    from wandb.sdk.internal.datastore import DataStore

    wandb.teardown()  # waits until its process has written everything
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    store = DataStore()
    store.open_for_scan(str(path))
    records = []
    while (data := store.scan_data()) is not None:
        records.append(wandb_internal_pb2.Record())
        records[-1].ParseFromString(data)
    return records


def history(folder: Path) -> list[dict[str, float]]:
    """Its rows, in order."""
    return [
        {item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        for record in offline(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in offline(folder):
        for item in record.summary.update:
            found[item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
    return found


def exit_codes(folder: Path) -> list[int]:
    kinds = [(record.WhichOneof("record_type"), record) for record in offline(folder)]
    return [record.exit.exit_code for kind, record in kinds if kind == "exit"]


@pytest.mark.usefixtures("toy")
def test_both_hear_of_the_whole_run(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    config = cell(tmp_path, "tracker=[tensorboard,wandb]")
    assert config.run_id == cell(tmp_path).run_id
    with caplog.at_level("INFO", logger="hambench.learn"):
        folder = run(config).folder
    assert any("offline; send it with: wandb sync" in line for line in caplog.messages)
    events = accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
    rows = history(folder)
    for name in ("train_loss", "val_h_mae"):
        told = {point.step: point.value for point in events.Scalars(name)}
        assert told == pytest.approx(curve(folder, name), rel=1e-6)
        assert {row["_step"]: row[name] for row in rows if name in row} == curve(folder, name)
    (begun,) = (r.run for r in offline(folder) if r.WhichOneof("record_type") == "run")
    told = {item.key: json.loads(item.value_json) for item in begun.config.update}
    spec = json.loads(json.dumps(config.spec))
    assert {key: told[key] for key in spec} == spec
    assert (begun.run_id, begun.project) == (config.run_id, "hambench")
    assert begun.display_name == config.title == f"water_mini/toy/{folder.name}"
    metrics = read_result(folder).metrics
    assert summary(folder).items() >= {name: m.value for name, m in metrics.items()}.items()
    assert exit_codes(folder) == [0]
    assert str(tmp_path) not in str(begun.config)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_goes_on_is_one_run_without_repeated_steps(
    tmp_path: Path, toy: str, toy_site: Path, number: signal.Signals
):
    words = ["tracker=wandb", "max_steps=200"]
    config = cell(tmp_path, *words)
    process = subprocess.Popen(
        [sys.executable, "-m", "hambench", "run", *WORDS, f"root={tmp_path}", *words],
        env={**os.environ, "PYTHONPATH": str(toy_site)}, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (config.folder / rundir.LOG).is_file() or len(log(config.folder)) < 6:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate()
    if number == signal.SIGTERM:
        assert exit_codes(config.folder) == [130]
        steps = sorted({row["step"] for row in log(config.folder)})
        assert [row["_step"] for row in history(config.folder)] == steps
    result = run(config).result
    assert (result.provenance.restarts, result.cost.steps) == (1, 200)
    rows = history(config.folder)
    assert [row["_step"] for row in rows] == list(range(5, 201, 5))
    for name in ("train_loss", "val_h_mae"):
        assert {row["_step"]: row[name] for row in rows if name in row} == curve(
            config.folder, name
        )
    assert summary(config.folder)["h_mae"] == result.metrics["h_mae"].value


def test_a_run_without_training_has_its_summary(tmp_path: Path):
    words = ["task=water_mini", "model=mean_block", "score.metrics=[h_mae]", f"root={tmp_path}"]
    outcome = run(compose([*words, "tracker=wandb"]))
    assert summary(outcome.folder)["h_mae"] == outcome.result.metrics["h_mae"].value
    assert history(outcome.folder) == []


@pytest.mark.usefixtures("toy")
def test_a_failed_run_is_told_as_failed(tmp_path: Path):
    config = cell(tmp_path, "tracker=wandb", "recipe.optimizer.lr=1e38")
    with pytest.raises(RunError):
        run(config)
    assert exit_codes(config.folder) == [1]
    assert "h_mae" not in summary(config.folder)


def followed(folder: Path, *, steps: int = 2) -> None:
    """A short course, told to Weights & Biases."""
    folder.mkdir()
    with tracked(["wandb"], folder, "ab" * 32, "a/b/c", {"seed": 0}) as (tracker,):
        tracker.start(0, 0.0)
        for step in range(steps):
            tracker.row(
                {"step": step, "epoch": 0, "elapsed_s": 0.0, "train_loss": 1.0 / (1 + step)}
            )
        tracker.close()
        tracker.result({"h_mae": 0.5})


def test_the_mode_of_the_environment_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    followed(tmp_path / "disabled")
    assert not list((tmp_path / "disabled").glob("wandb/*run-*"))
    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    followed(tmp_path / "offline")
    assert len(history(tmp_path / "offline")) == 2
    (begun,) = (r.run for r in offline(tmp_path / "offline") if r.HasField("run"))
    assert begun.project == "mine"


def test_a_server_that_does_not_answer_delays_a_run_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    followed(tmp_path / "run")
    assert [row["train_loss"] for row in history(tmp_path / "run")] == [1.0, 0.5]
    assert any("did not take the run" in line for line in caplog.messages)


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WANDB_MODE", "online", "WANDB_MODE=online needs a key"),
        ("WANDB_MODE", "onlin", "settings of Weights & Biases are refused"),
        ("WANDB_PROJECT", "a/b", "settings of Weights & Biases are refused"),
    ],
)
def test_settings_that_make_no_sense(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=said) as caught:
        followed(tmp_path / "run")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("module", ["wandb", "torch.utils.tensorboard"])
def test_a_tracker_that_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
):
    monkeypatch.setitem(sys.modules, module, None)
    make = {"wandb": lambda: WeightsAndBiases(tmp_path, "ab", "a", {})}
    with pytest.raises(ConfigError, match=r"pip install 'hambench\[trackers\]'"):
        make.get(module, lambda: TensorBoard(tmp_path))()
