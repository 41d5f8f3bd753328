"""``organic_mini``: 120 small organic molecules, 4 conformers each, PBE/def2-SVP.

Molecules of 2 to 5 heavy atoms out of C, N, O, F, S: RDKit ETKDG conformers relaxed with MMFF, plus
normal displacements of 0.05 Angstrom per coordinate; the order of the molecules was shuffled once.
The geometries ship with the package, the labels are computed by `hambench data generate`, or read
from a file in the layout of nabla2DFT's Hamiltonian databases, whose molecule and conformer numbers
are the row's.

A row is called ``<molecule>-<conformer>``. Of every twelve molecules the second validates, the
third, sixth and tenth test, and the others train with their first three conformers; their fourth
is the test of unseen conformers. ``python -m hambench.tasks.organic_mini`` writes these lists.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final

from hambench.chem.molecule import Molecule
from hambench.data.published import about, required
from hambench.data.rows import Rows
from hambench.data.task import GeneratedTask
from hambench.data.xyz import read_frames
from hambench.files import atomic_write
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians

GEOMETRIES: Final = Path(__file__).parent / "organic_mini.extxyz"
TRAINING_SIZES: Final = (10, 20, 40, 80)
"""Molecules of the nested training sets."""

_VALIDATION: Final = (1,)  # places among every twelve molecules
_TEST: Final = (2, 5, 9)
_PERIOD: Final = 12
_CONFORMERS: Final = 4


class OrganicMini(GeneratedTask):
    """The task; labels come from `hambench.data.generate`."""

    @property
    def recipe(self) -> dict[str, Any]:
        """How the geometries were made, for the provenance."""
        return {
            "sampler": "RDKit ETKDG conformers, MMFF-relaxed, displaced",
            "displacement_angstrom": 0.05,
            "file": GEOMETRIES.name,
        }

    def open(self, path: Path) -> Rows:
        """The rows of a `Store`, or of a verified file of these labels in nabla2DFT's format.

        Raises:
            DataError: it is corrupt, foreign, of another theory, or was not verified.
        """
        if not Nabla2dftHamiltonians.recognises(path):
            return super().open(path)
        return Nabla2dftHamiltonians(path, conventions=required(path, self.name, path).conventions)

    def unverified(self) -> list[tuple[Path, Rows]]:
        """The file, if it is here, as its format is known to be."""
        path = self.location.generated
        if Nabla2dftHamiltonians.recognises(path):
            return [(path, Nabla2dftHamiltonians(path))]
        return super().unverified()

    def files(self) -> list[dict[str, Any]]:
        """The file, if it is here, with what verification found in one of another format."""
        path = self.location.generated
        return [about(path)] if Nabla2dftHamiltonians.recognises(path) else super().files()

    def geometries(self, n: int | None = None) -> list[Molecule]:
        """The first ``n`` of 480 conformers, ids ``0-0``, ``0-1`` ... ``119-3``."""
        return list(_geometries()[:n])


@cache
def _geometries() -> tuple[Molecule, ...]:
    """All conformers of the shipped file."""
    return tuple(frame.molecule for frame in read_frames(GEOMETRIES))


def split_lists() -> dict[str, list[str]]:
    """Row ids of every split, by the rule of the module."""
    count = len(_geometries()) // _CONFORMERS
    roles: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    for molecule in range(count):
        place = molecule % _PERIOD
        role = "validation" if place in _VALIDATION else "test" if place in _TEST else "train"
        roles[role].append(molecule)
    seen, unseen = range(_CONFORMERS - 1), [_CONFORMERS - 1]
    lists = {
        "train": _rows(roles["train"], seen),
        "validation": _rows(roles["validation"], range(_CONFORMERS)),
        "test": _rows(roles["test"], range(_CONFORMERS)),
        "test_conformers": _rows(roles["train"], unseen),
    }
    nested = {f"train_{n}": _rows(roles["train"][:n], seen) for n in TRAINING_SIZES[:-1]}
    return lists | nested


def _rows(molecules: list[int], conformers: range | list[int]) -> list[str]:
    return [f"{m}-{c}" for m in molecules for c in conformers]


def main() -> None:
    """Write the index lists."""
    for name, rows in split_lists().items():
        with atomic_write(GEOMETRIES.parent / "lists" / f"organic_mini_{name}.txt") as file:
            file.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
