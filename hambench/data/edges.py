"""Edges of every molecule of a data set, counted from positions alone and remembered."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from hambench.chem.molecule import Molecule
from hambench.data import sidecar
from hambench.data.neighbours import neighbours
from hambench.data.rows import Part, Rows
from hambench.errors import HambenchError

_SUFFIX: Final = ".hambench-edges.json"
_WORTH: Final = 5.0  # seconds of counting from which on the result is kept
_UNKNOWN: Final = -1

logger = logging.getLogger(__name__)


def count_edges(molecules: Sequence[Molecule], cutoff: float | None) -> NDArray[np.int64]:
    """(n,) directed edges of every molecule within ``cutoff`` Angstrom (None: all pairs).

    No matrix is read. What took long to count for the rows of a file is kept in a sidecar of it
    (`hambench.data.sidecar`), by cutoff and unit, and falls with a change of the file.
    """
    whole, indices = _file_rows(molecules)
    path: Path | None = getattr(whole, "path", None)
    key = _key(whole, cutoff)
    known = _load(path, key, len(whole))
    missing = [i for i in indices if known[i] == _UNKNOWN]
    start = time.monotonic()
    for i in tqdm(missing, desc="edges", unit="mol", delay=2, dynamic_ncols=True, leave=False):
        molecule = whole.geometry(i) if isinstance(whole, Rows) else whole[i]
        known[i] = neighbours(molecule.positions, cutoff).sum()
    if path is not None and time.monotonic() - start > _WORTH:
        _keep(path, key, known)
    return known[list(indices)]


def _file_rows(molecules: Sequence[Molecule]) -> tuple[Sequence[Molecule], Sequence[int]]:
    """The rows of the whole file, and which of them these are."""
    indices: Sequence[int] = range(len(molecules))
    while isinstance(molecules, Part):
        indices = [molecules.indices[i] for i in indices]
        molecules = molecules.whole
    return molecules, indices


def _key(whole: Sequence[Molecule], cutoff: float | None) -> str:
    unit = getattr(getattr(whole, "conventions", None), "unit", "")
    return f"{'all' if cutoff is None else repr(float(cutoff))} {unit}".strip()


def _load(path: Path | None, key: str, rows: int) -> NDArray[np.int64]:
    """(rows,) counts that are kept, -1 where none is."""
    kept: Any = None if path is None else (sidecar.find(path, _SUFFIX) or {}).get(key)
    if isinstance(kept, list) and len(kept) == rows and all(type(n) is int for n in kept):
        return np.array(kept, dtype=np.int64)
    return np.full(rows, _UNKNOWN, dtype=np.int64)


def _keep(path: Path, key: str, counts: NDArray[np.int64]) -> None:
    try:
        content = sidecar.find(path, _SUFFIX) or {}
        sidecar.write(path, _SUFFIX, {**content, key: counts.tolist()})
    except HambenchError as error:
        logger.warning("the numbers of edges are not kept: %s", error)
