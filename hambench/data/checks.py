"""The checks of one row that `hambench data verify` makes, each with its limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist

from hambench.chem import dft, functional
from hambench.chem.levels import (
    CORE_LEVEL_MARGIN,
    core_level,
    orbital_levels,
    overlap_threshold,
)
from hambench.chem.molecule import SYMBOLS, SYMMETRY_TOLERANCE
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data import diagnosis
from hambench.data.conventions import MAX_OVERLAP_ERROR
from hambench.data.rows import Rows
from hambench.errors import VerificationError

_DEEPEST_CORE: Final = -15.0  # Eh; valence of an element with a core potential stays above
_BOND: Final = (0.6, 1.45)  # Angstrom; the shortest of any molecule with H and one of C, N, O
_VALENCE: Final = (-2.5, 0.6)  # Eh; where a highest occupied level can be, ions included


class Skip(Exception):  # noqa: N818 (no error: a check that does not apply)
    """Why a check cannot be made on a row."""


class Row:
    """One molecule and what the checks ask of it, each computed once.

    Args:
        rows: the data.
        place: index of the row in it.
        theory: level of theory of its Hamiltonian, if known.

    Raises:
        DataError: the row cannot be read.
        VerificationError: it names no orbital basis, or another one than the theory.
    """

    def __init__(self, rows: Rows, place: int, theory: Theory | None) -> None:
        self.rows = rows
        self.place = place
        self.theory = theory
        self.molecule = rows[place]
        if self.molecule.basis is None:
            raise VerificationError(
                f"row '{self.molecule.id}' names no orbital basis; nothing can be checked"
            )
        if theory is not None and theory.basis.lower() != self.molecule.basis.lower():
            raise VerificationError(
                f"row '{self.molecule.id}' is in basis {self.molecule.basis}, the level of theory "
                f"says {theory.basis}; one of them is of other data"
            )
        elements = set(self.molecule.numbers.tolist())
        self.basis = OrbitalBasis.load(self.molecule.basis, elements)
        self.electrons = self.basis.electrons(self.molecule.numbers, self.molecule.charge)

    @cached_property
    def nao(self) -> int:
        """Orbitals by the table of elements."""
        return self.basis.nao(self.molecule.numbers)

    @cached_property
    def hamiltonian(self) -> NDArray[np.float64]:
        """The stored one."""
        if self.molecule.hamiltonian is None:
            raise Skip("no Hamiltonian in the file")
        return self.molecule.hamiltonian

    @property
    def matrices(self) -> list[NDArray[np.float64]]:
        """H and, where there is one, S."""
        overlap = self.molecule.overlap
        return [self.hamiltonian] if overlap is None else [self.hamiltonian, overlap]

    @property
    def has_overlap(self) -> bool:
        """Whether the file has one; PySCF's does not confirm itself."""
        return self.molecule.overlap is not None and not getattr(
            self.rows, "computes_overlap", False
        )

    @property
    def stored_overlap(self) -> NDArray[np.float64]:
        """The one of the file."""
        if not self.has_overlap or self.molecule.overlap is None:
            raise Skip("no overlap in the file")
        return self.molecule.overlap

    @cached_property
    def pyscf_overlap(self) -> NDArray[np.float64]:
        """PySCF's for the positions."""
        return dft.overlap(self.molecule.numbers, self.molecule.positions, self.basis.name)

    @cached_property
    def orbitals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Levels (Eh) and coefficients of the stored pair."""
        overlap = self.stored_overlap if self.has_overlap else self.pyscf_overlap
        return orbital_levels(self.hamiltonian, overlap, overlap_threshold(self.basis.name))

    @property
    def occupied(self) -> int:
        """Doubly occupied orbitals of the closed shell."""
        if self.molecule.multiplicity != 1:
            raise Skip("an open shell")
        return max(self.electrons // 2, 0)


def _size(row: Row) -> float:
    return float(max(abs(length - row.nao) for m in row.matrices for length in m.shape))


def _symmetry(row: Row) -> float:
    return max(float(np.abs(m - m.T).max()) for m in row.matrices)


def _overlap_diagonal(row: Row) -> float:
    return float(np.abs(np.diag(row.stored_overlap) - 1).max())


def _overlap(row: Row) -> float:
    return float(np.abs(row.stored_overlap - row.pyscf_overlap).max())


def _core_level(row: Row) -> float:
    """Relative deviation of the lowest level from the 1s level of the heaviest element."""
    lowest = float(row.orbitals[0][0])
    heaviest = int(row.molecule.numbers.max())
    core = row.basis.core_electrons
    if core[heaviest]:  # its 1s is in the potential; that of a lighter one may be lower still
        heaviest = max((z for z in core if not core[z]), default=0)
        level = core_level(heaviest)
        if level is None or level > _DEEPEST_CORE:
            raise Skip("the heaviest element has a core potential, see valence")
    else:
        level = core_level(heaviest)
    if level is None:
        raise Skip(f"no 1s level is known for {SYMBOLS[heaviest]}")
    return abs(lowest / level - 1)


def _valence(row: Row) -> float:
    """How far (Eh) the highest occupied level, and the lowest of heavy elements, lie outside."""
    if not 0 < row.occupied <= len(row.orbitals[0]):
        raise Skip("no occupied orbital")
    low, high = _VALENCE
    highest = float(row.orbitals[0][row.occupied - 1])
    outside = max(low - highest, highest - high, 0.0)
    core = row.basis.core_electrons
    lightest = [core_level(z) or 0.0 for z in core if not core[z]]
    if any(core.values()) and min(lightest, default=0.0) > _DEEPEST_CORE:
        outside = max(outside, _DEEPEST_CORE - float(row.orbitals[0][0]))
    return outside


def _electrons(row: Row) -> float:
    """``|Tr(D S) - N|``, S being PySCF's; an odd N is half a pair, and off by one."""
    pairs = row.occupied
    occupied = row.orbitals[1][:, :pairs]
    trace = 2 * float(np.einsum("ai,ab,bi->", occupied, row.pyscf_overlap, occupied, optimize=True))
    return abs(trace - row.electrons)


