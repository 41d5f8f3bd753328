"""How atomic-orbital matrices turn with the molecule: ``A(R x) = D(R) A(x) D(R)^T``."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from e3nn import o3
from numpy.typing import ArrayLike, NDArray

from hambench.chem.orbitals import OrbitalBasis

POLAR: Final = (1, 2, 0)
"""Columns that bring (x, y, z) to (y, z, x): e3nn's polar axis is its second one, and so becomes
the physical z axis about which m counts."""


def shell_rotation(l: int, rotation: ArrayLike) -> NDArray[np.float64]:
    """(2l+1, 2l+1) action of a proper (3, 3) rotation on real harmonics m = -l..l about z."""
    matrix = torch.as_tensor(np.asarray(rotation, dtype=np.float64))[list(POLAR)][:, list(POLAR)]
    return o3.wigner_D(l, *o3.matrix_to_angles(matrix)).numpy()


def ao_rotation(numbers: ArrayLike, basis: OrbitalBasis, rotation: ArrayLike) -> NDArray[np.float64]:
    """(nao, nao) block-diagonal action of a proper rotation on a molecule's orbitals.

    Args:
        numbers: (N,) atomic numbers.
        basis: basis set; ConfigError for an element it does not cover.
        rotation: (3, 3) proper rotation R; positions turn as ``x @ R.T``.
    """
    shells = {l: shell_rotation(l, rotation) for l in range(basis.lmax + 1)}
    out = np.zeros((basis.nao(numbers),) * 2)
    start = 0
    for z in np.asarray(numbers, dtype=int):
        for l in basis.shells[int(z)].l:
            stop = start + 2 * l + 1
            out[start:stop, start:stop] = shells[l]
            start = stop
    return out
