"""PySCF behind one door: labels, overlap, the energy of a given H, an SCF started from one.

Everything that enters or leaves is in the house's units (Hartree, Angstrom) and canonical AO
order. PySCF is imported inside functions only: no other module of the project imports it, and
training needs none. All calculations are closed-shell Kohn-Sham (``xc="hf"`` gives Hartree-Fock).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from hambench.chem.dispersion import chai_head_gordon
from hambench.chem.molecule import SYMBOLS, Molecule, formula
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical, to_canonical
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, RegistryError, RunError, nearest
from hambench.units import BOHR, DEBYE

Matrix = NDArray[np.float64]

GUESSES: Final = ("minao", "atom", "1e")
"""PySCF's initial guesses that `initial_fock` and `calculate` take."""

OVERLAP_THRESHOLD: Final = 1e-6
"""Eigenvectors of S below this are left out of a diagonalisation (canonical orthogonalisation);
def2-SVP keeps all, for def2-TZVPD 1e-5 is usual."""

SMALLEST_GAP: Final = 0.02
"""Eh (0.5 eV). Below it a closed shell is hardly the ground state: PBE gives 0.1 to 0.3 Eh for
molecules near equilibrium, range-separated hybrids more; broken bonds and wrong charges less."""

_ROUGH: Final[dict[str, Any]] = {"grid_level": 1, "conv_tol": 1e-8, "conv_tol_grad": 1e-5}
"""The first cycles of `calculate`: from its end, few others are left."""
_ROUNDING: Final = 2e-14  # of the energy
_NEAR: Final = 10.0  # times the threshold of the gradient
_STANDING: Final = 3  # cycles that have not halved it


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
        guess: one of `GUESSES`, or a (nao, nao) canonical Hamiltonian in Eh to start from.
        ground_state: also require a gap of `SMALLEST_GAP` between occupied and empty orbitals,
            and an energy that no mixing of the two spins lowers (the stability of Seeger and
            Pople, J. Chem. Phys. 66, 3045 (1977)), its lowest eigenvalue being known to 5e-4 Eh
            from the coarsest grid.

    Raises:
        SCFError: no convergence, or the result failed a check (orbital energies, electrons, sum
            of forces); ExcitedStateError where it is not the ground state.
        ConfigError: PySCF is not installed; an open shell; an element outside the basis.
    """
    field = _mean_field(molecule, theory)
    density, cycles = _initial_density(field, molecule, theory, guess), 0
    if isinstance(guess, str) and theory.grid_level > _ROUGH["grid_level"]:
        rough = _mean_field(molecule, replace(theory, **_ROUGH))
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
            f"{_name(molecule)}: the SCF did not converge in {cycles} cycles ({theory.xc}/"
            f"{theory.basis}); check charge and geometry, or leave the molecule out"
        )
    result = _result(field, molecule, theory, cycles, forces)
    _check(result, theory)
    if ground_state:
        _check_ground_state(field, molecule)
    return result


def scf_from(hamiltonian: Matrix, molecule: Molecule, theory: Theory) -> DFTResult:
    """One SCF started from the density of a given (nao, nao) canonical Hamiltonian (Eh).

    No second attempt: `DFTResult.cycles` and `.converged` are what a study of SCF acceleration
    counts. The cycle count does not include the Fock build of the starting density. Raises
    ConfigError as `calculate` does.
    """
    field = _mean_field(molecule, theory)
    field.kernel(_initial_density(field, molecule, theory, hamiltonian))
    return _result(field, molecule, theory, field.cycles, forces=False)


def energy_of(
    hamiltonian: Matrix,
    molecule: Molecule,
    theory: Theory,
    *,
    threshold: float = OVERLAP_THRESHOLD,
) -> float:
    """``E[D]`` in Eh of the density that one diagonalisation of a canonical Hamiltonian gives.

    The functional is evaluated in full at that density, so its error is second order in the
    error of the (nao, nao) Hamiltonian (Eh). ``threshold``: see `OVERLAP_THRESHOLD`. Raises
    ConfigError as `calculate` does.
    """
    field = _mean_field(molecule, theory)
    energy = field.energy_tot(_density_of(hamiltonian, field.mol, molecule, theory, threshold))
    return float(energy) + _dispersion(molecule, theory)[0]


def fock_of(
    hamiltonian: Matrix,
    molecule: Molecule,
    theory: Theory,
    *,
    threshold: float = OVERLAP_THRESHOLD,
) -> Matrix:
    """``F[D]``, the (nao, nao) canonical Fock matrix (Eh) of the density of a given Hamiltonian.

    Of a converged Hamiltonian it is that Hamiltonian again, if molecule, charge, theory and AO
    order are right. Arguments and errors as of `energy_of`.
    """
    field = _mean_field(molecule, theory)
    density = _density_of(hamiltonian, field.mol, molecule, theory, threshold)
    return _canonical(field.get_fock(dm=density), molecule.numbers, theory.basis)


def forces_of(
    hamiltonian: Matrix,
    molecule: Molecule,
    theory: Theory,
    *,
    threshold: float = OVERLAP_THRESHOLD,
) -> Matrix:
    """(N, 3) forces in Eh/Angstrom at the orbitals of a converged canonical Hamiltonian.

    Without an SCF: of a Hamiltonian that is not that of its own density they mean nothing.
    Arguments and errors as of `energy_of`.
    """
    field = _mean_field(molecule, theory)
    levels, coefficients, pairs = _orbitals_of(hamiltonian, field.mol, molecule, theory, threshold)
    field.mo_energy, field.mo_coeff = levels, coefficients
    field.mo_occ = np.where(np.arange(len(levels)) < pairs, 2.0, 0.0)
    return _forces(field) + _dispersion(molecule, theory)[1]


def initial_fock(molecule: Molecule, theory: Theory, guess: str = "minao") -> Matrix:
    """(nao, nao) canonical Fock matrix (Eh) built from an initial guess of `GUESSES`."""
    field = _mean_field(molecule, theory)
    density = _initial_density(field, molecule, theory, guess)
    return _canonical(field.get_fock(dm=density), molecule.numbers, theory.basis)


def overlap(numbers: ArrayLike, positions: ArrayLike, basis: str) -> Matrix:
    """(nao, nao) canonical overlap of the orbitals of (N,) atoms at (N, 3) Angstrom."""
    mol = _mole(numbers, positions, basis, charge=None)
    return _canonical(mol.intor_symmetric("int1e_ovlp"), numbers, basis)


def core_hamiltonian(numbers: ArrayLike, positions: ArrayLike, basis: str) -> Matrix:
    """(nao, nao) canonical kinetic + nuclear attraction + core potential matrix, Eh."""
    _, scf, _ = _pyscf()
    mol = _mole(numbers, positions, basis, charge=None)
    return _canonical(scf.hf.get_hcore(mol), numbers, basis)


def basis_shells(name: str, elements: Iterable[int]) -> dict[int, tuple[tuple[int, ...], int]]:
    """Shells of each element in PySCF's order, and the electrons its core potential removes.

    Returns:
        ``{Z: (angular momenta, core electrons)}``.

    Raises:
        RegistryError: PySCF has no basis of that name.
        ConfigError: it has, but not for an element; or PySCF is not installed.
    """
    gto, _, _ = _pyscf()
    shells = {}
    for z in sorted(set(elements)):
        if not _has_basis(gto, name, z):
            if not any(_has_basis(gto, name, other) for other in range(1, len(SYMBOLS))):
                raise RegistryError(f"unknown basis set '{name}'.")
            raise ConfigError(
                f"basis set '{name}' has no orbitals for {SYMBOLS[z]}; choose another basis set, "
                "or leave the element out"
            )
        mol = _mole([z], np.zeros((1, 3)), name, charge=None)
        listed = [(mol.bas_angular(i), mol.bas_nctr(i)) for i in range(mol.nbas)]
        momenta = tuple(int(angular) for angular, count in listed for _ in range(count))
        shells[z] = (momenta, int(mol.atom_nelec_core(0)))
    return shells


def versions() -> dict[str, str]:
    """Versions of what computes: PySCF and libxc; ConfigError without PySCF."""
    import importlib.metadata

    _, _, dft = _pyscf()
    return {"pyscf": importlib.metadata.version("pyscf"), "libxc": dft.libxc.__version__}


def _pyscf() -> tuple[Any, Any, Any]:
    """PySCF's gto, scf and dft; they are untyped, hence Any."""
    try:
        from pyscf import dft, gto, scf
    except ImportError as error:
        raise ConfigError(
            "this needs PySCF, which is not installed; install it with: pip install "
            "'hambench[pyscf]'"
        ) from error
    return gto, scf, dft


