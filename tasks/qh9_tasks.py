"""``qh9_stable`` and ``qh9_dynamic_*``: molecules of QM9 (PySCF, B3LYP/def2-SVP).

Splits as the public code of QH9 makes them (divelab/AIRS, OpenDFT/QHBench/QH9; arXiv 2306.09549):
``id`` and ``ood`` of the stable molecules, ``geo`` (other geometries of the same molecules) and
``mol`` (other molecules) of the dynamics, where every 100 rows on end are one molecule.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np

from hambench.data.conventions import Conventions
from hambench.data.published import PublishedTask
from hambench.data.rows import Rows
from hambench.data.spec import SplitSpec
from hambench.data.splits import RULES, Places, part
from hambench.errors import DataError
from hambench.tasks.qh9 import QH9Dynamic, QH9Stable

TRAJECTORY: Final = 100
"""Rows of one molecule, on end."""


def by_atoms(rows: Rows, split: SplitSpec) -> Places:
    """Molecules of at least ``start`` and less than ``stop`` atoms."""
    if not isinstance(rows, QH9Stable):
        raise DataError(f"rule 'by_atoms' is for a database of QH9Stable, not for {rows!r}")
    atoms = rows.atom_counts()
    most = np.inf if split.stop is None else split.stop
    return np.flatnonzero((split.start <= atoms) & (atoms < most))


def within_trajectories(rows: Rows, split: SplitSpec) -> Places:
    """Of every molecule a part of its geometries, permuted by the number of its last row."""
    places = [
        first + part(np.random.RandomState(first + TRAJECTORY - 1).permutation(TRAJECTORY), split)
        for first in range(0, len(rows) - TRAJECTORY + 1, TRAJECTORY)
    ]
    return np.concatenate(places) if places else np.empty(0, dtype=np.int64)


def whole_trajectories(rows: Rows, split: SplitSpec) -> Places:
    """A part of the molecules, shuffled by Python's generator, with all their geometries."""
    order = list(range(len(rows) // TRAJECTORY))
    random.Random(split.seed).shuffle(order)
    chosen = np.sort(part(np.array(order, dtype=np.int64), split))
    return (chosen[:, None] * TRAJECTORY + np.arange(TRAJECTORY)).ravel()


class StableMolecules(PublishedTask):
    """The task on QH9Stable."""

    rules = MappingProxyType({**RULES, "by_atoms": by_atoms})

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of a database of QH9Stable."""
        return QH9Stable(path, conventions=conventions)


class Dynamics(PublishedTask):
    """The tasks on QH9Dynamic."""

    rules = MappingProxyType(
        {
            **RULES,
            "within_trajectories": within_trajectories,
            "whole_trajectories": whole_trajectories,
        }
    )

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of a database of QH9Dynamic."""
        return QH9Dynamic(path, conventions=conventions)
