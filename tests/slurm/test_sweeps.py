"""Sweeps on a real cluster: arrays, what waits for what, failures, several processes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from private_cluster import PrivateCluster
from sweeping import TINY, at_end, cells, hambench, launched, runs, states, status, until

from hambench.launch.manifest import read_manifest
from hambench.launch.scheduler import Scheduler

pytestmark = pytest.mark.slurm

ROWS = Path(__file__).parents[1] / "fixtures" / "organic_mini_24.h5"


def test_one_array_a_failing_cell_and_a_leaderboard(
    slurm: PrivateCluster, toy_jobs: str, tmp_path: Path
) -> None:
    words = (*TINY, "max_steps=20", "recipe.optimizer.lr=1e-3,1e30")
    sweep = launched(*words, cwd=tmp_path)
    assert "attached" not in hambench("status", str(sweep), cwd=tmp_path)
    again = hambench("sweep", *words, "cluster=slurm", cwd=tmp_path)
    assert "submitted: 0 of 2 cells" in again
    assert "in the queue already: 2" in again
    assert at_end(sweep) == ["done", "failed"]
    manifest = read_manifest(sweep)
    ids = [entry.jobs[0].id for entry in manifest.entries]
    (array,) = {job.partition("_")[0] for job in ids}
    assert ids == [f"{array}_{k}" for k in range(2)]
    assert all(len(entry.jobs) == 1 for entry in manifest.entries)
    # the failure is told by the run itself, by the scheduler, and by the command line
    assert status(runs(sweep)[1])["state"] == "failed"
    assert re.search(r"became (nan|inf)", status(runs(sweep)[1])["reason"])
    until(lambda: _ends(ids) == {"COMPLETED", "FAILED"}, "the end of the jobs")
    table = hambench("status", str(sweep), cwd=tmp_path)
    assert "1 done, 1 failed of 2 (slurm)" in table
    board = sweep / "leaderboard" / "leaderboard.md"
    until(board.is_file, "the leaderboard")
    assert "toy" in board.read_text()
    # those that failed alone are tried again, and fail again
    said = hambench("retry", str(sweep), "--failed", "cluster.time=5", cwd=tmp_path)
    assert "submitted: 1 of 2 cells" in said
    assert at_end(sweep) == ["done", "failed"]
    assert status(runs(sweep)[1])["restarts"] == 1
    assert [len(entry.jobs) for entry in read_manifest(sweep).entries] == [1, 2]


def test_cells_wait_for_their_pretraining(
    slurm: PrivateCluster, toy_jobs: str, tmp_path: Path
) -> None:
    sweep = launched(
        "task=organic_mini_energy", "model=toy", "strategy=frozen,finetuned",
        f"data={ROWS}", "device=cpu", "max_steps=10", "pretraining.max_steps=10",
        "pretraining.recipe.optimizer.lr=choice(1e-3,1e30)", "pretraining.score.metrics=[h_mae]",
        cwd=tmp_path,
    )  # fmt: skip
    manifest = read_manifest(sweep)
    first = [entry for entry in manifest.entries if entry.needs is None]
    rest = [entry for entry in manifest.entries if entry.needs is not None]
    assert (len(first), len(rest)) == (2, 4)
    assert len({entry.jobs[0].id.partition("_")[0] for entry in manifest.entries}) == 3
    tasks = {entry.cell: entry.jobs[0].id.partition("_")[2] for entry in first}
    for entry in rest:  # task k waits for task k
        assert entry.needs is not None
        assert entry.jobs[0].id.partition("_")[2] == tasks[entry.needs]
    assert set(states(sweep)[2:]) <= {"waiting", "queued"}
    at_end(sweep)
    found = {cell.entry.cell: cell for cell in cells(sweep)}
    assert sorted(found[entry.cell].state for entry in first) == ["done", "failed"]
    for entry in rest:
        assert entry.needs is not None
        cell, needed = found[entry.cell], found[entry.needs]
        if needed.state == "done":
            assert cell.state == "done"
        else:
            assert cell.state == "cancelled"
            assert cell.reason == f"its pretraining {entry.needs}: failed"
            assert not (manifest.folder_of(entry.cell) / "result.json").exists()


@pytest.mark.slow
def test_a_sweep_that_is_submitted_from_inside_a_job(
    slurm: PrivateCluster, toy_jobs: str, tmp_path: Path
) -> None:
    words = [*TINY, "max_steps=20", "cluster=slurm"]
    command = [sys.executable, "-m", "hambench", "sweep", *words]
    quoted = " ".join(f"'{word}'" for word in command)
    subprocess.run(
        ["sbatch", "--nodes=2", "--array=0", f"--output={tmp_path}/said", f"--chdir={tmp_path}",
         "--wait", "--wrap", quoted],
        check=True, timeout=120,
    )  # fmt: skip
    said = (tmp_path / "said").read_text()
    sweep = tmp_path / re.findall(r"status +hambench status (\S+)", said)[0]
    assert at_end(sweep) == ["done"]
    (cell,) = cells(sweep)
    script = next((sweep / "jobs").glob("*/*_submission.sh")).read_text()
    assert "--nodes=1" in script
    assert cell.status is not None
    assert cell.status.job == cell.job


@pytest.mark.slow
def test_processes_on_two_nodes_have_the_gradient_of_one(
    slurm: PrivateCluster, toy_jobs: str, tmp_path: Path
) -> None:
    file = tmp_path / "gradients.yaml"
    file.write_text(
        """\
fixed:
  task: water_mini
  model: helm_small
  device: cpu
  precision: float64
  max_steps: 1
  recipe.optimizer.name: adam
  recipe.batch_size: 8
  recipe.clip_norm: null
  score.metrics: [h_mae]
  cluster: slurm
include:
  - {run_dir: one}
  - {run_dir: two, nodes: 2}
  - {run_dir: parts, gpus: 2, recipe.batch_size: 2, recipe.accumulate: 4}
"""
    )
    said = hambench("sweep", str(file), cwd=tmp_path)
    sweep = tmp_path / re.findall(r"status +hambench status (\S+)", said)[0]
    assert at_end(sweep) == ["done"] * 3, hambench("status", str(sweep), "--reasons", cwd=sweep)
    assert all(entry.jobs for entry in read_manifest(sweep).entries)
    gradients = {name: _gradient(tmp_path / name) for name in ("one", "two", "parts")}
    scale = float(gradients["one"].abs().max())
    assert scale > 0
    for name in ("two", "parts"):
        assert float((gradients[name] - gradients["one"]).abs().max()) < 1e-12 * scale, name
    values = [json.loads((tmp_path / n / "result.json").read_text()) for n in gradients]
    errors = [value["metrics"]["h_mae"]["value"] for value in values]
    assert errors == pytest.approx([errors[0]] * 3, rel=1e-9)
    assert values[1]["cost"]["device"] == "2 x cpu"


def _ends(jobs: list[str]) -> set[str]:
    return {state.state for state in Scheduler().states(jobs).values()}


def _gradient(run: Path) -> torch.Tensor:
    """The gradient of the first step, which Adam's first moment is a tenth of."""
    content = torch.load(run / "checkpoints" / "last.pt", weights_only=True)
    moments = [
        state["exp_avg"].double().flatten()
        for optimizer in content["optimizers"]
        for state in optimizer["state"].values()
    ]
    return torch.cat(moments)
