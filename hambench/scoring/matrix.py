"""Errors of the matrix elements, in the AO basis, against the original label of the file.

Sums of absolute values do not change with the order or sign of the orbitals, but with any other
change of basis: the coupled form of a network is no place to take them.
"""

from __future__ import annotations

import math

import numpy as np

from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import Terms, metric


@metric("molecule mean over the full matrix: 1/G sum_g [1/n^2 sum_ij |dH_ij|]")
def h_mae(c: Comparison) -> Terms:
    """Primary: all pairs, both triangles, no cutoff; every molecule has the same weight."""
    return c.block_errors.sum() / c.nao**2, 1.0


@metric("element pooled: sum_g sum_ij |dH_ij| / sum_g n^2")
def h_mae_elem(c: Comparison) -> Terms:
    """Every matrix element has the same weight, so large molecules count more."""
    return c.block_errors.sum(), float(c.nao**2)


@metric("on-site blocks: molecule mean of the mean |dH| over blocks (a, a)")
def h_mae_diag(c: Comparison) -> Terms:
    """Blocks of an atom with itself, per molecule and then averaged (QH9's definition)."""
    return c.block_errors.trace() / c.block_sizes.trace(), 1.0


@metric("off-site blocks: molecule mean of the mean |dH| over blocks (a, b), a != b")
def h_mae_offdiag(c: Comparison) -> Terms:
    """Blocks of two atoms, per molecule and then averaged; a single atom has none."""
    entries = c.nao**2 - c.block_sizes.trace()
    error = c.block_errors.sum() - c.block_errors.trace()
    return (error / entries, 1.0) if entries else (0.0, 0.0)


@metric("as h_mae, over on-site blocks and pairs closer than the cutoff alone", needs_cutoff=True)
def h_mae_in_cutoff(c: Comparison) -> Terms:
    """What a model could have known: pairs it leaves out are not held against it here."""
    return c.block_errors[c.near].sum() / c.block_sizes[c.near].sum(), 1.0


@metric("root of the molecule mean square: sqrt(1/G sum_g [1/n^2 sum_ij dH_ij^2])", aggregate="rms")
def h_rmse(c: Comparison) -> Terms:
    """Every molecule has the same weight; never below ``h_mae``."""
    return c.squared_error / c.nao**2, 1.0


@metric("largest |dH_ij| of all molecules", aggregate="max")
def h_max(c: Comparison) -> Terms:
    """No interval: the bootstrap is not consistent for a maximum."""
    return float(abs(c.difference).max()), 1.0


@metric("molecule mean of ||dH||_F / ||H||_F, Frobenius norms", unit="1")
def h_relative(c: Comparison) -> Terms:
    """A pure number; the core levels of heavy atoms dominate the denominator."""
    size = float(np.linalg.norm(c.label))
    return (math.sqrt(c.squared_error) / size, 1.0) if size else (0.0, 0.0)


@metric(
    "rotation error: as h_mae, of |H(Rx) - D(R) H(x) D(R)^T|, R one random rotation per molecule",
    needs_turned=True,
)
def h_rotation_mae(c: Comparison) -> Terms:
    """How far predictions are from turning with the molecule; no label is in it.

    R is `hambench.chem.rotation.scoring_rotation`: seed 0 and the id of the molecule.
    """
    return float(abs(c.rotation_difference).mean()), 1.0


@metric(
    "share of molecules whose prediction holds NaN, infinity, or what is too large to be squared",
    unit="1", of=None, alarm=True,
)  # fmt: skip
def failure_rate(c: Comparison) -> Terms:
    """Such molecules are missing from every other metric, whose n says how many entered."""
    return float(c.failed), 1.0
