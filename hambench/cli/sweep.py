"""``hambench sweep``: many cells in one command."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from hambench.cli.complete import complete_override
from hambench.cli.table import align
from hambench.errors import ConfigError, RunError, nearest

if TYPE_CHECKING:
    from hambench.launch.estimate import Estimate
    from hambench.launch.local import End, Local
    from hambench.launch.plan import Plan

CLUSTERS: Final = ("local",)
"""Where the cells of a sweep can run."""


@click.command(options_metavar="[--dry-run] [--jobs N]")
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
def sweep(overrides: tuple[str, ...], dry_run: bool, no_estimate: bool, jobs: int | None) -> None:
    """Run a cell for every combination of values: tasks, models, seeds, training sizes, ...

    Overrides are those of `hambench run`; one may have several values, in Hydra's grammar: A,B,
    range(START,STOP), choice(A,B); the last one varies fastest. Every cell is checked before the
    first one starts. Cells of strategies that begin with a pretraining share it: it is a cell of
    its own, and is run before. What is said about pretraining is left out of direct cells beside
    them.

    Each cell is a process of its own, whose words go to console.log in its run directory; the cores
    are shared out among those at a time, unless OMP_NUM_THREADS is set. A cell that fails stops
    only those that need it. The same command goes on after a stop; finished cells are not computed
    again. cluster=local says that this machine runs them, which is the default.

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
    """
    from hambench.launch.estimate import estimate
    from hambench.launch.local import Local
    from hambench.launch.plan import Plan
    from hambench.launch.screen import Screen

    plan = Plan.make(_for_cells(overrides))
    plan.check()
    if dry_run:
        launcher = Local(plan, jobs)
        estimates = {} if no_estimate else estimate(plan, threads=launcher.threads)
        click.echo(_listing(plan, launcher, estimates))
        return
    plan.write()
    with Screen(len(plan.nodes), len(plan.nodes) - len(plan.unfinished)) as screen:
        ends = Local(plan, jobs, screen).run()
    click.echo(f"\n{_closing(plan, ends)}")
    _refuse_failures(plan, ends)


def _for_cells(overrides: tuple[str, ...]) -> list[str]:
    """The overrides without ``cluster=``; ConfigError for one there is not."""
    for override in overrides:
        key, _, name = override.partition("=")
        if key == "cluster" and name not in CLUSTERS:
            raise ConfigError(f"no cluster '{name}'.{nearest(name, CLUSTERS)}")
    return [override for override in overrides if not override.startswith("cluster=")]


def _listing(plan: Plan, launcher: Local, estimates: Mapping[Path, Estimate]) -> str:
    """Every cell with its number, how far it is, what it takes, and the number of the one it needs.

    Args:
        plan, launcher: what would run where.
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
    left = len(plan.unfinished)
    how = f", {launcher.jobs} at a time" if left else ""
    count = len(plan.nodes)
    cells = f"{count} cell{'s' * (count > 1)}"
    notes = [f"{numbers[path]}: {one.reason}" for path, one in estimates.items() if one.reason]
    said = [in_all(estimates, launcher.threads)] if estimates else []
    return "\n".join(
        [align(rows), "", *notes, *said, f"{cells}, {left} to run{how}; nothing was started"]
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
