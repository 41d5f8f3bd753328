"""Molecules to predict for: read from any file, stripped of labels, found fit for a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hambench import registry
from hambench.chem import engine
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.geometries import XYZ, check_distances, from_file
from hambench.data.rows import Rows
from hambench.errors import ConfigError, DataError

_SHORTEST: Final = (
    0.6  # Angstrom; bonds of hydrogen in Angstrom that are taken for bohr are shorter
)


class Listed(Rows):
    """Molecules that are in memory, as rows."""

    def __init__(self, molecules: Sequence[Molecule]) -> None:
        self.molecules = molecules

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return tuple(molecule.id for molecule in self.molecules)

    def row(self, index: int) -> Molecule:
        """The molecule at ``index``."""
        return self.molecules[index]


class Charged(Rows):
    """Other rows, all of one charge."""

    def __init__(self, rows: Rows, charge: int) -> None:
        self.rows, self.charge = rows, charge

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return self.rows.ids

    def row(self, index: int) -> Molecule:
        """The molecule at ``index``, with its charge replaced."""
        return replace(self.rows.row(index), charge=self.charge)

    def geometry(self, index: int) -> Molecule:
        """As `row`, without need of labels."""
        return replace(self.rows.geometry(index), charge=self.charge)


def read_molecules(path: Path, charge: int | None = None) -> Rows:
    """The molecules of an xyz or extended xyz file, or of any data file.

    Args:
        path: see `hambench.data.xyz` and `hambench.registry.open_data`.
        charge: of all molecules, whatever the file says; None: as it says, else 0.

    Raises:
        DataError: the file is missing, unreadable, or of no known format.
    """
    if path.suffix.lower() in XYZ:
        rows: Rows = Listed(from_file(path).molecules)
    else:
        try:
            rows = registry.open_data(path)
        except DataError as error:
            raise DataError(
                f"{error}; or geometries in a file called {' or '.join(XYZ)}"
            ) from error
    return rows if charge is None else Charged(rows, charge)


def check_molecules(rows: Rows, basis: OrbitalBasis) -> None:
    """`check_molecule` for all rows, of which geometries alone are read."""
    for index in range(len(rows)):
        check_molecule(rows.geometry(index), basis)


def check_molecule(molecule: Molecule, basis: OrbitalBasis) -> None:
    """Whether a model for ``basis`` can predict for a molecule.

    Raises:
        ConfigError: an element the model does not know, matrices in another basis, no closed shell.
        DataError: positions that are not finite, or atoms nearer than in any molecule.
    """
    called = engine.called(molecule)
    foreign = sorted({SYMBOLS[z] for z in molecule.numbers.tolist() if z not in basis.shells})
    if foreign:
        known = " ".join(SYMBOLS[z] for z in basis.elements)
        raise ConfigError(
            f"{called} holds {', '.join(foreign)}, the model knows {known} alone; leave it out, or "
            "use a model that was trained with them"
        )
    if molecule.basis is not None and molecule.basis.lower() != basis.name:
        raise ConfigError(
            f"{called} comes with matrices in {molecule.basis}, the model predicts in "
            f"{basis.name}; use a model of that basis, or give the geometry as an xyz file"
        )
    electrons = basis.electrons(molecule.numbers, molecule.charge)
    if molecule.multiplicity != 1 or electrons % 2 or electrons < 2:
        raise ConfigError(
            f"{called} of charge {molecule.charge} and multiplicity {molecule.multiplicity} with "
            f"{electrons} electrons outside the cores is no closed shell; Hamiltonians are "
            "predicted of closed shells alone, check charge and multiplicity"
        )
    molecule.checked(basis.nao(molecule.numbers))
    check_distances(molecule, called, _SHORTEST)
