"""A sweep as a YAML file: the cells of a published table in one place.

::

    fixed: {task: water_mini, max_steps: 100}   # what every cell has
    grid:                                       # every combination
      model: [helm_small, qhnet_small]
      seed: range(0,3)
    zip:                                        # taken together; a list of mappings: several
      recipe.batch_size: [4, 8]
      recipe.optimizer.lr: [1e-3, 2e-3]
    exclude:                                    # combinations left out
      - {model: qhnet_small, seed: [1, 2]}
    include:                                    # further cells, with what is fixed
      - {model: minao}
    settings:                                   # more of what cells that match have
      - for: {model: qhnet_small}
        max_steps: 200

Keys are those of overrides. In ``grid``, ``zip`` and ``include`` a key has a list of values, a text
in Hydra's grammar (``range(0,3)``), or one value; in ``fixed`` and ``settings`` it has one value,
and a list is that. An entry of ``exclude``, or behind ``for``, matches cells that have, for each of
its keys, one of its values. ``include`` may set anew what is fixed, as ``settings`` may; the last
entry that matches counts. Cells are in the order fixed, grid, zip, of which the last key varies
fastest; then come those included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from hambench.compose import in_grammar, parse_override, value_of
from hambench.errors import ConfigError, nearest
from hambench.launch.rows import Row, axis, bare, crossed, values_of
from hambench.launch.yamlfile import read_yaml

SECTIONS: Final = ("fixed", "grid", "zip", "exclude", "include", "settings")

_FUNCTION = re.compile(r"(choice|range|interval|glob|shuffle|sort|extend_list)\(.*\)", re.DOTALL)


def is_sweep_file(word: str) -> bool:
    """Whether a word of the command line names a sweep file, and is no override."""
    return "=" not in word and word.endswith((".yaml", ".yml"))


def rows_of(path: Path, said: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The overrides of every cell of a sweep file.

    Args:
        path: the file.
        said: key without ``+`` -> its rows on the command line, which replace the key everywhere
            in the file, or are added. They vary fastest.

    Raises:
        ConfigError: the file is not there or no YAML; a section that there is not; a key in two
            places, in ``zip`` lists of unequal lengths, no value or no cell; an entry that matches
            no cell. File and entry are named.
    """
    content = _read(path)
    with _naming(str(path)):
        table = _Table(content)
        above = list(said.values())
        fixed = table.fixed.without(said)
        rows = []
        if {"grid", "zip"} & content.keys() or "include" not in content:
            axes = [_distinct([row.without(said) for row in rows]) for rows in table.axes]
            rows = _unexcluded(crossed([[fixed], *axes, *above]), table.exclude, said)
        for entry in table.include:
            own = [[row.without(said) for row in rows] for rows in entry]
            rows += crossed([[fixed], *map(_distinct, own), *above])
        if not rows:
            raise ConfigError("exclude leaves no cell; take away an entry of it")
        return _set(rows, table.settings, said)


class _Match(dict[str, list[object]]):
    """What cells are asked for: a key and the values of it that match; `where` it is said."""

    def __init__(self, where: str, asked: Mapping[str, list[object]]) -> None:
        super().__init__(asked)
        self.where = where

    def __call__(self, row: Row) -> bool:
        said = {bare(key): value_of(f"{key}={value}") for key, value in row.values.items()}
        return all(key in said and said[key] in values for key, values in self.items())

    def check(self, rows: Sequence[Row], said: Mapping[str, object]) -> None:
        """ConfigError where none of the rows matches, and the command line is not the reason."""
        if self.keys() & said.keys() or any(map(self, rows)):
            return
        known = {bare(key) for row in rows for key in row.values}
        strange = next((key for key in self if key not in known), None)
        why = "" if strange is None else f": none sets '{strange}'.{nearest(strange, known)}"
        raise ConfigError(f"{self.where} matches no cell{why or '; take it away, or mend it'}")


