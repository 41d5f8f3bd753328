"""What a job does: how it starts, how it ends, and what it leaves behind then."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from slurm_stand_in import StandIn

from hambench import experiment, rundir
from hambench.compose import compose
from hambench.errors import ConfigError, RunError
from hambench.launch import job
from hambench.launch.job import BoardJob, CellJob
from hambench.launch.manifest import Entry, Head, Manifest
from hambench.learn.interrupts import Interrupted
from hambench.results import Status, now, read_status, write_status

MEAN = ("task=water_mini", "model=mean_block", "device=cpu", "score.metrics=[h_mae]")
CODE = "import sys; from hambench.launch.job import CellJob; CellJob(sys.argv[1])()"
ARRAY = {"SLURM_JOB_ID": "14", "SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job is this very process, whose logging and threads stay as they are."""
    monkeypatch.setattr(job, "_prepare_process", lambda: None)


@pytest.fixture
def inside(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """In a task of an array."""
    for name, value in ARRAY.items():
        monkeypatch.setenv(name, value)
    return stand_in


def queued(folder: Path, *words: str) -> Path:
    """A run directory as it is when its job is submitted."""
    rundir.enqueue(folder, compose([*(words or MEAN), f"run_dir={folder}"]))
    return folder


def code_of(task: Any) -> int:
    """The exit code of a job."""
    try:
        task()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else -1
    return 0


def ends(monkeypatch: pytest.MonkeyPatch, how: BaseException, folder: Path, step: int = 0) -> None:
    """From now on a run gets to a step, and ends so."""

    def run(_: object) -> None:
        write_status(folder, read_status(folder).model_copy(update={"step": step}))
        raise how

    monkeypatch.setattr(experiment, "run", run)


@pytest.mark.usefixtures("here")
def test_a_cell_gets_done_and_a_finished_one_returns_at_once(
    inside: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = queued(tmp_path / "run")
    assert code_of(CellJob(str(folder))) == 0
    status = read_status(folder)
    assert (status.state, status.job) == ("done", "11_3")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    monkeypatch.setattr(experiment.Cell, "build", lambda _: pytest.fail("it was built again"))
    assert code_of(CellJob(str(folder))) == 0
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert not inside.calls()


@pytest.mark.usefixtures("here", "inside")
def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert code_of(CellJob(str(tmp_path / "lost" / "run"))) == 1
    said = capsys.readouterr().out
    assert f"error: the run directory {tmp_path / 'lost' / 'run'} is not to be seen on " in said
    assert "is that mounted?" in said
    assert not (tmp_path / "lost").exists()
    (tmp_path / "run").mkdir()  # one without what is asked for
    assert code_of(CellJob(str(tmp_path / "run"))) != 0
    assert "asked.yaml" in read_status(tmp_path / "run").reason


@pytest.mark.usefixtures("here", "inside")
@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (ConfigError("no such data"), 2, "no such data"),
        (RunError("loss is nan"), 1, "loss is nan"),
        (ValueError("two\nlines"), 1, "ValueError: two lines"),
        (MemoryError(), 1, "MemoryError: "),
    ],
)
def test_a_failure_is_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    error: Exception, code: int, reason: str,
):  # fmt: skip
    folder = queued(tmp_path / "run")
    ends(monkeypatch, error, folder)
    assert code_of(CellJob(str(folder))) == code
    status = read_status(folder)
    assert (status.state, status.reason, status.job) == ("failed", reason, "11_3")
    assert f"error: {reason}\n" in capsys.readouterr().out


@pytest.mark.usefixtures("here", "inside")
def test_a_cell_that_cannot_be_built(tmp_path: Path):
    folder = queued(tmp_path / "run", *MEAN[:1], "model=helm_small", "device=cuda")
    assert code_of(CellJob(str(folder))) == 2
    status = read_status(folder)
    assert status.state == "failed"
    assert "cuda" in status.reason.lower()


@pytest.mark.usefixtures("here", "inside")
def test_a_full_disk_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    folder, replace = queued(tmp_path / "run"), os.replace

    def full(source: Any, target: Any) -> None:
        if Path(target).name in names:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    names = {"result.json"}
    assert code_of(CellJob(str(folder))) == 1
    said = f"no space left to write {folder / 'result.json'}; free some"
    assert said in read_status(folder).reason
    assert f"error: {said}" in capsys.readouterr().out
    names = {"status.json"}  # nor can that be written
    monkeypatch.setattr(experiment, "run", lambda _: os.replace("x", folder / "status.json"))
    assert code_of(CellJob(str(folder))) == 1
    printed = capsys.readouterr().out
    assert "No space left on device" in printed
    assert "error: this could not be written down: no space left" in printed
    assert not (folder / "result.json").exists()
    assert not list(folder.glob(".*.json.*"))


