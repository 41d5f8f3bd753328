"""Launching a plan, and what is said about it: of ``hambench sweep`` and ``hambench retry``."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.table import align
from hambench.errors import RunError

if TYPE_CHECKING:
    from hambench.launch.again import Where
    from hambench.launch.local import End
    from hambench.launch.plan import Node, Plan
    from hambench.launch.slurm import Submission

_REFRESH = 5.0  # seconds between looks at the jobs that are waited for


def launch(
    plan: Plan,
    where: Where,
    *,
    only: Sequence[Node] | None = None,
    jobs: int | None = None,
    wait: bool = False,
) -> None:
    """Run the unfinished cells of a plan, or ``only`` some of them, and say how that went.

    Args:
        plan: checked.
        where: a cluster, or this machine.
        only: cells of the plan; None: all.
        jobs: cells at a time on this machine.
        wait: for the jobs of a cluster.
    """
    from hambench.launch.manifest import manifest_of

    if where.profile is not None:
        _submit(plan, where, only, wait)
        return
    if plan.unfinished:
        manifest_of(plan, where.cluster, None).write()
    part = plan if only is None else plan.part(only)
    if where.cluster == "debug":
        _run_here(part)
    else:
        _run_local(part, jobs)


def _run_here(plan: Plan) -> None:
    """Every cell in this process; the first failure ends it."""
    from hambench import experiment
    from hambench.launch.screen import primary_metric

    for node in plan.unfinished:
        experiment.run(node.config)
        click.echo(f"done: {node.name}: {primary_metric(node.folder)}")


def _run_local(plan: Plan, jobs: int | None) -> None:
    from hambench.launch.local import Local
    from hambench.launch.screen import Screen

    with Screen(len(plan.nodes), len(plan.nodes) - len(plan.unfinished)) as screen:
        ends = Local(plan, jobs, screen).run()
    click.echo(f"\n{_closing(plan, ends)}")
    _refuse_failures(plan, ends)


def _submit(plan: Plan, where: Where, only: Sequence[Node] | None, wait: bool) -> None:
    """Submit the jobs; wait for them if that is asked for."""
    from hambench.launch.slurm import Slurm

    assert where.profile is not None
    sent = Slurm(plan, where.cluster, where.profile).submit(only)
    click.echo(_submitted(plan, sent))
    if wait:
        _wait(sent)


def _submitted(plan: Plan, sent: Submission) -> str:
    """What is in the queue now, and how to go on."""
    done = len(plan.nodes) - len(plan.unfinished)
    parts = [f"submitted: {sent.submitted} of {len(plan.nodes)} cells"]
    if sent.attached:
        parts.append(f"in the queue already: {len(sent.attached)}")
    if sent.busy:
        parts.append(f"computed by a process outside of jobs: {', '.join(sent.busy)}")
    if done:
        parts.append(f"done before: {done}")
    sweep = shlex.quote(str(plan.folder))
    lines = [", ".join(parts), ""]
    lines += [f"{word:<7} hambench {word} {sweep}" for word in ("status", "logs", "cancel")]
    return "\n".join(lines)


def _wait(sent: Submission) -> None:
    """Until all cells have ended; RunError where not all got done. Ctrl-C leaves the jobs alone."""
    from hambench.launch.standing import Standing, followed, summary

    said, cells = "", list[Standing]()
    for _, cells in followed(sent.manifest.folder, _REFRESH):
        if (now := summary(cells)) != said:
            click.echo(now)
            said = now
    bad = [cell for cell in cells if cell.state != "done"]
    for cell in bad:
        click.echo(f"{cell.state}: {cell.entry.cell}: {cell.reason}")
    if bad:
        raise RunError(
            f"{len(bad)} of {len(cells)} cells did not get done, see above; `hambench retry "
            f"{sent.manifest.folder}` tries them again"
        )


def _closing(plan: Plan, ends: Mapping[Path, End]) -> str:
    """Every cell with its primary metric, why some failed, and what to do with the results."""
    reasons = [
        f"{end.state}: {node.name}: {end.reason}"
        for node in plan.nodes
        if (end := ends[node.folder]).state != "done"
    ]
    root = shlex.quote(str(plan.nodes[-1].config.root))
    hints = [f"leaderboard: hambench leaderboard {root}"]
    if any(node.config.strategy for node in plan.nodes):
        hints.append(f"learning curves: hambench curves {root}")
    return "\n".join([_table(plan, ends), "", *reasons, *hints])


def _table(plan: Plan, ends: Mapping[Path, End]) -> str:
    """A row per cell; columns of what it is, of what else was swept over, and of how it ended."""
    from hambench.launch.screen import primary_metric

    nodes = plan.nodes
    columns: dict[str, list[str]] = {
        "cell": [node.name for node in nodes],
        "strategy": [node.config.strategy or "" for node in nodes],
        "train_on": [node.config.train_on or "" for node in nodes],
        "seed": [str(node.config.seed) for node in nodes],
    }
    for key in dict.fromkeys(key for node in nodes for key in node.swept):
        if key not in (*columns, "task", "model"):  # the cell's name has these
            columns[key] = [node.swept.get(key, "") for node in nodes]
    states = [ends[node.folder].state for node in nodes]
    columns["primary metric"] = [
        primary_metric(node.folder) if state == "done" else ""
        for node, state in zip(nodes, states, strict=True)
    ]
    columns["state"] = [str(state) for state in states]
    shown = {name: texts for name, texts in columns.items() if any(texts)}
    return align([tuple(shown), *zip(*shown.values(), strict=True)])


def _refuse_failures(plan: Plan, ends: Mapping[Path, End]) -> None:
    """RunError where not all cells are done."""
    bad = sum(end.state != "done" for end in ends.values())
    if bad:
        raise RunError(
            f"{bad} of {len(plan.nodes)} cells did not get done, see above; the same command "
            "tries them again"
        )
