"""Overrides of cells as rows of a table, and how rows are combined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import product

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hambench.errors import ConfigError


@dataclass(frozen=True)
class Row:
    """Some overrides of a cell.

    Attributes:
        values: key -> one value, both as they stand in an override (Hydra's grammar).
        swept: keys among them that tell the cell from others.
    """

    values: Mapping[str, str] = field(default_factory=dict)
    swept: frozenset[str] = frozenset()

    def __or__(self, other: Row) -> Row:
        """Both; of a key that both have, the other's value."""
        return Row({**self.values, **other.values}, self.swept | other.swept)

    def without(self, keys: Iterable[str]) -> Row:
        """All but these keys, whether they are said with Hydra's ``+`` or not."""
        gone = {key for key in self.values if bare(key) in keys}
        kept = {key: value for key, value in self.values.items() if key not in gone}
        return Row(kept, self.swept - gone)


def axis(key: str, values: Sequence[str]) -> list[Row]:
    """A row for every value of a key."""
    swept = frozenset([key] if len(values) > 1 else [])
    return [Row({key: value}, swept) for value in values]


def crossed(axes: Iterable[Sequence[Row]]) -> list[Row]:
    """Every combination of a row of each axis; the last axis varies fastest."""
    return [reduce(Row.__or__, rows, Row()) for rows in product(*axes)]


def values_of(override: Override) -> list[str]:
    """The values of an override, one by one; ConfigError for an interval, a glob, or none."""
    if not override.is_sweep_override():
        return [override.get_value_string()]
    try:
        values = list(override.sweep_string_iterator())
    except HydraException as error:
        raise ConfigError(
            f"'{override.input_line}' names no values one by one: expected KEY=A,B, range() or "
            "choice()"
        ) from error
    if not values:
        raise ConfigError(f"'{override.input_line}' is an empty range; has its step a wrong sign?")
    return values


def bare(key: str) -> str:
    """A key without Hydra's ``+`` or ``++``."""
    return key.lstrip("+")
