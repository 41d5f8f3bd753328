"""Models against each other: equal to plain loops, intervals that hold, tests without alarms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest

from hambench.errors import ConfigError, DataError, RegistryError, VerificationError
from hambench.scoring import METRICS
from hambench.scoring.pairs import Difference, differences, estimates, standings, tie_letters
from hambench.scoring.panel import Panel, panel
from hambench.scoring.score_table import ScoreTable
from hambench.scoring.statistics import holm

Array = np.ndarray


def table(
    errors: Array,
    groups: Sequence[str] | None = None,
    sizes: Array | None = None,
    **changes: object,
) -> ScoreTable:
    """All metrics of matrix elements of mean errors (n,), element counts ``sizes``; NaN: failed."""
    n = len(errors)
    sizes = np.ones(n) if sizes is None else sizes
    failed = np.isnan(errors)
    x, ones = np.where(failed, 0, errors), np.where(failed, 0.0, 1.0)
    columns = {
        "h_mae": (x, ones),
        "h_mae_elem": (x * sizes, sizes * ones),
        "h_rmse": (x**2, ones),
        "h_max": (x, ones),
        "failure_rate": (failed.astype(float), np.ones(n)),
    }
    ids = [f"m{i:04d}" for i in range(n)]
    content = dict(
        task="water_mini",
        task_version=1,
        fingerprint="ab12",
        split="test",
        ids=tuple(ids),
        groups=tuple(groups or ids),
        settings={name: {} for name in columns},
        terms=np.stack([np.stack(pair, axis=1) for pair in columns.values()], axis=1),
    )
    return ScoreTable(**content | changes)


def gathered(*models: Sequence[ScoreTable], metrics: Sequence[str] = ("h_mae",)) -> Panel:
    named = [{f"model {i} seed {s}": t for s, t in enumerate(m)} for i, m in enumerate(models)]
    return panel(named, metrics)


def compared(
    one: Array | Sequence[Array], other: Array | Sequence[Array], resamples: int = 1000,
    groups: Sequence[str] | None = None, seed: int = 0,
) -> Difference:  # fmt: skip
    """The difference in h_mae of errors (n,) or of seeds (S, n)."""
    tables = [[table(e, groups) for e in np.atleast_2d(m)] for m in (one, other)]
    return differences(gathered(*tables), resamples=resamples, seed=seed)[0][0, 1]


def aggregated(metric: str, errors: Array, sizes: Array) -> float:
    """The few lines that a metric is."""
    match metric:
        case "h_mae":
            return errors.mean()
        case "h_mae_elem":
            return (errors * sizes).sum() / sizes.sum()
        case "h_rmse":
            return np.sqrt((errors**2).mean())
    return errors.max()


ALL = ("h_mae", "h_mae_elem", "h_rmse", "h_max")


def test_equals_a_plain_loop_over_resamples(rng: np.random.Generator) -> None:
    """Nine molecules in five clusters, two models of one seed, every aggregate."""
    groups = [*"aabbbcdde"]
    sizes = rng.integers(4, 90, size=9).astype(float)
    errors = rng.gamma(2, size=(2, 9))
    found = gathered(*([table(e, groups, sizes)] for e in errors), metrics=ALL)
    singles = estimates(found, resamples=300, seed=5)
    pairs = differences(found, resamples=300, seed=5)
    members = [np.flatnonzero(np.array(groups) == g) for g in "abcde"]
    draws = np.random.default_rng(5).integers(5, size=(300, 5))
    rows = [np.concatenate([members[c] for c in drawn]) for drawn in draws]
    for k, name in enumerate(ALL):
        value = [aggregated(name, e, sizes) for e in errors]
        drawn = np.array([[aggregated(name, e[r], sizes[r]) for e in errors] for r in rows])
        difference = pairs[k][0, 1]
        assert difference.value == pytest.approx(value[0] - value[1], rel=1e-12)
        for model in range(2):
            assert singles[model][k].value == pytest.approx(value[model], rel=1e-12)
        if name == "h_max":
            assert singles[0][k].ci95 is None
            assert difference.ci95 is None
            continue
        for model in range(2):
            ends = np.percentile(drawn[:, model], [2.5, 97.5])
            assert singles[model][k].ci95 == pytest.approx(tuple(ends), rel=1e-12)
        ends = np.percentile(drawn[:, 0] - drawn[:, 1], [2.5, 97.5])
        assert difference.ci95 == pytest.approx(tuple(ends), rel=1e-11)


def test_p_is_that_of_all_swaps(rng: np.random.Generator) -> None:
    """Six clusters have 64 swaps; drawn ones give the share of those that are as far apart."""
    groups = [*"aabbbcddef"]
    sizes = rng.integers(4, 90, size=10).astype(float)
    errors = rng.gamma(2, size=(2, 10))
    errors[1] *= 1.6
    pairs = differences(
        gathered(*([table(e, groups, sizes)] for e in errors), metrics=ALL), resamples=20_000
    )
    for k, name in enumerate(ALL):
        gaps = []
        for chosen in product([False, True], repeat=6):
            swap = np.array([chosen["abcdef".index(g)] for g in groups])
            one, other = np.where(swap, errors[::-1], errors)
            gaps.append(abs(aggregated(name, one, sizes) - aggregated(name, other, sizes)))
        exact = np.mean(np.array(gaps) >= gaps[0] * (1 - 1e-9))
        assert pairs[k][0, 1].p == pytest.approx(exact, abs=0.02)
        assert exact > 0.02
        assert exact < 1 or name == "h_max"


@pytest.mark.parametrize("seeds", [1, 3])
def test_identical_models_tie(rng: np.random.Generator, seeds: int) -> None:
    errors = rng.gamma(2, size=(seeds, 30))
    tables = [table(e) for e in errors]
    for found in differences(gathered(tables, tables, metrics=ALL), resamples=500):
        assert found[0, 1].value == 0
        assert (found[0, 1].p, found[0, 1].p_holm) == (1, 1)
        assert not found[0, 1].significant


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_clearly_better_model_wins(rng: np.random.Generator, seeds: int) -> None:
    hard = rng.gamma(3, size=60)
    luck = np.exp(0.05 * rng.normal(size=(2, seeds, 1)))
    good, bad = luck * rng.gamma(16, 1 / 16, size=(2, seeds, 60)) * hard
    found = gathered(*([table(e) for e in m] for m in (1.6 * bad, good)), metrics=ALL)
    pairs = differences(found)
    for k in range(3):
        assert pairs[k][0, 1].value > 0
        assert pairs[k][0, 1].ci95[0] > 0
        assert pairs[k][0, 1].significant
        standing = standings([1, 0], pairs[k], METRICS[ALL[k]])
        assert standing == {1: (1, "a"), 0: (2, "b")}


def test_which_model_is_first_does_not_matter(rng: np.random.Generator) -> None:
    one, other = rng.gamma(2, size=(2, 40))
    there, back = compared(one, other), compared(other, one)
    assert there.p == back.p
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))


def test_p_is_uniform_where_there_is_no_difference(rng: np.random.Generator) -> None:
    """300 pairs of equal models: shares below 5, 20 and 50 % are those, within 3.5 sigma."""
    p = []
    for _ in range(300):
        hard = rng.gamma(2, size=25)
        one, other = hard * rng.gamma(4, 1 / 4, size=(2, 25))
        p.append(compared(one, other, resamples=200).p)
    for level in (0.05, 0.2, 0.5):
        share = np.mean(np.array(p) <= level)
        assert abs(share - level) < 3.5 * np.sqrt(level * (1 - level) / 300)


@pytest.mark.parametrize(
    ("seeds", "molecules", "scatter"), [(1, 60, 0.0), (2, 60, 0.1), (3, 200, 0.1), (5, 200, 0.1)]
)
def test_intervals_hold_the_truth(
    rng: np.random.Generator, seeds: int, molecules: int, scatter: float
) -> None:
    """A true difference of 0.3, whether molecules or seeds scatter more; and p finds its absence.

    With few seeds an interval is too wide rather than too narrow.
    """
    held, false = 0, 0
    for _ in range(100):
        hard = rng.gamma(3, 1 / 3, size=molecules)
        luck = np.exp(scatter * rng.normal(size=(2, seeds, 1)) - scatter**2 / 2)
        noise = rng.gamma(16, 1 / 16, size=(2, seeds, molecules))
        one, other = luck * noise * hard
        low, high = compared(1.3 * one, other, resamples=300).ci95
        held += low <= 0.3 <= high
        false += compared(one, other, resamples=300).p < 0.05
    assert held >= 0.88 * 100
    assert false <= 0.11 * 100
    if seeds == 1:
        assert held < 100
        assert false > 0


def test_conformers_are_swapped_and_drawn_as_one(rng: np.random.Generator) -> None:
    """Twelve conformers that err alike tell no more than one of them."""
    one, other = rng.gamma(2, size=(2, 12)) + np.array([[0.5], [0.0]])
    groups = np.repeat([f"c{i:02d}" for i in range(12)], 12).tolist()
    alone = compared(one, other)
    many = compared(one.repeat(12), other.repeat(12), groups=groups)
    naive = compared(one.repeat(12), other.repeat(12))
    assert many.value == pytest.approx(alone.value)
    assert many.ci95 == pytest.approx(alone.ci95)
    assert many.p == pytest.approx(alone.p)
    assert naive.p < 0.5 * many.p
    assert np.ptp(naive.ci95) < 0.5 * np.ptp(many.ci95)


def test_seeds_matter(rng: np.random.Generator) -> None:
    """Two seeds of one model differ on many molecules; its training does not differ from itself."""
    hard = rng.gamma(3, 1 / 3, size=500)
    seeds = np.array([[1.0], [1.2], [0.9], [1.15], [1.05], [0.95]]) * hard
    assert compared(seeds[0], seeds[1]).p < 0.01
    found = compared(seeds[:3], seeds[3:])
    assert found.p > 0.3
    assert found.ci95[0] < 0 < found.ci95[1]
    single = estimates(gathered([table(e) for e in seeds[:3]]))[0][0]
    assert single.seeds == pytest.approx(tuple(seeds[:3].mean(1)))
    assert single.spread == pytest.approx(seeds[:3].mean(1).std(ddof=1))
    assert np.ptp(single.ci95) > 2 * 3 * single.spread / np.sqrt(3)


def test_errors_are_not_negative(rng: np.random.Generator) -> None:
    """Two seeds that are far apart."""
    errors = np.array([[1.0], [4.0]]) * rng.gamma(9, 1 / 9, size=50)
    low, high = estimates(gathered([table(e) for e in errors]))[0][0].ci95
    assert low == 0
    assert high > 6


def test_shares_are_not_beyond_the_whole(rng: np.random.Generator) -> None:
    """Two seeds that are far apart, of which the t-distribution knows no bound."""
    tables = []
    for loss in (1e-4, 4e-2):
        likeness = 1 - loss * rng.gamma(9, 1 / 9, size=50)
        terms = np.stack([likeness, np.ones(50)], axis=1)[:, None]
        tables.append(table(likeness, settings={"psi": {}}, terms=terms))
    low, high = estimates(gathered(tables, metrics=["psi"]))[0][0].ci95
    assert high == 1
    assert low < 0.9


def test_molecules_without_an_entry_are_left_out_and_counted(rng: np.random.Generator) -> None:
    one, other = rng.gamma(2, size=(2, 2, 20))
    holes = one.copy(), other.copy()
    holes[0][0, 3] = holes[0][1, 4] = holes[1][1, 4] = holes[1][0, 7] = holes[1][0, 8] = np.nan
    both = [i for i in range(20) if i not in (3, 4, 7, 8)]
    found = gathered(*([table(e) for e in m] for m in holes))
    difference = differences(found, resamples=400)[0][0, 1]
    assert (difference.n, difference.left_out) == (16, (2, 1))
    assert difference.value == pytest.approx(one[:, both].mean() - other[:, both].mean())
    single = estimates(found)[0][0]
    assert single.n == 18
    assert single.value == pytest.approx(np.delete(one, [3, 4], axis=1).mean())
    assert [failed.any(0).sum() for failed in found.failed] == [2, 3]
    nothing = gathered([table(np.array([1, np.nan]))], [table(np.array([np.nan, 1]))])
    assert differences(nothing) == [{}]
    assert estimates(gathered([table(np.full(2, np.nan))])) == [[None]]


def test_order_of_molecules_does_not_matter_and_some_may_be_missing(
    rng: np.random.Generator,
) -> None:
    one, other = rng.gamma(2, size=(2, 20))
    first, second = table(one), table(other)
    turned = rng.permutation(20)[:15]
    part = table(
        other[turned], ids=tuple(np.array(second.ids)[turned]),
        groups=tuple(np.array(second.ids)[turned]),
    )  # fmt: skip
    found = differences(gathered([first], [part]))[0][0, 1]
    assert (found.n, found.left_out) == (15, (5, 0))
    assert found.value == pytest.approx(one[turned].mean() - other[turned].mean())


def test_one_cluster_has_neither_interval_nor_test() -> None:
    found = compared(np.array([1.0, 2.0]), np.array([3.0, 4.0]), groups=["a", "a"])
    assert found[:4] == (-2.0, None, None, None)


def test_pairing_makes_intervals_sharper(rng: np.random.Generator) -> None:
    hard = rng.gamma(1, size=80)
    one, other = hard * rng.gamma(16, 1 / 16, size=(2, 80))
    apart = compared(one, rng.permutation(other))
    assert np.ptp(compared(one, other).ci95) < 0.6 * np.ptp(apart.ci95)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "md17"}, "cannot be compared: task md17 against water_mini"),
        ({"task_version": 2}, "version of the task 2 against 1"),
        ({"split": "validation"}, "split validation against test"),
        ({"fingerprint": "cd"}, "data with fingerprint cd against ab12"),
        ({"groups": ("a", "a")}, "molecule 'm0000' is in cluster 'a' in model 1 seed 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, object], message: str) -> None:
    errors = np.array([1.0, 2.0])
    with pytest.raises(VerificationError, match=message):
        gathered([table(errors)], [table(errors, **change)])


def test_metrics_that_cannot_be_compared_are_refused() -> None:
    first, other = table(np.array([1.0, 2.0])), table(np.array([1.0, 2.0]))
    other.settings["h_max"] = {"cutoff": 5.0}
    with pytest.raises(VerificationError, match=r"compared: cutoff 5\.0 against null; compute"):
        gathered([first], [other], metrics=["h_max"])
    assert len(gathered([first], [other]).terms) == 2
    with pytest.raises(ConfigError, match=r"has no 'h_mae_diag' .*evaluate RUN_DIR"):
        gathered([first], [other], metrics=["h_mae_diag"])
    with pytest.raises(ConfigError, match="'energy_mae' is not of what model 0 seed 0 predicts"):
        gathered([first], [other], metrics=["energy_mae"])
    with pytest.raises(RegistryError, match="Did you mean 'h_mae_elem'"):
        gathered([first], [other], metrics=["h_mae_elm"])
    other.terms[1, 0] = np.nan
    with pytest.raises(DataError, match="molecule 'm0001' in model 1 seed 0 is not finite"):
        gathered([first], [other])


def test_holm_by_hand() -> None:
    found = holm([0.01, 0.04, 0.03, np.nan, 0.005])
    assert found == pytest.approx([0.03, 0.06, 0.06, np.nan, 0.02], nan_ok=True)
    assert holm([0.6, 0.7]) == pytest.approx([1, 1])
    assert holm([]).shape == (0,)


def test_pairs_are_corrected_for_their_number(rng: np.random.Generator) -> None:
    models = [[table(rng.gamma(2, size=30) + 0.2 * k)] for k in range(4)]
    found = differences(gathered(*models), resamples=500)[0]
    assert len(found) == 6
    assert [d.p_holm for d in found.values()] == pytest.approx(holm([d.p for d in found.values()]))


def test_letters_by_hand() -> None:
    """The first and the last differ, the one between meets both; the fourth differs from all."""
    assert tie_letters(4, {(0, 2), (0, 3), (1, 3), (2, 3)}) == ["a", "ab", "b", "c"]
    assert tie_letters(3, set()) == ["a", "a", "a"]
    assert tie_letters(1, set()) == ["a"]


def test_letters_say_what_differs(rng: np.random.Generator) -> None:
    """Two share a letter exactly where they do not differ, whatever differs."""
    for _ in range(50):
        count = int(rng.integers(2, 8))
        pairs = [(i, j) for i in range(count) for j in range(i + 1, count)]
        different = {pair for pair in pairs if rng.random() < 0.5}
        letters = tie_letters(count, different)
        for i, j in pairs:
            assert bool(set(letters[i]) & set(letters[j])) == ((i, j) not in different)


def test_ranks_count_the_better_ones() -> None:
    def difference(value: float, p: float) -> Difference:
        return Difference(value, None, p, p, 10, (0, 0))

    found = {
        (0, 1): difference(1, 0.001),
        (0, 2): difference(0.5, 0.2),
        (1, 2): difference(-1, 0.3),
    }
    lower = standings([1, 2, 0], found, METRICS["h_mae"])
    assert lower == {1: (1, "a"), 2: (1, "ab"), 0: (2, "b")}
    assert standings([2, 0], found, METRICS["h_mae"]) == {2: (1, "a"), 0: (1, "a")}
