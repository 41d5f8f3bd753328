"""Bonds of a molecule from its geometry alone, and what each atom is bonded to."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.molecule import SYMBOLS

_TABLE: Final = (
    "nan "
    ".31 .28 "
    "1.28 .96 .84 .76 .71 .66 .57 .58 "
    "1.66 1.41 1.21 1.11 1.07 1.05 1.02 1.06 "
    "2.03 1.76 1.70 1.60 1.53 1.39 1.39 1.32 1.26 1.24 1.32 1.22 1.22 1.20 1.19 1.20 1.20 1.16 "
    "2.20 1.95 1.90 1.75 1.64 1.54 1.47 1.46 1.42 1.39 1.45 1.44 1.42 1.39 1.39 1.38 1.39 1.40 "
    "2.44 2.15 2.07 2.04 2.03 2.01 1.99 1.98 1.98 1.96 1.94 1.92 1.92 1.89 1.90 1.87 1.87 "
    "1.75 1.70 1.62 1.51 1.44 1.41 1.36 1.36 1.32 1.45 1.46 1.48 1.40 1.50 1.50"
)
_RADII: Final = np.array(_TABLE.split(), dtype=np.float64)
"""Covalent radii in Angstrom by atomic number, to Rn (Cordero et al., Dalton Trans. 2832, 2008)."""

_STRETCH: Final = 1.25  # of the sum of two radii: bonds of vibrating molecules, not their 1-3 pairs


def bonded(numbers: ArrayLike, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N, N) whether two atoms are nearer than 1.25 times the sum of their covalent radii.

    Args:
        numbers: (N,) atomic numbers, to 86.
        positions: (N, 3) Angstrom.
    """
    radii = _RADII[np.asarray(numbers)]
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    near: NDArray[np.bool_] = apart < _STRETCH * (radii[:, None] + radii)
    np.fill_diagonal(near, False)
    return near


def environments(numbers: ArrayLike, positions: NDArray[np.float64]) -> list[str]:
    """Of each atom its element and, in the order of the alphabet, those it is bonded to.

    Args:
        numbers: (N,) atomic numbers, to 86.
        positions: (N, 3) Angstrom.

    >>> environments([8, 1, 1], np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]))
    ['O(H,H)', 'H(O)', 'H(O)']
    """
    symbols = np.array([SYMBOLS[z] for z in np.asarray(numbers).tolist()])
    near = bonded(numbers, positions)
    return [
        f"{symbol}({','.join(sorted(symbols[row].tolist()))})"
        for symbol, row in zip(symbols.tolist(), near, strict=True)
    ]
