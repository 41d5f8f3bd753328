"""Which cells become one array of jobs, and what has to end well before each of them starts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hambench.launch.plan import Node
from hambench.launch.profile import Profile


@dataclass(frozen=True)
class Resources:
    """What one job asks for: cells with the same are of one class."""

    profile: Profile
    nodes: int
    gpus: int
    needs_gpu: bool

    @property
    def key(self) -> str:
        """The same text for the same resources."""
        return json.dumps(
            [self.profile.model_dump(mode="json"), self.nodes, self.gpus, self.needs_gpu],
            sort_keys=True,
        )


@dataclass(frozen=True)
class Array:
    """Jobs that are submitted in one command, one for each cell.

    Attributes:
        nodes: the cells, in the order of the tasks.
        resources: of each job.
        after: run directories that have to be done first: of ``aftercorr`` one for each task, in
            the order of the tasks of the array that computes them; of ``afterok`` the one of all.
        rule: how SLURM is told; empty where nothing has to come before.
    """

    nodes: tuple[Node, ...]
    resources: Resources
    after: tuple[Path, ...] = ()
    rule: Literal["", "aftercorr", "afterok"] = ""


def resources_of(node: Node, profile: Profile) -> Resources:
    """What a cell asks for: the profile, changed by what was said for this cell alone.

    Raises:
        ConfigError: an unknown key, or an unfit value.
    """
    own = profile.changed(node.asks, f"the settings of {node.name}") if node.asks else profile
    config = node.config
    needs_gpu = config.device.startswith(("auto", "cuda")) and own.ask_gpus != "none"
    return Resources(own, config.nodes, config.gpus, needs_gpu)


def arrays_of(
    nodes: Sequence[Node], profile: Profile, largest: int, elsewhere: Collection[Path] = ()
) -> list[Array]:
    """Arrays in the order in which they are submitted: one for each stage and class of resources.

    Cells that need one of the others come behind it. Where they match the tasks of its array one
    by one they are one array as well, each task waiting for its own (``aftercorr``); otherwise
    those of each pretraining are one that waits for that (``afterok``).

    Args:
        nodes: cells to submit.
        profile: of the cluster.
        largest: tasks that an array may have.
        elsewhere: run directories that are computed by jobs submitted before.
    """
    own = {node.folder for node in nodes}
    behind: dict[Path, list[Node]] = defaultdict(list)
    first = []
    for node in nodes:
        if node.needs is not None and (node.needs in own or node.needs in elsewhere):
            behind[node.needs].append(node)
        else:
            first.append(node)
    # those that most others wait for come first, so that `aftercorr` fits as often as it can
    first.sort(key=lambda node: -len(behind.get(node.folder, ())))
    arrays = list(_chunks(first, profile, largest))
    sources = [[node.folder for node in array.nodes] for array in arrays]
    for source in (*sources, *([folder] for folder in elsewhere)):
        waiting = {folder: behind[folder] for folder in source if folder in behind}
        if waiting:
            arrays += _behind(waiting, profile, largest)
    return arrays


def _behind(
    waiting: Mapping[Path, Sequence[Node]], profile: Profile, largest: int
) -> Sequence[Array]:
    """Arrays of cells that wait for the first tasks of one array, in the fewest submissions.

    Args:
        waiting: by the run directories of those tasks, most cells first.
        profile, largest: see `arrays_of`.
    """
    one_by_one = [
        Array(array.nodes, array.resources, (folder,), "afterok")
        for folder, cells in waiting.items()
        for array in _chunks(cells, profile, largest)
    ]
    layers = _layers(waiting)
    if len(layers) > len(one_by_one) or not all(_alike(layer, profile) for layer in layers):
        return one_by_one
    sources = list(waiting)
    return [
        Array(
            tuple(layer), resources_of(layer[0], profile), tuple(sources[: len(layer)]),
            "aftercorr" if len(layer) > 1 else "afterok",
        )
        for layer in layers
    ]  # fmt: skip


def _layers(waiting: Mapping[Path, Sequence[Node]]) -> list[list[Node]]:
    """The first cell of every source, the second one, ...: their tasks match the source's."""
    groups = waiting.values()
    most = max(map(len, groups))
    return [[cells[k] for cells in groups if len(cells) > k] for k in range(most)]


def _alike(nodes: Sequence[Node], profile: Profile) -> bool:
    """Whether all ask for the same resources."""
    return len({resources_of(node, profile).key for node in nodes}) == 1


def _chunks(nodes: Sequence[Node], profile: Profile, largest: int) -> Iterator[Array]:
    """Cells by class of resources, no array larger than allowed."""
    classes: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        classes[resources_of(node, profile).key].append(node)
    for cells in classes.values():
        resources = resources_of(cells[0], profile)
        for start in range(0, len(cells), largest):
            yield Array(tuple(cells[start : start + largest]), resources)
