"""``hambench score``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hambench.cli.table import as_json, of_scores


@click.command()
@click.argument("predictions", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="KEY=VALUE...")
@click.option("--json", "json_", is_flag=True, help="Print JSON instead of a table.")
def score(predictions: Path, overrides: tuple[str, ...], json_: bool) -> None:
    """Compute the metrics of a task from a file of predictions, without the model.

    PREDICTIONS is a run's predictions.h5 or energies.csv; or, of any other code, Hamiltonians in
    HDF5 or .npz, in any known order of the orbitals (docs/predictions.md has the format), or a CSV
    file with id and energy (Eh). Keys are task, data, split, energies and score.*, as those of run.
    Nothing is written.

    \b
    Examples:
      hambench score theirs.h5 task=md17_water
      hambench score theirs.npz task=qh9_stable split=ood data=QH9Stable.db
      hambench score theirs.h5 task=water_mini score.split=validation score.metrics=[h_mae,h_max]
      hambench score energies.csv task=organic_mini_energy --json
    """
    from hambench.rescore import Request, score_file

    done = score_file(predictions, Request.parse(_nested(overrides)))
    if json_:
        click.echo(as_json({name: score._asdict() for name, score in done.scores.items()}))
        return
    click.echo(
        f"{predictions} on {done.task.name} v{done.task.version}, {done.split} split, "
        f"{done.molecules} molecules\n{of_scores(done.scores)}"
    )


def _nested(words: Sequence[str]) -> dict[str, Any]:
    """``KEY=VALUE`` words as nested mappings, ``score.metrics=[h_mae]`` as ``{"score": {...}}``."""
    from hambench.compose import parse_single
    from hambench.errors import ConfigError

    content: dict[str, Any] = {}
    for word, override in zip(words, parse_single(words, advice=""), strict=True):
        *outer, key = override.key_or_group.split(".")
        inner = content
        for name in outer:
            inner = inner.setdefault(name, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"'{word}' sets a part of '{name}', which was given as a whole")
        inner[key] = override.value()
    return content
