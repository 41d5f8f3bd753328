"""The import self-test of a data file: are its unit, orbital order, charges and theory as stated?

On a sample of rows, spread evenly: size and symmetry of the matrices, diagonal of the overlap,
the overlap against PySCF's, the 1s level of the heaviest element, the number of electrons and
the gap; on the smallest few, Fock matrix, energy and forces computed by PySCF from the density of
the stored Fock matrix.
Where a file has no overlap, PySCF's takes its place in the eigenvalue problem.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Final

import numpy as np
from tqdm import tqdm

import hambench
from hambench.chem import dft
from hambench.chem.theory import Theory
from hambench.data.checks import TESTS, Row, Skip
from hambench.data.content import content_hash
from hambench.data.manifest import Check, Manifest
from hambench.data.rows import Rows
from hambench.errors import ConfigError, VerificationError

SAMPLE: Final = 20
"""Rows checked unless more are asked for."""

FOCK_ROWS: Final = 3
"""Rows, the smallest of the sample, whose Fock matrix is rebuilt."""

_ALL: Final = [name for name, test in TESTS.items() if not test.few]
_FEW: Final = [name for name, test in TESTS.items() if test.few]
_LABELS: Final = ("hamiltonian", "overlap", "energy", "forces")
_FINEST: Final = 3  # grid level; it is 1e-6 Eh off on average, the limit of the check is 1e-3


@dataclass
class _Record:
    """What one check found so far."""

    worst: float | None = None
    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, residual: float, lower: bool) -> None:
        """Take one row's residual into account."""
        self.rows += 1
        worse = min if lower else max
        self.worst = residual if self.worst is None else worse(self.worst, residual)


def verify(
    rows: Rows,
    *,
    theory: Theory | None = None,
    count: int = SAMPLE,
    fock_rows: int = FOCK_ROWS,
    progress: bool = True,
) -> Manifest:
    """Check a sample of rows against what is physically and by their format to be expected.

    Args:
        rows: any data. A reader with ``conventions`` and ``with_conventions`` is opened anew under
            others to find out what is wrong.
        theory: level of theory of the Hamiltonians; None leaves out rebuilding Fock matrices.
        count: rows to check, spread evenly; all, if there are fewer.
        fock_rows: of those, the smallest, whose Fock matrices are rebuilt (grid level 3 at most).
        progress: show a bar with rate and remaining time.

    Returns:
        What was found; `hambench.data.manifest.write` keeps it.

    Raises:
        VerificationError: a check failed; the message names row, check, residual and reason.
        DataError: a row cannot be read.
        ConfigError: ``count`` or ``fock_rows`` make no sense, or PySCF is missing.
    """
    if count < 1 or fock_rows < 0:
        raise ConfigError(f"{count} rows, {fock_rows} of them rebuilt, check nothing; ask for more")
    if not len(rows):
        raise VerificationError(f"{rows!r} has no rows; there is nothing to check")
    versions = dft.versions()
    places = sample(len(rows), count)
    level = None if theory is None else _rebuilt_at(theory)
    records = {name: _Record() for name in TESTS}
    digest, names, sizes = hashlib.sha256(), [], []
    bar = tqdm(
        desc="verify", unit="check", total=len(places) + min(fock_rows, len(places)),
        disable=not progress, dynamic_ncols=True,
    )  # fmt: skip
    with bar:
        for place in places:
            row = Row(rows, place, level)
            _check(row, _ALL, records)
            names.append(row.molecule.id)
            sizes.append((row.nao, place))
            digest.update(row.molecule.id.encode() + content_hash(row.molecule, _LABELS))
            bar.update()
        for _, place in sorted(sizes)[:fock_rows]:
            _check(Row(rows, place, level), _FEW, records)
            bar.update()
    conventions = getattr(rows, "conventions", None)
    return Manifest(
        rows=len(rows),
        sample=tuple(names),
        sha256=digest.hexdigest(),
        unit=conventions and conventions.unit,
        order=conventions and conventions.order,
        checks={name: _summary(name, record) for name, record in records.items()},
        theory=level.to_dict() if level and records["fock"].rows else None,
        versions={
            "hambench": hambench.__version__,
            **{name: metadata.version(name) for name in ("numpy", "h5py")},
            **versions,
        },
    )


def sample(total: int, count: int) -> list[int]:
    """``count`` places of ``total`` (all, if fewer), spread evenly, the first and last included."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _rebuilt_at(theory: Theory) -> Theory:
    """The theory on grids that are fine enough to tell right from wrong."""
    return replace(theory, grid_level=min(theory.grid_level, _FINEST), nlc_grid_level=0)


def _check(row: Row, names: Iterable[str], records: dict[str, _Record]) -> None:
    """Make some checks of one row and note what they found."""
    for name in names:
        test, record = TESTS[name], records[name]
        try:
            residual = test.measure(row)
        except Skip as reason:
            record.skipped[str(reason)] += 1
            continue
        if test.fails(residual):
            unit = f" {test.unit}" if test.unit else ""
            raise VerificationError(
                f"row '{row.molecule.id}' failed check '{name}': {test.title} is {residual:.3g}"
                f"{unit} ({'at least' if test.lower else 'allowed'} {test.allowed:g}); "
                f"{test.reason(row)}"
            )
        record.add(residual, test.lower)


def _summary(name: str, record: _Record) -> Check:
    test = TESTS[name]
    return Check(
        title=test.title,
        residual=record.worst,
        allowed=test.allowed,
        unit=test.unit,
        rows=record.rows,
        skipped=dict(record.skipped),
    )
