"""The launcher of a SLURM cluster: arrays of jobs through submitit, which go on by themselves."""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hambench import rundir
from hambench.errors import ConfigError, HambenchError, RunError
from hambench.launch import scheduler
from hambench.launch.arrays import Array, Resources, arrays_of
from hambench.launch.job import BoardJob, CellJob, after_a_kill, command_of
from hambench.launch.manifest import (
    Job,
    Manifest,
    manifest_of,
    manifests,
    submitting,
)
from hambench.launch.plan import Node, Plan
from hambench.launch.profile import Profile
from hambench.results import now

if TYPE_CHECKING:
    from submitit import SlurmExecutor

_DRY_ARRAY: Final = 1001  # tasks of an array where no scheduler says how many there may be
_BOARD_MINUTES: Final = 30

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Submission:
    """What was submitted.

    Attributes:
        manifest: as it is on disk now.
        submitted: number of cells that got a new job.
        attached: cells that jobs of this or other sweeps compute already, and which.
        busy: cells that a process outside of jobs computes.
    """

    manifest: Manifest
    submitted: int
    attached: Mapping[str, str]
    busy: tuple[str, ...]


class Slurm:
    """Submits the unfinished cells of a plan, and the leaderboard behind them; then it is done.

    Args:
        plan: checked.
        cluster: name of the profile.
        profile: what jobs ask for.
    """

    def __init__(self, plan: Plan, cluster: str, profile: Profile) -> None:
        self.plan, self.cluster, self.profile = plan, cluster, profile
        self.root = plan.nodes[-1].config.root.absolute()
        if "%" in str(self.root):
            raise ConfigError(
                f"the path {self.root} has a '%', which SLURM would replace; choose another root"
            )

    def arrays(self) -> list[Array]:
        """What would be submitted if nothing was in the queue."""
        try:
            largest = scheduler.largest_array()
        except HambenchError:  # no scheduler can be asked from here
            largest = _DRY_ARRAY
        return arrays_of(self.plan.unfinished, self.profile, largest)

    def text(self, array: Array) -> str:
        """The script of an array as it would be submitted, but for the number of other jobs."""
        names = {node.folder: node.name for node in self.plan.nodes}
        after = [f"JOB[{names[folder]}]" for folder in array.after]
        if array.rule == "aftercorr":
            after = [f"JOBS[{', '.join(names[folder] for folder in array.after)}]"]
        given = _parameters(array.resources, self._name, array.rule, after)
        python = array.resources.profile.python
        return script_of(self._jobs_folder, python, given, len(array.nodes))

    def submit(self, only: Sequence[Node] | None = None) -> Submission:
        """Submit what is not done and in no queue; the manifest knows every job as soon as it is.

        Args:
            only: these cells of the plan alone; None: all.

        Raises:
            ConfigError: SLURM is not there, or refuses what the jobs ask for: then nothing was
                submitted.
            RunError: it refused on the way; the same command submits the rest.
        """
        scheduler.require()
        with submitting(self.root), scheduler.left_jobs():
            manifest = manifest_of(self.plan, self.cluster, self.profile.model_dump(mode="json"))
            wanted = self.plan.unfinished if only is None else only
            unfinished = [node for node in wanted if node.state != "done"]
            live = self._live(self.plan.unfinished)
            free = [node for node in unfinished if node.folder not in live]
            held = {node.folder for node in free if rundir.is_running(node.folder)}
            busy = [node for node in free if node.folder in held]
            todo = [node for node in free if node.folder not in held]
            self._refuse_orphans(todo, busy)
            attached = {n.name: live[n.folder] for n in unfinished if n.folder in live}
            manifest = manifest.with_jobs(
                {e.cell: job for e in manifest.entries
                 if (job := attached.get(e.cell)) is not None and job not in e.jobs}
            )  # fmt: skip
            elsewhere = {n.needs for n in todo if n.needs is not None and n.needs in live}
            arrays = arrays_of(todo, self.profile, scheduler.largest_array(), sorted(elsewhere))
            self._test(arrays)
            for node in todo:
                rundir.release(node.folder, _former(manifest, node))
                rundir.enqueue(node.folder, node.config)
            manifest.write()
            ids = {folder: job.id for folder, job in live.items()}
            for number, array in enumerate(arrays):
                try:
                    jobs = self._send(array, ids)
                except HambenchError as error:
                    left = sum(len(array.nodes) for array in arrays[number:])
                    raise RunError(
                        f"{error} (jobs of {len(todo) - left} cells are submitted, of {left} not; "
                        "the same command submits the rest)"
                    ) from error
                pairs = list(zip(array.nodes, jobs, strict=True))
                ids |= {node.folder: job.id for node, job in pairs}
                manifest = manifest.with_jobs({node.name: job for node, job in pairs})
                manifest.write()
            manifest = self._send_board(manifest, [*ids.values()] if todo else [])
        return Submission(
            manifest,
            len(todo),
            {name: job.id for name, job in attached.items()},
            tuple(node.name for node in busy),
        )

    @property
    def _jobs_folder(self) -> Path:
        return self.plan.folder.absolute() / "jobs"

    @property
    def _name(self) -> str:
        return f"hambench-{self.plan.folder.name}"

    def _live(self, nodes: Sequence[Node]) -> dict[Path, Job]:
        """Cells that a job in the queue computes, submitted by this sweep or another one."""
        folders = {node.folder.absolute(): node.folder for node in nodes}
        known = [
            (folders[folder], entry.jobs[-1])
            for manifest in manifests(self.root)
            for entry in manifest.entries
            if entry.jobs and (folder := manifest.folder_of(entry.cell)) in folders
        ]
        states = scheduler.Scheduler().states([job.id for _, job in known])
        return {f: job for f, job in known if job.id in states and states[job.id].alive}

    def _refuse_orphans(self, todo: Sequence[Node], busy: Sequence[Node]) -> None:
        for node in todo:
            if any(node.needs == other.folder for other in busy):
                raise RunError(
                    f"{node.name} needs {node.needs}, which a process outside of jobs computes; "
                    "submit the sweep when that has ended"
                )

    def _test(self, arrays: Sequence[Array]) -> None:
        """Ask SLURM whether it would take what the jobs ask for, before anything is submitted."""
        for resources in {array.resources.key: array.resources for array in arrays}.values():
            given = _parameters(resources, self._name)
            text = script_of(self._jobs_folder, resources.profile.python, given, 1)
            with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                try:
                    scheduler.run(["sbatch", "--test-only", file.name])
                except RunError as error:
                    said = str(error).removeprefix("sbatch failed: ")
                    raise ConfigError(
                        f"SLURM does not take these jobs: {said}; see the options of the cluster "
                        f"profile '{self.cluster}' (hambench list clusters), or change one with "
                        "cluster.KEY=VALUE"
                    ) from error

    def _send(self, array: Array, ids: Mapping[Path, str]) -> list[Job]:
        """Submit an array; a job for each cell."""
        after = [ids[folder] for folder in array.after]
        if array.rule == "aftercorr":
            after = [after[0].partition("_")[0]]
        given = _parameters(array.resources, self._name, array.rule, after)
        tasks = [CellJob(str(node.folder.absolute())) for node in array.nodes]
        return _submit(self._jobs_folder, array.resources.profile.python, given, tasks)

    def _send_board(self, manifest: Manifest, ids: Sequence[str]) -> Manifest:
        """Submit the leaderboard behind all cells; a former one that still waits is cancelled."""
        if not ids:
            return manifest
        states = scheduler.Scheduler().states([job.id for job in manifest.head.board])
        scheduler.cancel([job for job, state in states.items() if state.alive])
        # what all cells ask for besides the profile, such as a partition, holds for it too
        first, *others = [node.asks for node in self.plan.nodes]
        asks = {k: v for k, v in first.items() if all(k in o and o[k] == v for o in others)}
        profile = self.profile.changed({**asks, "time": str(_BOARD_MINUTES)}, "the leaderboard")
        whole = dict.fromkeys(job.partition("_")[0] for job in ids)
        given = _parameters(Resources(profile, 1, 1, False), self._name, "afterany", list(whole))
        task = BoardJob(str(self.plan.folder.absolute()))
        (job,) = _submit(self._jobs_folder, profile.python, given, [task])
        head = manifest.head.model_copy(update={"board": (*manifest.head.board, job)})
        manifest = manifest.model_copy(update={"head": head})
        manifest.write()
        return manifest


