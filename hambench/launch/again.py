"""A sweep after its launch: cancelling its jobs, and starting cells again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hambench import rundir
from hambench.compose import parse_single
from hambench.config import read_config
from hambench.errors import ConfigError, DataError
from hambench.launch import scheduler
from hambench.launch.manifest import MANIFEST, Manifest, read_manifest, submitting
from hambench.launch.plan import Node, Plan
from hambench.launch.profile import HERE, Profile, load_profile
from hambench.launch.scheduler import Scheduler
from hambench.launch.standing import UNDER_WAY, chosen, standing

_ENDING = 60.0  # seconds; KillWait, after which SLURM kills, is 30 by default
_LOOK = 1.0  # seconds between two looks at the queue


@dataclass(frozen=True)
class Where:
    """Where cells run: ``cluster`` is its name; without a profile, on this machine."""

    cluster: str
    profile: Profile | None


def place_of(words: Sequence[str], otherwise: str | None = None) -> Where:
    """Where to launch to, from words ``cluster=NAME`` and ``cluster.KEY=VALUE``.

    Args:
        words: the last name counts.
        otherwise: name of the cluster where no word names one; None: this machine.

    Raises:
        ConfigError: there is no such cluster or key, or a value does not fit.
    """
    named = [word.removeprefix("cluster=") for word in words if word.startswith("cluster=")]
    name = named[-1] if named else otherwise or "local"
    settings = [word for word in words if not word.startswith("cluster=")]
    if name in HERE:
        if settings:
            raise ConfigError(
                f"'{settings[0]}' is for jobs of a cluster: add cluster=slurm, or the name of a "
                "profile (hambench list clusters)"
            )
        return Where(name, None)
    return Where(name, load_profile(name).changed(settings_of(settings), " ".join(settings)))


def cancel_cells(folder: Path, words: Sequence[str]) -> int:
    """Cancel the jobs of a sweep's cells (see `chosen`); returns how many were.

    A running job writes a checkpoint first: it is waited for, so that `retry` can follow.

    Raises:
        ConfigError: the sweep has no jobs, or SLURM is not here.
        DataError: there is no such sweep or cell.
        RunError: the scheduler does not answer, or refuses.
    """
    before = read_manifest(folder)
    if before.head.cluster in HERE:
        raise ConfigError(
            f"the cells of {folder} are processes and no jobs: stop `hambench sweep` itself"
        )
    with submitting(before.root), scheduler.left_jobs():
        manifest, asked = read_manifest(folder), Scheduler()
        cells = chosen(standing(manifest, asked), words)
        ids = [cell.job for cell in cells if cell.job and cell.state in UNDER_WAY]
        if not words:
            board = [job.id for job in manifest.head.board]
            ids += [job for job, state in asked.states(board).items() if state.alive]
        try:
            scheduler.cancel(ids)
        finally:  # it may have been done for some; of one that goes on the scheduler tells
            manifest.with_cancelled(ids).write()
    _wait_for_end(ids)
    return len(ids)


def _wait_for_end(ids: Sequence[str]) -> None:
    """Until no job is in the queue, or as long as SLURM lets one of them end."""
    latest = time.monotonic() + _ENDING
    while ids and time.monotonic() < latest:
        if not any(state.alive for state in Scheduler().states(ids).values()):
            return
        time.sleep(_LOOK)


def plan_again(
    folder: Path, words: Sequence[str], *, failed: bool, changes: Sequence[str] = ()
) -> tuple[Plan, list[Node], Where]:
    """The plan of a sweep as it was launched, and the cells of it to start again.

    The working folder is to be that of the launch.

    Args:
        folder: of the sweep.
        words: cells, see `chosen`; none: all.
        failed: those alone that failed.
        changes: words ``cluster.KEY=VALUE`` that replace the profile's.

    Raises:
        DataError: no such sweep or cell, or a configuration that is gone.
        ConfigError: a change that does not fit.
    """
    manifest = read_manifest(folder)
    cells = standing(manifest, Scheduler())
    settings = settings_of(changes)
    plan = _plan(manifest).without_asks(settings)
    nodes = {entry.cell: node for entry, node in zip(manifest.entries, plan.nodes, strict=True)}
    picked = {cell.entry.cell for cell in chosen(cells, words)}
    # A cell that was cancelled because of its pretraining needs that again.
    again = [
        cell
        for cell in cells
        if cell.state not in (*UNDER_WAY, "done") and (cell.state == "failed" or not failed)
    ]
    names = {cell.entry.cell for cell in again if cell.entry.cell in picked}
    names |= {
        cell.entry.needs
        for cell in again
        if cell.entry.cell in names and cell.entry.needs in {c.entry.cell for c in again}
    }
    head = manifest.head
    profile = None
    if head.profile is not None:
        profile = Profile.model_construct().changed(head.profile, f"line 1 of {folder / MANIFEST}")
        profile = profile.changed(settings, " ".join(changes))
    elif changes:
        raise ConfigError(f"'{changes[0]}': this sweep runs on this machine, without a profile")
    only = [nodes[entry.cell] for entry in manifest.entries if entry.cell in names]
    return plan, only, Where(head.cluster, profile)


def settings_of(words: Sequence[str]) -> dict[str, object]:
    """Settings of a profile from words ``cluster.KEY=VALUE`` in Hydra's grammar."""
    return {
        override.key_or_group.removeprefix("cluster."): override.value()
        for override in parse_single(words, "")
    }


def _plan(manifest: Manifest) -> Plan:
    """The plan that a manifest was made of."""
    folders: dict[str, Path] = {}
    nodes = []
    for entry in manifest.entries:
        folder = manifest.folder_of(entry.cell)
        asked = folder / rundir.ASKED  # a cell that was done before has none
        try:
            config = read_config(asked if asked.is_file() else folder / rundir.CONFIG)
        except DataError as error:
            raise DataError(
                f"the run directory of {entry.cell} is damaged or was deleted ({error}); give the "
                "same `hambench sweep ...` again: it makes what is missing, and leaves the rest"
            ) from error
        folders[entry.cell] = config.folder
        needs = None if entry.needs is None else folders[entry.needs]
        nodes.append(Node(config, entry.swept, needs, entry.asks))
    return Plan(tuple(nodes))