class _Table:
    """The sections of a sweep file, read and checked."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        for name in content:
            if name not in SECTIONS:
                raise ConfigError(f"unknown section '{name}'.{nearest(str(name), SECTIONS)}")
        self._places: dict[str, str] = {}  # of the keys of fixed, grid and zip
        self.fixed = self._fixed(content)
        self.axes = [*self._grid(content), *self._zips(content)]
        self.exclude = [_match(entry, where) for where, entry in _entries(content, "exclude")]
        self.include = [
            [_told(axis(key, _values(key, value, where))) for key, value in entry.items()]
            for where, entry in _entries(content, "include")
        ]
        self.settings = [self._settings(*entry) for entry in _entries(content, "settings")]

    def _fixed(self, content: Mapping[str, Any]) -> Row:
        if "fixed" not in content:
            return Row()
        given = _mapping(content["fixed"], "fixed")
        return Row(
            {self._once(k, "fixed"): _single(k, value, "fixed") for k, value in given.items()}
        )

    def _grid(self, content: Mapping[str, Any]) -> Iterator[list[Row]]:
        if "grid" in content:
            for key, value in _mapping(content["grid"], "grid").items():
                yield axis(self._once(key, "grid"), _values(key, value, "grid"))

    def _zips(self, content: Mapping[str, Any]) -> Iterator[list[Row]]:
        several = isinstance(content.get("zip"), list)
        some = _entries(content, "zip") if several else [("zip", content.get("zip"))]
        for where, entry in some if "zip" in content else ():
            given = _mapping(entry, where)
            columns = [axis(self._once(k, where), _values(k, v, where)) for k, v in given.items()]
            lengths = [len(column) for column in columns]
            if len(set(lengths)) > 1:
                said = ", ".join(f"{k} has {n}" for k, n in zip(given, lengths, strict=True))
                raise ConfigError(f"{where}: as many values of each key are needed, {said}")
            yield [crossed([[row] for row in rows])[0] for rows in zip(*columns, strict=True)]

    def _settings(self, where: str, entry: dict[str, Any]) -> tuple[_Match, Row]:
        if "for" not in entry:
            raise ConfigError(
                f"{where} does not say which cells it is for; add for: {{KEY: VALUE}}"
            )
        match = _match(_mapping(entry.pop("for"), f"{where}, for"), where)
        for key in _mapping(entry, where):
            if (place := self._places.get(bare(key), "fixed")) != "fixed":
                raise ConfigError(f"'{key}' is in two places, {place} and {where}; leave it in one")
        values = {key: _single(key, value, where) for key, value in entry.items()}
        return match, Row(values, frozenset(values))

    def _once(self, key: str, where: str) -> str:
        """A key, which no other place may have."""
        if (place := self._places.setdefault(bare(key), where)) != where:
            raise ConfigError(f"'{key}' is in two places, {place} and {where}; leave it in one")
        return key


def _unexcluded(
    rows: list[Row], exclude: Sequence[_Match], said: Mapping[str, object]
) -> list[Row]:
    for match in exclude:
        match.check(rows, said)
    return [row for row in rows if not any(match(row) for match in exclude)]


def _set(
    rows: list[Row], settings: Sequence[tuple[_Match, Row]], said: Mapping[str, object]
) -> list[Row]:
    """The rows with the settings that match them as they were."""
    for match, _ in settings:
        match.check(rows, said)
    chosen = [[more.without(said) for match, more in settings if match(row)] for row in rows]
    return [
        crossed([[row], *([one] for one in some)])[0]
        for row, some in zip(rows, chosen, strict=True)
    ]


def _told(rows: Sequence[Row]) -> list[Row]:
    """Rows whose keys tell a cell from others, even if they have one value."""
    return [Row(row.values, frozenset(row.values)) for row in rows]


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Each row once: the command line has taken away what told them apart."""
    return [row for place, row in enumerate(rows) if row not in rows[:place]]


def _match(entry: Mapping[str, Any], where: str) -> _Match:
    asked = {
        bare(key): [value_of(f"{key}={text}") for text in _values(key, value, where)]
        for key, value in entry.items()
    }
    return _Match(where, asked)


def _entries(content: Mapping[str, Any], section: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The mappings that a section lists, and how errors call them."""
    entries = content.get(section, [])
    if not isinstance(entries, list) or (section in content and not entries):
        raise ConfigError(f"{section} is no list of mappings; write each as  - {{KEY: VALUE}}")
    for number, entry in enumerate(entries, start=1):
        where = f"{section} {number}"
        yield where, dict(_mapping(entry, where))


def _mapping(value: object, where: str) -> dict[str, Any]:
    """A mapping of keys of overrides; ConfigError for anything else, and for an empty one."""
    if not isinstance(value, dict) or not value:
        raise ConfigError(f"{where} is {_shown(value)}, expected at least one KEY: VALUE")
    for key in value:
        if key != "for":
            with _naming(where):
                parse_override(f"{key}=0")
    return value


def _values(key: str, value: object, where: str) -> list[str]:
    """The values of a key, each as Hydra's grammar has it."""
    if isinstance(value, str):
        with _naming(where):
            return values_of(parse_override(f"{key}={value}"))
    if value == []:
        raise ConfigError(f"{where}: '{key}' has no values; give some, or take it away")
    return [in_grammar(one) for one in value] if isinstance(value, list) else [in_grammar(value)]


def _single(key: str, value: object, where: str) -> str:
    """The value of a key, as Hydra's grammar has it; ConfigError for a text that names several."""
    if isinstance(value, str) and _FUNCTION.fullmatch(value):
        raise ConfigError(
            f"{where}: '{key}' has one value, and {value} names several; put it under grid"
        )
    return in_grammar(value)


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path, "sweep file")
    if not isinstance(content, dict) or not content:
        raise ConfigError(f"{path} names no cells; it may have {', '.join(SECTIONS)}")
    return content


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Errors inside say where in the file they are."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _shown(value: object) -> str:
    return "empty" if value in (None, {}, []) else f"{value!r:.60}"
