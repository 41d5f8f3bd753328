"""``hambench sweep``: many cells in one command."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.complete import complete_override
from hambench.cli.table import align
from hambench.errors import RunError

if TYPE_CHECKING:
    from hambench.launch.again import Where
    from hambench.launch.local import End
    from hambench.launch.plan import Node, Plan
    from hambench.launch.slurm import Submission

_REFRESH = 5.0  # seconds between looks at the jobs that are waited for


@click.command(options_metavar="[--dry-run] [--jobs N] [--wait]")
@click.argument(
    "overrides", nargs=-1, required=True, metavar="KEY=VALUE[,VALUE]...",
    shell_complete=complete_override,
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the cells and do nothing.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Cells at a time.  [default: one per GPU if there are any, else one per processor core]",
)
@click.option("--wait", is_flag=True, help="Wait for the jobs of a cluster to end.")
def sweep(overrides: tuple[str, ...], dry_run: bool, jobs: int | None, wait: bool) -> None:
    """Run a cell for every combination of values: tasks, models, seeds, training sizes, ...

    Overrides are those of `hambench run`; one may have several values, in Hydra's grammar: A,B,
    range(START,STOP), choice(A,B); the last one varies fastest. Every cell is checked before the
    first one starts. Cells of strategies that begin with a pretraining share it: it is a cell of
    its own, and is run before. What is said about pretraining is left out of direct cells beside
    them.

    Each cell is a process of its own, whose words go to console.log in its run directory; the cores
    are shared out among those at a time, unless OMP_NUM_THREADS is set. A cell that fails stops
    only those that need it. The same command goes on after a stop; finished cells are not computed
    again. cluster=local says that this machine runs them, which is the default, and cluster=debug
    that this process does.

    With cluster=slurm, or the name of a cluster profile, each cell is a job, and the command ends
    when they are submitted; Ctrl-C during --wait leaves them alone. cluster.KEY=VALUE changes the
    profile. See docs/cluster.md.

    \b
    Examples:
      hambench sweep task=water_mini model=mean_block,minao --dry-run
      hambench sweep task=water_mini model=helm_small seed=0,1,2 max_minutes=5 --jobs 1
      hambench sweep task=water_mini model=helm_small recipe.batch_size=4,8 'seed=range(0,3)'
      hambench sweep task=organic_mini_energy model=helm_small \\
          strategy=direct,frozen,finetuned train_on=train_10,train_20,train seed=0,1
      hambench sweep task=water_mini model=helm,qhnet seed=0,1 cluster=slurm cluster.time=2:30:00
    """
    from hambench.launch.again import place_of
    from hambench.launch.plan import Plan

    where = place_of([word for word in overrides if _of_cluster(word)])
    plan = Plan.make([word for word in overrides if not _of_cluster(word)])
    plan.check()
    if dry_run:
        click.echo(_listing(plan, where, jobs))
        return
    launch(plan, where, jobs=jobs, wait=wait)


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
    manifest_of(plan, where.cluster, None).write()
    part = plan if only is None else plan.part(only)
    if where.cluster == "debug":
        _run_here(part)
    else:
        _run_local(part, jobs)


def _of_cluster(word: str) -> bool:
    return word.startswith(("cluster=", "cluster."))


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
    from hambench.launch.scheduler import Scheduler
    from hambench.launch.standing import UNDER_WAY, standing, summary

    scheduler, said = Scheduler(), ""
    while True:
        cells = standing(sent.manifest, scheduler)
        if (now := summary(cells)) != said:
            click.echo(now)
            said = now
        if not any(cell.state in UNDER_WAY for cell in cells):
            break
        time.sleep(_REFRESH)
    bad = [cell for cell in cells if cell.state != "done"]
    for cell in bad:
        click.echo(f"{cell.state}: {cell.entry.cell}: {cell.reason}")
    if bad:
        raise RunError(
            f"{len(bad)} of {len(cells)} cells did not get done, see above; `hambench retry "
            f"{sent.manifest.folder}` tries them again"
        )


def _listing(plan: Plan, where: Where, jobs: int | None) -> str:
    """Every cell with its number, how far it is, and the number of the one it needs; and jobs."""
    numbers = {node.folder: str(number) for number, node in enumerate(plan.nodes, start=1)}
    rows = [("#", "state", "needs", "folder", "overrides")]
    for node in plan.nodes:
        needs = "" if node.needs is None else numbers[node.needs]
        words = " ".join(f"{key}={value}" for key, value in node.swept.items())
        kind = "pretraining" if node.folder in plan.pretrainings else ""
        about = ", ".join(filter(None, [kind, words]))
        rows.append((numbers[node.folder], node.state, needs, str(node.folder), about))
    left, count = len(plan.unfinished), len(plan.nodes)
    scripts, how = _how(plan, where, jobs) if left else ("", "")
    cells = f"{count} cell{'s' * (count > 1)}"
    return f"{align(rows)}\n\n{scripts}{cells}, {left} to run{how}; nothing was started"


def _how(plan: Plan, where: Where, jobs: int | None) -> tuple[str, str]:
    """Scripts of the jobs, if there are any, and in a few words how the cells would run."""
    from hambench.launch.local import Local
    from hambench.launch.slurm import Slurm

    if where.profile is None:
        return "", ", one by one" if where.cluster == "debug" else (
            f", {Local(plan, jobs).jobs} at a time"
        )
    slurm = Slurm(plan, where.cluster, where.profile)
    arrays = slurm.arrays()
    texts = [
        f"# script {number} of {len(arrays)}, for {', '.join(n.name for n in array.nodes)}\n"
        f"{slurm.text(array)}\n"
        for number, array in enumerate(arrays, start=1)
    ]
    count = len(arrays)
    return "\n".join([*texts, ""]), f" in {count} submission{'s' * (count > 1)} of jobs"


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