def _has_basis(gto: Any, name: str, z: int) -> bool:
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it suggests to install another package
            return bool(gto.basis.load(name, SYMBOLS[z]))
    except (BasisNotFoundError, KeyError, RuntimeError, AssertionError):
        return False


@lru_cache
def _core_potential(basis: str, z: int) -> Any:
    gto, _, _ = _pyscf()
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        return gto.basis.load_ecp(basis, SYMBOLS[z])
    except (BasisNotFoundError, KeyError, RuntimeError):
        return None


def _mole(numbers: ArrayLike, positions: ArrayLike, basis: str, charge: int | None) -> Any:
    """PySCF's molecule; charge None where electrons do not matter (overlap, core Hamiltonian)."""
    gto, _, _ = _pyscf()
    numbers = np.asarray(numbers, dtype=np.int64)
    positions = np.asarray(positions, dtype=np.float64)
    symbols = [SYMBOLS[z] for z in numbers]
    potentials = {SYMBOLS[z]: _core_potential(basis, int(z)) for z in sorted(set(numbers.tolist()))}
    return gto.M(
        atom=list(zip(symbols, (positions / BOHR).tolist(), strict=True)),
        unit="Bohr",  # converted here, so that the house has one bohr constant
        basis=basis,
        ecp={symbol: ecp for symbol, ecp in potentials.items() if ecp},
        charge=charge or 0,
        spin=None if charge is None else 0,
        verbose=0,
        dump_input=False,
        parse_arg=False,
    )


