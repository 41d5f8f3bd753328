"""Spectra of many predictions beside those of their labels, all of one size, solved at once.

``H C = S C e`` with the overlap S of the reference, for prediction and label alike, by canonical
orthogonalisation: ``S = U s U^T``, ``X = U s^(-1/2)`` over the eigenvalues s that are kept, so that
both have one orbital space, and ``X^T H X`` is an ordinary eigenproblem. All is in float64, by
NumPy, or by torch on the device that is given.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Stack = NDArray[np.float64]


class Trouble(Enum):
    """Why there is no spectrum."""

    SINGULAR = "singular overlap"
    FEW_ORBITALS = "fewer orbitals than electron pairs"
    NOT_SOLVED = "eigenvalues not found"


class SpectralErrors(NamedTuple):
    """One molecule; NaN where it has no such thing.

    Attributes:
        eps_occ, eps_all: mean |d eps| of the occupied and of all orbitals, Eh.
        homo, lumo, gap: |d eps| of the two and |d(lumo - homo)|, Eh.
        psi: mean cosine of occupied orbitals as vectors of coefficients, see `metrics`.
        psi_s: the same with the overlap as metric.
        p_occ: overlap of the two occupied spaces, 0 to 1.
        density_error: Frobenius norm of the difference of the density matrices in an orthonormal
            basis, over the number of electrons.
        dropped: orbital combinations left out of both.
    """

    eps_occ: float
    homo: float
    lumo: float
    gap: float
    eps_all: float
    psi: float
    psi_s: float
    p_occ: float
    density_error: float
    dropped: float


WHOLE: Final = ("def2-svp",)
"""Basis sets so far from linear dependence that an overlap eigenvalue below the threshold means
that the overlap is wrong."""


def spectral_errors(
    predictions: Stack,
    labels: Stack,
    overlaps: Stack,
    *,
    electrons: int,
    threshold: float,
    whole: bool = False,
    device: str | None = None,
) -> list[SpectralErrors | Trouble]:
    """Errors of the spectra of B molecules of n orbitals and equally many electrons.

    Args:
        predictions, labels: (B, n, n) Hamiltonians in Eh; their symmetric parts count.
        overlaps: (B, n, n) of the references.
        electrons: outside the effective cores; half of them, rounded down, are the occupied
            orbitals.
        threshold: eigenvectors of the overlap below it are left out.
        whole: take an overlap with such eigenvectors for singular.
        device: torch's name of what is to compute; None: NumPy.

    Returns:
        One per molecule, in order: its errors, or why it has none.
    """
    xp = _library(device)

    def solved(*stacks: Any) -> list[SpectralErrors | Trouble]:
        try:
            return _solved(xp, stacks, electrons, threshold, whole)
        except xp.linalg.LinAlgError:  # of any of them: each by itself
            if len(stacks[0]) == 1:
                return [Trouble.NOT_SOLVED]
        alone = zip(*(stack[:, None] for stack in stacks), strict=True)
        return [errors for stacks in alone for errors in solved(*stacks)]

    return solved(*(_placed(xp, stack, device) for stack in (predictions, labels, overlaps)))


def _solved(
    xp: Any, stacks: tuple[Any, ...], electrons: int, threshold: float, whole: bool
) -> list[SpectralErrors | Trouble]:
    """`spectral_errors` of arrays of a library; LinAlgError where a solver gives up."""
    predictions, labels, overlaps = stacks
    n, pairs = overlaps.shape[-1], electrons // 2
    values, vectors = xp.linalg.eigh(overlaps)  # values ascend: the last ones are kept
    kept = _numpy((values > threshold).sum(-1))
    singular = _numpy(values[:, 0] < -threshold) | (whole & (kept < n))
    found: list[SpectralErrors | Trouble] = [
        Trouble.SINGULAR if bad else Trouble.FEW_ORBITALS for bad in singular
    ]
    for count in np.unique(kept[~singular & (kept >= max(pairs, 1))]).tolist():
        places = np.flatnonzero(~singular & (kept == count))
        rows: Any = slice(None) if len(places) == len(kept) else places
        scale = xp.sqrt(values[rows, None, n - count :])
        columns = _errors(
            xp, predictions[rows], labels[rows], vectors[rows, :, n - count :] / scale, electrons
        )
        table = np.full((len(places), len(SpectralErrors._fields)), np.nan)
        for name, column in {**columns, "dropped": n - count}.items():
            table[:, SpectralErrors._fields.index(name)] = _numpy(column)
        for place, row in zip(places, table.tolist(), strict=True):
            errors = SpectralErrors(*row)
            found[place] = errors if np.isfinite(errors.eps_all) else Trouble.NOT_SOLVED
    return found


def _errors(
    xp: Any, prediction: Any, label: Any, to_orthogonal: Any, electrons: int
) -> dict[str, Any]:
    """Columns (B,) of `SpectralErrors`, as far as these molecules have them.

    Prediction and label (B, n, n) are solved in the space of ``X`` (B, n, m).
    """
    levels, own = xp.linalg.eigh(_transposed(to_orthogonal) @ label @ to_orthogonal)
    guessed, others = xp.linalg.eigh(_transposed(to_orthogonal) @ prediction @ to_orthogonal)
    pairs, shift = electrons // 2, guessed - levels
    errors = {"eps_all": abs(shift).mean(-1)}
    if pairs < shift.shape[1]:
        errors["lumo"] = abs(shift[:, pairs])
    if not pairs:
        return errors
    if "lumo" in errors:
        errors["gap"] = abs(shift[:, pairs] - shift[:, pairs - 1])
    occupied, guess = own[:, :, :pairs], others[:, :, :pairs]
    squares = (_transposed(own) @ guess) ** 2  # (B, m, pairs): into the occupied space, then beyond
    beyond = squares[:, pairs:].sum((1, 2))
    return errors | {
        "eps_occ": abs(shift[:, :pairs]).mean(-1),
        "homo": abs(shift[:, pairs - 1]),
        "psi": _cosines(xp, to_orthogonal @ occupied, to_orthogonal @ guess).mean(-1),
        "psi_s": _cosines(xp, occupied, guess).mean(-1),
        "p_occ": squares[:, :pairs].sum((1, 2)) / pairs,
        # ||Dp - D||^2 = 8 (pairs - squares within) = 8 beyond, which does not cancel
        "density_error": xp.sqrt(8 * beyond) / electrons,
    }


def _cosines(xp: Any, a: Any, b: Any) -> Any:
    """(B, k) |cosines| between the columns of two (B, n, k) arrays."""
    return abs((a * b).sum(1)) / xp.sqrt((a * a).sum(1) * (b * b).sum(1))


def _library(device: str | None) -> Any:
    """NumPy, or torch, which has the functions used here under the same names."""
    if device is None:
        return np
    import torch

    return torch


def _placed(xp: Any, stack: Stack, device: str | None) -> Any:
    """The symmetric parts of a stack, where they are computed with."""
    there = stack if device is None else xp.as_tensor(stack, dtype=xp.float64, device=device)
    return (there + _transposed(there)) / 2


def _transposed(stack: Any) -> Any:
    return stack.swapaxes(-1, -2)


def _numpy(array: Any) -> NDArray[Any]:
    return np.asarray(array.cpu() if hasattr(array, "cpu") else array)
