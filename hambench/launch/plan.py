"""The plan of a sweep: its cells, which of them need which, and how far each is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Literal

from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from hambench import rundir
from hambench.compose import compose, parse_override
from hambench.config import RunConfig
from hambench.errors import ConfigError, DataError, HambenchError
from hambench.results import read_result, read_status

State = Literal["new", "queued", "running", "interrupted", "failed", "done"]

_PRETRAINS = ("frozen", "finetuned")  # strategies

SWEEPS = "sweeps"
"""Folder of all sweeps, beside those of the tasks."""


@dataclass(frozen=True)
class Node:
    """One cell of a plan.

    Attributes:
        config: its configuration.
        swept: key -> value of the overrides with several values, as they were given; empty for a
            pretraining that no override asks for by itself.
        needs: run directory of the pretraining that has to be done before; None where a finished
            run is named by ``pretrained``.
        asks: what it asks of the cluster besides the profile: key of the profile -> value.
    """

    config: RunConfig
    swept: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None
    asks: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return self.config.folder

    @property
    def name(self) -> str:
        """Its run directory as seen from ``root``."""
        inside = self.folder.is_relative_to(self.config.root)
        return str(self.folder.relative_to(self.config.root) if inside else self.folder)

    @cached_property
    def state(self) -> State:
        """How far it was when this was first asked."""
        if rundir.is_running(self.folder):
            return "running"
        if self.config.overwrite:
            return "new"
        kept = self.config.save_predictions and self.config.strategy is None
        if rundir.is_finished(self.folder) and (
            not kept or (self.folder / rundir.PREDICTIONS).is_file()
        ):
            return "done"
        try:
            status = read_status(self.folder)
        except DataError:
            return "new"
        return status.state if status.state in ("failed", "queued") else "interrupted"


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which they are started: pretraining first."""

    nodes: tuple[Node, ...]

    @classmethod
    def make(cls, overrides: Sequence[str]) -> Plan:
        """Every combination of the values that the overrides name (Hydra's grammar).

        The last override with several values varies fastest. Combinations that are the same cell
        are one, and so is the pretraining of all cells that need the same.

        Args:
            overrides: ``["task=water_mini", "model=helm_small,minao", "seed=range(0,3)"]``.

        Raises:
            ConfigError: an override, or a cell, is wrong (its overrides are named), or two cells
                would share a run directory.
        """
        cells: dict[Path, Node] = {}
        for words, swept in combinations(overrides):
            with _naming(words):
                config = compose(words)
            before = _pretraining(config)
            node = Node(config, swept, None if before is None else before.folder)
            known = cells.setdefault(config.folder, node)
            if known.config != config:
                raise ConfigError(
                    f"{_said(known.swept)} and {_said(swept)} have one run directory, "
                    f"{config.folder}; sweep over what makes different runs, and leave out run_dir"
                )
        first: dict[Path, Node] = {}
        for node in cells.values():
            before = _pretraining(node.config)
            if before is not None:
                first.setdefault(before.folder, cells.get(before.folder, Node(before)))
        return cls(tuple((first | cells).values()))

    @cached_property
    def unfinished(self) -> tuple[Node, ...]:
        """The cells that were not done when this was first asked."""
        return tuple(node for node in self.nodes if node.state != "done")

    @cached_property
    def pretrainings(self) -> frozenset[Path]:
        """Run directories that cells of the plan need."""
        return frozenset(node.needs for node in self.nodes if node.needs is not None)

    @property
    def folder(self) -> Path:
        """Folder of the sweep: ``root/sweeps/<8 digits of a hash over its cells>``."""
        text = "\n".join(sorted(f"{node.config.run_id} {node.folder}" for node in self.nodes))
        digest = hashlib.sha256(text.encode()).hexdigest()
        return self.nodes[-1].config.root / SWEEPS / digest[:8]

    def part(self, chosen: Sequence[Node]) -> Plan:
        """The plan of some of its cells, and of what they need."""
        folders = {node.folder for node in chosen} | {node.needs for node in chosen}
        return Plan(tuple(node for node in self.nodes if node.folder in folders))

    def check(self) -> None:
        """Build every cell that is not done, and read the result of every one that is.

        Raises:
            HambenchError: what the run of the first wrong cell would say, which is named.
        """
        from hambench.cell import Cell  # imports torch, as the next one
        from hambench.pretraining import check_body_of

        for node in self.nodes:
            with _naming([node.name, *_words(node.swept)]):
                if not node.config.overwrite:
                    rundir.check_same(node.folder, node.config)
                if node.state != "done":
                    cell = Cell.build(node.config)
                    check_body_of(cell)
                    cell.check_guesses()
                else:
                    rundir.check_scoring(node.folder, node.config)
                    read_result(node.folder)


def _pretraining(config: RunConfig) -> RunConfig | None:
    """The pretraining cell that has to be run before a cell."""
    return config.pretraining if config.pretrained is None else None


def combinations(overrides: Sequence[str]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The overrides of every cell, of one value each, and those of them that had several.

    What is said about pretraining is left out of cells that have none, if there are others.
    """
    parsed = [parse_override(word) for word in overrides]
    keys = [override.get_key_element() for override in parsed]
    several = [override.is_sweep_override() for override in parsed]
    rows = list(product(*map(_single, parsed)))
    strategies = [dict(zip(keys, row, strict=True)).get("strategy", "") for row in rows]
    pretrains = [strategy.strip("'\"") in _PRETRAINS for strategy in strategies]
    for row, pretrained in zip(rows, pretrains, strict=True):
        told = [
            (key, value, swept)
            for key, value, swept in zip(keys, row, several, strict=True)
            if pretrained or not any(pretrains) or not key.startswith("pretrain")
        ]
        yield (
            [f"{key}={value}" for key, value, _ in told],
            {key: value for key, value, swept in told if swept},
        )


def _single(override: Override) -> list[str]:
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


@contextmanager
def _naming(words: Sequence[str]) -> Iterator[None]:
    """Errors inside say which cell they are about."""
    try:
        yield
    except HambenchError as error:
        raise type(error)(f"in the cell {' '.join(words)}: {error}") from error


def _words(swept: Mapping[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in swept.items()]


def _said(swept: Mapping[str, str]) -> str:
    return f"'{' '.join(_words(swept))}'"
