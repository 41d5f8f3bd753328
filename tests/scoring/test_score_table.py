"""Files of scores: round trip, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

from hambench.errors import DataError
from hambench.scoring.score_table import ScoreTable, read_scores, write_scores


@pytest.fixture
def table(rng: np.random.Generator) -> ScoreTable:
    settings = {"h_mae": {}, "eps_occ": {"threshold": 1e-6}}
    return ScoreTable(
        "water_mini", 1, "ab12", "test", ("a", "b/1", "b/2"), ("a", "b", "b"), settings,
        rng.normal(size=(3, 2, 2)),
    )  # fmt: skip


def test_round_trip(table: ScoreTable, tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.h5", table)
    again = read_scores(tmp_path / "scores.h5")
    for field in dataclasses.fields(ScoreTable):
        one, other = getattr(table, field.name), getattr(again, field.name)
        assert np.array_equal(one, other) if field.name == "terms" else one == other
    assert np.array_equal(again.of("eps_occ"), table.terms[:, 1])


def test_what_is_no_table_is_refused(table: ScoreTable, tmp_path: Path) -> None:
    path = tmp_path / "scores.h5"
    with pytest.raises(DataError, match="there is no"):
        read_scores(path)
    path.write_bytes(b"not HDF5")
    with pytest.raises(DataError, match=r"cannot be read .*truncated or corrupt"):
        read_scores(path)
    write_scores(path, dataclasses.replace(table, ids=("a", "a", "b")))
    with pytest.raises(DataError, match="come twice"):
        read_scores(path)
    write_scores(path, table)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 2
    with pytest.raises(DataError, match="no scores of version 1"):
        read_scores(path)
