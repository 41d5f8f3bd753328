"""Arrays of jobs: every cell once, behind what it needs, in the fewest submissions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hambench.config import RunConfig
from hambench.errors import ConfigError
from hambench.launch.arrays import Array, arrays_of, resources_of
from hambench.launch.plan import Node
from hambench.launch.profile import Profile

SITE = Profile.model_validate({"partition": "gpu"})
KINDS = ({}, {"time": "2:00:00"}, {"time": "3:00:00"})


def node(name: str, needs: str | None = None, asks: dict | None = None, **changes: object) -> Node:
    values = {
        "task": {"name": "t", "version": 1}, "model": {"name": "m", "hyperparameters": {}},
        "recipe": {"name": "m"}, "seed": 0, "run_dir": f"runs/{name}",
    }  # fmt: skip
    config = RunConfig.model_validate(values | changes)
    return Node(config, {}, None if needs is None else Path("runs") / needs, asks or {})


@some.composite
def graphs(draw: some.DrawFn) -> tuple[list[Node], list[Path]]:
    """Cells in a random order, and pretrainings of jobs submitted before."""
    count = draw(some.integers(0, 5))
    kinds = some.sampled_from(KINDS[: draw(some.integers(1, 3))])
    nodes = [node(f"before{k}", asks=draw(kinds)) for k in range(count)]
    needs = some.sampled_from([None, "finished", "busy0", "busy1", *(n.folder.name for n in nodes)])
    cells = [node(f"cell{k}", draw(needs), draw(kinds)) for k in range(draw(some.integers(0, 12)))]
    elsewhere = sorted({n.needs for n in cells if n.needs and "busy" in n.needs.name})
    return draw(some.permutations([*nodes, *cells])), elsewhere


def fewest(cells: Iterable[Node], largest: int) -> int:
    """Arrays that are needed for cells which may start together."""
    classes = Counter(str(sorted(cell.asks.items())) for cell in cells)
    return sum(ceil(count / largest) for count in classes.values())


def behind(array: Array, nodes: Sequence[Node], largest: int) -> int:
    """Arrays behind one, in the better of the two ways: apart for each task, or matching tasks."""
    groups = [[n for n in nodes if n.needs == source.folder] for source in array.nodes]
    apart = sum(fewest(group, largest) for group in groups)
    columns = [[g[k] for g in groups if len(g) > k] for k in range(max(map(len, groups)))]
    matched = [fewest(column, len(column)) == 1 for column in columns]
    return min(apart, len(columns)) if all(matched) else apart


@settings(max_examples=300, deadline=None)
@given(graphs(), some.integers(1, 6))
def test_every_cell_is_submitted_once_behind_what_it_needs(graph, largest):
    nodes, elsewhere = graph
    arrays = arrays_of(nodes, SITE, largest, elsewhere)
    sent = [n.folder for array in arrays for n in array.nodes]
    assert sorted(sent) == sorted(n.folder for n in nodes)
    tasks: dict[Path, tuple[int, int]] = {}  # of which array, and which task of it
    own = {n.folder for n in nodes}
    for number, array in enumerate(arrays):
        assert 1 <= len(array.nodes) <= largest
        assert {resources_of(n, SITE).key for n in array.nodes} == {array.resources.key}
        needed = [n.needs if n.needs in own or n.needs in elsewhere else None for n in array.nodes]
        match array.rule:
            case "":
                assert not array.after
                assert set(needed) == {None}
            case "afterok":
                assert set(needed) == set(array.after)
                assert len(array.after) == 1
                assert array.after[0] in elsewhere or array.after[0] in tasks
            case "aftercorr":  # task k waits for task k of one array
                assert list(array.after) == needed
                places = [tasks[folder] for folder in array.after]
                assert [task for _, task in places] == list(range(len(array.nodes)))
                assert len({source for source, _ in places}) == 1
        tasks |= {n.folder: (number, task) for task, n in enumerate(array.nodes)}


@settings(max_examples=200, deadline=None)
@given(graphs(), some.integers(1, 6))
def test_there_are_as_few_arrays_as_can_be(graph, largest):
    nodes, elsewhere = graph
    arrays = arrays_of(nodes, SITE, largest, elsewhere)
    first = [array for array in arrays if not array.rule]
    assert len(first) == fewest([n for array in first for n in array.nodes], largest)
    rest = sum(behind(array, nodes, largest) for array in first)
    rest += sum(fewest([n for n in nodes if n.needs == folder], largest) for folder in elsewhere)
    assert len(arrays) == len(first) + rest


def test_seeds_of_a_strategy_wait_for_their_own_pretraining():
    before = [node(f"before{k}") for k in range(3)]
    cells = [node(f"{s}{k}", f"before{k}") for s in ("frozen", "tuned") for k in (0, 1, 2)]
    direct = [node(f"direct{k}") for k in range(2)]
    arrays = arrays_of([*direct, *before, *cells], SITE, 1000)
    assert [[n.folder.name for n in array.nodes] for array in arrays] == [
        ["before0", "before1", "before2", "direct0", "direct1"],
        ["frozen0", "frozen1", "frozen2"],
        ["tuned0", "tuned1", "tuned2"],
    ]
    assert [array.rule for array in arrays] == ["", "aftercorr", "aftercorr"]


def test_classes_of_resources():
    kinds: dict[str, list[str]] = defaultdict(list)
    cells = [
        node("a"), node("b", gpus=2), node("c", nodes=2), node("d", device="cpu"),
        node("e", device="cuda:0"), node("f", asks={"time": "2:00"}), node("g"),
        node("h", asks={"partition": "gpu"}),
    ]  # fmt: skip
    for cell in cells:
        kinds[resources_of(cell, SITE).key].append(cell.folder.name)
    assert sorted(kinds.values()) == [["a", "e", "g", "h"], ["b"], ["c"], ["d"], ["f"]]
    without = SITE.changed({"ask_gpus": "none"}, "")
    assert not resources_of(node("a"), without).needs_gpu
    assert resources_of(node("a"), SITE).needs_gpu


def test_a_wrong_setting_of_one_cell_names_the_cell():
    with pytest.raises(ConfigError, match=r"unknown key 'tim' in the settings of a\. Did you mean"):
        arrays_of([node("a", asks={"tim": 3})], SITE, 10)
