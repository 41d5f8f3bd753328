"""The cluster that other tests rely on: real jobs, arrays, fake GPUs, an end without traces."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from private_cluster import ClusterError, PrivateCluster

pytestmark = pytest.mark.slurm


def test_jobs_see_their_node_and_their_devices(slurm: PrivateCluster, tmp_path: Path) -> None:
    script = "srun bash -c 'echo $SLURMD_NODENAME $SLURM_PROCID $CUDA_VISIBLE_DEVICES'"
    subprocess.run(
        ["sbatch", "--wait", "--nodes=2", "--gpus-per-node=2", f"--output={tmp_path}/out",
         "--wrap", script],
        check=True, timeout=60,
    )  # fmt: skip
    lines = sorted((tmp_path / "out").read_text().splitlines())
    assert lines == ["127.0.0.1 0 0,1", "127.0.0.2 1 0,1"]


def test_arrays_are_throttled_and_failures_are_seen(slurm: PrivateCluster, tmp_path: Path) -> None:
    done = subprocess.run(
        ["sbatch", "--wait", "--array=0-3%2", f"--output={tmp_path}/%a",
         "--wrap", "echo $SLURM_ARRAY_TASK_ID; exit $((SLURM_ARRAY_TASK_ID == 2))"],
        timeout=60, check=False, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert [(tmp_path / str(k)).read_text() for k in range(4)] == [f"{k}\n" for k in range(4)]
    job = re.findall(r"\d+", done.stdout)[0]
    states = slurm.run("squeue", "-h", "-t", "all", "-r", "-j", job, "-o", "%T").split()
    assert sorted(states) == ["COMPLETED"] * 3 + ["FAILED"]


@pytest.mark.usefixtures("slurm_installed")
def test_nothing_is_left_of_a_cluster() -> None:
    folder = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))
    try:
        with PrivateCluster(folder, nodes=1) as cluster:
            daemons = [process.pid for process in cluster.daemons.values()]
            mark = folder / "runs"
            cluster.run("sbatch", "--output=/dev/null", "--wrap", f"echo $$ > {mark}; sleep 600")
            end = time.monotonic() + 30
            while not (mark.exists() and mark.read_text()) and time.monotonic() < end:
                time.sleep(0.1)
            job = int(mark.read_text())
            os.kill(job, 0)
        assert not [pid for pid in [*daemons, job] if _alive(pid)]
        with pytest.raises(ClusterError, match="squeue"):
            cluster.run("squeue")
    finally:
        shutil.rmtree(folder)


def _alive(pid: int) -> bool:
    """Whether a process is there, and no zombie that nobody has waited for."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
