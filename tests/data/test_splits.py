"""Splits: every published rule gives the published counts, and what it is known by."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.data.rows import Rows
from hambench.data.spec import SplitSpec
from hambench.data.splits import RULES, apply_rule, check_disjoint, digest, molecule_of
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.registry import TASKS, load_task, task_names

PUBLISHED = [name for name in task_names() if load_task(name).spec.source == "published"]


class Named(Rows):
    """Rows that have names alone."""

    def __init__(self, ids: list[str]) -> None:
        self._ids = tuple(ids)

    @property
    def ids(self) -> tuple[str, ...]:
        return self._ids

    def row(self, index: int) -> Molecule:
        raise NotImplementedError


def rows(n: int) -> Named:
    return Named([str(i + 1) for i in range(n)])


def split(**content: Any) -> SplitSpec:
    return SplitSpec.model_validate(content)


@pytest.mark.parametrize("name", PUBLISHED)
def test_rules_give_what_is_known_of_them_and_do_not_overlap(name: str) -> None:
    """For every release whose number of rows is known; a rule on atoms needs the file itself."""
    task = load_task(name)
    proved = 0
    for variant in (task.spec.variant, *task.spec.variants):
        spec = task.spec.with_variant(variant)
        for file in spec.files:
            of_file = {k: s for k, s in spec.splits.items() if s.of == file and s.known}
            for n in sorted({n for s in of_file.values() for n in s.known}):
                found = {
                    key: apply_rule(task.rules[str(s.rule)], rows(n), s, key)
                    for key, s in of_file.items()
                    if s.rule != "by_atoms"
                }
                proved += len(found)
                places = np.concatenate([*found.values(), np.empty(0, dtype=int)])
                assert len(np.unique(places)) == len(places)
                if len(found) == len(spec.splits) and found:
                    assert len(places) == n  # no row is left over
    assert proved or name.startswith("nabla2dft")


def test_counts_of_the_papers() -> None:
    sizes = {
        name: tuple(load_task(name).spec.splits[role].size for role in load_task(name).spec.roles)
        for name in PUBLISHED
    }
    assert sizes["md17_water"] == (500, 500, 3999)
    assert sizes["md17_ethanol"] == sizes["md17_uracil"] == (25000, 500, 4500)
    assert sizes["md17_malondialdehyde"] == (25000, 500, 1478)
    assert sizes["nabla2dft_2k"][:2] == (12081, 64)
    assert sizes["qh9_stable"] == (104664, 13083, 13084)
    assert sizes["qh9_dynamic_100k"] == (79920, 9990, 9990)
    assert sizes["qh9_dynamic_300k"] == (239840, 29980, 29980)
    ood = load_task("qh9_stable", split="ood").spec.splits
    assert [ood[role].size for role in ("train", "validation", "test")] == [104001, 17495, 9335]
    mol = load_task("qh9_dynamic_300k", split="mol").spec.splits
    assert [mol[role].size for role in ("train", "validation", "test")] == [239800, 29900, 30100]


def test_permutations_are_numpys_legacy_ones() -> None:
    """Written out here once more, so that a slip in the rule is no slip of the hash too."""
    order = np.random.RandomState(42).permutation(4999)
    water = load_task("md17_water").spec.splits
    assert water["train"].known[4999].sha256 == digest(order[:500])
    assert water["validation"].known[4999].sha256 == digest(order[500:1000])
    assert water["test"].known[4999].sha256 == digest(order[1000:])
    assert order[:4].tolist() == [84, 2470, 2804, 4987]
    other = np.random.RandomState(42).permutation(4900)
    assert water["train"].known[4900].sha256 == digest(other[:500])


def test_trajectories_of_qh9() -> None:
    """As the public code: seed of the permutation is the last row of the molecule."""
    geo, mol = (load_task("qh9_dynamic_100k", split=name) for name in ("geo", "mol"))
    train = apply_rule(
        geo.rules["within_trajectories"], rows(99900), geo.spec.splits["train"], "train"
    )
    second = 100 + np.random.RandomState(199).permutation(100)[:80]
    assert train[80:160].tolist() == second.tolist()
    molecules = list(range(999))
    random.seed(43)
    random.shuffle(molecules)
    test = apply_rule(mol.rules["whole_trajectories"], rows(99900), mol.spec.splits["test"], "test")
    assert sorted(set((test // 100).tolist())) == sorted(molecules[898:])


def test_molecules_stay_together() -> None:
    named = Named([f"{m}-{c}" for c in range(3) for m in (7, 3, 11, 5)])  # not in order
    parts = [
        RULES["molecules"](named, split(rule="molecules", seed=1, start=a, stop=b))
        for a, b in ((0, 0.5), (0.5, None))
    ]
    names = [{molecule_of(named.ids[i]) for i in part} for part in parts]
    assert len(names[0]) == len(names[1]) == 2
    assert not names[0] & names[1]
    assert sorted(np.concatenate(parts).tolist()) == list(range(12))
    assert molecule_of("water") == "water"
    assert molecule_of("a/b_0_1") == "a/b_0_1"
    assert molecule_of("x-12") == "x"


def test_sorted_ids_do_not_depend_on_the_order_of_the_file() -> None:
    names = [f"group/{i:03d}" for i in range(50)]
    spec = split(rule="permutation_of_ids", seed=42, stop=10)
    chosen = []
    for ids in (names, names[::-1]):
        chosen.append([ids[i] for i in RULES["permutation_of_ids"](Named(ids), spec)])
    assert chosen[0] == chosen[1]


def test_a_rule_that_gives_other_rows_is_refused() -> None:
    known = {"known": {10: {"count": 5, "sha256": "0" * 64}}}
    spec = split(rule="as_stored", stop=5, **known)
    with pytest.raises(
        DataError, match=r"rule 'as_stored' of split 'train' gives 5 rows .* not the"
    ):
        apply_rule(RULES["as_stored"], rows(10), spec, "train")
    assert len(apply_rule(RULES["as_stored"], rows(11), spec, "train")) == 5  # no known release
    with pytest.raises(DataError, match="leaves no row for split 'test'"):
        apply_rule(RULES["as_stored"], rows(3), split(rule="as_stored", start=5), "test")


def test_a_seen_molecule_is_no_test_of_unseen_ones() -> None:
    spec = load_task("nabla2dft_2k").spec
    apart = {"train": ("1-0", "1-1", "2-0"), "validation": ("3-0",), "test": ("1-2",)}
    check_disjoint({**apart, "test_structures": ("4-0",)}, spec)
    with pytest.raises(DataError, match="molecule of row '2-7' of split 'test_structures' is in"):
        check_disjoint({**apart, "test_structures": ("4-0", "2-7")}, spec)
    with pytest.raises(DataError, match="row '1-1' is in split 'test' and in 'train' too"):
        check_disjoint({**apart, "test": ("1-1",)}, spec)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a list or a rule"),
        ({"list": "a.txt", "rule": "as_stored"}, "a list or a rule"),
        ({"list": "a.txt"}, "a list needs its count and sha256"),
        ({"rule": "as_stored", "stop": 1.5}, "stop"),
    ],
)
def test_wrong_splits_are_named(content: dict[str, Any], message: str) -> None:
    described = TASKS.preset("water_mini").content
    wrong = {**described, "splits": {**described["splits"], "train": content}}
    with pytest.raises(ConfigError, match=f"task 'water_mini': splits.train.*{message}"):
        type(load_task("water_mini"))(wrong)


def test_unknown_variants_get_the_nearest_name() -> None:
    with pytest.raises(RegistryError, match=r"no split=contigous. Did you mean 'contiguous'"):
        load_task("md17_water", split="contigous")
