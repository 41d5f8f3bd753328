"""Energies, Fock matrix and forces of a given Hamiltonian, without a self-consistent field.

One diagonalisation of the Hamiltonian gives a closed-shell density D, of which

    E[D]  = Tr[D h] + 1/2 Tr[D J] - 1/4 Tr[D K] + E_xc[D] + E_nn + E_disp
    E_mix = 1/2 Tr[D (h + H - V_xc[D])] + E_xc[D] + E_nn + E_disp

K is the exact exchange as the functional weighs it, E_xc and V_xc its semilocal part with VV10.
Both are the total energy where H is the Fock matrix of D. The error of E[D] is of second order in
that of H. That of E_mix, which HELM uses (arXiv 2510.00224) because it needs no two-electron
integrals, is of first order.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.dispersion import dispersion
from hambench.chem.levels import levels_within, orthogonaliser, overlap_threshold
from hambench.chem.molecule import Molecule
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory
from hambench.errors import ConfigError
from hambench.units import BOHR, DEBYE

Matrix = NDArray[np.float64]


class Functional:
    """The energy functional of one molecule: grid, integrals, orbital space of all its densities.

    Overlap and integrals are PySCF's for the positions: that of a file, rounded, would leave the
    density with other than a whole number of electrons.

    Args:
        molecule: numbers, positions and charge are used.
        theory: level of theory.
        threshold: overlap eigenvectors below it are left out of every diagonalisation; None: see
            `overlap_threshold`.

    Raises:
        ConfigError: PySCF is not installed; an open shell; an element outside the basis or without
            dispersion; too few orbitals kept.
    """

    def __init__(
        self, molecule: Molecule, theory: Theory, *, threshold: float | None = None
    ) -> None:
        self.molecule, self.theory = molecule, theory
        self.field = engine.mean_field(molecule, theory)
        self.basis, electrons = engine.orbital_basis(
            theory.basis, molecule.numbers, molecule.charge
        )
        self.pairs = electrons // 2
        threshold = overlap_threshold(theory.basis) if threshold is None else threshold
        self.orthogonal = orthogonaliser(self.field.get_ovlp(), threshold)
        kept = self.orthogonal.shape[1]
        if kept < self.pairs:
            raise ConfigError(
                f"{engine.called(molecule)}: only {kept} overlap eigenvalues lie above "
                f"{threshold:g}, too few for {electrons} electrons; lower the threshold"
            )

    def at(self, hamiltonian: Matrix) -> State:
        """The state that a canonical (nao, nao) Hamiltonian in Eh describes.

        Raises:
            ConfigError: it is of another shape, or not finite.
        """
        numbers = self.molecule.numbers
        nao = self.basis.nao(numbers)
        if np.shape(hamiltonian) != (nao, nao) or not np.isfinite(hamiltonian).all():
            raise ConfigError(
                f"{engine.called(self.molecule)}: the Hamiltonian must be finite and "
                f"of shape ({nao}, {nao}) in {self.theory.basis}, got shape "
                f"{np.shape(hamiltonian)}; check what predicted it"
            )
        return State(self, from_canonical(np.asarray(hamiltonian), numbers, self.basis, "pyscf"))

    @cached_property
    def core(self) -> Matrix:
        """h: kinetic energy, nuclear attraction and core potentials; Eh, PySCF's order."""
        return np.asarray(self.field.get_hcore())

    @cached_property
    def constant(self) -> float:
        """Repulsion of the nuclei and dispersion, Eh."""
        return float(self.field.energy_nuc()) + dispersion(self.molecule, self.theory)[0]

    def semilocal(self, density: Matrix) -> tuple[float, Matrix]:
        """E_xc (Eh) and V_xc (nao, nao) of a density in PySCF's order, VV10 included."""
        field = self.field
        field.initialize_grids()
        _, energy, potential = field._numint.nr_rks(
            field.mol, field.grids, field.xc, density, max_memory=field.max_memory
        )
        if field.do_nlc():
            _, nonlocal_energy, nonlocal_potential = field._numint.nr_nlc_vxc(
                field.mol, field.nlcgrids, field.xc, density, max_memory=field.max_memory
            )
            energy, potential = energy + nonlocal_energy, potential + nonlocal_potential
        return float(energy), np.asarray(potential)

    def repulsion(self, density: Matrix) -> float:
        """``1/2 Tr[D J] - 1/4 Tr[D K]`` in Eh of a density in PySCF's order."""
        field = self.field
        omega, long_range, exact = field._numint.rsh_and_hybrid_coeff(field.xc)
        if not field._numint.libxc.is_hybrid_xc(field.xc):
            return _trace(density, field.get_j(field.mol, density)) / 2
        coulomb, exchange = field.get_jk(field.mol, density)
        exchange = exact * exchange
        if omega:
            far = field.get_k(field.mol, density, omega=omega)
            exchange = exchange + (long_range - exact) * far
        return _trace(density, coulomb) / 2 - _trace(density, exchange) / 4


