"""Errors of total energies, against those of the file.

References that a model takes off its targets and adds again do not change a difference, so errors
of total and of formation energies of the same rows may be compared.
"""

from __future__ import annotations

import numpy as np

from hambench.chem.molecule import Molecule
from hambench.errors import DataError
from hambench.scoring.comparison import as_array
from hambench.scoring.metrics import Terms, metric


class EnergyDeviation:
    """How far a predicted total energy is off.

    Args:
        difference: prediction minus label, Eh; not finite where the prediction failed.
        atoms: of the molecule.
    """

    def __init__(self, difference: float, atoms: int) -> None:
        self.difference, self.atoms = difference, atoms

    @property
    def failed(self) -> bool:
        """Whether the prediction is NaN or infinite."""
        return not np.isfinite(self.difference)


class EnergyComparison(EnergyDeviation):
    """One molecule's predicted total energy beside its label.

    Args:
        prediction: a number, or an array or torch tensor of one, in Eh.
        molecule: with its energy.

    Raises:
        DataError: no label, or a prediction that is no single number.
    """

    def __init__(self, prediction: object, molecule: Molecule) -> None:
        if molecule.energy is None:
            raise DataError(
                f"molecule '{molecule.id}' has no energy to compare with; score on molecules that "
                "have one"
            )
        value = as_array(prediction)
        if value.size != 1 or not np.can_cast(value.dtype, np.float64, "same_kind"):
            raise DataError(
                f"molecule '{molecule.id}': the predicted energy is {value.dtype} of shape "
                f"{value.shape}, expected one real number in Eh"
            )
        super().__init__(float(value.reshape(())) - molecule.energy, len(molecule))


@metric("molecule mean of |dE|, dE the predicted total energy minus the label", of="energy")
def energy_mae(c: EnergyDeviation) -> Terms:
    """Primary of energy tasks: per molecule, not per atom."""
    return abs(c.difference), 1.0


@metric("molecule mean of |dE| / N, N the atoms of the molecule", of="energy")
def energy_mae_per_atom(c: EnergyDeviation) -> Terms:
    """Every molecule has the same weight."""
    return abs(c.difference) / c.atoms, 1.0


@metric("root of the molecule mean of dE^2", of="energy", aggregate="rms")
def energy_rmse(c: EnergyDeviation) -> Terms:
    """Never below ``energy_mae``; far above it where a few molecules fail."""
    return c.difference**2, 1.0
