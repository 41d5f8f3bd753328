"""``h_rotation_mae``: its formula, what it needs, and what a file keeps of it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation, scoring_rotation, turned_matrix
from hambench.errors import DataError, RunError
from hambench.scoring import Scorer, score
from hambench.scoring.predictions import Predictions, write_predictions

BASIS = OrbitalBasis.load("def2-svp")
NAME = "h_rotation_mae"
DATA = {"task": "water_mini", "task_version": 1, "fingerprint": "ab" * 32}


@pytest.fixture
def turned(molecules: list[Molecule], noisy: list[np.ndarray], rng) -> list[np.ndarray]:
    """What a model that is off by some 1e-3 Eh would predict for the turned molecules."""
    noise = (rng.laplace(scale=1e-3, size=h.shape) for h in noisy)
    found = [
        turned_matrix(h, m.numbers, BASIS, scoring_rotation(m)) + e
        for m, h, e in zip(molecules, noisy, noise, strict=True)
    ]
    return [(h + h.T) / 2 for h in found]


def test_it_is_its_formula(molecules, noisy, turned) -> None:
    expected = []
    for m, h, t in zip(molecules, noisy, turned, strict=True):
        d = ao_rotation(m.numbers, BASIS, scoring_rotation(m))
        expected.append(np.abs(t - d @ h @ d.T).mean())
    found = score(noisy, molecules, ["h_mae", NAME], turned=turned)
    assert found[NAME].value == pytest.approx(np.mean(expected), rel=1e-12)
    assert (found[NAME].unit, found[NAME].n) == ("Eh", 3)
    assert found["h_mae"] == score(noisy, molecules, ["h_mae"])["h_mae"]


def test_an_equivariant_prediction_has_none(molecules, noisy) -> None:
    exact = [
        turned_matrix(h, m.numbers, BASIS, scoring_rotation(m))
        for m, h in zip(molecules, noisy, strict=True)
    ]
    assert score(noisy, molecules, [NAME], turned=exact)[NAME].value < 1e-14


def test_without_turned_predictions(molecules, noisy) -> None:
    assert NAME not in score(noisy, molecules)
    with pytest.raises(
        DataError, match=f"{NAME} needs what is predicted for molecule 'water' turn"
    ):
        score(noisy, molecules, [NAME])
    with pytest.raises(DataError, match="only 2 turned were given"):
        score(noisy, molecules, [NAME], turned=noisy[:2])
    with pytest.raises(DataError, match=r"'ammonia': the predicted Hamiltonian has shape"):
        score(noisy, molecules, [NAME], turned=[noisy[0], noisy[0], noisy[2]])


def test_a_turned_prediction_that_is_not_finite_is_a_failure(molecules, noisy, turned) -> None:
    turned[1] = np.full_like(turned[1], np.inf)
    found = score(noisy, molecules, ["h_mae", NAME], turned=turned)
    assert found["failure_rate"].value == pytest.approx(1 / 3)
    assert found["h_mae"].n == found[NAME].n == 2
    scorer = Scorer([NAME])
    scorer.add(noisy[1], molecules[1], turned=turned[1])
    with pytest.raises(RunError, match="all 1 predictions"):
        scorer.scores()


def test_files_keep_both(tmp_path: Path, molecules, noisy, turned) -> None:
    path = tmp_path / "predictions.h5"
    failed = [turned[0], np.full_like(turned[1], np.nan), turned[2]]
    with write_predictions(path, **DATA) as out:
        for m, h, t in zip(molecules, noisy, failed, strict=True):
            out.add(m.id, h, t)
    kept = Predictions(path)
    assert kept.has_turned
    assert kept.failed == ("ammonia",)
    names = ["h_mae", NAME]
    again = score(kept.matrices(), molecules, names, turned=kept.turned())
    assert again == score(noisy, molecules, names, turned=failed)
    with h5py.File(path, "a") as file:
        file["turned"][5] = np.nan
    with pytest.raises(DataError, match="'water' holds NaN"):
        Predictions(path)


def test_files_without_turned_predictions(tmp_path: Path, molecules, noisy) -> None:
    with write_predictions(tmp_path / "p.h5", **DATA) as out:
        out.add("water", noisy[0])
    assert not Predictions(tmp_path / "p.h5").has_turned
