"""Errors of the total energies that Hamiltonians imply, at the level of theory of the labels.

Prediction and label go through one diagonalisation each, in one orbital space (canonical
orthogonalisation; overlap eigenvalues below 1e-6, for def2-TZVPD 1e-5, are left out), and one grid:
`hambench.chem.functional`. E_mix is first order in the error of H. E[D] is second order, as far as
the label is self-consistent at the theory given: one of another functional or a much coarser grid
leaves a part of first order. Never compare the two.
"""

from __future__ import annotations

from functools import partial
from typing import Final

from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import Terms, metric

_implied: Final = partial(metric, energy=True, needs_theory=True, sample="energy")


@_implied("molecule mean of |E[Dp] - E[D]|: functional at the densities of prediction and label")
def e_dft_mae(c: Comparison) -> Terms:
    """Per molecule. What grid, density fitting and dispersion do to both is not in it."""
    return abs(c.predicted_state.energy - c.label_state.energy), 1.0


@_implied("as e_dft_mae, per atom: molecule mean of |E[Dp] - E[D]| / N")
def e_dft_mae_per_atom(c: Comparison) -> Terms:
    """Every molecule has the same weight."""
    return abs(c.predicted_state.energy - c.label_state.energy) / len(c.molecule), 1.0


@_implied(
    "molecule mean of |E[Dp] - E|, E the energy of the file; e_dft_mae_floor is its noise floor"
)
def e_dft_mae_file(c: Comparison) -> Terms:
    """No entry where the file has no energy."""
    return _beside_file(c.predicted_state.energy, c)


@_implied("molecule mean of |E[D] - E|: of the label's own H, what settings of theory leave")
def e_dft_mae_floor(c: Comparison) -> Terms:
    """Grid, density fitting, dispersion, rounding of the file: the same for every prediction."""
    return _beside_file(c.label_state.energy, c)


@_implied("molecule mean of |E_mix(Hp) - E_mix(H)|, E_mix = Tr[D (h + H - Vxc)] / 2 + Exc + Enn")
def e_mix_mae(c: Comparison) -> Terms:
    """HELM's (arXiv 2510.00224); no two-electron integrals, but first order in the error of H."""
    return abs(c.predicted_state.mixed_energy - c.label_state.mixed_energy), 1.0


def _beside_file(energy: float, c: Comparison) -> Terms:
    if c.molecule.energy is None:
        return 0.0, 0.0
    return abs(energy - c.molecule.energy), 1.0
