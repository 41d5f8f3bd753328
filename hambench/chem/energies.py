"""Which total energies are possible for given atoms."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from hambench.chem.molecule import formula
from hambench.errors import DataError

_THOMAS_FERMI: Final = 0.7687
"""``E = -0.7687 Z^(7/3)`` Eh of a neutral atom, below the true energy of every element (Lieb,
Rev. Mod. Phys. 53, 603 (1981))."""

_PER_ELECTRON: Final = 0.3
"""Eh; the weakest bound electrons, those of H2, have 0.58 on average."""


def total_energy(energy: float, numbers: ArrayLike) -> float:
    """``energy`` (Eh), after it was found possible for (N,) atoms and all their electrons.

    It tells total energies from energies less a mean or less those of the atoms, and from
    electronvolts.

    Raises:
        DataError: no molecule of these atoms can have it.
    """
    z = np.asarray(numbers, dtype=np.float64)
    lowest, highest = -_THOMAS_FERMI * (z ** (7 / 3)).sum(), -_PER_ELECTRON * z.sum()
    if not lowest <= energy <= highest:
        raise DataError(
            f"the energy {energy:.6g} is no total energy of {formula(numbers)} in Eh (those lie "
            f"between {lowest:.4g} and {highest:.4g}); check unit and reference of the file"
        )
    return energy
