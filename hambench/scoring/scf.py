"""Self-consistent fields that start from predictions, beside those from guesses without a model.

All run at the settings of the labels' level of theory (`hambench.chem.scf.settings` lists them);
ratios are taken per molecule, then averaged, as QH9 does (arXiv 2306.09549). A molecule with an SCF
that did not converge is missing from the ratios that need it; `scf_convergence_rate` counts them.
Cycles do not count the Fock matrix of the start, builds do.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import Terms, metric

if TYPE_CHECKING:
    from hambench.chem.scf import SCFRun  # SciPy, which listing metrics needs not

_NOTHING: Final = (0.0, 0.0)
_ratio: Final = partial(metric, unit="1", needs_theory=True, sample="scf", spread=True)
_rate: Final = partial(metric, unit="1", needs_theory=True, sample="scf", direction="higher")


@_ratio("achieved ratio: molecule mean of SCF cycles from Hp / cycles from the minao guess")
def scf_iter_ratio(c: Comparison) -> Terms:
    """Primary of these: 1 saves nothing, `scf_optimal_ratio` is the least there can be."""
    return _cycles(c, "minao")


@_ratio("as scf_iter_ratio, beside the guess of superposed atomic densities (atom)")
def scf_iter_ratio_atom(c: Comparison) -> Terms:
    """Atoms are computed by PySCF, and not counted."""
    return _cycles(c, "atom")


@_ratio("as scf_iter_ratio, beside the guess of the core Hamiltonian (1e)")
def scf_iter_ratio_1e(c: Comparison) -> Terms:
    """A poor guess: small ratios mean little."""
    return _cycles(c, "1e")


@_ratio("molecule mean of Fock matrices built from Hp / from minao, that of the start counted")
def scf_build_ratio(c: Comparison) -> Terms:
    """What an SCF costs is its builds."""
    predicted, reference = c.acceleration.predicted, c.acceleration.reference("minao")
    return _per(predicted.builds, reference.builds, predicted, reference)


@_ratio("molecule mean of 1 / SCF cycles from minao: what the perfect guess would achieve")
def scf_optimal_ratio(c: Comparison) -> Terms:
    """The same for every model."""
    reference = c.acceleration.reference("minao")
    return _per(1.0, reference.cycles, reference)


@_ratio(
    "molecule mean of k / cycles, k the first cycle from minao with mean|F_k - H| < mean|Hp - H|",
    direction="higher",
)
def scf_error_level_ratio(c: Comparison) -> Terms:
    """How far into an SCF the prediction is: 0 where the Fock matrix of minao itself is as near.

    1 where none comes as near, as for a prediction better than the label's own convergence.
    """
    reference = c.acceleration.reference("minao")
    assert reference.errors is not None  # compared with the label
    below = reference.errors < np.abs(c.difference).mean()
    reached = int(below.argmax()) if below.any() else reference.cycles
    return _per(reached, reference.cycles, reference)


@_rate("share of molecules whose SCF from Hp converged, within the cycles of the level of theory")
def scf_convergence_rate(c: Comparison) -> Terms:
    """It joins every other metric of SCFs, asked for or not."""
    return float(c.acceleration.predicted.converged), 1.0


@_rate("as scf_convergence_rate, from the minao guess")
def scf_convergence_rate_minao(c: Comparison) -> Terms:
    """The same for every model, as are those of the other guesses."""
    return float(c.acceleration.reference("minao").converged), 1.0


@_rate("as scf_convergence_rate, from the atom guess")
def scf_convergence_rate_atom(c: Comparison) -> Terms:
    """See `scf_iter_ratio_atom`."""
    return float(c.acceleration.reference("atom").converged), 1.0


@_rate("as scf_convergence_rate, from the 1e guess")
def scf_convergence_rate_1e(c: Comparison) -> Terms:
    """See `scf_iter_ratio_1e`."""
    return float(c.acceleration.reference("1e").converged), 1.0


@_ratio("molecule mean of wall time of the SCF from Hp / from minao; depends on the machine")
def scf_time_ratio(c: Comparison) -> Terms:
    """Integrals and grid are in both."""
    predicted, reference = c.acceleration.predicted, c.acceleration.reference("minao")
    return _per(predicted.seconds, reference.seconds, predicted, reference)


@_ratio("as scf_time_ratio, with the time that predicting a molecule takes, where that is known")
def scf_total_time_ratio(c: Comparison) -> Terms:
    """At the batch size of the run: latency alone, with one molecule a batch, may be longer."""
    if c.inference_s is None:
        return _NOTHING
    predicted, reference = c.acceleration.predicted, c.acceleration.reference("minao")
    total = predicted.seconds + c.inference_s
    return _per(total, reference.seconds, predicted, reference)


def _cycles(c: Comparison, guess: str) -> Terms:
    predicted, reference = c.acceleration.predicted, c.acceleration.reference(guess)
    return _per(predicted.cycles, reference.cycles, predicted, reference)


def _per(part: float, whole: float, *runs: SCFRun) -> Terms:
    """A ratio of one molecule, where the runs it is made of converged."""
    return (part / whole, 1.0) if all(run.converged for run in runs) else _NOTHING
