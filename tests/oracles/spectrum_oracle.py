"""The spectral metrics of one molecule once more, by SciPy and from their definitions alone."""

from __future__ import annotations

import numpy as np
import scipy.linalg


def spectral_metrics(
    prediction: np.ndarray, label: np.ndarray, overlap: np.ndarray, electrons: int
) -> dict[str, float]:
    """Values of all spectral metrics, of a pair of (n, n) matrices and a regular overlap."""
    e, c = scipy.linalg.eigh(label, overlap)
    ep, cp = scipy.linalg.eigh(prediction, overlap)
    n = electrons // 2
    occ, occ_p = c[:, :n], cp[:, :n]
    root = scipy.linalg.sqrtm(overlap).real
    change = 2 * occ_p @ occ_p.T - 2 * occ @ occ.T
    shift = ep - e
    cosines = [
        occ[:, i] @ occ_p[:, i] / _length(occ[:, i]) / _length(occ_p[:, i]) for i in range(n)
    ]
    return {
        "eps_occ": np.abs(shift[:n]).mean(),
        "homo": abs(shift[n - 1]),
        "lumo": abs(shift[n]),
        "gap": abs((ep[n] - ep[n - 1]) - (e[n] - e[n - 1])),
        "eps_all": np.abs(shift).mean(),
        "psi": np.abs(cosines).mean(),
        "psi_s": np.abs(np.diag(occ_p.T @ overlap @ occ)).mean(),
        "p_occ": np.linalg.norm(occ_p.T @ overlap @ occ) ** 2 / n,
        "density_error": np.linalg.norm(root @ change @ root) / electrons,
    }


def _length(vector: np.ndarray) -> float:
    return float(np.sqrt((vector**2).sum()))