def script_of(folder: Path, python: str | None, parameters: Mapping[str, Any], tasks: int) -> str:
    """The text of the script that submitit submits; no SLURM is needed."""
    slurm = _submitit()
    words = ["-u", "-m", "submitit.core._submit", str(folder / "%j")]
    command = f"{command_of(python)} {shlex.join(words)}"
    count = {"map_count": tasks} if tasks > 1 else {}
    text: str = slurm._make_sbatch_string(
        command=command, folder=folder / "%j", **parameters, **count
    )
    return text


def _submit(
    folder: Path, python: str | None, parameters: Mapping[str, Any], tasks: Sequence[Any]
) -> list[Job]:
    """Submit tasks as one array, or a single one as a plain job."""
    slurm = _submitit()
    executor: SlurmExecutor = slurm.SlurmExecutor(folder / "%j", python=command_of(python))
    executor.update_parameters(**parameters)
    moment = now()
    try:
        with _quiet():
            sent = executor.submit_array(list(tasks))
    except OSError as error:
        raise RunError(f"cannot write the files of jobs in {folder}: {error}") from error
    except Exception as error:  # submitit's own, with what sbatch said
        raise RunError(f"sbatch failed: {' '.join(str(error).split())}") from error
    whole = sent[0].job_id.partition("_")[0]
    script = folder / whole / f"{whole}_submission.sh"
    digest = hashlib.sha256(script.read_bytes()).hexdigest()
    return [
        Job(id=job.job_id, submitted=moment, folder=str(job.paths.folder), script=digest)
        for job in sent
    ]


