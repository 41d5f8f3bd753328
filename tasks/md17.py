"""``md17_*``: the Hamiltonian data sets of MD17 molecules by SchNOrb (ORCA, PBE/def2-SVP).

Two splits are in use. ``qhnet42`` takes parts of ``RandomState(42).permutation(rows)`` (QHNet,
PhiSNet, and HELM on water), ``contiguous`` takes the rows as they stand in the file (HELM on the
other molecules). The permutation depends on the number of rows, of which water has 4,999 or 4,900.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hambench.chem.molecule import Molecule
from hambench.data.conventions import Conventions
from hambench.data.published import PublishedTask
from hambench.data.rows import Rows
from hambench.tasks import md17_geometries
from hambench.tasks.schnorb import SchnorbDatabase


class Md17(PublishedTask):
    """The tasks of one molecule each."""

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of a SchNOrb database."""
        return SchnorbDatabase(path, conventions=conventions)

    @property
    def recipe(self) -> dict[str, Any]:
        """How the geometries of labels of our own are made."""
        return md17_geometries.recipe(self._molecule)

    def geometries(self, n: int | None = None) -> list[Molecule]:
        """Geometries for labels of our own, see `hambench.tasks.md17_geometries`."""
        return md17_geometries.geometries(self._molecule, n)

    @property
    def _molecule(self) -> str:
        return self.name.removeprefix("md17_")
