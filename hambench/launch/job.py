"""What a job on a cluster does. Its pickle holds the path of a folder and nothing else."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Final

from hambench import rundir
from hambench.config import read_config
from hambench.data.workers import THREADS
from hambench.errors import ConfigError, HambenchError, RunError
from hambench.launch.scheduler import requeue
from hambench.learn.interrupts import WARNING, Interrupted, Terminated, termination_as_interrupt

KILLED: Final = 128 + 9
"""Exit code of ``srun`` where a process was killed: by the system without memory, or a person."""

_STALLS = 3  # starts without a step, after which another one would be no better
_INTERRUPTED = 130
_AGAIN = 200  # asks the script to requeue; `srun` gives the highest code of its processes
_RESTARTS = 5  # after which a job whose processes are killed is not tried again

logger = logging.getLogger("hambench.launch")


class CellJob:
    """One cell, from wherever an earlier start left it.

    Ahead of a time limit, or of a preemption with notice, the scheduler sends SIGUSR2: the run
    writes its checkpoint, and the job puts itself back into the queue, as long as each start gets
    some steps further. SIGTERM means that the scheduler decides what becomes of it.

    Args:
        folder: the run directory, with its ``asked.yaml``.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> None:
        """Run it; leaves with the exit code of ``hambench run``."""
        folder = Path(self.folder)
        try:
            with termination_as_interrupt(anew=True):
                code = _run(folder)
        except KeyboardInterrupt:  # asked again, while the end was written down
            code = _INTERRUPTED
        if code:
            sys.stdout.flush()
            sys.exit(code)


class BoardJob:
    """The leaderboard of a sweep, when all of its cells have ended.

    Args:
        folder: of the sweep.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __call__(self) -> None:
        """Build it in ``leaderboard`` in that folder."""
        from hambench.launch.manifest import read_manifest

        manifest = read_manifest(Path(self.folder))
        runs = [manifest.folder_of(entry.cell) for entry in manifest.entries]
        if not any(map(rundir.is_finished, runs)):
            logger.error("no cell of %s got done: there is nothing to rank", self.folder)
            sys.exit(1)
        begun = [str(run) for run in runs if run.is_dir()]  # those that failed are shown as such
        words = [sys.executable, "-m", "hambench", "leaderboard", *begun]
        sys.exit(subprocess.call([*words, "--out", str(manifest.folder / "leaderboard")]))


def after_a_kill() -> list[str]:
    """Lines of bash behind the job that put it back into the queue if its processes were killed.

    Also where they could not do that themselves, as in a container, which has no ``scontrol``. The
    exit code of the job stays that of its processes.
    """
    job = '"${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"'
    return [
        "code=$?",
        f'if [ "$code" -eq {_AGAIN} ]; then',
        f"  scontrol requeue {job}",
        f'elif [ "$code" -eq {KILLED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {_RESTARTS} ]; then',
        '  echo "its processes were killed: the job goes back into the queue"',
        f"  scontrol requeue {job}",
        "fi",
        'exit "$code"',
    ]


def _prepare_process() -> None:
    """Say things in the log, as many threads as cores were given, the other processes' address."""
    logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s", force=True)
    logging.getLogger("hambench").setLevel(logging.INFO)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    cores = _cores()
    if cores and not any(name in os.environ for name in THREADS):
        import torch

        os.environ |= dict.fromkeys(THREADS, str(cores))  # of processes that are started
        torch.set_num_threads(cores)
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        _meet()


def _cores() -> int:
    """Cores that this process was given; 0 where SLURM does not say so."""
    own = os.environ.get("SLURM_CPUS_PER_TASK")
    if own:
        return int(own)
    whole = int(os.environ.get("SLURM_CPUS_ON_NODE", "0"))
    return max(1, whole // int(os.environ.get("SLURM_NTASKS_PER_NODE", "1"))) if whole else 0


def _meet() -> None:
    """Tell where the processes of this job find each other, in torchrun's variables."""
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
    except OSError:  # names of nodes that only SLURM knows
        alone = os.environ.get("SLURM_JOB_NUM_NODES", "1") == "1"
        address = "127.0.0.1" if alone else os.environ.get("SLURM_LAUNCH_NODE_IPADDR")
        os.environ["MASTER_ADDR"] = address or os.environ["MASTER_ADDR"]


def _run(folder: Path) -> int:
    """Run what is asked for in ``folder``; the exit code."""
    from hambench import experiment

    first = int(os.environ.get("SLURM_PROCID") or 0) == 0
    begun, _ = _so_far(folder)
    try:
        _prepare_process()
        if not folder.is_dir():
            raise RunError(
                f"the run directory {folder} is not to be seen on {socket.gethostname()}: is it on "
                "a file system that all nodes share, and is that mounted?"
            )
        experiment.run(read_config(folder / rundir.ASKED))
    except (Interrupted, Terminated) as stop:
        print(f"interrupted: {stop}", flush=True)
        if not first:  # srun ends all processes when one ends badly, and the first is still at it
            return 0
        if stop.signal == WARNING:
            return _later(folder, begun)
        _settle(folder, "interrupted", str(stop))
        return _INTERRUPTED
    except HambenchError as error:
        print(f"error: {error}", flush=True)
        if first:
            _settle(folder, "failed", str(error))
        return error.exit_code
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        print(f"error: {reason}", flush=True)
        if first:
            _settle(folder, "failed", reason)
        return 1
    return 0


def _later(folder: Path, begun: int) -> int:
    """Back into the queue, unless that leads nowhere; the exit code."""
    job = rundir.this_job()
    step, stalls = _so_far(folder)
    stalls = 0 if step > begun else stalls + 1
    if stalls >= _STALLS:
        reason = (
            f"{stalls} starts in a row were ended by the time limit before the run got beyond step "
            f"{step}; give the jobs more time (cluster.time=...), or let it write checkpoints more "
            "often (recipe.checkpoint_every_steps=...)"
        )
        print(f"error: {reason}", flush=True)
        _settle(folder, "failed", reason)
        return 1
    _settle(folder, "queued", f"stopped ahead of a limit after step {step}, goes on", stalls)
    try:
        requeue(job)
    except ConfigError:  # no SLURM in here
        return _AGAIN
    except RunError as error:
        reason = f"stopped ahead of a limit, and job {job} cannot go back into the queue: {error}"
        print(f"interrupted: {reason}", flush=True)
        _settle(folder, "interrupted", reason)
    return _INTERRUPTED


def _so_far(folder: Path) -> tuple[int, int]:
    """The last step, and how many starts in a row came to nothing, as far as it is known."""
    status = rundir.known_status(folder)
    return (0, 0) if status is None else (status.step, status.stalls)


def _settle(folder: Path, state: rundir.Ended, reason: str, stalls: int = 0) -> None:
    """Write down how this start ended, if the disk allows; no folder is made that is not there."""
    if not folder.is_dir():
        return
    try:
        rundir.settle(folder, state, reason, stalls)
    except HambenchError as error:
        print(f"error: this could not be written down: {error}", flush=True)


def command_of(python: str | None) -> str:
    """How a job starts Python: a command of the site, else this very interpreter."""
    return python or shlex.quote(sys.executable)
