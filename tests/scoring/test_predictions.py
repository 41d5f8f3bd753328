"""predictions.h5: what goes in comes out, scores are recomputed exactly, damage is named."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.errors import DataError, VerificationError
from hambench.scoring import score
from hambench.scoring.predictions import Predictions, write_predictions

DATA = {"task": "water_mini", "task_version": 1, "fingerprint": "ab" * 32}


@pytest.fixture
def path(tmp_path: Path, molecules: list[Molecule], noisy: list[np.ndarray]) -> Path:
    """A file with a failed prediction in the middle."""
    with write_predictions(tmp_path / "predictions.h5", **DATA) as out:
        out.add("water", noisy[0])
        out.add("ammonia", np.full_like(noisy[1], np.inf))
        out.add("hydrogen chloride", noisy[2])
    return tmp_path / "predictions.h5"


def test_scores_from_the_file_are_the_scores(
    path: Path, molecules: list[Molecule], noisy: list[np.ndarray]
) -> None:
    kept = Predictions(path)
    assert kept.ids == tuple(m.id for m in molecules)
    assert kept.failed == ("ammonia",)
    assert (kept.task, kept.task_version, kept.fingerprint) == tuple(DATA.values())
    assert (next(kept.matrices(["hydrogen chloride"])) == noisy[2]).all()
    broken = [noisy[0], np.full_like(noisy[1], np.nan), noisy[2]]
    assert score(kept.matrices(), molecules) == score(broken, molecules)
    backwards = [m.id for m in molecules][::-1]
    assert score(kept.matrices(backwards), molecules[::-1])["h_mae"].n == 2
    assert [p.name for p in path.parent.iterdir()] == ["predictions.h5"]


def test_many_rows_cross_the_buffer(tmp_path: Path, rng: np.random.Generator) -> None:
    matrices = [a + a.T for a in rng.normal(size=(20, 150, 150))]
    with write_predictions(tmp_path / "p.h5", **DATA) as out:
        for i, matrix in enumerate(matrices):
            out.add(str(i), matrix)
    found = list(Predictions(tmp_path / "p.h5").matrices())
    assert len(found) == 20
    assert all((a == b).all() for a, b in zip(found, matrices, strict=True))


def test_float32_is_half_as_large(tmp_path: Path, noisy: list[np.ndarray]) -> None:
    with write_predictions(tmp_path / "p.h5", **DATA, dtype="float32") as out:
        out.add("water", noisy[0])
    found = next(Predictions(tmp_path / "p.h5").matrices())
    assert (found == noisy[0].astype(np.float32)).all()


def test_nothing_half_written(tmp_path: Path, noisy: list[np.ndarray]) -> None:
    def interrupted() -> None:
        with write_predictions(tmp_path / "p.h5", **DATA) as out:
            out.add("water", noisy[0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path, noisy: list[np.ndarray]) -> None:
    bent = noisy[0].copy()
    bent[0, 3] += 1e-6
    with write_predictions(tmp_path / "p.h5", **DATA) as out:
        out.add("water", noisy[0])
        with pytest.raises(DataError, match="'water' has no id or was predicted twice"):
            out.add("water", noisy[0])
        with pytest.raises(DataError, match="'bent': the prediction is not symmetric"):
            out.add("bent", bent)
        with pytest.raises(DataError, match=r"'flat'.*\(24,\) is not square"):
            out.add("flat", noisy[0][0])
    assert Predictions(tmp_path / "p.h5").ids == ("water",)


def test_complete_means_these_rows_and_no_others(path: Path) -> None:
    kept = Predictions(path)
    kept.check_complete(kept.ids, DATA["fingerprint"])
    with pytest.raises(VerificationError, match=r"lacks 1 of 4 molecules .*'neon'"):
        kept.check_complete([*kept.ids, "neon"], DATA["fingerprint"])
    with pytest.raises(VerificationError, match=r"has 1 molecules beyond .*'ammonia'"):
        kept.check_complete(["water", "hydrogen chloride"], DATA["fingerprint"])
    with pytest.raises(VerificationError, match="fingerprint abababababab, the data here have cd"):
        kept.check_complete(kept.ids, "cd" * 32)
    with pytest.raises(VerificationError, match="no prediction for molecule 'neon'"):
        next(kept.matrices(["neon"]))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("ids twice", lambda f: f["id"].__setitem__(2, "water"), "'water' 2 times"),
        ("a size", lambda f: f["nao"].__setitem__(0, 25), "do not add up"),
        ("a length", lambda f: f["values"].resize(70, axis=0), "do not add up"),
        (
            "a number",
            lambda f: f["values"].__setitem__(310, np.nan),
            "'hydrogen chloride' holds NaN",
        ),
        ("a column", lambda f: f.__delitem__("failed"), "cannot be read"),
        ("the version", lambda f: f.attrs.__setitem__("version", 2), "no predictions of version 1"),
        ("the format", lambda f: f.attrs.__delitem__("format"), "no predictions of version 1"),
    ],
)
def test_damage_is_named(path: Path, name: str, damage: object, message: str) -> None:
    with h5py.File(path, "a") as file:
        damage(file)
    with pytest.raises(DataError, match=message) as caught:
        Predictions(path)
    assert str(path) in str(caught.value)


def test_foreign_and_missing_files(path: Path, tmp_path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="cannot be read"):
        Predictions(path)
    path.write_text("no HDF5")
    with pytest.raises(DataError, match="cannot be read"):
        Predictions(path)
    with pytest.raises(DataError, match="save_predictions=true"):
        Predictions(tmp_path / "none.h5")
