"""Asking SLURM, and telling it: what its commands say about jobs, with and without accounting."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from hambench.errors import ConfigError, RunError

_PREFIXES: Final = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")
_KEPT: Final = ("SLURM_CONF", "SLURM_JWT")  # how the controller is found and spoken to
_TIMEOUT: Final = 60.0  # seconds that a busy controller has to answer
_WHERE: Final = ": run this on a login node of the cluster, or take cluster=local"
_AT_ONCE: Final = 400  # job ids in the words of one command
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}
_GOING = {"RUNNING", "COMPLETING", "SUSPENDED", "STAGE_OUT", "SIGNALING", "RESIZING", "STOPPED"}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class JobState:
    """What the scheduler knows of a job.

    Attributes:
        state: as SLURM names it: PENDING, RUNNING, COMPLETED, TIMEOUT, ...
        nodes: where it runs or ran; empty before.
        elapsed: of its present start, as SLURM writes times.
        reason: why it waits, or why it ended so.
    """

    state: str
    nodes: str = ""
    elapsed: str = ""
    reason: str = ""

    @property
    def waits(self) -> bool:
        """Whether it is to start, perhaps again."""
        return self.state in _WAITING

    @property
    def alive(self) -> bool:
        """Whether it waits, or is at work."""
        return self.waits or self.state in _GOING


class Scheduler:
    """SLURM, as its commands show it. One query tells about all jobs of the user in the queue.

    Jobs that have left the queue are looked up in the accounting, once each; where there is none,
    they are unknown.
    """

    def __init__(self) -> None:
        self._ended: dict[str, JobState] = {}
        self._accounting = shutil.which("sacct") is not None

    def states(self, jobs: Iterable[str]) -> dict[str, JobState]:
        """What is known of some jobs; those that nobody knows are not in it.

        Args:
            jobs: ``12`` or, of an array, ``12_3``.

        Raises:
            RunError: the controller does not answer.
        """
        jobs = list(dict.fromkeys(jobs))
        wanted = [job for job in jobs if job not in self._ended]
        if wanted:
            found = _queue()
            gone = [job for job in wanted if job not in found]
            found |= self._accounted(gone)
            self._ended |= {j: found[j] for j in wanted if j in found and not found[j].alive}
            known = {job: found[job] for job in wanted if job in found}
        else:
            known = {}
        return known | {job: self._ended[job] for job in jobs if job in self._ended}

    def _accounted(self, jobs: Sequence[str]) -> dict[str, JobState]:
        """Jobs in the accounting, if there is one, that have ended.

        One that goes on there, and is in no queue, was lost with the memory of the controller.
        """
        found: dict[str, JobState] = {}
        for start in range(0, len(jobs) if self._accounting else 0, _AT_ONCE):
            ids = ",".join(jobs[start : start + _AT_ONCE])
            words = ["-X", "-P", "-n", "--duplicates", "-o", "JobID,State,NodeList,Elapsed"]
            try:
                lines = run(["sacct", *words, "-j", ids]).splitlines()
            except RunError as error:
                logger.info("no accounting, ended jobs are known by their runs alone (%s)", error)
                self._accounting = False
                break
            for line in lines:  # of a job that was requeued, the newest start comes last
                job, state, nodes, elapsed = _fields(line, 4)
                word = (state.split() or [""])[0]  # CANCELLED by 1000
                found[job] = JobState(word, "" if nodes.startswith("None") else nodes, elapsed)
        return {job: state for job, state in found.items() if not state.alive}


def run(words: Sequence[str]) -> str:
    """What a command of SLURM prints.

    Raises:
        ConfigError: it is not installed.
        RunError: it failed, or did not answer in time.
    """
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", check=False,
            timeout=_TIMEOUT, env=outside_of_jobs(), stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except FileNotFoundError:
        raise ConfigError(f"SLURM is not installed here ({words[0]} is missing){_WHERE}") from None
    except subprocess.TimeoutExpired:
        raise RunError(
            f"the scheduler gave no answer to {words[0]} within {_TIMEOUT:.0f} s; try again later"
        ) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split()) or f"exit code {done.returncode}"
        raise RunError(f"{words[0]} failed: {said}")
    return done.stdout


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs, waiting ones and running ones; those that have ended are left alone."""
    for start in range(0, len(jobs), _AT_ONCE):
        run(["scancel", *jobs[start : start + _AT_ONCE]])


def requeue(job: str) -> None:
    """Let a job start again from its beginning; RunError where the scheduler does not."""
    run(["scontrol", "requeue", job])


def require() -> None:
    """ConfigError where jobs cannot be submitted from this machine."""
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise ConfigError(f"SLURM is not installed here ({program} is missing){_WHERE}")


def largest_array() -> int:
    """How many tasks an array may have."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", run(["scontrol", "show", "config"]), re.M)
    return max(1, int(found[1])) if found else 1000


def outside_of_jobs() -> dict[str, str]:
    """The environment without what a job around this process has set, which clients would take.

    Outside of jobs it is as it is: there such variables are the user's own settings.
    """
    inside = "SLURM_JOB_ID" in os.environ
    return {
        name: value
        for name, value in os.environ.items()
        if not inside or name in _KEPT or not name.startswith(_PREFIXES)
    }


@contextmanager
def left_jobs() -> Iterator[None]:
    """This process has the environment `outside_of_jobs` while the block runs."""
    before = dict(os.environ)
    for name in before.keys() - outside_of_jobs().keys():
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(before)


def _queue() -> dict[str, JobState]:
    """All jobs of the user that the controller remembers, array tasks one by one."""
    fields = "%i|%T|%N|%M|%r"
    words = ["-h", "-r", "-t", "all", "-u", str(os.getuid()), "-o", fields]
    found = {}
    for line in run(["squeue", *words]).splitlines():
        job, state, nodes, elapsed, reason = _fields(line, 5)
        found[job] = JobState(state, nodes, elapsed, "" if reason == "None" else reason)
    return found


def _fields(line: str, count: int) -> list[str]:
    """The columns of a line; empty ones where it has fewer."""
    found = line.split("|", count - 1)
    return found + [""] * (count - len(found))
