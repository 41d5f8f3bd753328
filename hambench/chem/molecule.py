"""`Molecule`: one molecule with its matrices, in the units and AO order of the house."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.errors import DataError

_TABLE = (
    "X H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn"
)
SYMBOLS = tuple(_TABLE.split())
"""Element symbols by atomic number, ``SYMBOLS[8] == "O"``; index 0 is no element."""

SYMMETRY_TOLERANCE = 1e-5
"""Largest ``|A - A^T|`` (Eh, or 1 for the overlap) a label may show; float32 files reach 1e-6."""


_STRIP = 64  # columns compared at a time


def symbol(z: int) -> str:
    """Symbol of an atomic number, for messages; ``Z=120`` where there is none."""
    return SYMBOLS[z] if 0 < z < len(SYMBOLS) else f"Z={z}"


def formula(numbers: ArrayLike) -> str:
    """Hill formula of the atomic numbers, for messages: ``formula([8, 1, 1]) == "H2O"``."""
    symbols = [SYMBOLS[z] for z in np.asarray(numbers, dtype=int)]
    carbon_first = {"C": 0, "H": 1} if "C" in symbols else {}
    ordered = sorted(set(symbols), key=lambda s: (carbon_first.get(s, 2), s))
    counts = {s: symbols.count(s) for s in ordered}
    return "".join(s if n == 1 else f"{s}{n}" for s, n in counts.items())


@dataclass(frozen=True, eq=False)
class Molecule:
    """One molecule; every array float64 (``numbers`` int64), canonical AO order.

    Attributes:
        numbers: (N,) atomic numbers, atoms in file order.
        positions: (N, 3) Angstrom.
        charge: total charge in e.
        multiplicity: spin multiplicity 2S+1.
        basis: name of the orbital basis of the matrices, as `OrbitalBasis.load` takes it.
        hamiltonian: (nao, nao) Kohn-Sham or Fock matrix in Eh, or None.
        overlap: (nao, nao) overlap of the atomic orbitals, or None.
        energy: total energy in Eh, or None.
        forces: (N, 3) in Eh/Angstrom (minus the gradient), or None.
        id: stable name of the row, unique in its data set; index lists and results refer to it.

    Raises:
        DataError: shapes that do not fit together or an unknown element.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: int = 0
    multiplicity: int = 1
    basis: str | None = None
    hamiltonian: NDArray[np.float64] | None = None
    overlap: NDArray[np.float64] | None = None
    energy: float | None = None
    forces: NDArray[np.float64] | None = None
    id: str = ""

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:  # the dataclass is frozen
            object.__setattr__(self, name, value)

        put("numbers", self._whole_numbers())
        n = len(self.numbers)
        for name in ("positions", "hamiltonian", "overlap", "forces"):
            if getattr(self, name) is not None:
                put(name, self._real(name))
        for name, least in (("charge", None), ("multiplicity", 1)):
            value = getattr(self, name)
            if value != int(value) or (least is not None and value < least):
                raise DataError(
                    f"{self._where}: {name} is {value}, expected a whole number"
                    + ("" if least is None else f" from {least} on")
                )
            put(name, int(value))
        if n == 0 or self.numbers.min() < 1 or self.numbers.max() >= len(SYMBOLS):
            raise DataError(
                f"{self._where}: atomic numbers must be 1 to {len(SYMBOLS) - 1} and at least one, "
                f"got {self.numbers.tolist()[:10]}; check the row's element column"
            )
        for name in ("positions", "forces"):
            value = getattr(self, name)
            if name == "positions" and value is None:
                raise DataError(f"{self._where}: it has no positions; give (N, 3) in Angstrom")
            if value is not None and value.shape != (n, 3):
                raise DataError(
                    f"{self._where}: {name} have shape {value.shape}, expected ({n}, 3) for the "
                    f"{n} atoms of {formula(self.numbers)}; check the row"
                )

    def _whole_numbers(self) -> NDArray[np.int64]:
        """Atomic numbers as given, or of symbols."""
        given = np.asarray(self.numbers).reshape(-1)
        if given.dtype.kind in "US":
            unknown = sorted(set(given.astype(str)) - set(SYMBOLS[1:]))
            if unknown:
                raise DataError(f"{self._where}: there is no element {', '.join(unknown)}")
            return np.array([SYMBOLS.index(s) for s in given.astype(str)], dtype=np.int64)
        if given.dtype.kind not in "iuf" or not (given == np.floor(given)).all():
            raise DataError(f"{self._where}: atomic numbers are whole, got {given.tolist()[:10]}")
        return np.asarray(given, dtype=np.int64)

    def _real(self, name: str) -> NDArray[np.float64]:
        """An array of real numbers; DataError for anything else."""
        try:
            value = np.asarray(getattr(self, name))
        except ValueError:  # rows of different lengths
            raise DataError(f"{self._where}: the rows of {name} differ in length") from None
        if value.dtype.kind not in "iuf":
            raise DataError(f"{self._where}: {name} are {value.dtype}, expected real numbers")
        return np.asarray(value, dtype=np.float64)

    @property
    def _where(self) -> str:
        return f"molecule '{self.id}'" if self.id else "molecule"

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        have = [f.name for f in fields(self)[5:-1] if getattr(self, f.name) is not None]
        charge = f", charge={self.charge}" if self.charge else ""
        return f"Molecule({formula(self.numbers)}{charge}, id={self.id!r}, has={'+'.join(have)})"

    def checked(self, nao: int) -> Molecule:
        """This molecule, after its numbers were found fit for training or scoring.

        Args:
            nao: number of atomic orbitals its atoms have in the basis.

        Raises:
            DataError: a matrix of another size, not finite, or not symmetric; positions or
                energies not finite; two atoms in one place.
        """
        if self.__dict__.get("_found_sound") == nao:
            return self
        for name in ("hamiltonian", "overlap"):
            matrix = getattr(self, name)
            if matrix is None:
                continue
            if matrix.shape != (nao, nao):
                raise DataError(
                    f"{self._where}: {name} has shape {matrix.shape}, expected ({nao}, {nao}) for "
                    f"{formula(self.numbers)} in {self.basis}; check the basis of the file"
                )
            refuse_unsound(matrix, f"{self._where}: {name}")
        for name in ("positions", "forces", "energy"):
            value = getattr(self, name)
            if value is not None and not np.isfinite(value).all():
                raise DataError(
                    f"{self._where}: {name} holds NaN or infinity; drop or redo the row"
                )
        if len(self) > 1:
            difference = self.positions[:, None] - self.positions[None]
            distance = np.sqrt(np.einsum("ijk,ijk->ij", difference, difference))
            np.fill_diagonal(distance, np.inf)
            if distance.min() < 1e-3:
                i, j = np.unravel_index(distance.argmin(), distance.shape)
                raise DataError(
                    f"{self._where}: atoms {i} and {j} are {distance.min():.1e} Angstrom apart; "
                    "check the positions and their unit"
                )
        object.__setattr__(self, "_found_sound", nao)  # a copy with other labels is checked anew
        return self