def _gap(row: Row) -> float:
    levels, pairs = row.orbitals[0], row.occupied
    if not 0 < pairs < len(levels):
        raise Skip("no occupied or no empty orbital")
    return float(levels[pairs] - levels[pairs - 1])


def _bond(row: Row) -> float:
    """How far (Angstrom) the shortest distance lies outside of where it can be."""
    if row.molecule.hamiltonian is not None:
        raise Skip("the Hamiltonian tells more of the positions")
    numbers = set(row.molecule.numbers.tolist())
    if 1 not in numbers or not numbers & {6, 7, 8}:
        raise Skip("not both hydrogen and one of C, N, O")
    low, high = _BOND
    shortest = float(pdist(row.molecule.positions).min())
    return max(low - shortest, shortest - high, 0.0)


def _fock(row: Row) -> float:
    """Mean ``|F[D] - H|`` in Eh."""
    _ = row.hamiltonian, row.occupied  # or it does not apply
    if row.theory is None:
        raise Skip("no level of theory is known")
    return diagnosis.fock_error(row.molecule, row.theory)


def _energy(row: Row) -> float:
    """``|E[D] - E|`` in Eh."""
    hamiltonian, theory = _rebuilding(row)
    if row.molecule.energy is None:
        raise Skip("no energy in the file")
    energy = functional.energy_of(hamiltonian, row.molecule, theory)
    return abs(energy - row.molecule.energy)


def _forces(row: Row) -> float:
    """Largest difference (Eh/Angstrom) of the forces of D and the stored ones."""
    hamiltonian, theory = _rebuilding(row)
    if row.molecule.forces is None:
        raise Skip("no forces in the file")
    forces = functional.forces_of(hamiltonian, row.molecule, theory)
    return float(np.abs(forces - row.molecule.forces).max())


def _rebuilding(row: Row) -> tuple[NDArray[np.float64], Theory]:
    """What a label is computed anew with: Hamiltonian and theory."""
    _ = row.occupied  # or it does not apply
    if row.theory is None:
        raise Skip("no level of theory is known")
    return row.hamiltonian, row.theory


