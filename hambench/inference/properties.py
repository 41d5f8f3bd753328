"""What a Hamiltonian says of its molecule: orbital energies, gap, dipole moment, energy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.functional import Functional
from hambench.chem.levels import orbital_levels, overlap_threshold
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory

Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Properties:
    """What one diagonalisation of a Hamiltonian, and the density it gives, say.

    Attributes:
        pairs: doubly occupied orbitals, those of lowest energy.
        levels: (m,) orbital energies in Eh, ascending; None without an overlap.
        dipole: (3,) Debye, of ions from the centre of the nuclear charges; None without PySCF.
        energy: ``E[D]`` in Eh, see `hambench.chem.functional`; None where it was not asked for.
    """

    pairs: int
    levels: Matrix | None = None
    dipole: Matrix | None = None
    energy: float | None = None

    @property
    def homo(self) -> float | None:
        """Energy of the highest occupied orbital, Eh."""
        return None if self.levels is None else float(self.levels[self.pairs - 1])

    @property
    def lumo(self) -> float | None:
        """Energy of the lowest empty orbital, Eh; None where the basis has none."""
        if self.levels is None or self.pairs == len(self.levels):
            return None
        return float(self.levels[self.pairs])

    @property
    def gap(self) -> float | None:
        """Energy of the lowest empty less that of the highest occupied orbital, Eh."""
        if self.homo is None or self.lumo is None:
            return None
        return self.lumo - self.homo

    @property
    def moment(self) -> float | None:
        """Length of the dipole moment, Debye."""
        return None if self.dipole is None else float(np.linalg.norm(self.dipole))


@dataclass(frozen=True, eq=False)
class Orbitals:
    """Orbitals of a Hamiltonian, and the overlap they are orthonormal in.

    Attributes:
        overlap: (nao, nao), canonical order; None where there is no way to have it.
        levels, coefficients, occupations: (m,) Eh, (nao, m) in PySCF's order, (m,); None without
            PySCF.
    """

    overlap: Matrix | None = None
    levels: Matrix | None = None
    coefficients: Matrix | None = None
    occupations: Matrix | None = None


def examine(
    molecule: Molecule, hamiltonian: Matrix, theory: Theory, energy: bool
) -> tuple[Properties, Orbitals]:
    """Properties and orbitals of a Hamiltonian at a level of theory.

    Without PySCF there are orbital energies where the molecule brings its overlap, and no more.

    Args:
        molecule: a closed shell; an overlap it has is used where PySCF is not installed.
        hamiltonian: (nao, nao) Eh, canonical order.
        theory: of the labels the Hamiltonian was learned from.
        energy: whether ``E[D]`` is wanted, which takes longest.

    Raises:
        ConfigError: see `hambench.chem.functional.Functional`.
    """
    _, electrons = engine.orbital_basis(theory.basis, molecule.numbers, molecule.charge)
    pairs = electrons // 2
    if not np.isfinite(hamiltonian).all():
        return Properties(pairs), Orbitals()
    if not engine.is_installed():
        if molecule.overlap is None:
            return Properties(pairs), Orbitals()
        threshold = overlap_threshold(theory.basis)
        levels, _ = orbital_levels(hamiltonian, molecule.overlap, threshold)
        return Properties(pairs, levels), Orbitals(molecule.overlap)
    state = Functional(molecule, theory).at(hamiltonian)
    levels, coefficients, occupations = state.orbitals
    overlap = engine.canonical(state.functional.field.get_ovlp(), molecule.numbers, theory.basis)
    return (
        Properties(pairs, levels, state.dipole, state.energy if energy else None),
        Orbitals(overlap, levels, coefficients, occupations),
    )
