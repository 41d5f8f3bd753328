"""`Rows`: a lazy sequence of molecules with names, and parts of one."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import overload

from hambench.chem.molecule import Molecule
from hambench.chem.stored import StoredMatrix
from hambench.errors import DataError


class Rows(Sequence[Molecule], ABC):
    """Molecules that are read when asked for; every data set gives this.

    ``rows[i]`` reads one molecule, ``rows[a:b]`` is a lazy part. A subclass says what the rows
    are called (`ids`) and reads one (`row`).
    """

    @property
    @abstractmethod
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order; unique."""

    @abstractmethod
    def row(self, index: int) -> Molecule:
        """Read the molecule at ``index``, 0 to n-1."""

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """A molecule for training: its Hamiltonian apart, as the file keeps it, and no overlap.

        A reader that has no such form gives whole molecules, and None beside them. Errors are
        those of `row`.
        """
        return self.row(index), None

    def geometry(self, index: int) -> Molecule:
        """A molecule without need of labels: elements, positions, charge and multiplicity.

        Errors are those of `row`.
        """
        return self.row(index)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Molecule: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Molecule | Rows:
        if isinstance(index, slice):
            return Part(self, range(len(self))[index])
        index = operator.index(index)  # a TypeError for 1.5, as sequences raise
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise RowError(f"{self!r} has no row {index}; rows go from 0 to {len(self) - 1}")
        return self.row(int(place))

    def __iter__(self) -> Iterator[Molecule]:
        return (self.row(i) for i in range(len(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} molecules)"


class Part(Rows):
    """Some rows of another `Rows`, in a given order."""

    def __init__(self, whole: Rows, indices: Sequence[int]) -> None:
        self.whole = whole
        self.indices = tuple(indices)
        ids = whole.ids
        self._ids = tuple(ids[i] for i in self.indices)

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return self._ids

    def row(self, index: int) -> Molecule:
        """Read the molecule at ``index`` of this part."""
        return self.whole.row(self.indices[index])

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """As `Rows.stored`, of this part."""
        return self.whole.stored(self.indices[index])

    def geometry(self, index: int) -> Molecule:
        """As `Rows.geometry`, of this part."""
        return self.whole.geometry(self.indices[index])


class Unlabelled(Rows):
    """Other `Rows` without their labels, which are not read where the file allows that."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return self.rows.ids

    def row(self, index: int) -> Molecule:
        """Elements, positions, charge and multiplicity of the molecule at ``index``."""
        geometry = self.rows.geometry(index)
        return replace(geometry, hamiltonian=None, overlap=None, energy=None, forces=None)


class RowError(DataError, IndexError):
    """A row number outside the data (an IndexError too, as sequences raise)."""
