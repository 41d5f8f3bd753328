"""Orbital levels of a Hamiltonian, and where the 1s level of an element is to be expected."""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

_CORE_LEVELS: Final = {
    3: -2.126, 4: -4.175, 5: -6.919, 6: -10.321, 7: -14.480, 8: -19.338, 9: -24.901, 10: -31.203,
    11: -38.719, 12: -47.078, 13: -56.306, 14: -66.401, 15: -77.367, 16: -89.192, 17: -101.882,
    18: -115.449, 19: -130.160, 20: -145.772, 30: -347.846, 31: -373.137, 32: -399.331,
    33: -426.466, 34: -454.528, 35: -483.517, 36: -513.440,
}  # fmt: skip
"""1s levels (Eh) of the hydrides and rare gases, wB97M-V/def2-TZVPD, computed with PySCF 2.14."""

CORE_LEVEL_MARGIN: Final = 0.1
"""Part of a 1s level by which functional (PBE 3 %, Hartree-Fock 7 %) and charge may shift it."""


def overlap_threshold(basis: str) -> float:
    """Overlap eigenvalue below which an orbital combination is left out of a diagonalisation.

    1e-6, which keeps all of def2-SVP; 1e-5 for def2-TZVPD.
    """
    return 1e-5 if basis.lower() == "def2-tzvpd" else 1e-6


def orthogonaliser(overlap: Matrix, threshold: float) -> Matrix:
    """Canonical orthogonalisation: ``X = U s^(-1/2)`` of the eigenvalues s of S that are kept.

    Args:
        overlap: (nao, nao).
        threshold: eigenvectors of S below it are left out.

    Returns:
        (nao, m) with ``X^T S X = 1``; m is nao less those left out.
    """
    values, vectors = scipy.linalg.eigh(overlap)
    kept = values > threshold
    return vectors[:, kept] / np.sqrt(values[kept])


def levels_within(hamiltonian: Matrix, orthogonal: Matrix) -> tuple[Matrix, Matrix]:
    """Solve ``H C = S C e`` in the space of an `orthogonaliser` (nao, m).

    Returns:
        (m,) levels in Eh, ascending, and (nao, m) coefficients.
    """
    levels, coefficients = scipy.linalg.eigh(orthogonal.T @ hamiltonian @ orthogonal)
    return levels, orthogonal @ coefficients


def orbital_levels(hamiltonian: Matrix, overlap: Matrix, threshold: float) -> tuple[Matrix, Matrix]:
    """Solve ``H C = S C e`` after canonical orthogonalisation.

    Args:
        hamiltonian: (nao, nao) Eh.
        overlap: (nao, nao).
        threshold: eigenvectors of S below it are left out.

    Returns:
        (m,) levels in Eh, ascending, and (nao, m) coefficients; m is nao less those left out.
    """
    return levels_within(hamiltonian, orthogonaliser(overlap, threshold))


def core_level(z: int) -> float | None:
    """1s level of an element in Eh; None where it is no core level or not known (H, He, Z > 36).

    Between the elements of the table ``sqrt(-2 e)``, an effective charge, grows linearly with Z.
    """
    known = sorted(_CORE_LEVELS)
    if not known[0] <= z <= known[-1]:
        return None
    charges = np.sqrt([-2 * _CORE_LEVELS[k] for k in known])
    return -(float(np.interp(z, known, charges)) ** 2) / 2