@pytest.mark.usefixtures("here")
def test_ahead_of_a_limit_it_goes_back_into_the_queue_while_it_gets_on(
    inside: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):  # fmt: skip
    folder, stop = queued(tmp_path / "run"), Interrupted("stopped", "SIGUSR2")
    for starts, (step, stalls, state) in enumerate(
        [(5, 0, "queued"), (5, 1, "queued"), (5, 2, "queued"), (6, 0, "queued"),
         (6, 1, "queued"), (6, 2, "queued"), (6, None, "failed")], start=1,
    ):  # fmt: skip
        ends(monkeypatch, stop, folder, step)
        assert code_of(CellJob(str(folder))) == (130 if state == "queued" else 1)
        status = read_status(folder)
        assert status.state == state
        if stalls is not None:
            assert status.stalls == stalls
            assert status.reason == f"stopped ahead of a limit after step {step}, goes on"
        assert inside.calls() == ["scontrol requeue 11_3"] * min(starts, 6)
    for word in ("3 starts in a row", "beyond step 6", "cluster.time", "checkpoint_every_steps"):
        assert word in status.reason
    assert f"error: {status.reason}" in capsys.readouterr().out
    rundir.enqueue(folder, compose([*MEAN, f"run_dir={folder}"]))  # a retry begins anew
    assert (read_status(folder).stalls, read_status(folder).step) == (0, 6)


@pytest.mark.usefixtures("here")
def test_a_requeue_that_is_refused(
    inside: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = queued(tmp_path / "run")
    inside.command("scontrol", "echo 'Requested operation is disabled' >&2; exit 1")
    ends(monkeypatch, Interrupted("stopped", "SIGUSR2"), folder, 4)
    assert code_of(CellJob(str(folder))) == 130
    status = read_status(folder)
    assert status.state == "interrupted"
    assert "job 11_3 cannot go back into the queue: scontrol failed: Requested" in status.reason
    (folder / "status.json").write_text("{")  # nor is a damaged status in the way
    monkeypatch.setattr(experiment, "run", lambda _: (_ for _ in ()).throw(
        Interrupted("stopped", "SIGUSR2")))  # fmt: skip
    inside.command("scontrol", "true")
    assert code_of(CellJob(str(folder))) == 130
    assert read_status(folder).state == "queued"


@pytest.mark.usefixtures("here")
def test_other_processes_leave_the_end_to_the_first(
    inside: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = queued(tmp_path / "run")
    monkeypatch.setenv("SLURM_PROCID", "1")
    before = read_status(folder)
    for name in ("SIGUSR2", "SIGTERM"):
        ends(monkeypatch, Interrupted("stopped", name), folder)
        assert code_of(CellJob(str(folder))) == 0  # else srun would end the first one
    ends(monkeypatch, RunError("alone"), folder)
    assert code_of(CellJob(str(folder))) == 1
    assert read_status(folder) == before
    assert not inside.calls()


def test_a_signal_in_the_midst_of_training(
    inside: StandIn, toy: str, toy_site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    paths = [str(toy_site), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    folder = queued(
        tmp_path / "run", "task=water_mini", f"model={toy}", "device=cpu", "max_steps=1000000",
        "recipe.batch_size=1", "recipe.log_every=1", "score.metrics=[h_mae]",
    )  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, str(folder)], stdout=subprocess.PIPE, text=True
    )
    try:
        until = time.monotonic() + 120
        while not (folder / rundir.LOG).is_file() or not (folder / rundir.LOG).stat().st_size:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.05)
        process.send_signal(signal.SIGUSR2)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    status = read_status(folder)
    assert (process.returncode, status.state, status.job) == (130, "queued", "11_3")
    assert "interrupted: " in said
    assert status.step > 0
    assert list((folder / rundir.CHECKPOINTS).iterdir())
    assert inside.calls() == ["scontrol requeue 11_3"]


@pytest.mark.parametrize(
    ("number", "state", "calls"),
    [
        (signal.SIGUSR2, "queued", ["scontrol requeue 11_3"]),
        (signal.SIGTERM, "interrupted", []),
    ],
)
def test_a_signal_before_the_run_begins(
    inside: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, state: str, calls: list[str],
):  # fmt: skip
    folder = queued(tmp_path / "run")
    monkeypatch.setattr(job, "_prepare_process", lambda: os.kill(os.getpid(), number))
    before = signal.getsignal(number)
    assert code_of(CellJob(str(folder))) == 130
    status = read_status(folder)
    assert (status.state, status.stalls) == (state, int(state == "queued"))
    assert inside.calls() == calls
    assert signal.getsignal(number) == before


def test_the_leaderboard_is_of_what_got_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    entries = tuple(Entry(cell=f"cell{k}") for k in range(3))
    head = Head(sweep="s", cluster="slurm", created=now(), cwd=str(tmp_path))
    manifest = Manifest(folder=tmp_path / "sweeps" / "s", head=head, entries=entries)
    manifest.write()
    called: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda words: called.append(words) or 4)
    assert code_of(BoardJob(str(manifest.folder))) == 1
    assert not called
    for name in ("cell0", "cell2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text("{}")
    assert code_of(BoardJob(str(manifest.folder))) == 4
    runs = [str(tmp_path / name) for name in ("cell0", "cell2")]
    board = str(manifest.folder / "leaderboard")
    assert called == [[sys.executable, "-m", "hambench", "leaderboard", *runs, "--out", board]]


def test_an_unstarted_status_takes_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_status(tmp_path, Status(state="running", started=now(), updated=now(), job="5"))
    rundir.settle(tmp_path, "failed", "why")
    assert read_status(tmp_path).job == "5"
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    rundir.settle(tmp_path, "failed", "why")
    assert read_status(tmp_path).job == "6"
