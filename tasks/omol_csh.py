"""``omol_csh_58k`` and the energy tasks on the same molecules (ORCA, wB97M-V/def2-TZVPD).

The public files hold no energies; those of OMol25 are gated and are joined from a file of the
user's (``energies=FILE``), whose ids are the paths of the groups in the HDF5 files.
"""

from __future__ import annotations

from pathlib import Path

from hambench.data.conventions import Conventions
from hambench.data.published import PublishedTask
from hambench.data.rows import Rows
from hambench.tasks.omol_csh_file import CONVENTIONS, OmolCshFile


class OmolCsh(PublishedTask):
    """The tasks on the files of OMol_CSH."""

    def read(self, path: Path, conventions: Conventions | None = None) -> Rows:
        """All rows of an HDF5 file of OMol_CSH."""
        return OmolCshFile(path, conventions=conventions or CONVENTIONS)