def _overlap_hint(row: Row) -> str:
    return diagnosis.of_overlap(row.rows, row.place, row.basis)


def _level_hint(row: Row) -> str:
    """With an overlap of its own, the row's order and positions are known to be right by now."""
    if row.has_overlap or row.theory is None:
        return "the Hamiltonian is in another unit or order, or of other atoms"
    return diagnosis.of_hamiltonian(row.rows, row.place, row.basis, row.theory)


def _electrons_hint(row: Row) -> str:
    reason = "the charge is not that of a closed shell, or H and S do not belong together"
    charge = row.theory and diagnosis.charge_that_fits(row.molecule, row.basis, row.theory)
    return reason if charge is None else f"{reason}; it would fit with charge {charge}"


def _fock_hint(row: Row) -> str:
    assert row.theory is not None  # or it had not been checked
    return diagnosis.of_hamiltonian(row.rows, row.place, row.basis, row.theory)


@dataclass(frozen=True)
class Test:
    """A check of one row.

    Attributes:
        measure: its residual; raises `Skip` where it does not apply.
        title: what was compared, for people.
        allowed: limit.
        unit: of residual and limit.
        hint: what is wrong if it fails, or what finds it out.
        lower: the limit is a lower one.
        few: it takes a Fock matrix, so that few rows are checked.
    """

    measure: Callable[[Row], float]
    title: str
    allowed: float
    unit: str
    hint: str | Callable[[Row], str]
    lower: bool = False
    few: bool = False

    def fails(self, residual: float) -> bool:
        """Whether a residual (NaN too) is beyond the limit."""
        return not (residual >= self.allowed if self.lower else residual <= self.allowed)

    def reason(self, row: Row) -> str:
        """What is wrong with a row that failed."""
        return self.hint if isinstance(self.hint, str) else self.hint(row)


TESTS: Final[dict[str, Test]] = {
    "size": Test(
        _size, "orbitals of the elements against size of the matrices", 0.0, "",
        "the matrices belong to other atoms or another basis",
    ),
    "symmetry": Test(
        _symmetry, "largest |A - A^T| of H and S", SYMMETRY_TOLERANCE, "Eh",
        "the file stores its matrices otherwise than it is read, or is damaged",
    ),
    "overlap_diagonal": Test(
        _overlap_diagonal, "largest |S_ii - 1|", 1e-5, "",
        "the overlap is of orbitals that are not normalised, or no overlap",
    ),
    "overlap": Test(
        _overlap, "largest |dS| against PySCF's overlap", MAX_OVERLAP_ERROR, "",
        _overlap_hint,
    ),
    "core_level": Test(
        _core_level, "lowest level against the 1s level of the heaviest element, relative",
        CORE_LEVEL_MARGIN, "", _level_hint,
    ),
    "electrons": Test(
        _electrons, "|Tr(D S) - electrons|", 1e-2, "",
        _electrons_hint,
    ),
    "gap": Test(
        _gap, "smallest gap between occupied and empty levels", 1e-4, "Eh",
        "the charge is wrong, or the state no ground state", lower=True,
    ),
    "valence": Test(
        _valence, "distance of the valence levels from where they can be", 0.0, "Eh", _level_hint,
    ),
    "bond": Test(
        _bond, "shortest distance of atoms from where it can be", 0.0, "Angstrom",
        "the positions are in another unit (bohr for Angstrom, or the reverse)",
    ),
    "fock": Test(
        _fock, "mean |F[D] - H| against PySCF's Fock matrix", diagnosis.MAX_FOCK_ERROR, "Eh",
        _fock_hint, few=True,
    ),
    "energy": Test(
        _energy, "|E[D] - E| against PySCF's energy", 1e-3, "Eh",
        "the energy is in another unit, relative to something, or of another level of theory",
        few=True,
    ),
    "forces": Test(
        _forces, "largest difference from PySCF's forces", 5e-3, "Eh/Angstrom",
        "the forces are in another unit, or the gradient, which has the other sign", few=True,
    ),
}  # fmt: skip
"""Checks by name, cheap ones first. Grids and fits change energies by 1e-4 Eh, forces by 1e-3."""
