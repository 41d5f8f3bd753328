"""`Atoms`: what the embedded atoms are, whatever the model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from hambench.chem.bonds import environments
from hambench.chem.molecule import Molecule


@dataclass(frozen=True, eq=False)
class Atoms:
    """n atoms of some molecules, one after the other.

    Attributes:
        molecule: (n,) number of the molecule an atom is in.
        index: (n,) its place in that molecule.
        number: (n,) atomic numbers.
        environment: (n,) element and bonded elements, ``C(C,H,H,H)``; see `chem.bonds`.
        group: (n,) cluster its molecule belongs to, as a number: all conformers of a molecule.
    """

    molecule: NDArray[np.int64]
    index: NDArray[np.int64]
    number: NDArray[np.int64]
    environment: NDArray[np.str_]
    group: NDArray[np.int64]

    @classmethod
    def of(cls, molecules: Iterable[Molecule], groups: Sequence[str]) -> Atoms:
        """The atoms of molecules, each of which belongs to the group of that name."""
        _, group = np.unique(np.asarray(groups, dtype=np.str_), return_inverse=True)
        sizes, numbers, names = [], [], []
        for molecule in molecules:
            sizes.append(len(molecule))
            numbers.append(molecule.numbers)
            names += environments(molecule.numbers, molecule.positions)
        owner = np.repeat(np.arange(len(sizes)), sizes)
        index = np.concatenate([np.arange(size) for size in sizes])
        return cls(owner, index, np.concatenate(numbers), np.array(names), group[owner])

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> Atoms:
        """Those atoms alone."""
        return Atoms(*(getattr(self, field.name)[chosen] for field in fields(self)))


def draw(count: int, most: int, seed: int) -> NDArray[np.int64]:
    """Ascending places of ``most`` of ``count`` atoms, drawn by ``seed``; all where there are no
    more."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size=most, replace=False))
