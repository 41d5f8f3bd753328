"""``hambench env``: environments of their own for models with conflicting dependencies."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from hambench.cli.group import Group
from hambench.cli.table import align, as_json


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from hambench.environments import names

    return [CompletionItem(name) for name in names() if name.startswith(incomplete)]


@click.group(cls=Group)
def env() -> None:
    """Make and remove environments for models that cannot share this one.

    They are virtual environments in HAMBENCH_ENVS, else ~/.local/share/hambench/envs.

    \b
    Examples:
      hambench env list
      hambench env make mace
      hambench run task=organic_mini_energy model=mace_small
      hambench env remove mace
    """


@env.command("list")
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def list_(json_: bool) -> None:
    """All environments that models ask for, and whether they are made."""
    from hambench.environments import environment, names

    found = [environment(name) for name in names()]
    rows = [(one.name, one.state, one.about, one.title) for one in found]
    head = ("environment", "state", "where", "for")
    if json_:
        click.echo(as_json([dict(zip(head, row, strict=True)) for row in rows]))
    else:
        click.echo(align([head, *rows]))


@env.command()
@click.argument("name", shell_complete=_complete)
@click.option(
    "--torch",
    metavar="WORDS",
    help="What pip installs as torch, e.g. 'torch==2.6.0' or 'torch==2.6.0 --index-url URL'; an "
    "environment that is there is made anew.  [default: that of the environment]",
)
def make(name: str, torch: str | None) -> None:
    """Make an environment, with pip, from the pinned requirements of its model.

    One that is ready stays as it is; one that is half made, or of other requirements, is made anew.
    What pip says is kept in NAME.log beside it.

    \b
    Examples:
      hambench env make mace
      hambench env make mace --torch 'torch==2.6.0'
    """
    from hambench.environments import make as make_environment

    made = make_environment(name, torch=torch, say=_say)
    click.echo(f"environment {name}: {made.about}")


@env.command()
@click.argument("name", shell_complete=_complete)
def remove(name: str) -> None:
    """Remove an environment.

    \b
    Examples:
      hambench env remove mace
    """
    from hambench.environments import remove as remove_environment

    gone = remove_environment(name)
    click.echo(f"environment {name}: {'removed' if gone else 'there was none'}")


def _say(line: str) -> None:
    """What pip is doing, shortened to a line of a terminal."""
    click.echo(f"  {line:.96}", err=True)