class State:
    """The closed-shell state of one Hamiltonian; what is asked of it is computed once.

    Args:
        functional: of the molecule.
        hamiltonian: (nao, nao) Eh in PySCF's order; its symmetric part counts.
    """

    def __init__(self, functional: Functional, hamiltonian: Matrix) -> None:
        self.functional = functional
        self.hamiltonian = (hamiltonian + hamiltonian.T) / 2

    @cached_property
    def orbitals(self) -> tuple[Matrix, Matrix, Matrix]:
        """Levels (m,) in Eh, coefficients (nao, m) in PySCF's order, occupations (m,), aufbau."""
        levels, coefficients = levels_within(self.hamiltonian, self.functional.orthogonal)
        occupations = np.where(np.arange(len(levels)) < self.functional.pairs, 2.0, 0.0)
        return levels, coefficients, occupations

    @cached_property
    def density(self) -> Matrix:
        """``D = 2 C C^T`` (nao, nao) of the occupied orbitals, PySCF's order."""
        _, coefficients, occupations = self.orbitals
        density: Matrix = self.functional.field.make_rdm1(coefficients, occupations)
        return density

    @cached_property
    def energy(self) -> float:
        """``E[D]`` in Eh."""
        return (
            self._core_and_constant + self.functional.repulsion(self.density) + self._semilocal[0]
        )

    @cached_property
    def mixed_energy(self) -> float:
        """``E_mix`` in Eh."""
        energy, potential = self._semilocal
        two_electron = self.hamiltonian - self.functional.core - potential
        return self._core_and_constant + _trace(self.density, two_electron) / 2 + energy

    @cached_property
    def dipole(self) -> Matrix:
        """(3,) dipole moment in Debye; of ions from the centre of the nuclear charges."""
        field = self.functional.field
        charges = field.mol.atom_charges()
        places = np.asarray(field.mol.atom_coords())
        origin = charges @ places / charges.sum() if field.mol.charge else np.zeros(3)
        electronic = np.einsum(
            "xij,ij->x", field.mol.intor_symmetric("int1e_r", comp=3), self.density
        )
        moment: Matrix = charges @ places - electronic - field.mol.charge * origin
        return moment * DEBYE

    @cached_property
    def _semilocal(self) -> tuple[float, Matrix]:
        return self.functional.semilocal(self.density)

    @cached_property
    def _core_and_constant(self) -> float:
        return _trace(self.density, self.functional.core) + self.functional.constant


def energy_of(
    hamiltonian: Matrix, molecule: Molecule, theory: Theory, *, threshold: float | None = None
) -> float:
    """``E[D]`` in Eh of the density that one diagonalisation of a canonical Hamiltonian gives.

    The functional is evaluated in full at that density, so its error is second order in the
    error of the (nao, nao) Hamiltonian (Eh). ``threshold`` and errors: see `Functional`.
    """
    return Functional(molecule, theory, threshold=threshold).at(hamiltonian).energy


def fock_of(
    hamiltonian: Matrix, molecule: Molecule, theory: Theory, *, threshold: float | None = None
) -> Matrix:
    """``F[D]``, the (nao, nao) canonical Fock matrix (Eh) of the density of a given Hamiltonian.

    Of a converged Hamiltonian it is that Hamiltonian again, if molecule, charge, theory and AO
    order are right. Arguments and errors as of `energy_of`.
    """
    functional = Functional(molecule, theory, threshold=threshold)
    fock = functional.field.get_fock(dm=functional.at(hamiltonian).density)
    return engine.canonical(fock, molecule.numbers, theory.basis)


def forces_of(
    hamiltonian: Matrix, molecule: Molecule, theory: Theory, *, threshold: float | None = None
) -> Matrix:
    """(N, 3) forces in Eh/Angstrom at the orbitals of a converged canonical Hamiltonian.

    Without an SCF: of a Hamiltonian that is not that of its own density they mean nothing.
    Arguments and errors as of `energy_of`.
    """
    functional = Functional(molecule, theory, threshold=threshold)
    field = functional.field
    field.mo_energy, field.mo_coeff, field.mo_occ = functional.at(hamiltonian).orbitals
    return nuclear_forces(field) + dispersion(molecule, theory)[1]


def nuclear_forces(field: Any) -> Matrix:
    """(N, 3) Eh/Angstrom, without dispersion, at the orbitals a field has."""
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    return -np.asarray(gradient.kernel()) / BOHR


def _trace(a: Matrix, b: Matrix) -> float:
    """``Tr[A B]`` of symmetric matrices."""
    return float(np.einsum("ij,ij->", a, b))