def refuse_unsound(matrix: NDArray[Any], where: str) -> None:
    """DataError where a square matrix, or the triangle of one (1-D), is not fit to be a label.

    Args:
        matrix: (n, n), or any number of entries of a symmetric one.
        where: what it is, for the message.
    """
    if matrix.ndim == 1:
        if not within(matrix, np.inf):
            raise DataError(f"{where} holds NaN or infinity; drop or redo the row")
        return
    if _symmetric(matrix):
        return
    refuse_unsound(matrix.reshape(-1), where)
    largest = float(np.abs(matrix - matrix.T).max())
    raise DataError(
        f"{where} is not symmetric (largest difference {largest:.2e}, allowed "
        f"{SYMMETRY_TOLERANCE:g}); check how the file stores it"
    )


def within(values: NDArray[Any], limit: float) -> bool:
    """Whether every number is finite and none is larger in size than ``limit``.

    One fast pass in the usual case: no number is larger than the root of the sum of squares.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        if math.sqrt(np.einsum("i,i->", values, values)) < limit:  # a BLAS may start threads
            return True
    return bool(np.isfinite(values).all() and np.abs(values).max(initial=0) <= limit)


def _symmetric(matrix: NDArray[Any]) -> bool:
    """Whether ``|A - A^T|`` is small and all entries are finite. In strips, which stay cached."""
    n = len(matrix)
    scratch = np.empty(n * min(n, _STRIP), dtype=matrix.dtype)
    for i in range(0, n, _STRIP):
        below, right = matrix[i:, i : i + _STRIP], matrix[i : i + _STRIP, i:].T
        difference = scratch[: below.size]
        with np.errstate(invalid="ignore"):
            np.subtract(below, right, out=difference.reshape(below.shape))
        if not within(difference, SYMMETRY_TOLERANCE):  # infinity less infinity is NaN
            return False
    return True
