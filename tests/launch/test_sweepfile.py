"""A sweep as a YAML file: the cells it names, words on top of it, and what is refused."""

from __future__ import annotations

import json
import re
from itertools import product
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from hambench.cli.sweep import sweep
from hambench.compose import compose, parse_override
from hambench.errors import ConfigError
from hambench.launch.combinations import combinations
from hambench.launch.plan import Plan

EXAMPLE = Path(__file__).parents[2] / "examples" / "water_mini.yaml"
README = Path(__file__).parents[2] / "README.md"
TABLE = """
fixed: {task: water_mini, device: cpu, max_steps: 100}
grid:
  model: [helm_small, qhnet_small]
  seed: range(0,3)
zip:
  recipe.batch_size: [4, 8]
  recipe.optimizer.lr: [1e-3, 2e-3]
exclude:
  - {model: qhnet_small, seed: [1, 2]}
include:
  - {model: minao, seed: 0}
settings:
  - for: {model: qhnet_small}
    max_steps: 200
"""


@pytest.fixture
def write(tmp_path: Path):
    """Writes a sweep file, and returns its path as a word."""

    def write(text: str) -> str:
        path = tmp_path / "table.yaml"
        path.write_text(text)
        return str(path)

    return write


def cells(*words: str) -> list[dict[str, object]]:
    """What the cells say, read by Hydra."""
    parsed = ([parse_override(word) for word in cell] for cell, _ in combinations(words))
    return [{o.key_or_group: o.value() for o in cell} for cell in parsed]


def test_a_table_of_every_section(write):
    """Against loops that say the same."""
    expected = [
        {"task": "water_mini", "device": "cpu", "max_steps": steps, "model": model, "seed": seed,
         "recipe.batch_size": size, "recipe.optimizer.lr": lr}
        for model, steps in (("helm_small", 100), ("qhnet_small", 200))
        for seed in range(3)
        for size, lr in ((4, 1e-3), (8, 2e-3))
        if not (model == "qhnet_small" and seed > 0)
    ]  # fmt: skip
    minao = {"task": "water_mini", "device": "cpu", "max_steps": 100, "model": "minao", "seed": 0}
    assert cells(write(TABLE)) == [*expected, minao]
    told = [swept for _, swept in combinations([write(TABLE)])]
    assert set(told[0]) == {"model", "seed", "recipe.batch_size", "recipe.optimizer.lr"}
    assert told[6]["max_steps"] == "200"
    assert told[-1] == {"model": "minao", "seed": "0"}


def test_words_replace_keys_everywhere_or_add_them(write):
    found = cells(write(TABLE), "seed=5,6", "recipe.optimizer.lr=1e-4", "root=here")
    base = [c for c in found if c["model"] != "minao"]
    assert [(c["model"], c["recipe.batch_size"], c["seed"]) for c in base] == list(
        product(["helm_small", "qhnet_small"], [4, 8], [5, 6])
    )
    assert [c["seed"] for c in found if c["model"] == "minao"] == [5, 6]
    assert all(c["root"] == "here" and c["recipe.optimizer.lr"] == 1e-4 for c in found)
    assert {c["max_steps"] for c in cells(write(TABLE), "max_steps=7")} == {7}
    assert {c["model"] for c in cells(write(TABLE), "model=phisnet_small")} == {"phisnet_small"}


# As YAML reads them.
VALUES = some.one_of(
    some.none(),
    some.booleans(),
    some.integers(-99, 99),
    some.floats(allow_nan=False, allow_infinity=False),
    some.text("ab,='\"\\ :#[]{}()$.-0e\n", max_size=6).filter(lambda text: "$" not in text),
    some.sampled_from(["null", "true", "1e3", "010", "2:30:00", "no", "range(0,3)", "a,b"]),
)
NESTED = some.one_of(
    VALUES,
    some.lists(VALUES, max_size=3),
    some.dictionaries(some.sampled_from("abc"), VALUES, max_size=2),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    some.lists(some.lists(NESTED, min_size=1, max_size=3, unique_by=repr), min_size=1, max_size=3)
)
def test_values_of_lists_are_what_yaml_says(write, columns):
    grid = {f"k{place}": column for place, column in enumerate(columns)}
    found = cells(write(json.dumps({"grid": grid})))
    assert [list(cell.values()) for cell in found] == [list(row) for row in product(*columns)]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(NESTED)
