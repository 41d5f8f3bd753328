"""Run directories: one writer, one configuration, a status that is always whole."""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hambench import rundir
from hambench.config import RunConfig, read_config
from hambench.errors import ConfigError, RunError
from hambench.results import Status, read_status


def config(**changes: object) -> RunConfig:
    values = {
        "task": {"name": "t", "version": 1},
        "model": {"name": "m", "hyperparameters": {"channels": 4}},
        "recipe": {"name": "m", "batch_size": 2},
        "seed": 0,
    }
    return RunConfig.model_validate({**values, **changes})


def begin(folder: Path, config: RunConfig, fingerprint: str = "f" * 64) -> Status:
    return rundir.begin(folder, config, fingerprint)


HOLD = """
import sys, time
from pathlib import Path
from hambench.rundir import lock
with lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen:
    """A process that holds the lock of ``folder``."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_two_writers_cannot_run_in_one_directory(tmp_path: Path):
    process = holder(tmp_path)
    try:
        with (
            pytest.raises(RunError, match=f"in use by process {process.pid} on "),
            rundir.lock(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.wait()


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path):
    process = holder(tmp_path)
    process.kill()
    process.wait()
    assert (tmp_path / rundir.LOCK).exists()
    with rundir.lock(tmp_path):
        assert json.loads((tmp_path / rundir.LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / rundir.LOCK).exists()


def test_a_lock_of_another_machine_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    held = {"host": "not-" + socket.gethostname(), "pid": 1, "job": "77"}
    (tmp_path / rundir.LOCK).write_text(json.dumps(held))
    with (
        pytest.raises(RunError, match=r"process 1 on not-.*, job 77; if that"),
        rundir.lock(tmp_path),
    ):
        pass
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # the same job, requeued on another machine
    with rundir.lock(tmp_path):
        pass


def test_the_lock_is_released_by_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="x"), rundir.lock(tmp_path):
        raise ValueError("x")
    with rundir.lock(tmp_path):
        pass


def test_a_restart_counts_and_keeps_the_start(tmp_path: Path):
    first = begin(tmp_path, config())
    assert (first.state, first.restarts) == ("running", 0)
    rundir.update(tmp_path, first, state="failed", reason="why", step=4)
    again = begin(tmp_path, config(device="cpu"))
    assert (again.state, again.restarts, again.reason, again.step) == ("running", 1, "", 4)
    assert again.started == first.started
    assert read_status(tmp_path) == again


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "holds a run with seed=0, this one has seed=1"),
        ({"max_steps": 3}, "recipe.max_steps=None, this one has recipe.max_steps=3"),
        ({"task": {"name": "t", "version": 2}}, "task.version=1, this one has task.version=2"),
        (
            {"model": {"name": "m", "hyperparameters": {"channels": 8}}},
            "model.hyperparameters.channels=4, this one has model.hyperparameters.channels=8",
        ),
    ],
)
def test_another_configuration_is_refused(tmp_path: Path, changes: dict, said: str):
    begin(tmp_path, config())
    before = (tmp_path / rundir.CONFIG).read_bytes()
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path, config(**changes))
    for word in (said, "resume", "another run_dir", "overwrite=true"):
        assert word in str(caught.value)
    assert (tmp_path / rundir.CONFIG).read_bytes() == before


def test_overwrite_removes_the_run_and_nothing_else(tmp_path: Path):
    begin(tmp_path, config())
    (tmp_path / rundir.CHECKPOINTS).mkdir()
    (tmp_path / rundir.CHECKPOINTS / "last.pt").touch()
    (tmp_path / rundir.RESULT).touch()
    (tmp_path / "notes.txt").write_text("mine")
    status = begin(tmp_path, config(seed=1, overwrite=True))
    assert status.restarts == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {rundir.CONFIG, rundir.STATUS, "notes.txt"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused(tmp_path: Path, overwrite: bool):
    (tmp_path / "result.json").write_text("precious")
    with pytest.raises(ConfigError, match=r"holds other files \(result\.json\) and no run"):
        begin(tmp_path, config(overwrite=overwrite))
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_a_broken_status_does_not_stop_a_restart(tmp_path: Path):
    begin(tmp_path, config())
    (tmp_path / rundir.STATUS).write_text("{")
    assert begin(tmp_path, config()).state == "running"


def test_other_data_are_refused(tmp_path: Path):
    first = begin(tmp_path, config(), "a" * 64)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"on data with fingerprint aaaaaaaaaaaa, these have bbb"):
        begin(tmp_path, config(), "b" * 64)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert begin(tmp_path, config(), "a" * 64).fingerprint == first.fingerprint
    assert begin(tmp_path, config(overwrite=True), "b" * 64).fingerprint == "b" * 64


