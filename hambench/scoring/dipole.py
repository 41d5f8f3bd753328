"""Errors of the dipole moments that Hamiltonians imply.

The moment is that of the density of one diagonalisation, as `hambench.scoring.total_energy` has it:
nuclei, reduced by their core potentials, less electrons; of an ion from the centre of the nuclear
charges (`hambench.chem.functional.State.dipole`). First order in the error of H.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np

from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import Terms, metric

_implied: Final = partial(metric, unit="D", needs_theory=True, sample="energy")


@_implied("molecule mean of ||mu_p| - |mu||, mu the dipole moment: sum Z R - Tr(D r)")
def dipole_mae(c: Comparison) -> Terms:
    """Of the magnitudes; blind to the direction."""
    predicted, label = c.predicted_state.dipole, c.label_state.dipole
    return abs(float(np.linalg.norm(predicted) - np.linalg.norm(label))), 1.0


@_implied("molecule mean of |mu_p - mu|, the length of the difference of the dipole moments")
def dipole_vector_mae(c: Comparison) -> Terms:
    """Never below ``dipole_mae``."""
    return float(np.linalg.norm(c.predicted_state.dipole - c.label_state.dipole)), 1.0
