"""`StoredMatrix`: a symmetric matrix as its file keeps it, before it is put into order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import formula, refuse_unsound
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import permutation, to_canonical
from hambench.chem.triangle import triangle_size, unpack_triangle
from hambench.errors import DataError


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A matrix of a molecule in the order, shape and precision of its file.

    Labels are taken from here (`hambench.chem.packing`); the matrix in canonical order is not made.

    Attributes:
        values: floats, (nao^2,) row-major or, packed, the (nao (nao+1) / 2,) upper triangle.
        numbers: (N,) atomic numbers.
        basis: its orbital basis.
        order: of its orbitals, a key of `hambench.chem.ordering.ORDERS`.
        packed: whether only the upper triangle is kept.
    """

    values: NDArray[Any]
    numbers: NDArray[np.int64]
    basis: OrbitalBasis
    order: str
    packed: bool = False

    @cached_property
    def nao(self) -> int:
        """Number of its orbitals."""
        return self.basis.nao(self.numbers)

    def canonical(self) -> NDArray[np.float64]:
        """The (nao, nao) matrix in canonical order, float64."""
        full = unpack_triangle(self.values) if self.packed else self._square
        ordered = to_canonical(full, self.numbers, self.basis, self.order)
        return ordered.astype(np.float64, copy=False)

    def less(self, triangle: NDArray[np.float64]) -> StoredMatrix:
        """What is left of this matrix without another one, in canonical order and float64.

        Args:
            triangle: (nao (nao+1) / 2,) upper triangle of a symmetric matrix in canonical order.
        """
        if self.packed and self.order == "canonical":
            return replace(self, values=self.values - triangle)
        values = (self.canonical() - unpack_triangle(triangle)).reshape(-1)
        return StoredMatrix(values, self.numbers, self.basis, "canonical")

    def checked(self, where: str) -> StoredMatrix:
        """This matrix, after its numbers were found finite and symmetric.

        Args:
            where: what it is, for the message.

        Raises:
            DataError: of another size than its atoms have, NaN, infinity, or an asymmetry above
                `molecule.SYMMETRY_TOLERANCE`.
        """
        expected = int(triangle_size(np.array(self.nao))) if self.packed else self.nao**2
        if len(self.values) != expected:
            raise DataError(
                f"{where} has {len(self.values)} numbers, expected {expected} for "
                f"{formula(self.numbers)} in {self.basis.name}; check the basis of the file"
            )
        refuse_unsound(self.values if self.packed else self._square, where)
        return self

    @property
    def _square(self) -> NDArray[Any]:
        return self.values.reshape(self.nao, self.nao)


@dataclass(frozen=True, eq=False)
class Source:
    """Where the entries of canonical matrices stand among stored values.

    Attributes:
        orbital: (nao,) int32, number in the file of every canonical orbital.
        start: (nao,) int32; entry (r, c) stands at ``start[r] + orbital[c]`` where r comes before c
            in the file (r and c being canonical).
        sign: (nao,) int8; the value is multiplied by ``sign[r] sign[c]``.
    """

    orbital: NDArray[np.int32]
    start: NDArray[np.int32]
    sign: NDArray[np.int8]

    @property
    def signed(self) -> bool:
        """Whether some values change their sign."""
        return bool((self.sign < 0).any())

    def places(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.int32]:
        """Places of any canonical entries."""
        later = self.orbital[rows] > self.orbital[columns]
        rows, columns = np.where(later, columns, rows), np.where(later, rows, columns)
        return self.start[rows] + self.orbital[columns]


def source(numbers: NDArray[np.int64], basis: OrbitalBasis, order: str, packed: bool) -> Source:
    """The `Source` of all matrices of a composition, basis and order."""
    index, sign = permutation(numbers, basis, order)
    nao = np.int32(len(index))
    row = orbital = index.astype(np.int32)
    start = row * nao - row * (row + 1) // 2 if packed else row * nao
    return Source(orbital, start, sign.astype(np.int8))