def test_what_is_fixed_is_one_value(write, value):
    text = json.dumps({"fixed": {"k": value}})  # which is YAML with texts in quotes
    if value == "range(0,3)":
        with pytest.raises(ConfigError, match="fixed: 'k' has one value, and range"):
            cells(write(text))
    else:
        assert cells(write(text)) == [{"k": value}]


def test_plain_words_mean_what_they_mean_to_hydra(write):
    words = "a: 1e-3\n  b: 010\n  c: 2:30:00\n  d: 2026-01-01\n  e: no\n  f:\n  g: -.5\n  h: 1_0"
    (cell,) = cells(write(f"fixed:\n  {words}\n  i: [[h_mae, h_max], ~]"))
    assert cell == {
        "a": 1e-3, "b": "010", "c": "2:30:00", "d": "2026-01-01", "e": "no", "f": None, "g": -0.5,
        "h": "1_0", "i": [["h_mae", "h_max"], None],
    }  # fmt: skip


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(some.data())
def test_a_file_and_the_equal_command_line_give_the_same_plan(write, data):
    choices = {
        "model": ["helm_small", "qhnet_small", "mean_block"],
        "seed": [0, 1, 2],
        "recipe.batch_size": [2, 4],
        "score.metrics": [["h_mae"], ["h_mae", "h_max"], None],
        "run_dir": [None],
    }
    keys = data.draw(
        some.permutations(
            ["model", *data.draw(some.sets(some.sampled_from(sorted(choices)), max_size=2))]
        )
    )
    grid = {
        key: data.draw(some.lists(some.sampled_from(choices[key]), min_size=1, unique_by=str))
        for key in dict.fromkeys(keys)
    }
    if len(grid.get("score.metrics", [])) > 1:  # cells that differ in nothing else are refused
        grid["score.metrics"] = grid["score.metrics"][:1]
    words = [
        f"{key}="
        + ",".join(str(value).replace("None", "null").replace("'", "") for value in values)
        for key, values in grid.items()
    ]
    path = write(yaml.safe_dump({"fixed": {"task": "water_mini"}, "grid": grid}, sort_keys=False))
    assert Plan.make([path]) == Plan.make(["task=water_mini", *words])
    (short,) = Plan.make(
        [path, "model=minao", "seed=4", "recipe.batch_size=2", "score.metrics=null"]
    ).nodes
    assert short.config == compose(
        ["task=water_mini", "model=minao", "seed=4", "recipe.batch_size=2"]
    )


def test_cells_that_are_the_same_are_one(write):
    path = write(
        "fixed: {task: water_mini}\ngrid: {model: [minao]}\n"
        "include: [{model: minao}, {model: minao, seed: 0}]"
    )
    assert [node.config for node in Plan.make([path]).nodes] == [
        compose(["task=water_mini", "model=minao"])
    ]


def test_pretraining_is_left_out_of_direct_cells(write):
    path = write(
        "fixed: {task: organic_mini_energy, model: helm_small, pretraining.max_steps: 7}\n"
        "grid: {strategy: [direct, frozen]}\n"
    )
    said = ["task=organic_mini_energy", "model=helm_small", "pretraining.max_steps=7"]
    assert Plan.make([path]) == Plan.make([*said, "strategy=direct,frozen"])


def test_the_example_is_a_table_of_small_models_and_references():
    plan = Plan.make([str(EXAMPLE)])
    found = [(node.config.model["name"], node.config.seed) for node in plan.nodes]
    small = [f"{name}_small" for name in ("helm", "qhnet", "phisnet", "sphnet", "schnorb")]
    assert found == [*product(small, range(3)), ("mean_block", 0), ("minao", 0)]
    assert {node.config.max_steps for node in plan.nodes} == {500}
    assert {node.config.max_steps for node in Plan.make([str(EXAMPLE), "max_steps=9"]).nodes} == {9}


