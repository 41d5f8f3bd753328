"""``scores.h5``: what every molecule adds to every metric, so that no metric is computed twice.

Intervals, paired comparisons and tests of significance need no more than this. Layout (version 1):
attributes ``format``, ``version``, ``task``, ``task_version``, ``fingerprint``, ``split``;
datasets ``id``, ``group`` and ``metric`` (text), ``settings`` (text, one JSON object per metric:
what its numbers depend on beside prediction and label, such as a cutoff or an overlap threshold)
and ``terms`` (molecules, metrics, 2): numerators and denominators, see `hambench.scoring.metrics`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.errors import DataError
from hambench.hdf5 import atomic_hdf5, short

SCORES: Final = "scores.h5"
FORMAT: Final = "hambench-scores"
VERSION: Final = 1
"""Raised with the layout, and whenever the numbers of a metric can change."""


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Terms of every molecule.

    Attributes:
        task, task_version, fingerprint, split: what was scored.
        ids, groups: of each molecule; groups are what a bootstrap resamples as one.
        settings: metric -> what its numbers depend on, in the order of the columns.
        terms: (molecules, metrics, 2) numerators and denominators.
    """

    task: str
    task_version: int
    fingerprint: str
    split: str
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]
    terms: NDArray[np.float64]

    def of(self, metric: str) -> NDArray[np.float64]:
        """(molecules, 2) terms of one metric; KeyError where the table has it not."""
        return self.terms[:, list(self.settings).index(metric)]


def merged(table: ScoreTable, new: ScoreTable) -> ScoreTable:
    """A table with the metrics of another of the same molecules added, or put in their place."""
    assert table.ids == new.ids
    rest = [name for name in table.settings if name not in new.settings]
    columns = [*(table.of(name) for name in rest), *(new.of(name) for name in new.settings)]
    settings = {name: table.settings[name] for name in rest} | dict(new.settings)
    return replace(table, settings=settings, terms=np.stack(columns, axis=1))


def write_scores(path: str | os.PathLike[str], table: ScoreTable) -> None:
    """Write a table, whole or not at all.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    text = h5py.string_dtype()
    with atomic_hdf5(path) as (file, _):
        file.attrs["format"] = FORMAT
        file.attrs["version"] = VERSION
        for name in ("task", "task_version", "fingerprint", "split"):
            file.attrs[name] = getattr(table, name)
        file["id"] = np.array(table.ids, dtype=text)
        file["group"] = np.array(table.groups, dtype=text)
        file["metric"] = np.array(list(table.settings), dtype=text)
        said = [json.dumps(one, sort_keys=True) for one in table.settings.values()]
        file["settings"] = np.array(said, dtype=text)
        file.create_dataset("terms", data=table.terms, compression="gzip", fletcher32=True)


def read_scores(path: str | os.PathLike[str]) -> ScoreTable:
    """Read a table.

    Raises:
        DataError: missing, foreign or corrupt file, or another version; how to mend it is for the
            caller to say.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"there is no {path}; every run of this version of hambench writes one")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if file.attrs.get("format") != FORMAT or file.attrs.get("version") != VERSION:
                raise DataError(f"{path} holds no scores of version {VERSION}")
            ids, groups, metrics, said = (
                tuple(file[key].asstr()[:].tolist())
                for key in ("id", "group", "metric", "settings")
            )
            table = ScoreTable(
                task=str(file.attrs["task"]),
                task_version=int(file.attrs["task_version"]),
                fingerprint=str(file.attrs["fingerprint"]),
                split=str(file.attrs["split"]),
                ids=ids,
                groups=groups,
                settings=dict(zip(metrics, map(json.loads, said), strict=True)),
                terms=file["terms"][:],
            )
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({short(error)}): it is truncated or corrupt"
        ) from error
    shape = len(table.ids), len(table.settings), 2
    if table.terms.shape != shape or len(set(table.ids)) < len(table.ids):
        raise DataError(
            f"{path}: terms of shape {table.terms.shape} for {shape[0]} molecules and {shape[1]} "
            "metrics, or molecules that come twice"
        )
    return table
