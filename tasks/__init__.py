"""The data sets of the project: one file and one YAML description each.

This package is listed often and must stay light: readers are imported when first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hambench.data.rows import Rows
    from hambench.data.synthetic import SyntheticFormat
    from hambench.data.task import Task

FAMILIES: Final = {
    "md17": "hambench.tasks.md17:Md17",
    "nabla2dft": "hambench.tasks.nabla2dft:Nabla2dft",
    "nabla2dft_energy": "hambench.tasks.nabla2dft:Nabla2dftEnergy",
    "omol_csh": "hambench.tasks.omol_csh:OmolCsh",
    "organic_mini": "hambench.tasks.organic_mini:OrganicMini",
    "qh9_dynamic": "hambench.tasks.qh9_tasks:Dynamics",
    "qh9_stable": "hambench.tasks.qh9_tasks:StableMolecules",
    "water_mini": "hambench.tasks.water_mini:WaterMini",
}
"""Class of the tasks of a family (key ``family`` of the YAML file)."""

READERS: Final = (
    "hambench.data.store:Store",
    "hambench.tasks.omol_csh_file:OmolCshFile",
    "hambench.tasks.schnorb:SchnorbDatabase",
    "hambench.tasks.nabla2dft_hamiltonian:Nabla2dftHamiltonians",
    "hambench.tasks.nabla2dft_energy:Nabla2dftEnergies",
    "hambench.tasks.qh9:QH9Dynamic",
    "hambench.tasks.qh9:QH9Stable",
)
"""Readers of data files, in the order in which they are asked whether they recognise one."""


class Provider:
    """What the entry point names: makes tasks and opens data files."""

    def task(self, content: Mapping[str, Any], **options: Any) -> Task:
        """The task a YAML file describes; see `hambench.data.task.Task` for options and errors."""
        from hambench.data.spec import TaskSpec
        from hambench.errors import RegistryError, nearest

        spec = TaskSpec.from_dict(content)
        if spec.family not in FAMILIES:
            raise RegistryError(
                f"task '{spec.name}': no family '{spec.family}'.{nearest(spec.family, FAMILIES)}"
            )
        task: Task = _load(FAMILIES[spec.family])(spec, **options)
        return task

    def open(self, path: Path) -> Rows | None:
        """A data file as lazy rows, or None where its format is not ours.

        Raises:
            DataError: the file is of ours, and corrupt.
        """
        from hambench.tasks.sqlite import refuse_truncated

        for reader in map(_load, READERS):
            if reader.recognises(path):
                rows: Rows = reader(path)
                return rows
        if path.is_file():
            refuse_truncated(path)  # which hides what a SQLite file holds
        return None

    def formats(self) -> Mapping[str, SyntheticFormat]:
        """Synthetic files of the public formats by key, for `hambench bench`."""
        from hambench.tasks.synthetic import formats

        return formats()


def _load(entry: str) -> Any:
    """What an entry ``module:name`` of the tables above names."""
    module, _, name = entry.partition(":")
    return getattr(importlib.import_module(module), name)
