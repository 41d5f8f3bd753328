"""How a data file states its numbers: the unit of its positions and the order of its orbitals.

Public files do not say it of themselves. A reader is opened with the `Conventions` its format is
known to have, or with what `hambench data verify` found in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hambench.units import BOHR

LENGTHS: Final = {"angstrom": 1.0, "bohr": BOHR}
"""Angstrom per unit of length."""


@dataclass(frozen=True)
class Conventions:
    """Unit and order of a file.

    Attributes:
        unit: of the positions.
        order: of the orbitals, a key of `hambench.chem.ordering.ORDERS`.
    """

    unit: Literal["angstrom", "bohr"]
    order: str

    @property
    def length(self) -> float:
        """Angstrom per unit of the file's positions."""
        return LENGTHS[self.unit]