def test_the_file_of_the_readme_and_of_the_help_is_one(write):
    (readme,) = re.findall(r"```yaml\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    plan = Plan.make([write(readme)])
    assert len(plan.nodes) == 9
    shown = str(sweep.help).partition("fixed:")[2].partition("\n\n")[0]
    assert Plan.make([write(f"      fixed:{shown}")]) == plan


def test_what_cells_ask_of_a_cluster_comes_behind_the_command_line(write):
    pytest.importorskip("submitit")
    path = write(
        "fixed: {task: water_mini, cluster: slurm}\n"
        "grid: {model: [mean_block, minao]}\n"
        "settings:\n"
        "  - for: {model: minao}\n"
        "    cluster.time: 2:30:00\n"
        "    cluster.setup: [module load cuda, 'export A=\"it''s, so\"']\n"
        "    cluster.extra: {nice: 100}\n"
    )

    def scripts(*words: str) -> list[str]:
        said = CliRunner().invoke(sweep, [path, "--dry-run", "--no-estimate", *words]).output
        return said.split("# script ")[1:]

    plain, own = scripts()
    assert "--time=60\n" in plain
    assert "--nice" not in plain
    assert "--time=150\n" in own
    assert "--nice=100\n" in own
    assert '\nmodule load cuda\nexport A="it\'s, so"\n' in own
    assert all("--time=10\n" in text for text in scripts("cluster.time=10"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no cells; it may have fixed, grid"),
        ("- a", "names no cells"),
        ("gird: {seed: [0]}", "unknown section 'gird'. Did you mean 'grid'?"),
        ("grid: {}", "grid is empty, expected at least one KEY: VALUE"),
        ("grid:", "grid is empty"),
        ("grid: [1]", "grid is [1], expected at least one KEY: VALUE"),
        ("grid: {seed: []}", "grid: 'seed' has no values"),
        ("grid: {seed: 'range(3,0)'}", "grid: 'seed=range(3,0)' is an empty range"),
        ("grid: {seed: 'interval(0,1)'}", "grid: 'seed=interval(0,1)' names no values one by one"),
        ("grid: {seed: '0,'}", "grid: cannot read 'seed=0,'"),
        ("grid: {~seed: 0}", "grid: '~seed=0' takes away a key"),
        ("grid: {hydra.job: 0}", "grid: 'hydra.job=0' sets an option of Hydra's own"),
        ("fixed: {seed: 'range(0,3)'}", "fixed: 'seed' has one value, and range(0,3) names"),
        ("fixed: {seed: 0}\ngrid: {seed: [0]}", "'seed' is in two places, fixed and grid"),
        ("fixed: {+seed: 0}\ngrid: {seed: [0]}", "'seed' is in two places, fixed and grid"),
        ("zip: [{a: [0]}, {a: [1]}]", "'a' is in two places, zip 1 and zip 2"),
        ("zip: {a: [0, 1], b: [2]}", "zip: as many values of each key are needed, a has 2, b"),
        ("zip: [{a: [0, 1]}, {b: 1, c: [1, 2]}]", "zip 2: as many values"),
        ("zip:", "zip is empty"),
        ("grid: {a: [0]}\nexclude: [{a: 1}]", "exclude 1 matches no cell; take it away"),
        ("grid: {seed: [0]}\nexclude: [{seed: 0}, {sede: 1}]", "none sets 'sede'. Did"),
        ("grid: {a: [0]}\nexclude: [{a: 0}]", "exclude leaves no cell"),
        ("grid: {a: [0]}\nexclude: {a: 0}", "exclude is no list of mappings"),
        ("grid: {a: [0]}\ninclude: []", "include is no list of mappings"),
        ("grid: {a: [0]}\ninclude: [0]", "include 1 is 0, expected at least one KEY: VALUE"),
        ("grid: {a: [0]}\nsettings: [{b: 1}]", "settings 1 does not say which cells it is for"),
        ("grid: {a: [0]}\nsettings: [{for: {a: 1}, b: 1}]", "settings 1 matches no cell"),
        ("grid: {a: [0]}\nsettings: [{for: {a: 0}}]", "settings 1 is empty"),
        ("grid: {a: [0]}\nsettings: [{for: {a: 0}, a: 1}]", "two places, grid and settings 1"),
        ("grid:\n  a: [0]\n  a: [1]", ", line 3: 'a' stands here twice"),
        ("grid:\n  a: [0", ", line 2: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_place(write, text: str, said: str):
    path = write(text)
    with pytest.raises(ConfigError) as refused:
        cells(path)
    assert str(refused.value).startswith(path)
    assert said in str(refused.value)


def test_a_file_that_is_not_there_and_two_files_are_refused(write, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the sweep file no\.yml: No such file"):
        cells("no.yml")
    with pytest.raises(
        ConfigError, match=r"one sweep file at a time, given are a\.yaml and b\.yml"
    ):
        cells("a.yaml", "seed=0", "b.yml")
