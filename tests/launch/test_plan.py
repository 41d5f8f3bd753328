"""The plan of a sweep: combinations, what is one cell, what needs what, and what is refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from hambench import rundir
from hambench.cell import Cell
from hambench.compose import compose, parse_override
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.launch.combinations import combinations
from hambench.launch.plan import Plan
from hambench.results import Status, now, write_status

WATER = ("task=water_mini", "device=cpu")
ROWS = Path(__file__).parents[1] / "fixtures" / "organic_mini_24.h5"
ENERGY = ("task=organic_mini_energy", "model=helm_small")

# As a word, and as what it says.
VALUES = some.one_of(
    some.integers(-99, 99).map(lambda n: (str(n), n)),
    some.sampled_from(["x", "helm_small", "train_10"]).map(lambda text: (text, text)),
    some.text("ab,= ", min_size=1, max_size=5).map(lambda text: (f"'{text}'", text)),
    some.lists(some.integers(0, 9), max_size=3).map(lambda n: (f"[{','.join(map(str, n))}]", n)),
    some.sampled_from([("null", None), ("true", True), ("{a:1,b:2}", {"a": 1, "b": 2})]),
)


@settings(max_examples=50, deadline=None)
@given(some.lists(some.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=4), some.data())
def test_there_is_a_cell_for_every_combination_in_order(columns, data):
    words = []
    for place, column in enumerate(columns):
        listed = ",".join(word for word, _ in column)
        plain = all(isinstance(value, str) for _, value in column)  # Hydra's choice() takes no null
        form = data.draw(some.sampled_from(["k{}={}", *["k{}=choice({})"] * plain]))
        words.append(form.format(place, listed))
    found = [[parse_override(word) for word in cell] for cell, _ in combinations(words)]
    assert not any(override.is_sweep_override() for cell in found for override in cell)
    said = [tuple(override.value() for override in cell) for cell in found]
    assert said == list(product(*[[value for _, value in column] for column in columns]))
    assert all(
        [override.key_or_group for override in cell] == [f"k{n}" for n in range(len(columns))]
        for cell in found
    )


def test_the_last_override_with_several_values_varies_fastest():
    words = ["task=water_mini", "model=a,b", "recipe.lr=1e-3", "seed=range(0,3)"]
    cells = list(combinations(words))
    assert [swept for _, swept in cells] == [
        {"model": model, "seed": seed} for model in "ab" for seed in "012"
    ]
    assert cells[4][0] == ["task=water_mini", "model=b", "recipe.lr=1e-3", "seed=1"]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=interval(0,1)", "names no values one by one"),
        ("task=glob(md17*)", "names no values one by one"),
        ("seed=range(3,0)", "is an empty range"),
        ("seed=1,", "cannot read 'seed=1,'"),
        ("~seed=1,2", "takes away a key"),
        ("hydra.sweep.dir=a,b", "no effect here"),
    ],
)
def test_words_that_name_no_values_are_refused(word: str, said: str):
    with pytest.raises(ConfigError) as refused:
        Plan.make([*WATER, "model=mean_block", word])
    assert said in str(refused.value)


def test_cells_are_what_run_would_compose_and_equal_ones_are_one():
    plan = Plan.make([*WATER, "model=mean_block", "seed=1,0,1", "train_on=null,train"])
    assert [node.config for node in plan.nodes] == [
        compose([*WATER, "model=mean_block", f"seed={seed}"]) for seed in (1, 0)
    ]
    assert [dict(node.swept) for node in plan.nodes] == [
        {"seed": "1", "train_on": "null"},
        {"seed": "0", "train_on": "null"},
    ]


@pytest.mark.parametrize("word", ["device=cpu,auto", "score.split=test,validation"])
def test_cells_that_would_share_a_run_directory_are_refused(word: str):
    with pytest.raises(ConfigError, match="have one run directory, runs/water_mini/mean_block/"):
        Plan.make(["task=water_mini", "model=mean_block", word])
    with pytest.raises(ConfigError, match="'seed=0' and 'seed=1' have one run directory, here"):
        Plan.make(["task=water_mini", "model=mean_block", "run_dir=here", "seed=0,1"])


def test_strategies_and_sizes_share_their_pretraining():
    plan = Plan.make(
        [*ENERGY, "strategy=direct,frozen,finetuned", "train_on=train_10,train", "seed=0,1",
         "pretraining.max_steps=7"]
    )  # fmt: skip
    first, rest = plan.nodes[:2], plan.nodes[2:]
    assert [(n.config.task["name"], n.config.seed) for n in first] == [
        ("organic_mini", 0),
        ("organic_mini", 1),
    ]
    assert [node.config.max_steps for node in first] == [7, 7]
    assert all(not node.swept and node.needs is None for node in first)
    assert len(rest) == 12
    for node in rest:
        direct = node.config.strategy == "direct"
        assert node.needs == (None if direct else first[node.config.seed].folder)
        assert node.config.max_steps is None
        assert node.name.startswith("organic_mini_energy/helm_small/")


def test_pretraining_that_differs_is_computed_apart_and_once():
    plan = Plan.make([*ENERGY, "strategy=direct,frozen", "pretraining.max_steps=5,6"])
    assert [(n.config.strategy, n.config.max_steps) for n in plan.nodes] == [
        (None, 5),
        (None, 6),
        ("direct", None),
        ("frozen", None),
        ("frozen", None),
    ]
    assert [n.needs for n in plan.nodes[3:]] == [n.folder for n in plan.nodes[:2]]
    assert plan.nodes[2].swept == {"strategy": "direct"}


def test_a_cell_that_is_asked_for_and_needed_is_one():
    plan = Plan.make(["task=organic_mini_energy,organic_mini", "model=helm_small"])
    assert len(plan.nodes) == 2
    before = compose([*ENERGY, "strategy=frozen"]).pretraining
    assert before is not None
    words = ["model=helm_small", "pretraining.seed=0,1", "strategy=frozen"]
    plan = Plan.make(["task=organic_mini_energy", *words])
    assert [n.folder for n in plan.nodes].count(before.folder) == 1
    assert len(plan.nodes) == 4


def test_options_of_pretraining_for_cells_that_have_none_are_refused():
    with pytest.raises(ConfigError, match=r"cell .*seed=0.*'pretraining.max_steps=5'"):
        Plan.make([*ENERGY, "seed=0,1", "pretraining.max_steps=5"])


def test_a_named_pretraining_is_no_cell_and_must_be_finished(tmp_path: Path):
    config = compose(["task=organic_mini", "model=helm_small", f"run_dir={tmp_path}"])
    (tmp_path / rundir.CONFIG).write_text(config.to_yaml())
    plan = Plan.make(
        [
            *ENERGY,
            f"root={tmp_path}",
            f"data={ROWS}",
            "strategy=direct,frozen",
            f"pretrained={tmp_path}",
        ]
    )
    assert [(n.config.strategy, n.needs) for n in plan.nodes] == [
        ("direct", None),
        ("frozen", None),
    ]
    only = Plan(plan.nodes[1:])
    with pytest.raises(DataError, match=f"strategy=frozen: the run in {tmp_path} is not finished"):
        only.check()


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        (
            ["model=mean_block", "sede=0,1"],
            ConfigError,
            "model=mean_block sede=0: unknown key 'sed",
        ),
        (["model=mean_block,helmsmall"], RegistryError, "model=helmsmall: "),
        (["model=mean_block", "seed=0,-1"], ConfigError, "model=mean_block seed=-1: seed=-1"),
    ],
)
def test_the_first_wrong_cell_is_named(words: list[str], kind: type, said: str):
    with pytest.raises(kind) as refused:
        Plan.make([*WATER, *words])
    assert said in str(refused.value)
    assert str(refused.value).startswith("in the cell task=water_mini device=cpu ")


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("train_on=null,nope", RegistryError, "train_on=nope: train_on=nope is no training set"),
        ("data=no.h5", DataError, "are not at no.h5"),
        ("model.hyperparameters.channels=4,-4", ConfigError, "channels=-4: "),
        ("model.hyperparameters.chanels=4,5", ConfigError, "chanels"),
    ],
)
def test_cells_are_built_before_anything_runs(word: str, kind: type, said: str, tmp_path: Path):
    small = "model.hyperparameters.layers=1"
    words = [*WATER, "model=helm_small", small, f"root={tmp_path}", word]
    with pytest.raises(kind) as refused:
        Plan.make(words).check()
    assert said in str(refused.value)
    assert not any(tmp_path.iterdir())


def test_cells_that_differ_in_the_seed_alone_are_built_once(tmp_path: Path, monkeypatch):
    built = []
    build = Cell.build
    monkeypatch.setattr(Cell, "build", lambda config: built.append(config) or build(config))
    more = [f"data={ROWS}", f"root={tmp_path}", "strategy=direct,frozen", "seed=range(0,3)"]
    plan = Plan.make([*ENERGY, *more])
    plan.check()
    assert len(plan.nodes) == 9
    # the pretraining, then each strategy; frozen looks at the body of its pretraining
    assert [(c.task["name"], c.strategy) for c in built] == [
        ("organic_mini", None), ("organic_mini_energy", "direct"),
        ("organic_mini_energy", "frozen"), ("organic_mini", None),
    ]  # fmt: skip


def test_how_far_a_cell_is(tmp_path: Path):
    words = [*WATER, "model=mean_block", f"root={tmp_path}"]

    def state(*more: str) -> str:
        (node,) = Plan.make([*words, *more]).nodes
        return node.state

    folder = compose(words).folder
    assert state() == "new"
    with rundir.lock(folder):
        assert state() == "running"
    for written, shown in {"running": "interrupted", "failed": "failed"}.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_status(folder, Status(state=written, started=now(), updated=now()))
        assert state() == shown
    (folder / "result.json").touch()
    assert state() == "done"
    assert state("overwrite=true") == "new"
    assert state("save_predictions=true") != "done"
    (folder / rundir.PREDICTIONS).touch()
    assert state("save_predictions=true") == "done"


def test_a_corrupt_result_is_said_before_anything_runs(tmp_path: Path):
    plan = Plan.make([*WATER, "model=mean_block", "seed=0,1", f"root={tmp_path}"])
    node = plan.nodes[1]
    node.folder.mkdir(parents=True)
    (node.folder / rundir.CONFIG).write_text(node.config.to_yaml())
    (node.folder / "result.json").write_text("{")
    with pytest.raises(DataError, match=f"in the cell {node.name} seed=1: .*result.json"):
        plan.check()
    asked = Plan.make(
        [*WATER, "model=mean_block", f"root={tmp_path}", "seed=1", "score.split=train"]
    )
    with pytest.raises(ConfigError, match=r"was scored with score\.split=test"):
        asked.check()


def test_a_sweep_has_a_folder_of_its_own(tmp_path: Path):
    plan = Plan.make([*ENERGY, "strategy=frozen,direct", f"root={tmp_path}"])
    assert plan.folder.parent == tmp_path / "sweeps"
    again = Plan.make([*ENERGY, "strategy=direct,frozen", f"root={tmp_path}"])
    assert again.folder == plan.folder
    other = Plan.make([*ENERGY, "strategy=direct", f"root={tmp_path}"])
    assert other.folder != plan.folder
