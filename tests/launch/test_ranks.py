"""``hambench run gpus=2``: the processes of one cell, started from the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hambench.compose import compose
from hambench.errors import ConfigError
from hambench.launch import ranks
from hambench.results import read_result, read_status

WORDS = [
    "task=water_mini", "model=helm_small", "model.hyperparameters.channels=8",
    "model.hyperparameters.layers=1", "device=cpu", "recipe.batch_size=8", "recipe.log_every=1",
    "recipe.validate_every=1000", "score.metrics=[h_mae]", "gpus=2",
]  # fmt: skip


def start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "hambench", "run", *WORDS, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def wait_for_rows(process: subprocess.Popen[str], log: Path) -> None:
    while not (log.exists() and log.stat().st_size):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def children(process: subprocess.Popen[str]) -> list[int]:
    found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in found.split()]


def is_there(number: int) -> bool:
    return Path(f"/proc/{number}").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_stops_all_and_the_same_command_goes_on(tmp_path: Path):
    folder = tmp_path / "run"
    words = ["max_steps=120", f"run_dir={folder}"]
    process = start(*words)
    wait_for_rows(process, folder / "log.jsonl")
    numbers = children(process)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.count("interrupted: stopped by SIGINT after step") == 1
    assert out == ""
    status = read_status(folder)
    assert (status.state, len(numbers)) == ("interrupted", 2)
    assert not any(map(is_there, numbers))

    process = start(*words)
    out, said = process.communicate(timeout=100)
    assert process.returncode == 0, said
    assert out.count("h_mae ") == 1
    assert said.count("parameters") == 1  # the first process alone speaks
    assert read_result(folder).cost.steps == 120
    assert read_status(folder).restarts == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_dies_ends_the_others(tmp_path: Path):
    folder = tmp_path / "run"
    process = start("max_steps=100000", f"run_dir={folder}")
    wait_for_rows(process, folder / "log.jsonl")
    numbers = children(process)
    os.kill(numbers[1], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.splitlines()[-1] == "error: process 1 of 2: ended by SIGKILL"
    assert read_status(folder).state == "failed"
    assert "process 0 of 2 lost the connection to another one" in read_status(folder).reason
    assert not any(map(is_there, numbers))


def test_a_mistake_is_told_once(tmp_path: Path):
    process = start("max_steps=1", f"run_dir={tmp_path}", f"data={tmp_path / 'nothing'}")
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert said.count("error: ") == 1
    assert "defect" not in said


def test_several_nodes_need_a_cluster():
    config = compose([*WORDS, "nodes=2"])
    assert ranks.are_to_start(config)
    with pytest.raises(ConfigError, match=r"nodes=2: this machine is one node, several need a"):
        ranks.run(config, [])


def test_processes_that_were_started_start_no_others(monkeypatch):
    assert not ranks.are_to_start(compose([*WORDS[:-1]]))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not ranks.are_to_start(compose(WORDS))
