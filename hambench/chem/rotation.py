"""How atomic-orbital matrices turn with the molecule: ``A(R x) = D(R) A(x) D(R)^T``."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.orbitals import OrbitalBasis
from hambench.harmonics import harmonic_rotation


def ao_rotation(
    numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike
) -> NDArray[np.float64]:
    """(nao, nao) block-diagonal action of a proper rotation on a molecule's orbitals.

    Args:
        numbers: (N,) atomic numbers.
        basis: basis set; ConfigError for an element it does not cover.
        rotation: (3, 3) proper rotation R; positions turn as ``x @ R.T``.
    """
    shells = {l: harmonic_rotation(l, rotation) for l in range(basis.lmax + 1)}
    out = np.zeros((basis.nao(numbers),) * 2)
    start = 0
    for z in np.asarray(numbers, dtype=int):
        for l in basis.shells[int(z)].l:
            stop = start + 2 * l + 1
            out[start:stop, start:stop] = shells[l]
            start = stop
    return out
