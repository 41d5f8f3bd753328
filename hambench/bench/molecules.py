"""Random molecules of the sizes that matter; what their matrices hold does not matter here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, nearest


@dataclass(frozen=True)
class Case:
    """Molecules of one composition, and the format they are kept in.

    Attributes:
        name: for tables.
        composition: number of atoms by atomic number.
        basis: name of their orbital basis.
        format: key of a `SyntheticFormat`.
        rows: molecules in a file of them.
    """

    name: str
    composition: dict[int, int]
    basis: str
    format: str
    rows: int

    @property
    def numbers(self) -> NDArray[np.int64]:
        """(N,) atomic numbers."""
        return np.repeat(list(self.composition), list(self.composition.values()))

    def molecules(self, rows: int | None = None, seed: int = 0) -> Iterator[Molecule]:
        """Molecules on a shaken grid, with random symmetric matrices that float32 holds exactly."""
        rng = np.random.default_rng((seed, 1))  # positions are the same without it
        nao = OrbitalBasis.load(self.basis).nao(self.numbers)
        for molecule in self.geometries(rows, seed):
            half = rng.standard_normal((nao, nao), dtype=np.float32)
            matrix = (np.tril(half) + np.tril(half, -1).T).astype(np.float64)
            yield replace(molecule, hamiltonian=matrix)

    def geometries(self, rows: int | None = None, seed: int = 0) -> Iterator[Molecule]:
        """The same molecules without their matrices."""
        rng = np.random.default_rng(seed)
        for _ in range(self.rows if rows is None else rows):
            yield self.geometry(rng)

    def geometry(self, rng: np.random.Generator) -> Molecule:
        """One molecule, without a matrix."""
        numbers = self.numbers
        side = int(np.ceil(len(numbers) ** (1 / 3)))
        grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)[: len(numbers)]
        positions = _SPACING * (grid + rng.uniform(-0.2, 0.2, grid.shape))
        return Molecule(numbers, positions, basis=self.basis)


_SPACING: Final = 1.6  # Angstrom: about as dense as an organic molecule

WATER: Final = Case("water, def2-SVP", {8: 1, 1: 2}, "def2-svp", "schnorb", 500)
ETHANOL: Final = Case("ethanol, def2-SVP", {6: 2, 8: 1, 1: 6}, "def2-svp", "schnorb", 500)
MEDIUM: Final = Case("40 atoms, def2-SVP", {6: 16, 7: 2, 8: 3, 1: 19}, "def2-svp", "nabla2dft", 41)
LARGE: Final = Case(
    "100 atoms, def2-TZVPD", {6: 40, 7: 5, 8: 5, 1: 50}, "def2-tzvpd", "omol_csh", 5
)
CASES: Final = (WATER, MEDIUM, LARGE)

BATCHES: Final[dict[str, tuple[Case, int]]] = {
    "water": (WATER, 50),
    "ethanol": (ETHANOL, 5),
    "40_atoms": (MEDIUM, 1),
    "100_atoms": (LARGE, 1),
}
"""Molecules by name, and how many are in a batch if nothing else is asked for."""


def organic(atoms: int, basis: str) -> Case:
    """Molecules of any number of atoms, of carbon, nitrogen, oxygen and hydrogen as in `MEDIUM`."""
    whole = len(MEDIUM.numbers)
    shares = {z: atoms * count / whole for z, count in MEDIUM.composition.items()}
    counts = {z: int(share) for z, share in shares.items()}
    missing = atoms - sum(counts.values())
    for z in sorted(shares, key=lambda z: counts[z] - shares[z])[:missing]:
        counts[z] += 1
    return Case(f"{atoms} atoms, {basis}", counts, basis, "nabla2dft", 1)


def batch_of(name: str, size: int | None = None) -> tuple[Case, int]:
    """One of `BATCHES`, of ``size`` molecules where that is given; ConfigError for no such name."""
    if name not in BATCHES:
        raise ConfigError(f"no case '{name}'.{nearest(name, BATCHES)}")
    case, usual = BATCHES[name]
    return case, size or usual
