"""Labels by self-consistent fields, Fock matrices of guesses, and what a basis set says of itself.

Everything that enters or leaves is in the house's units (Hartree, Angstrom) and canonical AO
order. All calculations are closed-shell Kohn-Sham (``xc="hf"`` gives Hartree-Fock), by PySCF.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from hambench.chem import engine
from hambench.chem.dispersion import dispersion
from hambench.chem.functional import Functional, nuclear_forces
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.scf import density_of
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, RegistryError, RunError
from hambench.units import DEBYE

Matrix = NDArray[np.float64]

SMALLEST_GAP: Final = 0.02
"""Eh (0.5 eV). Below it a closed shell is hardly the ground state: PBE gives 0.1 to 0.3 Eh for
molecules near equilibrium, range-separated hybrids more; broken bonds and wrong charges less."""

_ROUGH: Final[dict[str, Any]] = {"grid_level": 1, "conv_tol": 1e-8, "conv_tol_grad": 1e-5}
"""The first cycles of `calculate`: from its end, few others are left."""


class SCFError(RunError):
    """The self-consistent field did not converge, or its result failed a check."""


class ExcitedStateError(SCFError):
    """The closed shell that was found is not the ground state."""


@dataclass(frozen=True, eq=False)
class DFTResult:
    """What an SCF gave.

    Attributes:
        molecule: the molecule with hamiltonian, overlap, energy and, where asked for, forces.
            The hamiltonian is rebuilt from the final density: no level shift, no DIIS.
        density: (nao, nao) density matrix, canonical order; trace(density @ S) = electrons.
        mo_energy: (nmo,) orbital energies in Eh, ascending.
        dipole: (3,) Debye, origin of the coordinates.
        cycles: SCF cycles until convergence (all attempts together).
        converged: whether the SCF met its criteria. `calculate` never returns False.
    """

    molecule: Molecule
    density: Matrix
    mo_energy: Matrix
    dipole: Matrix
    cycles: int
    converged: bool


def calculate(
    molecule: Molecule,
    theory: Theory,
    *,
    forces: bool = True,
    guess: str | Matrix = "minao",
    ground_state: bool = False,
) -> DFTResult:
    """Converged labels of a molecule, checked.

    From a named guess, the first cycles use a coarse grid, which costs a fifth. An SCF that does
    not converge is tried again with a level shift and then, from the density so found, without it.

    Args:
        molecule: numbers, positions and charge are used; existing labels are ignored.
        theory: level of theory.
        forces: also compute forces, with the response of the integration grid.
        guess: one of `hambench.chem.scf.GUESSES`, or a (nao, nao) canonical Hamiltonian in Eh to
            start from.
        ground_state: also require a gap of `SMALLEST_GAP` between occupied and empty orbitals,
            and an energy that no mixing of the two spins lowers (the stability of Seeger and
            Pople, J. Chem. Phys. 66, 3045 (1977)), its lowest eigenvalue being known to 5e-4 Eh
            from the coarsest grid.

    Raises:
        SCFError: no convergence, or the result failed a check (orbital energies, electrons, sum
            of forces); ExcitedStateError where it is not the ground state.
        ConfigError: PySCF is not installed; an open shell; an element outside the basis.
    """
    field = engine.mean_field(molecule, theory)
    density, cycles = density_of(Functional(molecule, theory), guess), 0
    if isinstance(guess, str) and theory.grid_level > _ROUGH["grid_level"]:
        rough = engine.mean_field(molecule, replace(theory, **_ROUGH))
        rough.kernel(density)
        density, cycles = rough.make_rdm1(), rough.cycles
    field.kernel(density)
    cycles += field.cycles
    if not field.converged:
        field.level_shift = 0.2
        field.kernel(field.make_rdm1())
        field.level_shift = 0.0
        cycles += field.cycles
        field.kernel(field.make_rdm1())
        cycles += field.cycles
    if not field.converged:
        raise SCFError(
            f"{engine.called(molecule)}: the SCF did not converge in {cycles} cycles ({theory.xc}/"
            f"{theory.basis}); check charge and geometry, or leave the molecule out"
        )
    result = _result(field, molecule, theory, cycles, forces)
    _check(result, theory)
    if ground_state:
        _check_ground_state(field, molecule)
    return result


def initial_fock(molecule: Molecule, theory: Theory, guess: str = "minao") -> Matrix:
    """(nao, nao) canonical Fock matrix (Eh) of one of `hambench.chem.scf.GUESSES`."""
    functional = Functional(molecule, theory)
    field, density = functional.field, density_of(functional, guess)
    return engine.canonical(field.get_fock(dm=density), molecule.numbers, theory.basis)


def overlap(numbers: ArrayLike, positions: ArrayLike, basis: str) -> Matrix:
    """(nao, nao) canonical overlap of the orbitals of (N,) atoms at (N, 3) Angstrom."""
    mol = engine.mole(numbers, positions, basis, charge=None)
    return engine.canonical(mol.intor_symmetric("int1e_ovlp"), numbers, basis)


def core_hamiltonian(numbers: ArrayLike, positions: ArrayLike, basis: str) -> Matrix:
    """(nao, nao) canonical kinetic + nuclear attraction + core potential matrix, Eh."""
    _, scf, _ = engine.pyscf()
    mol = engine.mole(numbers, positions, basis, charge=None)
    return engine.canonical(scf.hf.get_hcore(mol), numbers, basis)


def basis_shells(name: str, elements: Iterable[int]) -> dict[int, tuple[tuple[int, ...], int]]:
    """Shells of each element in PySCF's order, and the electrons its core potential removes.

    Returns:
        ``{Z: (angular momenta, core electrons)}``.

    Raises:
        RegistryError: PySCF has no basis of that name.
        ConfigError: it has, but not for an element; or PySCF is not installed.
    """
    shells = {}
    for z in sorted(set(elements)):
        if not engine.has_basis(name, z):
            if not any(engine.has_basis(name, other) for other in range(1, len(SYMBOLS))):
                raise RegistryError(f"unknown basis set '{name}'.")
            raise ConfigError(
                f"basis set '{name}' has no orbitals for {SYMBOLS[z]}; choose another basis set, "
                "or leave the element out"
            )
        mol = engine.mole([z], np.zeros((1, 3)), name, charge=None)
        listed = [(mol.bas_angular(i), mol.bas_nctr(i)) for i in range(mol.nbas)]
        momenta = tuple(int(angular) for angular, count in listed for _ in range(count))
        shells[z] = (momenta, int(mol.atom_nelec_core(0)))
    return shells


def versions() -> dict[str, str]:
    """Versions of what computes: PySCF and libxc; ConfigError without PySCF."""
    import importlib.metadata

    _, _, dft = engine.pyscf()
    return {"pyscf": importlib.metadata.version("pyscf"), "libxc": dft.libxc.__version__}


def _result(field: Any, molecule: Molecule, theory: Theory, cycles: int, forces: bool) -> DFTResult:
    density = field.make_rdm1()
    potential = field.get_veff(dm=density)
    energy, pull = dispersion(molecule, theory)
    if forces:
        pull = pull + nuclear_forces(field)
    labelled = replace(
        molecule,
        basis=theory.basis,
        hamiltonian=engine.canonical(
            field.get_fock(dm=density, vhf=potential), molecule.numbers, theory.basis
        ),
        overlap=engine.canonical(field.get_ovlp(), molecule.numbers, theory.basis),
        energy=float(field.energy_tot(density, vhf=potential)) + energy,
        forces=pull if forces else None,
    )
    return DFTResult(
        molecule=labelled,
        density=engine.canonical(density, molecule.numbers, theory.basis),
        mo_energy=np.asarray(field.mo_energy),
        dipole=np.asarray(field.dip_moment(dm=density, unit="AU", verbose=0)) * DEBYE,
        cycles=cycles,
        converged=bool(field.converged),
    )


def _check(result: DFTResult, theory: Theory) -> None:
    """Raise SCFError where the labels do not hang together."""
    molecule = result.molecule
    assert molecule.hamiltonian is not None  # as `_result` made it
    assert molecule.overlap is not None
    values, vectors = scipy.linalg.eigh(molecule.overlap)
    count = len(result.mo_energy)  # PySCF drops near-dependent combinations, as here
    to_orthogonal = vectors[:, -count:] / np.sqrt(values[-count:])
    levels = scipy.linalg.eigvalsh(to_orthogonal.T @ molecule.hamiltonian @ to_orthogonal)
    electrons = engine.orbital_basis(theory.basis, molecule.numbers, molecule.charge)[1]
    found = {
        "orbital energies of H": (np.abs(levels - result.mo_energy).max(), 1e-6, "Eh"),
        "electrons": (abs(np.sum(result.density * molecule.overlap) - electrons), 1e-8, ""),
    }
    if molecule.forces is not None:
        found["sum of forces"] = (np.abs(molecule.forces.sum(axis=0)).max(), 1e-7, "Eh/Angstrom")
    for what, (error, allowed, unit) in found.items():
        if not error <= allowed:
            raise SCFError(
                f"{engine.called(molecule)}: the {what} are off by {error:.1e} {unit} (allowed "
                f"{allowed:g}); tighten conv_tol_grad, or leave the molecule out"
            )


def _check_ground_state(field: Any, molecule: Molecule) -> None:
    """Raise ExcitedStateError for a small or negative gap, or an instability; changes the grid."""
    occupied, empty = field.mo_energy[field.mo_occ > 0], field.mo_energy[field.mo_occ == 0]
    if not len(empty):
        return  # nothing to excite into
    gap = float(empty.min() - occupied.max())
    if not gap >= SMALLEST_GAP:
        raise ExcitedStateError(
            f"{engine.called(molecule)}: the gap between occupied and empty orbitals is {gap:.3f} "
            f"Eh, less than {SMALLEST_GAP:g}; a closed shell is hardly its ground state, check "
            "charge and geometry, or leave the molecule out"
        )
    field.grids.level = 0
    field.grids.build()
    *_, stable = field.stability(internal=False, external=True, return_status=True, nroots=1)
    if not stable:
        raise ExcitedStateError(
            f"{engine.called(molecule)}: an open shell has a lower energy than the closed shell "
            "that was found; check charge and geometry, or leave the molecule out"
        )
