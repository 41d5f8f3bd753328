"""Whatever happens to its job, a run goes on and ends with the bits of an undisturbed one."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from private_cluster import PrivateCluster
from sweeping import (
    TINY,
    at_end,
    cells,
    hambench,
    launched,
    outcome,
    process_of,
    runs,
    states,
    status,
    trains,
    until,
)

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("toy_jobs")]


@pytest.fixture
def undisturbed(toy_jobs: None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """How the cell ends in one go; computed once."""
    if not _WHOLE:
        folder = tmp_path_factory.mktemp("undisturbed")
        hambench("run", *TINY, "run_dir=run", cwd=folder)
        _WHOLE.append(outcome(folder / "run"))
    return _WHOLE[0]


_WHOLE: list[Any] = []


def _one(folder: Path, *words: str) -> tuple[Path, Path, str]:
    """Sweep, run directory and job of one submitted cell that is in the midst of training."""
    sweep = launched(*TINY, *words, cwd=folder)
    (cell,), (run,) = cells(sweep), runs(sweep)
    trains(run)
    return sweep, run, cell.job


def _ends_as(undisturbed: Any, sweep: Path, run: Path, restarts: int = 1) -> None:
    """The run gets done, was started again so often, and has the same bits as in one go."""
    assert at_end(sweep) == ["done"], hambench("status", str(sweep), "--reasons", cwd=sweep)
    assert status(run)["restarts"] == restarts
    assert outcome(run) == undisturbed


def test_a_warning_a_requeue_and_a_kill(
    slurm: PrivateCluster, tmp_path: Path, undisturbed: Any
) -> None:
    sweep = launched(*TINY, "run_dir=warned,requeued,killed", cwd=tmp_path)
    warned, requeued, killed = runs(sweep)
    jobs = [cell.job for cell in cells(sweep)]
    trains(warned)  # as SLURM does, some time before the limit
    slurm.run("scancel", "--signal=USR2", jobs[0])
    trains(requeued)  # as an administrator does
    slurm.run("scontrol", "requeue", jobs[1])
    trains(killed)  # as the system does without memory
    os.kill(process_of(killed), signal.SIGKILL)
    until(lambda: status(warned)["state"] == "queued", "the job to write its end down")
    assert "goes on" in status(warned)["reason"]
    assert 100 <= status(warned)["step"] < 1500
    assert at_end(sweep) == ["done"] * 3, hambench("status", str(sweep), "--reasons", cwd=sweep)
    for run in (warned, requeued, killed):
        assert status(run)["restarts"] == 1
        assert outcome(run) == undisturbed
    log = hambench("logs", str(sweep), "1", cwd=tmp_path)
    assert log.count("task water_mini") == 2, "both starts are in one log"
    assert "stopped by SIGUSR2" in log
    assert "stopped by SIGTERM" in hambench("logs", str(sweep), "requeued", cwd=tmp_path)
    assert "killed: the job goes back" in hambench("logs", str(sweep), "3", cwd=tmp_path)


@pytest.mark.slow
def test_a_container_without_commands_of_slurm_goes_back_into_the_queue_too(
    slurm: PrivateCluster, tmp_path: Path, undisturbed: Any
) -> None:
    _contained(tmp_path)
    sweep, run, job = _one(tmp_path)
    slurm.run("scancel", "--signal=USR2", job)
    until(lambda: status(run)["state"] == "queued", "the job to write its end down")
    _ends_as(undisturbed, sweep, run)


@pytest.mark.slow
def test_the_first_of_several_processes_is_left_to_ask_for_another_start(
    slurm: PrivateCluster, tmp_path: Path
) -> None:
    _contained(tmp_path)
    sweep, run, job = _one(tmp_path, "nodes=2", "max_steps=400", "recipe.validate_every=200")
    slurm.run("scancel", "--signal=USR2", job)
    assert at_end(sweep) == ["done"], hambench("status", str(sweep), "--reasons", cwd=sweep)
    assert status(run)["restarts"] == 1


def _contained(folder: Path) -> None:
    """Jobs from this folder find no command of SLURM, as in an image."""
    inside = f"env PATH=/nowhere {shlex.quote(sys.executable)}"
    (folder / "clusters").mkdir()
    (folder / "clusters" / "slurm.yaml").write_text(f"python: {inside}\n")


@pytest.mark.slow
def test_preemption_by_a_better_partition(
    slurm: PrivateCluster, tmp_path: Path, undisturbed: Any
) -> None:
    sweep, run, _ = _one(tmp_path, "cluster.partition=preempt")
    slurm.run("sbatch", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap", "sleep 2")
    until(lambda: status(run)["state"] == "queued", "the victim to make way")
    _ends_as(undisturbed, sweep, run)


@pytest.mark.slow
def test_cancelled_cells_go_on_when_they_are_tried_again(
    slurm: PrivateCluster, tmp_path: Path, undisturbed: Any
) -> None:
    sweep = launched(*TINY, "seed=0,1", "cluster.at_once=1", cwd=tmp_path)
    first, second = runs(sweep)
    trains(first)
    assert states(sweep) == ["running", "queued"]
    assert "cancelled: 3 jobs" in hambench("cancel", str(sweep), cwd=tmp_path)
    until(lambda: states(sweep) == ["cancelled", "cancelled"], "both cells to be cancelled")
    until(lambda: status(first)["state"] == "interrupted", "the first to write its end down")
    assert status(second)["state"] == "queued"
    assert not (first / "result.json").exists()
    assert "nothing to start" in hambench("retry", str(sweep), "--failed", cwd=tmp_path)
    # from another folder, one cell by its number
    assert "submitted: 1 of 2 cells" in hambench("retry", str(sweep), "1", cwd=tmp_path.parent)
    assert states(sweep)[1] == "cancelled"
    until(lambda: states(sweep)[0] == "done", "the end of the first", 0.5)
    assert outcome(first) == undisturbed
    assert status(first)["restarts"] == 1


@pytest.mark.slow
def test_the_loss_of_a_node(slurm: PrivateCluster, tmp_path: Path, undisturbed: Any) -> None:
    sweep, run, job = _one(tmp_path)
    node = slurm.run("squeue", "-h", "-j", job, "-o", "%N").strip()
    slurm.stop_node(node)
    try:
        until(lambda: status(run)["restarts"] == 1, "another start, on the other node", 1.0)
        assert status(run)["node"] != node
        _ends_as(undisturbed, sweep, run)
    finally:
        slurm.start_node(node)


@pytest.mark.slow
def test_a_real_time_limit(slurm: PrivateCluster, tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("max_steps")]
    sweep = launched(
        *words, "max_steps=12000", "cluster.time=1", "cluster.signal_delay=20", cwd=tmp_path
    )
    (run,) = runs(sweep)
    assert at_end(sweep) == ["done"]
    assert status(run)["restarts"] >= 1
    hambench("run", *words, "max_steps=12000", "run_dir=whole", cwd=tmp_path)
    assert outcome(run) == outcome(tmp_path / "whole")
