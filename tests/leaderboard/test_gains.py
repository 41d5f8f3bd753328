"""The statistics of learning curves: by hand, and how often intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.leaderboard.gains import (
    Arm,
    Bounded,
    gain,
    label_equivalence,
    labels_needed,
    resampled_errors,
)
from hambench.scoring.statistics import interval

SIZES = np.array([10.0, 20.0, 40.0])
HYPERBOLA = np.array([400.0, 200.0, 100.0])  # 4000 / n, straight in log-log


def arm(
    rng: np.random.Generator, hard: np.ndarray, scale: float, seeds: int = 3, scatter: float = 0.05
) -> Arm:
    """Errors of mean ``scale`` on molecules that are ``hard`` to all arms, for each seed."""
    luck = np.exp(scatter * rng.normal(size=(seeds, 1)) - scatter**2 / 2)
    noise = rng.gamma(16, 1 / 16, size=(seeds, len(hard)))
    return Arm(tuple(range(seeds)), scale * luck * noise * hard)


def study(rng: np.random.Generator, *scales: float, molecules: int = 40) -> list[Arm]:
    hard = rng.gamma(3, 1 / 3, size=molecules)
    return [arm(rng, hard, scale) for scale in scales]


def ones(arms: list[Arm]) -> np.ndarray:
    return np.ones(arms[0].sums.shape[1])


def test_labels_needed_by_hand() -> None:
    def needed(errors: list[float] | np.ndarray, *targets: float) -> list[float]:
        curves = np.tile(np.asarray(errors, dtype=float), (len(targets), 1))
        return labels_needed(SIZES, curves, np.array(targets)).tolist()

    assert needed(HYPERBOLA, 150, 300, 200, 100) == pytest.approx([80 / 3, 40 / 3, 20, 40])
    assert needed(HYPERBOLA, 99, 400, 500) == [np.inf, 0, 0]
    # it rises again: the first crossing counts, on the falling piece it is between
    assert needed([400, 100, 300], 200, 100, 99) == pytest.approx([10 * 2**0.5, 20, np.inf])
    assert needed([400, 500, 250], 300)[0] == pytest.approx(20 * 2 ** (np.log(5 / 3) / np.log(2)))


def test_label_equivalence_and_its_bounds() -> None:
    def factor(target: float, draws: list[list[float]], targets: list[float]) -> tuple:
        found = label_equivalence(
            [10, 20, 40], HYPERBOLA, np.array(draws), 10, target, np.array(targets)
        )
        return found.value, found.ci95

    same = [HYPERBOLA.tolist()] * 4
    value, ends = factor(150, same, [150] * 4)
    assert (value.value, value.sign) == (pytest.approx(8 / 3), "")
    assert [end.value for end in ends] == pytest.approx([8 / 3, 8 / 3])
    value, ends = factor(80, same, [80, 80, 300, 500])
    assert value == Bounded(4.0, ">")
    assert ends == (Bounded(1.0, "<="), Bounded(4.0, ">"))
    assert [str(end) for end in ends] == ["<= 1.00", "> 4.00"]
    assert factor(500, same, [500] * 4)[0] == Bounded(1.0, "<=")
    assert label_equivalence([10], HYPERBOLA[:1], None, 10, 100, None).ci95 is None


def test_resamples_are_those_of_a_plain_loop(rng: np.random.Generator) -> None:
    """Molecules of unequal numbers of rows, arms of three seeds and of one."""
    rows = rng.integers(1, 5, size=9).astype(float)
    arms = [Arm((3, 5, 8), rng.gamma(2, size=(3, 9))), Arm((4,), rng.gamma(2, size=(1, 9)))]
    found = resampled_errors(arms, rows, resamples=50, seed=7)
    molecules, seeds = np.random.default_rng(7), np.random.default_rng([7, 1, 3, 5, 8])
    chosen = seeds.integers(3, size=(50, 2))
    for draw in range(50):
        drawn = molecules.integers(9, size=9)
        means = [a.sums[:, drawn].sum(1) / rows[drawn].sum() for a in arms]
        expected = [means[0][chosen[draw]].mean(), means[1][0]]
        assert found[draw] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_seeds_scatter_as_their_mean_does(rng: np.random.Generator, seeds: int) -> None:
    """Where all molecules are alike, the variance is s^2 / S, for two seeds too."""
    errors = rng.gamma(9, size=(seeds, 1))
    only = Arm(tuple(range(seeds)), np.repeat(errors, 6, axis=1))
    draws = resampled_errors([only], np.ones(6))[:, 0]
    assert draws.std() == pytest.approx(errors.std(ddof=1) / np.sqrt(seeds), rel=0.03)


def test_intervals_hold_the_truth(rng: np.random.Generator) -> None:
    """A gain of 2, and 4 times the labels on a curve that falls with the root of the size.

    250 studies of 40 molecules and 3 seeds. 95 % are meant; the scatter of molecules between seeds
    counts up to three times, which makes it more of the ratios.
    """
    held = np.zeros(3)
    for _ in range(250):
        arms = study(rng, 400, 400 / 2**0.5, 200, 200 / 2**0.5, 200)
        draws = resampled_errors(arms, ones(arms), resamples=300)
        errors = [a.sums.mean() for a in arms]
        direct, other = draws[:, :4], draws[:, 4]
        low, high = interval(direct[:, 0])
        held[0] += low <= 400 <= high
        low, high = gain(errors[0], errors[4], direct[:, 0], other).ci95
        held[1] += low <= 2 <= high
        found = label_equivalence([10, 20, 40, 80], np.array(errors[:4]), direct, 10, 200, other)
        low, high = (end.value for end in found.ci95)
        held[2] += low <= 4 <= high
    assert (held / 250 >= 0.92).all(), held
    assert (held[1:] / 250 <= 0.996).all(), held


def test_equal_arms_are_no_different(rng: np.random.Generator) -> None:
    """In 19 of 20 studies at least; and a real difference is found."""
    verdicts = []
    for _ in range(200):
        arms = study(rng, 300, 300, 220)
        draws = resampled_errors(arms, ones(arms), resamples=300)
        errors = [a.sums.mean() for a in arms]
        verdicts.append(
            [gain(errors[0], errors[k], draws[:, 0], draws[:, k]).verdict for k in (1, 2)]
        )
        assert gain(errors[2], errors[0], draws[:, 2], draws[:, 0]).verdict != "better"
    null, real = (list(column) for column in zip(*verdicts, strict=True))
    assert null.count("no difference") >= 0.94 * 200
    assert real.count("better") >= 0.9 * 200


def test_pairing_makes_comparisons_sharper(rng: np.random.Generator) -> None:
    """The same errors, but of molecules that no longer belong together."""
    direct, other = study(rng, 200, 100, molecules=60)
    apart = Arm(other.seeds, other.sums[:, rng.permutation(60)])
    widths = []
    for arms in ([direct, other], [direct, apart]):
        draws = resampled_errors(arms, np.ones(60))
        widths.append(np.ptp(gain(2, 1, *draws.T).ci95))
    assert widths[0] < 0.8 * widths[1]


def test_one_molecule_gives_no_interval() -> None:
    assert gain(300.0, 150.0, None, None) == (2.0, None, None)
