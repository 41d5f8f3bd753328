"""Shell completion of overrides: keys, and the names of tasks, models and recipes."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

_KEYS = (
    "seed",
    "device",
    "cuda_graph",
    "precision",
    "max_steps",
    "max_minutes",
    "root",
    "run_dir",
    "overwrite",
    "save_predictions",
    "tracker",
    "train_on",
    "data",
    "score.split",
    "score.metrics",
    "score.cutoff",
)
_VALUES = {
    "device": ("auto", "cpu", "cuda"),
    "precision": ("float32", "float64", "tf32"),
    "cuda_graph": ("true", "false"),
    "overwrite": ("true", "false"),
    "save_predictions": ("true", "float32", "false"),
    "tracker": ("tensorboard", "wandb"),
}


def complete_override(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Completions of ``KEY=VALUE``; bash hands over the words split at the equals sign."""
    before: tuple[str, ...] = ctx.params.get(param.name or "") or ()
    joined = "".join(before[-2:]) if before[-1:] == ("=",) else "".join(before[-1:])
    if joined.partition("=")[2] == "" and joined:  # bash: KEY, =, VALUE
        return [CompletionItem(v) for v in _values(joined.strip("=")) if v.startswith(incomplete)]
    key, equals, start = incomplete.partition("=")
    if not equals:
        keys = [f"{k}=" for k in ("task", "model", "recipe", *_KEYS)]
        return [CompletionItem(k, type="nospace") for k in keys if k.startswith(incomplete)]
    return [CompletionItem(f"{key}={v}") for v in _values(key) if v.startswith(start)]


def complete_task(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of tasks."""
    return [CompletionItem(name) for name in _values("task") if name.startswith(incomplete)]


def _values(key: str) -> tuple[str, ...]:
    from hambench.registry import MODELS, RECIPES, TASKS

    registries = {"task": TASKS, "model": MODELS, "recipe": RECIPES}
    return tuple(registries[key].names) if key in registries else _VALUES.get(key, ())
