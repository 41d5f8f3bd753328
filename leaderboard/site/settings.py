"""Settings as text: nested ones by dotted names, and where several have them in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from hambench.leaderboard.ranking import Entry, training
from hambench.leaderboard.table import Cell, Column, Table

MOST: Final = 300
"""Names of one list of settings that are shown; a network has a tenth."""

_COLUMNS = 40  # settings that differ, at most, that a table shows
_DEEP = 4  # levels that become dotted names; what is deeper stays JSON

Facts = tuple[tuple[str, str], ...]
"""Names with texts."""


def facts(nested: Mapping[str, Any]) -> Facts:
    """All values of a nested mapping by dotted names; beyond `MOST`, how many more there are."""
    found = _flat(nested, "", _DEEP)
    shown = tuple(islice(found, MOST))
    more = sum(1 for _ in found)
    return (*shown, ("...", f"and {more:,} more")) if more else shown


def _flat(nested: Mapping[str, Any], prefix: str, levels: int) -> Iterator[tuple[str, str]]:
    for key, value in nested.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and levels > 1:
            yield from _flat(value, f"{name}.", levels - 1)
        else:
            yield name, _text(value)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def settings_of(entry: Entry) -> dict[str, str]:
    """Everything that tells an entry from others of its preset, by name."""
    first = entry.results[0]
    recipe, *_ = training(first)
    before = first.pretraining
    body = f"{before.preset} on {before.task} {before.training_split}" if before else "-"
    return {
        "model": first.model,
        "strategy": first.strategy or "-",
        "pretrained": body,
        **dict(facts(first.hyperparameters)),
        **{f"recipe.{name}": text for name, text in facts(recipe)},
    }


def compare(entries: Iterable[Entry]) -> tuple[Facts, Table | None]:
    """What settings of one preset have in common, and a table of what differs, if anything does."""
    by_digest = {entry.settings: settings_of(entry) for entry in entries}
    every = list(by_digest.values())
    names = list(dict.fromkeys(name for one in every for name in one))
    differ = [name for name in names if len({one.get(name) for one in every}) > 1]
    kept = set(differ)
    common = tuple((name, every[0][name]) for name in names if name not in kept)
    return common, _differences(by_digest, differ) if differ else None


def _differences(by_digest: Mapping[str, Mapping[str, str]], differ: Sequence[str]) -> Table:
    shown = differ[:_COLUMNS]
    more = len(differ) - len(shown)
    return Table(
        title="What differs",
        subtitle="between the settings that were run"
        + (f"; {more:,} more are on the pages of the runs" if more else ""),
        columns=(
            Column("settings", numeric=False, filtered=True),
            *(Column(name, numeric=False) for name in shown),
        ),
        rows=tuple(
            (Cell(digest), *(Cell(one.get(name, "")) for name in shown))
            for digest, one in sorted(by_digest.items())
        ),
    )
