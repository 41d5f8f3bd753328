"""The data sets of the project: one file and one YAML description each.

This package is listed often and must stay light: readers are imported when first used.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hambench.data.rows import Rows
    from hambench.data.task import Task

FAMILIES: Final = {
    "organic_mini": "hambench.tasks.organic_mini:OrganicMini",
    "water_mini": "hambench.tasks.water_mini:WaterMini",
}
"""Class of the tasks of a family (key ``family`` of the YAML file)."""


class Provider:
    """What the entry point names: makes tasks and opens data files."""

    def task(self, content: Mapping[str, Any], path: str | os.PathLike[str] | None = None) -> Task:
        """The task a YAML file describes; see `hambench.data.task.Task` for ``path`` and errors."""
        from hambench.data.task import TaskSpec
        from hambench.errors import RegistryError, nearest

        spec = TaskSpec.from_dict(content)
        if spec.family not in FAMILIES:
            raise RegistryError(
                f"task '{spec.name}': no family '{spec.family}'.{nearest(spec.family, FAMILIES)}"
            )
        module, _, name = FAMILIES[spec.family].partition(":")
        task: Task = getattr(importlib.import_module(module), name)(spec, path)
        return task

    def open(self, path: Path) -> Rows | None:
        """A data file as lazy rows, or None where its format is not ours.

        Raises:
            DataError: the file is of ours, and corrupt.
        """
        from hambench.data.store import Store

        if Store.recognises(path):
            return Store(path)
        from hambench.tasks.omol_csh_file import OmolCshFile

        return OmolCshFile(path) if OmolCshFile.recognises(path) else None
