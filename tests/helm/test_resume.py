"""HELM through the command line, killed at random times, ends in the bits of an undisturbed run."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

STEPS = 120
COMMAND = [
    "run",
    "task=water_mini",
    "model=helm_small",
    "model.hyperparameters.channels=8",
    "model.hyperparameters.layers=1",
    f"max_steps={STEPS}",
    "recipe.validate_every=15",
    "recipe.log_every=5",
    "recipe.checkpoint_every_steps=4",
    "device=cpu",
]


def start(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hambench", *COMMAND, f"run_dir={folder}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def wait_until_training(process: subprocess.Popen[str], folder: Path, rows: int) -> None:
    """Until the log has ``rows`` rows; the process must not end before."""
    log = folder / "log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < rows:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


@pytest.mark.slow
def test_killed_runs_end_in_the_same_bits(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    finish(start(whole))
    random.seed(4)
    for kill, rows in enumerate((2, 6, 12)):  # of about 32 rows
        process = start(cut)
        wait_until_training(process, cut, rows)
        time.sleep(random.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert not (cut / "result.json").exists(), f"kill {kill} came too late"
    finish(start(cut))

    one, other = (json.loads((f / "result.json").read_text()) for f in (whole, cut))
    assert other["metrics"] == one["metrics"]
    assert other["provenance"]["restarts"] == 3
    first, second = (load_file(f / "checkpoints" / "best.safetensors") for f in (whole, cut))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    kept = ("step", "train_loss", "val_h_mae", "lr")
    logs = [
        [json.loads(r) for r in (f / "log.jsonl").read_text().splitlines()] for f in (whole, cut)
    ]
    assert [[r.get(k) for k in kept] for r in logs[0]] == [
        [r.get(k) for k in kept] for r in logs[1]
    ]
