"""PySCF behind one door: its molecules and mean fields, from and to the house's units and orders.

No other module imports PySCF, and this one inside functions only: training needs none. What is
done with it stands in `hambench.chem.dft` (labels), `hambench.chem.scf` (cycles from a start) and
`hambench.chem.functional` (energies, Fock matrices and forces of a given Hamiltonian).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.molecule import SYMBOLS, Molecule, formula
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import to_canonical
from hambench.chem.theory import Theory
from hambench.errors import ConfigError
from hambench.units import BOHR

Matrix = NDArray[np.float64]

DIIS_SPACE: Final = 8
"""Fock matrices that the DIIS of an SCF mixes; PySCF's default, said here to hold everywhere."""

_ROUNDING: Final = 2e-14  # of the energy
_NEAR: Final = 10.0  # times the threshold of the gradient
_STANDING: Final = 3  # cycles that have not halved it


def pyscf() -> tuple[Any, Any, Any]:
    """PySCF's gto, scf and dft; they are untyped, hence Any."""
    try:
        from pyscf import dft, gto, scf
    except ImportError as error:
        raise ConfigError(
            "this needs PySCF, which is not installed; install it with: pip install "
            "'hambench[pyscf]'"
        ) from error
    return gto, scf, dft


def is_installed() -> bool:
    """Whether PySCF can be imported."""
    try:
        pyscf()
    except ConfigError:
        return False
    return True


def has_basis(name: str, z: int) -> bool:
    """Whether PySCF has a basis of that name for an element."""
    gto, _, _ = pyscf()
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it suggests to install another package
            return bool(gto.basis.load(name, SYMBOLS[z]))
    except (BasisNotFoundError, KeyError, RuntimeError, AssertionError):
        return False


@lru_cache
def _core_potential(basis: str, z: int) -> Any:
    gto, _, _ = pyscf()
    from pyscf.lib.exceptions import BasisNotFoundError

    try:
        return gto.basis.load_ecp(basis, SYMBOLS[z])
    except (BasisNotFoundError, KeyError, RuntimeError):
        return None


def mole(numbers: ArrayLike, positions: ArrayLike, basis: str, charge: int | None) -> Any:
    """PySCF's molecule; charge None where electrons do not matter (overlap, core Hamiltonian)."""
    gto, _, _ = pyscf()
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


def mean_field(molecule: Molecule, theory: Theory) -> Any:
    """PySCF's closed-shell Kohn-Sham object, its grids and integrals not yet computed.

    Raises:
        ConfigError: PySCF is not installed; an open shell; an element outside the basis, or that
            of the density fitting.
    """
    _, _, dft = pyscf()
    _, electrons = orbital_basis(theory.basis, molecule.numbers, molecule.charge)
    if molecule.multiplicity != 1 or electrons % 2 or electrons < 2:
        raise ConfigError(
            f"{called(molecule)}: {electrons} electrons outside the cores, charge "
            f"{molecule.charge} and multiplicity {molecule.multiplicity} are no closed shell; only "
            "closed shells are computed, check the charge"
        )
    field = dft.RKS(mole(molecule.numbers, molecule.positions, theory.basis, molecule.charge))
    field.xc = theory.xc
    field.grids.level = theory.grid_level
    field.nlcgrids.level = theory.nlc_grid_level
    if theory.fit is not None:
        for z in sorted(set(molecule.numbers.tolist())):
            if not has_basis(theory.fit, z):
                raise ConfigError(
                    f"PySCF has no basis '{theory.fit}' for {SYMBOLS[z]} to fit densities with; "
                    "def2-universal-jkfit covers what def2 bases do"
                )
        field = field.density_fit(auxbasis=theory.fit)
    field.conv_tol = theory.conv_tol
    field.conv_tol_grad = theory.conv_tol_grad
    field.max_cycle = theory.max_cycles
    field.diis_space = DIIS_SPACE
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


def orbital_basis(basis: str, numbers: ArrayLike, charge: int = 0) -> tuple[OrbitalBasis, int]:
    """The basis over the molecule's elements, and its electrons outside the cores."""
    orbitals = _cached_basis(basis, tuple(sorted(set(np.asarray(numbers).tolist()))))
    return orbitals, orbitals.electrons(numbers, charge)


@lru_cache(maxsize=1024)
def _cached_basis(basis: str, elements: tuple[int, ...]) -> OrbitalBasis:
    return OrbitalBasis.load(basis, elements)


def canonical(matrix: Matrix, numbers: ArrayLike, basis: str) -> Matrix:
    """A matrix of PySCF's, symmetric and in canonical order."""
    symmetric = (matrix + matrix.T) / 2
    return to_canonical(symmetric, numbers, orbital_basis(basis, numbers)[0], "pyscf")


def called(molecule: Molecule) -> str:
    """The molecule's id, else its formula, for messages."""
    return f"molecule '{molecule.id}'" if molecule.id else formula(molecule.numbers)


def write_molden(
    path: str | os.PathLike[str], mole: Any, levels: Matrix, coefficients: Matrix, occupied: Matrix
) -> None:
    """Write orbitals to a Molden file.

    Args:
        path: the file, which is opened for writing.
        mole: PySCF's molecule.
        levels: (m,) Eh.
        coefficients: (nao, m) in PySCF's order.
        occupied: (m,) occupations.
    """
    pyscf()
    from pyscf.tools import molden

    molden.from_mo(mole, os.fspath(path), coefficients, ene=levels, occ=occupied)
