"""One cycle of a self-consistent field, to be run as often as wanted: what an SCF costs."""

from __future__ import annotations

from hambench.chem import engine
from hambench.chem.molecule import Molecule
from hambench.chem.scf import GUESSES
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, nearest


class FirstCycle:
    """The first cycle of PySCF from a named guess: a diagonalisation and a Fock build.

    What an SCF does once is done before: grids, integrals that are kept, the Fock matrix of the
    guess. The build is that of the change of the density, as in every cycle of PySCF.

    Args:
        molecule: numbers, positions and charge are used.
        theory: level of theory; its thresholds take no part.
        guess: one of `hambench.chem.scf.GUESSES`.

    Attributes:
        orbitals: nao.
        points: of the integration grid.

    Raises:
        ConfigError: PySCF is not installed; an open shell; an element outside the basis; an
            unknown guess.
    """

    def __init__(self, molecule: Molecule, theory: Theory, guess: str = "minao") -> None:
        if guess not in GUESSES:
            raise ConfigError(f"unknown initial guess '{guess}'.{nearest(guess, GUESSES)}")
        self._field = field = engine.mean_field(molecule, theory)
        field.build()
        self._core, self._overlap = field.get_hcore(), field.get_ovlp()
        self._density = field.get_init_guess(field.mol, guess)
        self._potential = field.get_veff(field.mol, self._density)
        self.orbitals, self.points = len(self._core), len(field.grids.weights)

    def run(self) -> float:
        """The total energy of the new density in Eh."""
        field = self._field
        fock = field.get_fock(self._core, self._overlap, self._potential, self._density)
        levels, coefficients = field.eig(fock, self._overlap)
        density = field.make_rdm1(coefficients, field.get_occ(levels, coefficients))
        potential = field.get_veff(field.mol, density, self._density, self._potential)
        return float(field.energy_tot(density, self._core, potential))
