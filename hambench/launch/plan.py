"""The plan of a sweep: its cells, which of them need which, and how far each is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hambench import rundir
from hambench.compose import compose, parse_override
from hambench.config import RunConfig
from hambench.errors import ConfigError, HambenchError
from hambench.launch.combinations import combinations
from hambench.results import read_result

State = Literal["new", "queued", "running", "interrupted", "failed", "done"]

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
    asks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Its run directory."""
        return self.config.folder

    @property
    def name(self) -> str:
        """Its run directory as seen from ``root``, or its whole path if it is elsewhere."""
        if self.folder.is_relative_to(self.config.root):
            return str(self.folder.relative_to(self.config.root))
        return str(self.folder.absolute())

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
        status = rundir.known_status(self.folder)
        if status is None:
            return "new"
        return status.state if status.state in ("failed", "queued") else "interrupted"


@dataclass(frozen=True)
class Plan:
    """Cells in the order in which they are started: pretraining first.

    Attributes:
        nodes: the cells.
        cluster: where they are to run, if a sweep file says so.
    """

    nodes: tuple[Node, ...]
    cluster: str | None = None

    @classmethod
    def make(cls, overrides: Sequence[str]) -> Plan:
        """Every combination of the values that the overrides name (Hydra's grammar).

        The last override with several values varies fastest. Combinations that are the same cell
        are one, and so is the pretraining of all cells that need the same.

        Args:
            overrides: ``["task=water_mini", "model=helm_small,minao", "seed=range(0,3)"]``; one may
                be a sweep file, ``table.yaml``, on top of which the others are put.

        Raises:
            ConfigError: an override, or a cell, is wrong (its overrides are named), two cells
                would share a run directory, or are to run on two clusters.
        """
        cells: dict[Path, Node] = {}
        clusters: set[str] = set()
        for words, swept in combinations(overrides):
            cluster, asks, words = _places(words)
            clusters |= set(cluster)
            with _naming(words):
                config = compose(words)
            before = _pretraining(config)
            node = Node(config, swept, None if before is None else before.folder, asks)
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
                first.setdefault(
                    before.folder, cells.get(before.folder, Node(before, asks=node.asks))
                )
        if len(clusters) > 1:
            raise ConfigError(f"one cluster at a time, given are {' and '.join(sorted(clusters))}")
        return cls(tuple((first | cells).values()), next(iter(clusters), None))

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
        return Plan(tuple(node for node in self.nodes if node.folder in folders), self.cluster)

    def without_asks(self, keys: Collection[str]) -> Plan:
        """Without what single cells ask of the cluster by ``keys``, which are said for all."""
        nodes = [
            replace(node, asks={key: value for key, value in node.asks.items() if key not in keys})
            for node in self.nodes
        ]
        return replace(self, nodes=tuple(nodes))

    def check(self, *, elsewhere: bool = False) -> None:
        """Build every cell that is not done, and read the result of every one that is.

        Of cells that differ in their seed and run directory alone, the first one is built.

        Args:
            elsewhere: they are to run on other machines: their devices need not be here.

        Raises:
            HambenchError: what the run of the first wrong cell would say, which is named.
        """
        from hambench.cell import Cell  # imports torch, as the next one
        from hambench.pretraining import check_body_of

        built: set[str] = set()
        for node in self.nodes:
            with _naming([node.name, *_words(node.swept)]):
                if not node.config.overwrite:
                    rundir.check_same(node.folder, node.config)
                if node.state == "done":
                    rundir.check_scoring(node.folder, node.config)
                    read_result(node.folder)
                elif (alike := _alike(node.config)) not in built:
                    built.add(alike)
                    changes = {"device": "cpu", "cuda_graph": False} if elsewhere else {}
                    cell = Cell.build(node.config.model_copy(update=changes))
                    check_body_of(cell)
                    cell.check_guesses()


def _places(words: Sequence[str]) -> tuple[list[str], dict[str, Any], list[str]]:
    """Overrides apart: names of clusters, what is asked of the cluster, and all others."""
    clusters: list[str] = []
    asks: dict[str, Any] = {}
    rest: list[str] = []
    for word in words:
        override = parse_override(word)
        key = override.key_or_group
        if key == "cluster":
            clusters.append(str(override.value()))
        elif key.startswith("cluster."):
            asks[key.removeprefix("cluster.")] = override.value()
        else:
            rest.append(word)
    return clusters, asks, rest


def _pretraining(config: RunConfig) -> RunConfig | None:
    """The pretraining cell that has to be run before a cell."""
    return config.pretraining if config.pretrained is None else None


def _alike(config: RunConfig) -> str:
    """What cells share that are built alike: all but seeds and folders.

    A pretraining that is named or finished counts as it is on disk.
    """
    own = config.model_dump_json(exclude={"seed", "run_dir", "overwrite", "pretraining"})
    before = config.pretraining
    if before is None:
        return own
    there = config.pretrained is not None or rundir.is_finished(before.folder)
    return f"{own} {before.folder if there else _alike(before)}"


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
