"""Killed, interrupted and damaged runs go on and end with the same bits."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from toy_model import RECIPE, program, rows, train


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """Starts `program` in a child process, quickly: the imports are done once in a fork server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toy_model", "lightning_fabric"])
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), before])

    def start(folder: Path, values, pause: float) -> BaseProcess:
        folder.mkdir(exist_ok=True)
        child = context.Process(target=program, args=(folder, values, pause))
        child.start()
        return child

    warm = start(tmp_path_factory.mktemp("warm"), RECIPE, 0.0)  # imports, outside of all timing
    warm.join()
    assert warm.exitcode == 0
    os.environ["PYTHONPATH"] = before
    return start


def wait_for_step(folder: Path, step: int) -> None:
    """Until the log has a row of this step."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = folder / "log.jsonl"
        if log.exists() and any(row["step"] >= step for row in rows(folder)):
            return
        time.sleep(0.002)
    pytest.fail(f"no row of step {step} in {folder}")


def same_outcome(one: Path, other: Path) -> None:
    a, b = (torch.load(path / "final.pt", weights_only=True) for path in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name
    last = [torch.load(p / "checkpoints" / "last.pt", weights_only=True) for p in (one, other)]
    for name, tensor in last[0]["weights"].items():
        assert torch.equal(tensor, last[1]["weights"][name]), name
    for name in ("ema", "optimizers", "schedule", "random"):
        assert _equal(last[0][name], last[1][name]), name
    assert rows(one) == rows(other)
    results = [json.loads((path / "fit.json").read_text()) for path in (one, other)]
    for key in ("steps", "epochs", "best_value", "best_step", "stopped_by"):
        assert results[0][key] == results[1][key]


def _equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return a == b


VARIANTS = {
    "cosine_adamw_ema": {},
    "plateau_muon_accumulate": {
        "optimizer": {"name": "muon"},
        "schedule": {"name": "plateau", "patience": 0, "threshold": 0.05},
        "accumulate": 2,
        "ema_decay": None,
    },
    "edges_adam_float64": {
        "optimizer": {"name": "adam", "lr": 1e-3, "amsgrad": True},
        "batch_size": None,
        "max_edges": 24,
        "precision": "float64",
        "checkpoint_every_steps": 1,
    },
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_runs_end_with_the_bits_of_an_uninterrupted_one(variant, start, tmp_path):
    values = {**RECIPE, **VARIANTS[variant]}
    train(tmp_path / "whole", values)
    killed = tmp_path / "killed"
    (killed / "checkpoints").mkdir(parents=True)
    (killed / "checkpoints" / ".last.pt.x1").write_bytes(b"half")
    draw = random.Random(variant)
    deaths = 0
    for _ in range(5):
        child = start(killed, values, pause=0.02)
        child.join(draw.uniform(0.05, 0.6))
        if child.exitcode is None:
            os.kill(child.pid, signal.SIGKILL)
            deaths += 1
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
    last = start(killed, values, pause=0.0)
    last.join()
    assert last.exitcode == 0
    assert deaths >= 2
    assert not list((killed / "checkpoints").glob(".*"))  # nothing half written is left
    same_outcome(tmp_path / "whole", killed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_a_checkpoint_and_say_how_to_go_on(number, start, tmp_path):
    values = {**RECIPE, "checkpoint_every_steps": None, "checkpoint_every_seconds": None}
    train(tmp_path / "whole", values)
    stopped = tmp_path / "stopped"
    child = start(stopped, values, pause=0.02)
    wait_for_step(stopped, 5)
    os.kill(child.pid, number)
    child.join()
    assert child.exitcode == 130
    message = (stopped / "message").read_text()
    assert number.name in message
    assert "the same command goes on" in message
    step = torch.load(stopped / "checkpoints" / "last.pt", weights_only=True)["state"]["step"]
    assert 5 <= step < 30
    last = start(stopped, values, pause=0.0)
    last.join()
    same_outcome(tmp_path / "whole", stopped)
    assert json.loads((stopped / "fit.json").read_text())["restarts"] == 1


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(start, tmp_path, caplog):
    train(tmp_path / "whole", RECIPE)
    folder = tmp_path / "damaged"
    child = start(folder, RECIPE, pause=0.02)
    wait_for_step(folder, 10)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    last = folder / "checkpoints" / "last.pt"
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 1
    last.write_bytes(content)
    train(folder, RECIPE)
    assert "last.pt cannot be read (wrong checksum" in caplog.text
    assert "going on from" in caplog.text
    assert (folder / "checkpoints" / "damaged.pt").read_bytes() == content
    same_outcome(tmp_path / "whole", folder)
