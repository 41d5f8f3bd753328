"""Rotations of real spherical harmonics m = -l..l about z (e3nn and PySCF signs), in float64.

Written out here because e3nn 0.6 makes its Wigner matrices from generators in torch's default
type: under float32 they are right to 1e-7 only, whatever the type of the angles.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm
from scipy.spatial.transform import Rotation


@lru_cache
def generators(l: int) -> NDArray[np.float64]:
    """(3, 2l+1, 2l+1) antisymmetric generators of turns about x, y and z.

    ``-i J`` in the basis of ``S_m = (Y_-m + (-1)^m Y_m) / sqrt 2``,
    ``S_-m = i (Y_-m - (-1)^m Y_m) / sqrt 2`` for m > 0, and ``S_0 = Y_0``.
    """
    m = np.arange(-l, l + 1)
    raising = np.diag(np.sqrt(l * (l + 1) - m[:-1] * m[1:]), -1)
    angular = np.stack([(raising + raising.T) / 2, (raising - raising.T) / 2j, np.diag(m)])
    real = np.zeros((2 * l + 1,) * 2, dtype=complex)
    real[l, l] = 1
    for k in range(1, l + 1):
        real[l + k, [l - k, l + k]] = np.array([1, (-1) ** k]) / np.sqrt(2)
        real[l - k, [l - k, l + k]] = 1j * np.array([1, -((-1) ** k)]) / np.sqrt(2)
    return np.real(real.conj() @ (-1j * angular) @ real.T)


def harmonic_rotation(l: int, rotation: ArrayLike) -> NDArray[np.float64]:
    """(2l+1, 2l+1) action of a proper (3, 3) rotation R on coefficients of degree l.

    For l = 1 it is R in the axes (y, z, x). ``D(R1 R2) = D(R1) D(R2)``.
    """
    turn = Rotation.from_matrix(np.asarray(rotation, dtype=np.float64)).as_rotvec()
    return expm(np.tensordot(turn, generators(l), 1))
