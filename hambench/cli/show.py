"""``hambench list``, ``doctor`` and ``completion``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hambench.cli.table import align, as_json
from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.registry import Registry

_KINDS = ("tasks", "models", "recipes", "metrics", "clusters")


@click.command("list")
@click.argument("kind", required=False, type=click.Choice(_KINDS))
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def list_(kind: str | None, json_: bool) -> None:
    """Names that can be used: tasks, models, recipes, metrics, clusters, also those of plug-ins.

    \b
    Examples:
      hambench list
      hambench list models --json
    """
    kinds = [kind] if kind else list(_KINDS)
    others = {"metrics": _metrics, "clusters": _clusters}
    listing = {name: others[name]() if name in others else _presets(name) for name in kinds}
    if json_:
        click.echo(as_json(listing[kind] if kind else listing))
        return
    parts = []
    for name in kinds:
        rows = listing[name]
        head = tuple(rows[0]) if rows else ("name",)
        table = align([(name, *head[1:]), *(tuple(map(str, row.values())) for row in rows)])
        parts.append(table)
    click.echo("\n\n".join(parts))


@click.command()
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def doctor(json_: bool) -> None:
    """What this machine has, and what is missing for what."""
    from hambench.doctor import examine

    findings = examine()
    if json_:
        click.echo(as_json([finding._asdict() for finding in findings]))
        return
    rows = [(f.name, "ok" if f.ok else "missing", f.found, f.mend) for f in findings]
    click.echo(align([("part", "state", "found", "for what, and how to get it"), *rows]))


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    Examples:
      eval "$(hambench completion bash)"                     in ~/.bashrc
      eval "$(hambench completion zsh)"                      in ~/.zshrc
      hambench completion fish > ~/.config/fish/completions/hambench.fish
    """
    from click.shell_completion import get_completion_class

    from hambench.cli import cli

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "hambench", "_HAMBENCH_COMPLETE").source())


def _presets(kind: str) -> list[dict[str, Any]]:
    """Rows of the tasks, models or recipes: name, title, where from; broken ones say why."""
    from hambench.registry import MODELS, RECIPES, TASKS

    registries: dict[str, Registry] = {"tasks": TASKS, "models": MODELS, "recipes": RECIPES}
    registry = registries[kind]
    rows = [{"name": p.name, "title": p.title, "from": p.origin} for p in registry.presets.values()]
    return rows + [
        {"name": b.name, "title": f"BROKEN: {b.reason}", "from": b.origin} for b in registry.broken
    ]


def _metrics() -> list[dict[str, Any]]:
    from hambench.scoring import METRICS

    return [
        {
            "name": m.name,
            "of": m.of or "any",
            "unit": m.unit,
            "better": m.direction,
            "description": m.description,
        }
        for m in METRICS.values()
    ]


def _clusters() -> list[dict[str, Any]]:
    """Where sweeps can run; profiles that cannot be read say why."""
    from hambench.launch.profile import HERE, SLURM, load_profile, profiles

    rows = [{"name": name, "title": title, "from": "hambench"} for name, title in HERE.items()]
    found = profiles()
    if SLURM not in found:
        rows.append({"name": SLURM, "title": "SLURM with the site's defaults", "from": "hambench"})
    for name, path in found.items():
        try:
            title = load_profile(name).title
        except ConfigError as error:
            title = f"BROKEN: {error}"
        rows.append({"name": name, "title": title, "from": str(path)})
    return rows
