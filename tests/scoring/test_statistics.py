"""The bootstrap: equal to a plain loop, seeded, of the right width, clustered."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.scoring import score, statistics
from hambench.scoring.statistics import ratio_intervals


def plain(numerator: np.ndarray, denominator: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """One resample after another."""
    rng, n = np.random.default_rng(seed), len(numerator)
    ratios = []
    for _ in range(resamples):
        drawn = rng.integers(n, size=n)
        ratios.append(numerator[drawn].sum() / denominator[drawn].sum())
    return np.percentile(ratios, [2.5, 97.5])


@pytest.mark.parametrize("buffer", [1 << 20, 100, 1])
def test_equals_a_plain_loop(
    buffer: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the size of the pieces it works in."""
    monkeypatch.setattr(statistics, "_BUFFER", buffer)
    numerators, denominators = rng.gamma(2, size=(37, 2)), rng.uniform(1, 9, size=(37, 2))
    found = ratio_intervals(numerators, denominators, resamples=500, seed=7)
    for k in range(2):
        expected = plain(numerators[:, k], denominators[:, k], 500, 7)
        assert np.abs(found[k] - expected).max() < 1e-13


def test_the_seed_decides(rng: np.random.Generator) -> None:
    x, ones = rng.normal(size=(20, 1)), np.ones((20, 1))
    same = [ratio_intervals(x, ones, resamples=300, seed=s) for s in (1, 1, 2)]
    assert (same[0] == same[1]).all()
    assert (same[0] != same[2]).any()


def test_interval_covers_the_truth(rng: np.random.Generator) -> None:
    """95 % of the intervals of 400 skewed samples of 80 hold the true ratio of means."""
    covered = 0
    for _ in range(400):
        size = rng.integers(5, 40, size=(80, 1)).astype(float)
        error = rng.gamma(2, 0.5, size=(80, 1))  # mean 1, independent of the size
        low, high = ratio_intervals(error * size, size, resamples=400)[0]
        covered += low <= 1 <= high
    assert 0.91 <= covered / 400 <= 0.98


def test_width_is_that_of_the_normal_law(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2000, 1))
    low, high = ratio_intervals(x, np.ones_like(x))[0]
    assert (high - low) / 2 == pytest.approx(1.96 * x.std() / np.sqrt(2000), rel=0.03)
    assert low < x.mean() < high


def test_clusters_are_drawn_as_one(rng: np.random.Generator) -> None:
    """Ten equal conformers of each molecule tell no more than one of them."""
    x = rng.normal(size=(30, 1))
    ones = np.ones_like(x)
    groups = np.repeat([f"m{i}" for i in range(30)], 10)
    repeated = ratio_intervals(x.repeat(10, 0), ones.repeat(10, 0), groups=groups)[0]
    alone = ratio_intervals(x, ones, groups=[f"m{i}" for i in range(30)])[0]
    assert np.abs(repeated - alone).max() < 1e-12
    naive = ratio_intervals(x.repeat(10, 0), ones.repeat(10, 0))[0]
    assert np.ptp(naive) < 0.5 * np.ptp(repeated)


def test_scores_carry_the_interval(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    found = score(noisy, molecules)
    errors = np.array(
        [np.abs(p - m.hamiltonian).sum() for p, m in zip(noisy, molecules, strict=True)]
    )
    sizes = np.array([float(m.hamiltonian.size) for m in molecules])
    for name, expected in {
        "h_mae": plain(errors / sizes, np.ones(3), 10_000, 0),
        "h_mae_elem": plain(errors, sizes, 10_000, 0),
    }.items():
        assert found[name].ci95 == pytest.approx(tuple(expected), rel=1e-12)
    squares = np.array(
        [((p - m.hamiltonian) ** 2).mean() for p, m in zip(noisy, molecules, strict=True)]
    )
    rms = np.sqrt(plain(squares, np.ones(3), 10_000, 0))
    assert found["h_rmse"].ci95 == pytest.approx(tuple(rms), rel=1e-12)
    assert found["h_max"].ci95 is None
    assert score(noisy[:1], molecules[:1])["h_mae"].ci95 is None
    one_group = score(noisy, molecules, groups=["a", "a", "a"])
    assert one_group["h_mae"].ci95 is None
    assert one_group["h_mae"].value == found["h_mae"].value