def _mean_field(molecule: Molecule, theory: Theory) -> Any:
    _, _, dft = _pyscf()
    _, electrons = _orbital_basis(theory.basis, molecule.numbers, molecule.charge)
    if molecule.multiplicity != 1 or electrons % 2 or electrons < 2:
        raise ConfigError(
            f"{_name(molecule)}: {electrons} electrons outside the cores, charge {molecule.charge} "
            f"and multiplicity {molecule.multiplicity} are no closed shell; only closed shells are "
            "computed, check the charge"
        )
    field = dft.RKS(_mole(molecule.numbers, molecule.positions, theory.basis, molecule.charge))
    field.xc = theory.xc
    field.grids.level = theory.grid_level
    field.nlcgrids.level = theory.nlc_grid_level
    if theory.fit is not None:
        field = field.density_fit(auxbasis=theory.fit)
    field.conv_tol = theory.conv_tol
    field.conv_tol_grad = theory.conv_tol_grad
    field.max_cycle = theory.max_cycles
    field.check_convergence = _convergence(theory)
    # one more diagonalisation confirms nothing: undamped, it multiplies the gradient by the inverse
    # of a small gap
    field.conv_check = False
    field.chkfile = None
    return field


def _convergence(theory: Theory) -> Callable[[dict[str, Any]], bool]:
    """PySCF's test after each cycle: the thresholds of `Theory`, or what rounding leaves of them.

    The rounding of a grid of 10^5 points moves the energy by 1e-14 of itself and the gradient of
    sulfur compounds by 1e-8 Eh; cycles below that are a game of chance. So is the gradient taken
    for converged when, near its threshold, three cycles have not halved it.
    """
    least: list[float] = []

    def converged(cycle: dict[str, Any]) -> bool:
        energy, gradient = float(cycle["e_tot"]), float(cycle["norm_gorb"])
        if cycle["cycle"] == 0:
            least.clear()
        least.append(min([gradient, *least[-1:]]))
        near = least[-1] < _NEAR * theory.conv_tol_grad
        stands = near and len(least) > _STANDING and least[-1] > least[-1 - _STANDING] / 2
        settled = abs(energy - cycle["last_hf_e"]) < max(theory.conv_tol, _ROUNDING * abs(energy))
        return settled and (gradient < theory.conv_tol_grad or stands)

    return converged


