"""The launcher of this machine: every cell of a plan in a process of its own, some at a time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hambench import rundir
from hambench.config import OF_PRETRAINING
from hambench.data.workers import THREADS, cores
from hambench.errors import HambenchError
from hambench.files import explained
from hambench.launch.plan import Node, Plan
from hambench.launch.words import last_words
from hambench.learn.interrupts import Interrupted, StopRequest

_POLL = 0.2  # seconds between looks at the processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class End:
    """How a cell ended, and why; a cancelled one was not started."""

    state: Literal["done", "failed", "cancelled"]
    reason: str = ""


@dataclass(frozen=True)
class Progress:
    """Numbers of cells, and seconds that are left; None until the first one is done."""

    total: int
    done: int
    running: int
    failed: int
    cancelled: int
    waiting: int
    seconds_left: float | None


class Watch:
    """Is told how a launch goes on."""

    def ended(self, node: Node, end: End, progress: Progress) -> None:
        """A cell has ended."""

    def tick(self, progress: Progress) -> None:
        """Called often."""


@dataclass(frozen=True)
class _Job:
    """A cell that runs: its process, and what of its ``console.log`` is older."""

    node: Node
    process: subprocess.Popen[bytes]
    slots: list[int]
    began: float
    console: Path
    older: int

    def end(self) -> End:
        """How the process ended; a run without its ``result.json`` is not done."""
        code = self.process.returncode
        if code == 0 and rundir.is_finished(self.node.folder):
            return End("done")
        if code < 0:
            return End("failed", f"ended by {signal.Signals(-code).name} (see {self.console})")
        return End(
            "failed",
            last_words(self.console, self.older) or f"exit code {code} (see {self.console})",
        )


class Local:
    """Runs the unfinished cells of a plan, pretraining before the cells that need it.

    What a cell says goes to ``console.log`` in its run directory. A cell that another process is
    computing is waited for. The cores are shared out among the processes at a time, as threads,
    unless ``OMP_NUM_THREADS`` or its like is set; several GPUs are given to them in turn. A cell of
    several processes (``gpus=``) starts when there is room for all of them.

    Args:
        plan: checked.
        jobs: processes of cells at a time; None: one per GPU if a cell may use one, else one per
            core.
        watch: is told how it goes on.
    """

    def __init__(self, plan: Plan, jobs: int | None = None, watch: Watch | None = None) -> None:
        self.plan, self.watch = plan, watch or Watch()
        self._gpus = _gpus() if any(_may_use_gpu(node) for node in plan.unfinished) else []
        wanted = jobs or len(self._gpus) or cores()
        self.jobs = max(1, min(wanted, sum(node.config.gpus for node in plan.unfinished)))
        self.threads = max(1, cores() // self.jobs)
        self._ends = {n.folder: End("done") for n in plan.nodes if n.state == "done"}
        self._waiting = list(plan.unfinished)
        self._running: list[_Job] = []
        self._slots = list(range(self.jobs))
        self._told: set[Path] = set()  # that another process computes it
        self._seconds: list[float] = []  # of every cell that was done here

    def run(self) -> dict[Path, End]:
        """How every cell ended, by its run directory; a failure stops only what depends on it.

        Raises:
            Interrupted: Ctrl-C or SIGTERM, after the cells under way have written their
                checkpoints; asked a second time, they are ended at once.
        """
        with StopRequest() as stop:
            try:
                while self._waiting or self._running:
                    self._collect()
                    self._cancel()
                    self._start()
                    self.watch.tick(self._progress())
                    if stop:
                        raise Interrupted(
                            f"stopped by {stop.signal}; the same command goes on", stop.signal
                        )
                    time.sleep(_POLL)
            finally:
                self._stop()
        return self._ends

    def _collect(self) -> None:
        """Note the end of processes that have ended."""
        for job in [job for job in self._running if job.process.poll() is not None]:
            self._running.remove(job)
            self._slots = sorted([*self._slots, *job.slots])
            if job.process.returncode != 0 and rundir.is_running(job.node.folder):
                self._waiting.insert(0, job.node)  # somebody else was faster
                continue
            end = job.end()
            if end.state == "done":
                self._seconds.append(time.monotonic() - job.began)
            elif job.node.folder in self.plan.pretrainings:
                end = End("failed", f"{end.reason} ({OF_PRETRAINING})")
            self._end(job.node, end)

    def _cancel(self) -> None:
        """Give up the cells whose pretraining is not to be had."""
        for node in list(self._waiting):
            before = None if node.needs is None else self._ends.get(node.needs)
            if before is not None and before.state != "done":
                self._waiting.remove(node)
                self._end(node, End("cancelled", f"its pretraining in {node.needs} failed"))

    def _start(self) -> None:
        """Start cells that nothing keeps from running, in order, while there are free slots."""
        for node in list(self._waiting):
            ready = node.needs is None or node.needs in self._ends
            if not ready:
                continue
            slots = self._free_slots(node)
            if not slots:  # none overtakes it, or it might never get all it needs
                return
            if rundir.is_running(node.folder):
                if node.folder not in self._told:
                    logger.info("waiting for another process that computes %s", node.folder)
                    self._told.add(node.folder)
                continue
            self._waiting.remove(node)
            try:
                self._running.append(self._launch(node, slots))
            except HambenchError as error:
                self._end(node, End("failed", str(error)))

    def _free_slots(self, node: Node) -> list[int]:
        """As many free slots as a cell has processes, each on a GPU of its own; else none.

        One that wants more than there are gets all, and says itself what it lacks.
        """
        places = len(self._gpus) if self._gpus and _may_use_gpu(node) else self.jobs
        free = {slot % places: slot for slot in reversed(self._slots)}
        wanted = min(node.config.gpus, places, self.jobs)
        return sorted(free.values())[:wanted] if len(free) >= wanted else []

    def _launch(self, node: Node, slots: list[int]) -> _Job:
        console = node.folder / rundir.CONSOLE
        words = ["-m", "hambench", "run", "--config", str(node.folder / rundir.ASKED)]
        rundir.enqueue(node.folder, node.config)
        try:
            with open(console, "ab") as output:
                older = output.tell()
                process = subprocess.Popen(
                    [sys.executable, *words],
                    stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env=self._environment(node, slots),
                    start_new_session=True,  # Ctrl-C reaches it through us, once
                )  # fmt: skip
        except OSError as error:
            raise explained(error, console) from error
        self._slots = [slot for slot in self._slots if slot not in slots]
        return _Job(node, process, slots, time.monotonic(), console, older)

    def _environment(self, node: Node, slots: list[int]) -> dict[str, str]:
        """Of a cell: threads of each of its processes, and the GPUs for all of them."""
        environment = dict(os.environ)
        if not any(name in environment for name in THREADS):
            threads = max(1, len(slots) * self.threads // node.config.gpus)
            environment |= dict.fromkeys(THREADS, str(threads))
        if self._gpus and _may_use_gpu(node):
            given = dict.fromkeys(self._gpus[slot % len(self._gpus)] for slot in slots)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(given)
        return environment

    def _stop(self) -> None:
        """Let the cells under way write their checkpoints and end; asked again, end them."""
        if self._running:
            logger.info("running cells write their checkpoints and end: %d", len(self._running))
        try:
            for job in self._running:
                job.process.terminate()
            for job in self._running:
                job.process.wait()
        except BaseException:
            for job in self._running:
                job.process.kill()
            raise

    def _end(self, node: Node, end: End) -> None:
        self._ends[node.folder] = end
        self.watch.ended(node, end, self._progress())

    def _progress(self) -> Progress:
        states = [end.state for end in self._ends.values()]
        return Progress(
            total=len(self.plan.nodes),
            done=states.count("done"),
            running=len(self._running),
            failed=states.count("failed"),
            cancelled=states.count("cancelled"),
            waiting=len(self._waiting),
            seconds_left=sum(self._remaining()) / self.jobs if self._seconds else None,
        )

    def _remaining(self) -> Iterator[float]:
        """Seconds of every cell to come, if it takes as long as those that are done."""
        mean = sum(self._seconds) / max(1, len(self._seconds))
        yield from (mean for _ in self._waiting)
        now = time.monotonic()
        yield from (max(0.0, mean - (now - job.began)) for job in self._running)


def _may_use_gpu(node: Node) -> bool:
    """Whether a cell runs on any GPU there is; one that names a certain one keeps it."""
    return node.config.device in ("auto", "cuda")


def _gpus() -> list[str]:
    """The GPUs that torch sees here, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch

    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return (given.split(",") if given else [str(place) for place in range(count)])[:count]
