"""Chains of glycine, molecules of many sizes with the bonds of real ones, as an SCF needs them."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.errors import ConfigError

PER_RESIDUE: Final = 7
ENDS: Final = 3
"""Atoms of a residue, and of the two ends: a hydrogen, and a hydroxyl group."""

_PHI, _PSI, _OMEGA = -57.0, -47.0, 180.0
"""Torsions of an alpha helix in degrees, so that the chain is as compact as molecules are."""


class _Placed(NamedTuple):
    """An atom by internal coordinates.

    Attributes:
        number: atomic number.
        torsion_from, angle_from, bonded_to: names of three atoms that are there.
        length: Angstrom, of the bond.
        angle, torsion: degrees.
    """

    number: int
    torsion_from: str
    angle_from: str
    bonded_to: str
    length: float
    angle: float
    torsion: float


# Lengths and angles of peptides: Engh and Huber, Acta Cryst. A47, 392 (1991); of hydrogens usual.
_RESIDUE: Final = {
    "O": _Placed(8, "N", "CA", "C", 1.231, 120.8, _PSI + 180),
    "HA2": _Placed(1, "C", "N", "CA", 1.090, 109.5, 120),
    "HA3": _Placed(1, "C", "N", "CA", 1.090, 109.5, -120),
}
_NEXT: Final = {
    "N": _Placed(7, "N", "CA", "C", 1.329, 116.2, _PSI),
    "CA": _Placed(6, "CA", "C", "N", 1.458, 121.7, _OMEGA),
    "C": _Placed(6, "C", "N", "CA", 1.525, 111.0, _PHI),
}
_AMIDE: Final = {"H": _Placed(1, "C-", "CA", "N", 1.010, 118.0, 180)}
_AMINE: Final = {
    "H1": _Placed(1, "C", "CA", "N", 1.010, 109.5, 60),
    "H2": _Placed(1, "C", "CA", "N", 1.010, 109.5, -60),
}
_ACID: Final = {
    "OXT": _Placed(8, "N", "CA", "C", 1.340, 112.0, _PSI),
    "HO": _Placed(1, "CA", "C", "OXT", 0.970, 107.0, 180),
}


def glycine(atoms: int) -> Molecule:
    """An alpha helix of glycine residues, neutral, H-(NH-CH2-CO)n-OH.

    Args:
        atoms: how many, 7n + 3: 10, 17, 24, 31, 38, ..., 150.

    Raises:
        ConfigError: no chain has as many.
    """
    residues, rest = divmod(atoms - ENDS, PER_RESIDUE)
    if rest or residues < 1:
        fewer = PER_RESIDUE * max(residues, 1) + ENDS
        raise ConfigError(
            f"no chain of glycine has {atoms} atoms; {PER_RESIDUE} a residue and {ENDS} at the "
            f"ends make {fewer} or {fewer + PER_RESIDUE}"
        )
    chain = _Chain()
    for place in range(residues):
        if place:
            chain.advance()
        chain.add(_RESIDUE | (_AMIDE if place else _AMINE))
    chain.add(_ACID)
    return Molecule(np.array(chain.numbers), np.array(chain.positions))


class _Chain:
    """Atoms so far, and the names of those of the last residue."""

    def __init__(self) -> None:
        angle = np.deg2rad(_NEXT["C"].angle)
        nitrogen, carbon = np.zeros(3), np.array([_NEXT["CA"].length, 0, 0])
        last = carbon + _NEXT["C"].length * np.array([-np.cos(angle), np.sin(angle), 0])
        self.named = {"N": nitrogen, "CA": carbon, "C": last}
        self.numbers = [7, 6, 6]
        self.positions = [nitrogen, carbon, last]

    def advance(self) -> None:
        """Begin a residue with its backbone."""
        before = self.named
        self.named = dict(before)
        self.add(_NEXT)
        self.named = {name: self.named[name] for name in _NEXT} | {"C-": before["C"]}

    def add(self, atoms: dict[str, _Placed]) -> None:
        for name, atom in atoms.items():
            self.named[name] = _placed(atom, self.named)
            self.numbers.append(atom.number)
            self.positions.append(self.named[name])


def _placed(atom: _Placed, named: dict[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Where an atom is, beside others of the chain."""
    a, b, c = named[atom.torsion_from], named[atom.angle_from], named[atom.bonded_to]
    angle, torsion = np.deg2rad([atom.angle, atom.torsion])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    turned = np.cos(torsion) * np.cross(normal, axis) + np.sin(torsion) * normal
    place: NDArray[np.float64] = c + atom.length * (np.sin(angle) * turned - np.cos(angle) * axis)
    return place
