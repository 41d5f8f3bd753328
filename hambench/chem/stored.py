"""`StoredMatrix`: a symmetric matrix as its file keeps it, before it is put into order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import formula, refuse_unsound
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import permutation, to_canonical
from hambench.chem.triangle import triangle_places, triangle_size, unpack_triangle
from hambench.errors import DataError


@dataclass(frozen=True, eq=False)
class StoredMatrix:
    """A matrix of a molecule in the order, shape and precision of its file.

    Packing labels from here is one gather (`BlockLayout.stored_map`); the matrix in canonical
    order is never made.

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

    @property
    def nao(self) -> int:
        """Number of its orbitals."""
        return self.basis.nao(self.numbers)

    def tabled(self, signed: bool) -> NDArray[Any]:
        """The values, followed by their negatives where ``signed``."""
        if not signed:
            return self.values
        table = np.empty(2 * len(self.values), dtype=self.values.dtype)
        table[: len(self.values)] = self.values
        np.negative(self.values, out=table[len(self.values) :])
        return table

    def canonical(self) -> NDArray[np.float64]:
        """The (nao, nao) matrix in canonical order, float64."""
        full = unpack_triangle(self.values) if self.packed else self._square
        ordered = to_canonical(full, self.numbers, self.basis, self.order)
        return ordered.astype(np.float64, copy=False)

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
    """Where the entries of canonical (nao, nao) matrices stand among stored values.

    Attributes:
        places: (nao, nao) int32, place in ``StoredMatrix.values`` of every canonical entry, or in
            the values followed by their negatives.
        signed: whether the negatives are needed.
    """

    places: NDArray[np.int32]
    signed: bool


def source(numbers: NDArray[np.int64], basis: OrbitalBasis, order: str, packed: bool) -> Source:
    """The `Source` of all matrices of a composition, basis and order."""
    index, sign = permutation(numbers, basis, order)
    nao = len(index)
    place = index.astype(np.int32)
    places = triangle_places(place, nao) if packed else place[:, None] * nao + place[None, :]
    signed = bool((sign < 0).any())
    if signed:
        length = triangle_size(np.array(nao)) if packed else nao**2
        places += np.int32(length) * (sign[:, None] != sign[None, :])
    return Source(places, signed)