def test_a_restart_writes_down_how_it_was_started(tmp_path: Path):
    begin(tmp_path, config())
    later = config(device="cpu", score={"split": "validation"})
    begin(tmp_path, later)
    assert read_config(tmp_path / rundir.CONFIG) == later


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    for folder in (tmp_path / "run", tmp_path / "run" / "below"):
        with pytest.raises(ConfigError, match="is a file; choose another"), rundir.lock(folder):
            pass


def test_a_full_disk_at_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RunError, match="no space left"), rundir.lock(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_a_folder_of_which_nothing_came_is_removed(tmp_path: Path):
    with pytest.raises(ValueError, match="x"), rundir.lock(tmp_path / "run"):
        raise ValueError("x")
    assert not (tmp_path / "run").exists()


def test_what_is_asked_for_is_left_for_a_process(tmp_path: Path):
    folder = tmp_path / "run"
    rundir.enqueue(folder, config(overwrite=True))
    assert read_config(folder / rundir.ASKED) == config()
    assert {path.name for path in folder.iterdir()} == {rundir.ASKED, rundir.STATUS}
    assert read_status(folder).state == "queued"
    first = begin(folder, config())
    assert (first.state, first.restarts) == ("running", 0)
    rundir.update(folder, first, state="failed", reason="why", step=4, stalls=2)
    rundir.enqueue(folder, config())  # what was computed stays
    status = read_status(folder)
    assert (status.state, status.reason, status.step, status.stalls) == ("queued", "", 4, 0)
    assert status.fingerprint == first.fingerprint
    assert begin(folder, config()).restarts == 1
    rundir.enqueue(folder, config(overwrite=True))
    assert (read_status(folder).step, read_status(folder).fingerprint) == (0, "")
    assert not (folder / rundir.CONFIG).exists()


def test_a_finished_run_is_not_queued_and_not_settled(tmp_path: Path):
    begin(tmp_path, config())
    rundir.settle(tmp_path, "interrupted", "why")
    assert (read_status(tmp_path).state, read_status(tmp_path).reason) == ("interrupted", "why")
    (tmp_path / rundir.RESULT).write_text("{}")
    before = (tmp_path / rundir.STATUS).read_bytes()
    rundir.enqueue(tmp_path, config())
    rundir.settle(tmp_path, "failed", "why")
    assert (tmp_path / rundir.STATUS).read_bytes() == before


def test_a_folder_in_use_is_not_queued(tmp_path: Path):
    process = holder(tmp_path)
    try:
        with pytest.raises(RunError, match="in use by process"):
            rundir.enqueue(tmp_path, config())
        assert not (tmp_path / rundir.ASKED).exists()
        path = tmp_path / rundir.LOCK
        path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "job": "12_3"}))
        rundir.release(tmp_path, {"12_3"})  # it is held after all
        assert path.exists()
    finally:
        process.kill()
        process.wait()
    for jobs in ({"12_4"}, {""}, set()):
        rundir.release(tmp_path, jobs)
        assert path.exists()
    rundir.release(tmp_path, {"12_3", "12_4"})
    assert not path.exists()
    rundir.release(tmp_path, {"12_3"})


@pytest.mark.parametrize(
    ("given", "job"),
    [
        ({}, ""),
        ({"SLURM_JOB_ID": "12"}, "12"),
        ({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12"}, "14"),
        ({"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "0"}, "12_0"),
    ],
)
def test_this_job(given: dict[str, str], job: str, monkeypatch: pytest.MonkeyPatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert rundir.this_job() == job