def _parameters(
    resources: Resources, name: str, rule: str = "", after: Sequence[str] = ()
) -> dict[str, Any]:
    """What submitit is told, by its names of the options of sbatch."""
    profile = resources.profile
    plain = ("partition", "account", "qos", "constraint", "exclude", "nodelist", "comment")
    same = ("wckey", "cpus_per_task", "mail_user", "mail_type")
    given: dict[str, Any] = {key: getattr(profile, key) for key in (*plain, *same)}
    extra: dict[str, Any] = {**profile.extra, "requeue": True, "chdir": os.getcwd()}
    srun = ["--kill-on-bad-exit=1", *profile.srun_args]
    if resources.needs_gpu:
        gpus = ":".join(filter(None, [profile.gpu_type, str(resources.gpus)]))
        if profile.ask_gpus == "gres":
            extra["gres"] = ",".join(filter(None, [f"gpu:{gpus}", extra.get("gres")]))
        else:
            extra["gpus-per-node"] = gpus
    if rule:
        given["dependency"] = f"{rule}:{':'.join(after)}"
        extra["kill-on-invalid-dep"] = "yes"
    if profile.cpus_per_task is not None:  # since 22.05 srun does not take it from the job
        srun.append(f"--cpus-per-task={profile.cpus_per_task}")
    return given | {
        "job_name": name,
        "time": profile.minutes,
        "mem": profile.memory,
        "nodes": resources.nodes,
        "ntasks_per_node": resources.gpus,
        "exclusive": profile.exclusive or None,
        "signal_delay_s": profile.signal_delay,
        "array_parallelism": profile.at_once,
        "stderr_to_stdout": True,
        "setup": profile.setup or None,
        "teardown": after_a_kill(),
        "srun_args": srun,
        "additional_parameters": extra,
    }


def _former(manifest: Manifest, node: Node) -> set[str]:
    return {job.id for entry in manifest.entries if entry.cell == node.name for job in entry.jobs}


def _submitit() -> Any:
    try:
        from submitit.slurm import slurm
    except ImportError:
        raise ConfigError(
            "jobs on a cluster need submitit: pip install 'hambench[slurm]'"
        ) from None
    return slurm


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing of submitit's own on the screen."""
    log = logging.getLogger("submitit")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before
