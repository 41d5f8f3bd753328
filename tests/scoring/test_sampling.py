"""Which molecules dear metrics are computed on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from hambench.scoring.sampling import drawn

IDS = [f"molecule-{k}" for k in range(200)]


def test_the_draw_is_numpy_s_over_sorted_names() -> None:
    expected = np.sort(np.array(IDS))[np.random.default_rng(43).permutation(200)[:50]]
    assert drawn(IDS, 50, 43) == set(expected)
    assert len(drawn(IDS, 50, 43)) == 50


def test_it_depends_on_the_seed_and_not_on_the_order() -> None:
    assert drawn(reversed(IDS), 50, 43) == drawn(IDS, 50, 43) != drawn(IDS, 50, 44)


@pytest.mark.parametrize("n", [None, 200, 1000])
def test_all_where_there_are_no_more(n: int | None) -> None:
    assert drawn(IDS, n, 43) == set(IDS)


def test_samples_are_nested() -> None:
    sizes = [drawn(IDS, n, 43) for n in (1, 10, 50, 199)]
    assert all(few < many for few, many in pairwise(sizes))


def test_every_molecule_is_as_likely() -> None:
    counts = dict.fromkeys(IDS, 0)
    for seed in range(400):
        for name in drawn(IDS, 50, seed):
            counts[name] += 1
    found = np.array(list(counts.values()))  # binomial: 100 +- 8.7
    assert 60 < found.min() < found.max() < 140