def _orbital_basis(basis: str, numbers: ArrayLike, charge: int = 0) -> tuple[OrbitalBasis, int]:
    """The basis over the molecule's elements, and its electrons outside the cores."""
    orbitals = _cached_basis(basis, tuple(sorted(set(np.asarray(numbers).tolist()))))
    return orbitals, orbitals.electrons(numbers, charge)


@lru_cache(maxsize=1024)
def _cached_basis(basis: str, elements: tuple[int, ...]) -> OrbitalBasis:
    return OrbitalBasis.load(basis, elements)


def _canonical(matrix: Matrix, numbers: ArrayLike, basis: str) -> Matrix:
    symmetric = (matrix + matrix.T) / 2
    return to_canonical(symmetric, numbers, _orbital_basis(basis, numbers)[0], "pyscf")


def _initial_density(field: Any, molecule: Molecule, theory: Theory, guess: str | Matrix) -> Matrix:
    """Starting density in PySCF's order."""
    if not isinstance(guess, str):
        return _density_of(guess, field.mol, molecule, theory, OVERLAP_THRESHOLD)
    if guess not in GUESSES:
        raise ConfigError(f"unknown initial guess '{guess}'.{nearest(guess, GUESSES)}")
    return np.asarray(field.get_init_guess(field.mol, guess))


def _density_of(
    hamiltonian: Matrix, mol: Any, molecule: Molecule, theory: Theory, threshold: float
) -> Matrix:
    """Closed-shell density (PySCF's order) of a canonical Hamiltonian, by aufbau."""
    _, coefficients, pairs = _orbitals_of(hamiltonian, mol, molecule, theory, threshold)
    occupied = coefficients[:, :pairs]
    return 2 * occupied @ occupied.T


def _orbitals_of(
    hamiltonian: Matrix, mol: Any, molecule: Molecule, theory: Theory, threshold: float
) -> tuple[Matrix, Matrix, int]:
    """Levels (Eh), coefficients (PySCF's order) of a canonical Hamiltonian, occupied orbitals."""
    orbitals, electrons = _orbital_basis(theory.basis, molecule.numbers, molecule.charge)
    nao = orbitals.nao(molecule.numbers)
    if np.shape(hamiltonian) != (nao, nao) or not np.isfinite(hamiltonian).all():
        raise ConfigError(
            f"{_name(molecule)}: a Hamiltonian to start from must be finite and of shape ({nao}, "
            f"{nao}) in {theory.basis}, got shape {np.shape(hamiltonian)}; check what predicted it"
        )
    fock = from_canonical(np.asarray(hamiltonian), molecule.numbers, orbitals, "pyscf")
    values, vectors = scipy.linalg.eigh(mol.intor_symmetric("int1e_ovlp"))
    kept = values > threshold
    if kept.sum() < electrons // 2:
        raise ConfigError(
            f"{_name(molecule)}: only {kept.sum()} overlap eigenvalues lie above {threshold:g}, "
            f"too few for {electrons} electrons; lower the threshold"
        )
    to_orthogonal = vectors[:, kept] / np.sqrt(values[kept])
    levels, coefficients = scipy.linalg.eigh(to_orthogonal.T @ fock @ to_orthogonal)
    return levels, to_orthogonal @ coefficients, electrons // 2


