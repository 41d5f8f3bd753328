"""From the words of ``hambench sweep`` to the overrides of every cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hambench.compose import parse_override
from hambench.errors import ConfigError
from hambench.launch.rows import Row, axis, crossed, values_of
from hambench.launch.sweepfile import is_sweep_file, rows_of

_PRETRAINS = ("frozen", "finetuned")  # strategies


def combinations(words: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The overrides of every cell, of one value each, and those of them that tell it from others.

    What is said about pretraining is left out of cells that have none, if there are others.

    Args:
        words: overrides, of which the last with several values varies fastest; and perhaps a sweep
            file (`hambench.launch.sweepfile`), on top of which they are put.

    Raises:
        ConfigError: a word or something in the file cannot be read, or there are several files.
    """
    files = [word for word in words if is_sweep_file(word)]
    parsed = [parse_override(word) for word in words if word not in files]
    if len(files) > 1:
        raise ConfigError(f"one sweep file at a time, given are {' and '.join(files)}")
    # of a key said twice the last word counts, as it does for `hambench run`
    said = {o.key_or_group: axis(o.get_key_element(), values_of(o)) for o in parsed}
    rows = rows_of(Path(files[0]), said) if files else crossed(said.values())
    pretrains = [row.values.get("strategy", "").strip("'\"") in _PRETRAINS for row in rows]
    for row, pretrained in zip(rows, pretrains, strict=True):
        told = row if pretrained or not any(pretrains) else _without_pretraining(row)
        yield (
            [f"{key}={value}" for key, value in told.values.items()],
            {key: value for key, value in told.values.items() if key in told.swept},
        )


def _without_pretraining(row: Row) -> Row:
    return row.without([key for key in row.values if key.startswith("pretrain")])
