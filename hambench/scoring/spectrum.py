"""Errors of the orbitals and their levels, after one diagonalisation in the reference's overlap.

The overlap is the molecule's own where its file has one, else computed for its positions; never a
predicted one. Prediction and label are solved in the same space, see `hambench.scoring.spectra`,
which leaves out eigenvectors of the overlap below a threshold: 1e-6, for def2-TZVPD 1e-5. What is
left out is counted (``s_dropped``); of def2-SVP nothing may be. Orbitals are matched by index. A
molecule without spectrum is missing from these metrics, and the rates at the end say why.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import Terms, metric
from hambench.scoring.spectra import SpectralErrors, Trouble

_spectral: Final = partial(metric, needs_spectrum=True)
_likeness: Final = partial(_spectral, unit="1", direction="higher", percent=True)
_alarm: Final = partial(_spectral, unit="1", alarm=True)


@_spectral("molecule mean of the mean |d eps_i| over occupied orbitals i, matched by index")
def eps_occ(c: Comparison) -> Terms:
    """As QH9 (arXiv 2306.09549) and QHFlow; core levels weigh as much as the frontier."""
    return _entry(c, "eps_occ")


@_spectral("molecule mean of |d eps| of the highest occupied orbital")
def homo(c: Comparison) -> Terms:
    """The orbital at half the number of electrons."""
    return _entry(c, "homo")


@_spectral("molecule mean of |d eps| of the lowest unoccupied orbital")
def lumo(c: Comparison) -> Terms:
    """No entry where all orbitals are occupied."""
    return _entry(c, "lumo")


@_spectral("molecule mean of |d(eps_LUMO - eps_HOMO)|")
def gap(c: Comparison) -> Terms:
    """Not the sum of the two: errors of one sign cancel."""
    return _entry(c, "gap")


@_spectral("molecule mean of the mean |d eps_i| over all orbitals, matched by index")
def eps_all(c: Comparison) -> Terms:
    """Not comparable with ``eps_occ``; nor with maloq's, which may take the identity for S."""
    return _entry(c, "eps_all")


@_likeness("molecule mean of the mean |cosine| of occupied orbitals as vectors of AO coefficients")
def psi(c: Comparison) -> Terms:
    """The literature's (QHNet, QH9, SPHNet): a Euclidean product, the overlap is not in it.

    Undefined among degenerate orbitals, and about 0 where two close ones change places.
    """
    return _entry(c, "psi")


@_likeness("molecule mean of the mean |<psi_p,i|psi_i>| over occupied orbitals: psi with S")
def psi_s(c: Comparison) -> Terms:
    """``|c_p^T S c|`` of S-orthonormal coefficients; as ``psi`` undefined in degenerate sets."""
    return _entry(c, "psi_s")


@_likeness("molecule mean of ||C_p,occ^T S C_occ||_F^2 / n_occ, the overlap of occupied spaces")
def p_occ(c: Comparison) -> Terms:
    """0 to 1, whatever orbitals span the two spaces."""
    return _entry(c, "p_occ")


@_spectral("molecule mean of ||S^1/2 (D_p - D) S^1/2||_F / N, N the electrons", unit="1")
def density_error(c: Comparison) -> Terms:
    """Of density matrices of doubly occupied orbitals."""
    return _entry(c, "density_error")


@_alarm("orbital combinations left out by the overlap threshold, per molecule")
def s_dropped(c: Comparison) -> Terms:
    """The same ones for label and prediction."""
    return _entry(c, "dropped")


@_alarm("share of molecules whose overlap is singular (def2-SVP: any eigenvalue below threshold)")
def overlap_failure_rate(c: Comparison) -> Terms:
    """So is one with an eigenvalue below minus the threshold: no orbitals have it."""
    return float(c.spectrum is Trouble.SINGULAR), 1.0


@_alarm("share of molecules whose overlap leaves fewer orbitals than electron pairs")
def orbital_failure_rate(c: Comparison) -> Terms:
    """Nearly dependent orbitals, or a charge that is wrong."""
    return float(c.spectrum is Trouble.FEW_ORBITALS), 1.0


@_alarm("share of molecules whose orbital levels the eigenvalue solver does not find")
def eigen_failure_rate(c: Comparison) -> Terms:
    """Of predictions near the largest numbers there are."""
    return float(c.spectrum is Trouble.NOT_SOLVED), 1.0


def _entry(c: Comparison, name: str) -> Terms:
    """One of `SpectralErrors`; no entry where the molecule has it not."""
    if not isinstance(c.spectrum, SpectralErrors):
        return 0.0, 0.0
    value: float = getattr(c.spectrum, name)
    return (value, 1.0) if value == value else (0.0, 0.0)