def _forces(field: Any) -> Matrix:
    """(N, 3) Eh/Angstrom, without dispersion, at the orbitals a field has."""
    gradient = field.nuc_grad_method()
    gradient.grid_response = True
    return -np.asarray(gradient.kernel()) / BOHR


def _result(field: Any, molecule: Molecule, theory: Theory, cycles: int, forces: bool) -> DFTResult:
    density = field.make_rdm1()
    potential = field.get_veff(dm=density)
    energy, pull = _dispersion(molecule, theory)
    if forces:
        pull = pull + _forces(field)
    labelled = replace(
        molecule,
        basis=theory.basis,
        hamiltonian=_canonical(
            field.get_fock(dm=density, vhf=potential), molecule.numbers, theory.basis
        ),
        overlap=_canonical(field.get_ovlp(), molecule.numbers, theory.basis),
        energy=float(field.energy_tot(density, vhf=potential)) + energy,
        forces=pull if forces else None,
    )
    return DFTResult(
        molecule=labelled,
        density=_canonical(density, molecule.numbers, theory.basis),
        mo_energy=np.asarray(field.mo_energy),
        dipole=np.asarray(field.dip_moment(dm=density, unit="AU", verbose=0)) * DEBYE,
        cycles=cycles,
        converged=bool(field.converged),
    )


def _dispersion(molecule: Molecule, theory: Theory) -> tuple[float, Matrix]:
    if theory.dispersion:
        return chai_head_gordon(molecule.numbers, molecule.positions)
    return 0.0, np.zeros((len(molecule), 3))


def _check(result: DFTResult, theory: Theory) -> None:
    """Raise SCFError where the labels do not hang together."""
    molecule = result.molecule
    assert molecule.hamiltonian is not None  # as `_result` made it
    assert molecule.overlap is not None
    values, vectors = scipy.linalg.eigh(molecule.overlap)
    count = len(result.mo_energy)  # PySCF drops near-dependent combinations, as here
    to_orthogonal = vectors[:, -count:] / np.sqrt(values[-count:])
    levels = scipy.linalg.eigvalsh(to_orthogonal.T @ molecule.hamiltonian @ to_orthogonal)
    electrons = _orbital_basis(theory.basis, molecule.numbers, molecule.charge)[1]
    found = {
        "orbital energies of H": (np.abs(levels - result.mo_energy).max(), 1e-6, "Eh"),
        "electrons": (abs(np.sum(result.density * molecule.overlap) - electrons), 1e-8, ""),
    }
    if molecule.forces is not None:
        found["sum of forces"] = (np.abs(molecule.forces.sum(axis=0)).max(), 1e-7, "Eh/Angstrom")
    for what, (error, allowed, unit) in found.items():
        if not error <= allowed:
            raise SCFError(
                f"{_name(molecule)}: the {what} are off by {error:.1e} {unit} (allowed "
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
            f"{_name(molecule)}: the gap between occupied and empty orbitals is {gap:.3f} Eh, less "
            f"than {SMALLEST_GAP:g}; a closed shell is hardly its ground state, check charge and "
            "geometry, or leave the molecule out"
        )
    field.grids.level = 0
    field.grids.build()
    *_, stable = field.stability(internal=False, external=True, return_status=True, nroots=1)
    if not stable:
        raise ExcitedStateError(
            f"{_name(molecule)}: an open shell has a lower energy than the closed shell that was "
            "found; check charge and geometry, or leave the molecule out"
        )


def _name(molecule: Molecule) -> str:
    return f"molecule '{molecule.id}'" if molecule.id else formula(molecule.numbers)
