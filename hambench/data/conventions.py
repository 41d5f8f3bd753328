"""How a data file states its numbers: the unit of its positions and the order of its orbitals.

Public files do not say it of themselves. A reader is opened with the `Conventions` its format is
known to have, or with what `hambench data verify` found in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hambench.chem import dft
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import to_canonical
from hambench.errors import DataError
from hambench.units import BOHR

Unit = Literal["angstrom", "bohr"]

LENGTHS: Final[dict[Unit, float]] = {"angstrom": 1.0, "bohr": BOHR}
"""Angstrom per unit of length."""


@dataclass(frozen=True)
class Conventions:
    """Unit and order of a file.

    Attributes:
        unit: of the positions.
        order: of the orbitals, a key of `hambench.chem.ordering.ORDERS`.
    """

    unit: Unit
    order: str

    @property
    def length(self) -> float:
        """Angstrom per unit of the file's positions."""
        return LENGTHS[self.unit]


ORDERS: Final = ("canonical", "pyscf", "psi4")
"""Orders that `decide` tells apart by default: those that files of def2-SVP were found in."""

MAX_OVERLAP_ERROR: Final = 1e-4
"""Largest ``|dS|`` against PySCF. float32 leaves 3e-8, a wrong order makes 0.8."""


@dataclass(frozen=True, eq=False)
class RawOverlap:
    """An overlap as it stands in a file.

    Attributes:
        numbers: (N,) atomic numbers.
        positions: (N, 3) in the unit of the file.
        overlap: (nao, nao) in the order of the file.
        id: name of the row.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    overlap: NDArray[np.float64]
    id: str


def decide(
    rows: Sequence[RawOverlap], basis: str, candidates: Iterable[Conventions] | None = None
) -> tuple[Conventions, float]:
    """The unit and order of a file, found by computing the overlaps of some rows anew.

    Args:
        rows: one or a few; better molecules with several heavy atoms, as the orbitals of one
            centre do not overlap.
        basis: orbital basis of the file.
        candidates: what is possible; None: each unit of `LENGTHS` with each of `ORDERS`.

    Returns:
        The only candidate whose largest ``|dS|`` over all rows is below `MAX_OVERLAP_ERROR`, and
        that largest difference.

    Raises:
        DataError: none fits, or more than one does (the message has each one's difference), or
            an overlap is not of the size of the basis.
        ConfigError: PySCF is not installed, or the basis lacks an element.
    """
    if candidates is None:
        candidates = [Conventions(unit, order) for unit, order in product(LENGTHS, ORDERS)]
    residuals = dict.fromkeys(candidates, 0.0)
    for row in rows:
        orbitals = OrbitalBasis.load(basis, row.numbers.tolist())
        nao = orbitals.nao(row.numbers)
        if row.overlap.shape != (nao, nao):
            raise DataError(
                f"row '{row.id}': the overlap has shape {row.overlap.shape}, expected ({nao}, "
                f"{nao}) in {basis}; check the basis of the file"
            )
        computed = {
            unit: dft.overlap(row.numbers, row.positions * LENGTHS[unit], basis)
            for unit in {candidate.unit for candidate in residuals}
        }
        for candidate in residuals:
            read = to_canonical(row.overlap, row.numbers, orbitals, candidate.order)
            difference = float(np.abs(read - computed[candidate.unit]).max())
            residuals[candidate] = max(residuals[candidate], difference)
    fitting = [candidate for candidate, worst in residuals.items() if worst < MAX_OVERLAP_ERROR]
    if len(fitting) == 1:
        return fitting[0], residuals[fitting[0]]
    found = ", ".join(f"{c.unit} and {c.order} {worst:.1e}" for c, worst in residuals.items())
    names = ", ".join(f"'{row.id}'" for row in rows)
    raise DataError(
        f"{len(fitting) or 'no'} units and orders explain the overlaps of the rows "
        f"{names}, expected exactly one (largest difference: {found}; allowed: "
        f"{MAX_OVERLAP_ERROR:g}); "
        + (
            "state them, or decide by larger molecules"
            if fitting
            else f"the rows are damaged, or the basis set is not {basis}: fetch the file again"
        )
    )
