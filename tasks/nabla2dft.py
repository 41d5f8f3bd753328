"""``nabla2dft_*``: drug-like molecules in many conformers (Psi4, wB97X-D/def2-SVP).

Rows are called ``"<MOSES id>-<conformer id>"`` in the Hamiltonian and in the energy databases,
which hold the same rows in another order.
"""

from __future__ import annotations

from pathlib import Path

from hambench.data.conventions import Conventions
from hambench.data.published import PublishedTask
from hambench.data.rows import Rows
from hambench.tasks.nabla2dft_energy import Nabla2dftEnergies
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians


class Nabla2dft(PublishedTask):
    """The Hamiltonian tasks ``nabla2dft_2k`` to ``nabla2dft_100k``."""

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of a Hamiltonian database."""
        return Nabla2dftHamiltonians(path, conventions=conventions)


class Nabla2dftEnergy(PublishedTask):
    """The energy tasks ``nabla2dft_energy_2k`` to ``nabla2dft_energy_10k``."""

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of an energy database, with total energies."""
        return Nabla2dftEnergies(path, conventions=conventions, energies="total")
