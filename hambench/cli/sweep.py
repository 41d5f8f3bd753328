"""``hambench sweep``: many cells in one command."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hambench.cli.complete import complete_override
from hambench.cli.table import align

if TYPE_CHECKING:
    from hambench.launch.again import Where
    from hambench.launch.estimate import Estimate
    from hambench.launch.local import Local
    from hambench.launch.plan import Plan


@click.command(options_metavar="[--dry-run] [--jobs N] [--wait]")
@click.argument(
    "overrides", nargs=-1, required=True, metavar="[FILE.yaml] KEY=VALUE[,VALUE]...",
    shell_complete=complete_override,
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Show the cells, and what they will take; run none.")
@click.option(
    "--no-estimate", is_flag=True, help="Leave time and memory out of --dry-run, which tries them."
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Cells at a time.  [default: one per GPU if there are any, else one per processor core]",
)
@click.option("--wait", is_flag=True, help="Wait for the jobs of a cluster to end.")
def sweep(
    overrides: tuple[str, ...], dry_run: bool, no_estimate: bool, jobs: int | None, wait: bool
) -> None:
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

    A file names the cells of a whole table; overrides behind it replace its keys, or add some:

    \b
      fixed: {task: water_mini, max_steps: 500}     # of every cell
      grid:                                         # every combination
        model: [helm_small, qhnet_small]
        seed: range(0,3)
      zip:                                          # taken together
        recipe.batch_size: [4, 8]
        recipe.optimizer.lr: [1e-3, 2e-3]
      exclude:                                      # combinations left out
        - {model: qhnet_small, seed: [1, 2]}
      include:                                      # further cells
        - {model: minao, seed: 0}
      settings:                                     # of cells that match
        - for: {model: qhnet_small}
          max_steps: 1000

    --dry-run does a few steps of each kind of cells to say what their training will take.

    \b
    Examples:
      hambench sweep task=water_mini model=mean_block,minao --dry-run
      hambench sweep table.yaml seed=0 max_steps=50
      hambench sweep task=water_mini model=helm_small seed=0,1,2 max_minutes=5 --jobs 1
      hambench sweep task=water_mini model=helm_small recipe.batch_size=4,8 'seed=range(0,3)'
      hambench sweep task=organic_mini_energy model=helm_small \\
          strategy=direct,frozen,finetuned train_on=train_10,train_20,train seed=0,1
      hambench sweep task=water_mini model=helm,qhnet seed=0,1 cluster=slurm cluster.time=2:30:00
    """
    from hambench.cli.launch import launch
    from hambench.launch.again import place_of, settings_of
    from hambench.launch.estimate import estimate
    from hambench.launch.local import Local
    from hambench.launch.plan import Plan

    plan = Plan.make([word for word in overrides if not _of_cluster(word)])
    words = [word for word in overrides if _of_cluster(word)]
    where = place_of(words, plan.cluster)
    plan = plan.without_asks(settings_of([word for word in words if word.startswith("cluster.")]))
    plan.check(elsewhere=where.profile is not None)
    if not dry_run:
        launch(plan, where, jobs=jobs, wait=wait)
        return
    here = Local(plan, jobs)
    estimates = {} if no_estimate else estimate(plan, threads=here.threads)
    click.echo(_listing(plan, where, here, estimates))


def _of_cluster(word: str) -> bool:
    return word.startswith(("cluster=", "cluster."))


def _listing(plan: Plan, where: Where, here: Local, estimates: Mapping[Path, Estimate]) -> str:
    """Every cell with its number, how far it is, what it takes, and the number of the one it needs.

    Args:
        plan, where: what would run where.
        here: the launcher of this machine, where the estimates are made.
        estimates: by run directory; empty: nothing is said of time and memory.
    """
    from hambench.launch.estimate import in_all, memory_text, time_text

    numbers = {node.folder: str(number) for number, node in enumerate(plan.nodes, start=1)}
    more = ("time", "memory") if estimates else ()
    rows: list[tuple[str, ...]] = [("#", "state", "needs", *more, "folder", "overrides")]
    for node in plan.nodes:
        needs = "" if node.needs is None else numbers[node.needs]
        words = " ".join(f"{key}={value}" for key, value in node.swept.items())
        kind = "pretraining" if node.folder in plan.pretrainings else ""
        about = ", ".join(filter(None, [kind, words]))
        found = estimates.get(node.folder)
        takes = ((time_text(found), memory_text(found)) if found else ("", "")) if more else ()
        rows.append((numbers[node.folder], node.state, needs, *takes, str(node.folder), about))
    left, count = len(plan.unfinished), len(plan.nodes)
    scripts, how = _how(plan, where, here) if left else ([], "")
    cells = f"{count} cell{'s' * (count > 1)}"
    notes = [f"{numbers[path]}: {one.reason}" for path, one in estimates.items() if one.reason]
    said = [in_all(estimates, here.threads)] if estimates else []
    return "\n".join(
        [
            align(rows),
            "",
            *scripts,
            *notes,
            *said,
            f"{cells}, {left} to run{how}; nothing was started",
        ]
    )


def _how(plan: Plan, where: Where, here: Local) -> tuple[list[str], str]:
    """Scripts of the jobs, if there are any, and in a few words how the cells would run."""
    from hambench.launch.slurm import Slurm

    if where.cluster == "debug":
        return [], ", one by one"
    if where.profile is None:
        return [], f", {here.jobs} at a time"
    slurm = Slurm(plan, where.cluster, where.profile)
    arrays = slurm.arrays()
    texts = [
        f"# script {number} of {len(arrays)}, for {', '.join(node.name for node in array.nodes)}\n"
        f"{slurm.text(array)}\n"
        for number, array in enumerate(arrays, start=1)
    ]
    return texts, f" in {len(arrays)} submission{'s' * (len(arrays) > 1)} of jobs"
