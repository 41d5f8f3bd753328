"""The manifest of a sweep: its cells, and the jobs that were submitted for each of them.

``manifest.jsonl`` in the folder of the sweep: the first line is about the sweep, every other one
about a cell. It is replaced as a whole, and everything that is asked about a sweep later, from any
process, begins here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from pydantic import Field, ValidationError

from hambench import __version__
from hambench.errors import ConfigError, DataError
from hambench.files import alone, atomic_write
from hambench.launch.plan import SWEEPS, Node, Plan
from hambench.results import Record, now

MANIFEST: Final = "manifest.jsonl"
_LOCK: Final = ".lock"

R = TypeVar("R", bound=Record)


class Job(Record):
    """One submission of a cell.

    Attributes:
        id: of SLURM, ``12`` or ``12_3``.
        submitted: ISO 8601, UTC.
        folder: of its files: script, log and pickled path.
        script: sha256 of the text that was submitted.
        cancelled: when `hambench cancel` did that; None otherwise.
    """

    id: str
    submitted: datetime
    folder: str
    script: str
    cancelled: datetime | None = None

    @property
    def log(self) -> Path:
        """What the job said, over all its starts."""
        return Path(self.folder) / f"{self.id}_0_log.out"


class Entry(Record):
    """A cell of the sweep.

    Attributes:
        cell: its run directory as seen from the root of the sweep, else its whole path.
        needs: that of the pretraining it begins with.
        swept: what sets it apart from the others.
        asks: what it asks of the cluster besides the profile.
        nodes, gpus: how many processes compute it.
        max_steps, max_minutes: its budget.
        jobs: newest last.
    """

    cell: str
    needs: str | None = None
    swept: dict[str, str] = Field(default_factory=dict)
    asks: dict[str, Any] = Field(default_factory=dict)
    nodes: int = 1
    gpus: int = 1
    max_steps: int | None = None
    max_minutes: float | None = None
    jobs: tuple[Job, ...] = ()


class Head(Record):
    """What is said about the sweep as a whole.

    Attributes:
        sweep: its name, which is that of its folder.
        cluster: where it was launched to.
        profile: what every job asks SLURM for, resolved; None without SLURM.
        created: ISO 8601, UTC.
        cwd: working folder of the launch, to which paths in the cells' configurations refer.
        version: of hambench.
        board: jobs that build the leaderboard behind the last cell, newest last.
    """

    schema_version: Literal[1] = 1
    sweep: str
    cluster: str
    profile: dict[str, Any] | None = None
    created: datetime
    cwd: str
    version: str = __version__
    board: tuple[Job, ...] = ()


class Manifest(Record):
    """The manifest; `folder` is where it is."""

    folder: Path = Field(exclude=True)
    head: Head
    entries: tuple[Entry, ...]

    @property
    def root(self) -> Path:
        """Folder of all run directories."""
        return self.folder.parent.parent

    def folder_of(self, cell: str) -> Path:
        """Run directory of a cell."""
        return self.root / cell

    @property
    def jobs_folder(self) -> Path:
        """Scripts and logs of the jobs."""
        return self.folder / "jobs"

    def with_jobs(self, jobs: Mapping[str, Job]) -> Manifest:
        """With one more job for some of the cells."""
        entries = [
            e.model_copy(update={"jobs": (*e.jobs, jobs[e.cell])}) if e.cell in jobs else e
            for e in self.entries
        ]
        return self.model_copy(update={"entries": tuple(entries)})

    def with_cancelled(self, ids: Iterable[str]) -> Manifest:
        """With these jobs marked as cancelled now."""
        chosen, moment = set(ids), now()

        def marked(job: Job) -> Job:
            return job.model_copy(update={"cancelled": moment}) if job.id in chosen else job

        entries = [e.model_copy(update={"jobs": tuple(map(marked, e.jobs))}) for e in self.entries]
        head = self.head.model_copy(update={"board": tuple(map(marked, self.head.board))})
        return self.model_copy(update={"entries": tuple(entries), "head": head})

    def write(self) -> None:
        """Replace the file.

        Raises:
            RunError: the disk is full, or the folder cannot be written.
        """
        with atomic_write(self.folder / MANIFEST) as file:
            for record in (self.head, *self.entries):
                file.write(record.model_dump_json() + "\n")


def manifest_of(plan: Plan, cluster: str, profile: dict[str, Any] | None) -> Manifest:
    """The manifest of a plan: what is known of its cells from earlier launches is kept."""
    folder = plan.folder.absolute()
    before = read_manifest(folder) if (folder / MANIFEST).is_file() else None
    known = {} if before is None else {entry.cell: entry for entry in before.entries}
    head = Head(sweep=folder.name, cluster=cluster, profile=profile, created=now(), cwd=os.getcwd())
    if before is not None:
        head = head.model_copy(update={"created": before.head.created, "board": before.head.board})
    names = {node.folder: node.name for node in plan.nodes}
    entries = [
        _entry(node, names, known[node.name].jobs if node.name in known else ())
        for node in plan.nodes
    ]
    return Manifest(folder=folder, head=head, entries=tuple(entries))


def read_manifest(sweep: Path) -> Manifest:
    """The manifest of a sweep's folder.

    Raises:
        DataError: there is none, or it is damaged (the line is named).
    """
    path = sweep / MANIFEST
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{sweep} is no folder of a sweep: it has no {MANIFEST}; `hambench sweep` prints its "
            f"folder, and `ls ROOT/{SWEEPS}` shows all of them"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    if lines == [""]:
        raise DataError(f"{path} is empty; start the sweep anew")
    head = _record(Head, lines[0], 1, path)
    entries = [_record(Entry, line, k, path) for k, line in enumerate(lines[1:], start=2)]
    return Manifest(folder=sweep.absolute(), head=head, entries=tuple(entries))


def manifests(root: Path) -> Iterator[Manifest]:
    """Those of all sweeps below a root that can be read."""
    for path in sorted((root / SWEEPS).glob(f"*/{MANIFEST}")):
        try:
            yield read_manifest(path.parent)
        except DataError:
            continue


@contextmanager
def submitting(root: Path) -> Iterator[None]:
    """Hold the sweeps of a root: one process at a time submits or cancels jobs.

    Raises:
        RunError: another process does.
    """
    path = root / SWEEPS / _LOCK
    with alone(path, f"another process submits or cancels jobs of {root} ({path}); try again"):
        yield


def find_sweep(given: Path) -> Path:
    """A sweep's folder, given as such or by its name below ``runs``.

    Raises:
        ConfigError: there is no such folder.
    """
    for folder in (given, Path("runs") / SWEEPS / given):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"there is no sweep {given}: expected its folder, e.g. runs/{SWEEPS}/1a2b3c4d, as "
        "`hambench sweep` printed it"
    )


def _record(kind: type[R], line: str, number: int, path: Path) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        said = error.errors(include_url=False)[0]["msg"]
        raise DataError(f"line {number} of {path} is damaged: {said}; restore it") from error


def _entry(node: Node, names: Mapping[Path, str], jobs: tuple[Job, ...]) -> Entry:
    config, budget = node.config, node.config.training
    return Entry(
        cell=node.name,
        needs=None if node.needs is None else names[node.needs],
        swept=dict(node.swept),
        asks=dict(node.asks),
        nodes=config.nodes,
        gpus=config.gpus,
        max_steps=budget["max_steps"],
        max_minutes=budget["max_minutes"],
        jobs=jobs,
    )
