"""How far a sweep is: what its runs say of themselves, and of those that cannot, the scheduler."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from hambench import rundir
from hambench.errors import DataError, RunError
from hambench.launch.manifest import Entry, Job, Manifest, read_manifest
from hambench.launch.scheduler import JobState, Scheduler
from hambench.launch.screen import primary_metric
from hambench.launch.words import last_words
from hambench.results import Status, now
from hambench.scoring import Score, format_score

State = Literal[
    "done", "running", "queued", "waiting", "interrupted", "failed", "cancelled", "timeout", "lost"
]
"""``waiting``: for its pretraining; ``timeout``: ended at its limit without a checkpoint in time;
``lost``: nobody knows its job any more."""

UNDER_WAY: Final = ("running", "queued", "waiting")

_GRACE: Final = 60.0  # seconds after the submission within which the scheduler may not know a job
_PATIENCE: Final = 60  # looks in a row at a scheduler that does not answer
_DONE: Final[tuple[State, str]] = ("done", "")
_WHY: Final = {
    "OUT_OF_MEMORY": "the job had too little memory; ask for more (cluster.memory=...)",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "DEADLINE": "the deadline of the job has passed",
    "PREEMPTED": "preempted, and the cluster does not start such jobs again",
    "COMPLETED": "the job ended without a result",
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Standing:
    """How far a cell is.

    Attributes:
        entry: the cell.
        state: see `State`.
        reason: why it is not done, or what it waits for; may be empty.
        status: what the run says of itself; None before its first start.
        node: where it runs, or ran.
        job: id of the newest one; empty without SLURM.
        elapsed: of the present start of the job, as SLURM writes times.
        metric: of a finished run its primary one, else the last validation.
        log: what it said.
    """

    entry: Entry
    state: State
    reason: str
    status: Status | None
    node: str
    job: str
    elapsed: str
    metric: str
    log: Path

    @property
    def progress(self) -> str:
        """``120/500 steps``, or ``3.2/10 min``."""
        done, budget = self.status, self.entry
        if done is None or not done.fingerprint:
            return ""
        if self.state == "done":
            return f"{done.step} steps"
        if budget.max_steps is not None:
            return f"{done.step}/{budget.max_steps} steps"
        if budget.max_minutes is not None:
            return f"{done.elapsed_s / 60:.1f}/{budget.max_minutes:g} min"
        return f"{done.step} steps"

    @property
    def restarts(self) -> int:
        """How often the run was started again."""
        return 0 if self.status is None else self.status.restarts


def standing(manifest: Manifest, scheduler: Scheduler) -> list[Standing]:
    """How far every cell is; asks the scheduler once, about those that are not at their end.

    Raises:
        RunError: the scheduler does not answer.
    """
    runs = {entry.cell: manifest.folder_of(entry.cell) for entry in manifest.entries}
    open_ = [entry.jobs[-1].id for entry in manifest.entries
             if entry.jobs and not rundir.is_finished(runs[entry.cell])]  # fmt: skip
    jobs = scheduler.states(open_) if open_ else {}
    found: dict[str, Standing] = {}
    for entry in manifest.entries:  # a pretraining comes before the cells that need it
        found[entry.cell] = _standing(entry, runs[entry.cell], jobs, found)
    return list(found.values())


def followed(sweep: Path, seconds: float) -> Iterator[tuple[Manifest, list[Standing]]]:
    """How far every cell is, again and again until none is under way.

    A scheduler that does not answer for a while is waited for.

    Args:
        sweep: its folder.
        seconds: between two looks.

    Raises:
        RunError: the scheduler has not answered many times in a row.
    """
    scheduler, silent = Scheduler(), 0
    while True:
        manifest = read_manifest(sweep)  # cells may be tried again meanwhile
        try:
            cells = standing(manifest, scheduler)
        except RunError as error:
            silent += 1
            if silent == _PATIENCE:
                raise
            logger.warning("%s; asked again in %.0f s", error, seconds)
        else:
            silent = 0
            yield manifest, cells
            if not any(cell.state in UNDER_WAY for cell in cells):
                return
        time.sleep(seconds)


def summary(cells: Iterable[Standing]) -> str:
    """``"3 done, 2 running, 4 queued"``."""
    counts: Counter[str] = Counter(cell.state for cell in cells)
    order = ("done", *UNDER_WAY, *(s for s in counts if s != "done" and s not in UNDER_WAY))
    return ", ".join(f"{counts[s]} {s}" for s in order if counts[s] or s == "done")


def chosen(cells: Sequence[Standing], words: Sequence[str]) -> list[Standing]:
    """Cells by their numbers in the table (from 1), or by parts of their names.

    Raises:
        DataError: a word names none.
    """
    if not words:
        return list(cells)
    picked: dict[str, Standing] = {}
    for word in words:
        if word.isdecimal():  # and never a part of a name: digits are in all of them
            hits = list(cells[int(word) - 1 : int(word)]) if int(word) else []
        else:
            hits = [cell for cell in cells if word in cell.entry.cell]
        if not hits:
            raise DataError(
                f"no cell '{word}' in this sweep: give a number from 1 to {len(cells)}, or a part "
                "of a cell's name, as `hambench status` shows them"
            )
        picked |= {cell.entry.cell: cell for cell in hits}
    return list(picked.values())


def _standing(
    entry: Entry, folder: Path, jobs: Mapping[str, JobState], before: Mapping[str, Standing]
) -> Standing:
    status = rundir.known_status(folder)
    job = entry.jobs[-1] if entry.jobs else None
    known = jobs.get(job.id) if job is not None else None
    log = folder / rundir.CONSOLE if job is None else job.log
    if rundir.is_finished(folder):
        state, reason = _DONE
    elif job is None:
        state, reason = _without_job(folder, status)
    else:
        state, reason = _with_job(job, known, status, log)
    needed = None if entry.needs is None else before.get(entry.needs)
    if needed is not None and state in ("queued", "lost", "cancelled"):
        state, reason = _behind(needed, state, reason)
    return Standing(
        entry, state, reason, status,
        node=(known.nodes if known is not None else "") or (status.node if status else ""),
        job=job.id if job is not None else "",
        elapsed=known.elapsed if known is not None and known.alive else "",
        metric=_metric(folder, state, status),
        log=log,
    )  # fmt: skip


def _without_job(folder: Path, status: Status | None) -> tuple[State, str]:
    """Of a cell that a process on this machine computes, or will, or did."""
    if rundir.is_running(folder):
        return "running", ""
    if status is None or status.state == "queued":
        return "queued", "not started yet"
    if status.state in ("failed", "interrupted"):
        return status.state, status.reason
    return "interrupted", "its process was killed"


def _with_job(
    job: Job, known: JobState | None, status: Status | None, log: Path
) -> tuple[State, str]:
    """Of a cell that a job computes, or was to compute."""
    if known is not None and known.waits:
        return "queued", known.reason or (status.reason if status else "")
    if known is not None and known.alive:
        return "running", ""
    mine = status is not None and (status.job == job.id or status.updated >= job.submitted)
    if mine and status is not None and status.state == "failed":
        return "failed", status.reason
    cancelled = job.cancelled is not None if known is None else known.state == "CANCELLED"
    if cancelled:
        return "cancelled", "by hambench cancel" if job.cancelled else "by scancel"
    if known is not None and known.state == "TIMEOUT":
        return "timeout", "the job reached its time limit; `hambench retry` goes on"
    if mine and status is not None and status.state == "interrupted":
        return "interrupted", status.reason
    if known is not None:
        said = _WHY.get(known.state) or last_words(log)  # that may be of an earlier start
        return "failed", said or f"the job ended as {known.state}"
    if (now() - job.submitted).total_seconds() < _GRACE:
        return "queued", "the scheduler does not know it yet"
    return "lost", last_words(log) or "the scheduler does not know its job any more"


def _behind(needed: Standing, state: State, reason: str) -> tuple[State, str]:
    """Of a cell that has not begun, while its pretraining stands so."""
    if needed.state in UNDER_WAY and state == "queued":
        return "waiting", f"for {needed.entry.cell}"
    if needed.state in (*UNDER_WAY, "done"):
        return state, reason
    return "cancelled", f"its pretraining {needed.entry.cell}: {needed.state}"


def _metric(folder: Path, state: State, status: Status | None) -> str:
    if state == "done":
        try:
            return primary_metric(folder)
        except DataError:
            return ""
    if status is None or status.metric is None or status.value is None:
        return ""
    return f"val {status.metric} {format_score(Score(status.value, 'Eh', None, 1), status.metric)}"
