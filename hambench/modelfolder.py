"""Models of one's own in a folder that needs no installation.

The variable HAMBENCH_MODELS names it (several as in PATH)::

    FOLDER/mynet.py               class MyNet(Model)
    FOLDER/model/mynet.yaml       adapter: mynet:MyNet       (or an installed model: helm)
    FOLDER/recipe/mynet.yaml

Nothing is imported from anywhere else: a module that Python would take from another place is
refused by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Mapping
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import Any, Final

from hambench.errors import ConfigError, HambenchError, RegistryError
from hambench.presetfile import read_preset, reason

VARIABLE: Final = "HAMBENCH_MODELS"
GROUP: Final = "hambench.models"
"""Entry-point group of models."""

_CLASS = re.compile(r"[\w.]+:\w+")


class ModelFolder(metadata.Distribution):
    """A folder of models, as a distribution like those that are installed.

    Args:
        path: its absolute path.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """What results and listings say where a model is from."""
        return f"folder {self.path.name}"

    @property
    def version(self) -> str:
        """Digest of its code and presets, which have no other version."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        digest = hashlib.sha256()
        for file in sorted([*self.path.rglob("*.py"), *self.path.glob("*/*.yaml")]):
            digest.update(f"{file.relative_to(self.path).as_posix()}\0".encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
        return f"sha256:{digest.hexdigest()[:12]}"

    def read_text(self, filename: str) -> str | None:
        """The entry points, one for each class that a preset names."""
        if filename != "entry_points.txt":
            return None
        lines = [f"{adapter} = {adapter}" for adapter in sorted(self._adapters())]
        return "\n".join([f"[{GROUP}]", *lines])

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        """A file of the folder."""
        return self.path / path

    def provider(self, content: Mapping[str, Any]) -> str:
        """Name of the entry point behind one of its presets of models.

        Raises:
            RegistryError: it names none, or a class that is not in this folder.
        """
        adapter = content.get("adapter")
        if not isinstance(adapter, str):
            raise RegistryError(
                "it says not whose preset it is; add 'adapter: MODULE:CLASS' (a class in "
                f"{self.path}), or the name of an installed model"
            )
        if _CLASS.fullmatch(adapter):
            self.check(adapter)
        return adapter

    def check(self, adapter: str) -> None:
        """Refuse a class that would not come from this folder.

        Raises:
            RegistryError: its module is somewhere else, or nowhere.
        """
        module = adapter.partition(":")[0].partition(".")[0]
        try:
            spec = util.find_spec(module)
        except (ImportError, ValueError) as error:
            raise RegistryError(f"module '{module}' cannot be found: {reason(error)}") from error
        if spec is None:
            raise RegistryError(f"there is no {self.path / module}.py, which its adapter names")
        if not spec.origin or not Path(spec.origin).resolve().is_relative_to(self.path.resolve()):
            raise RegistryError(
                f"module '{module}' is not that of {self.path}: Python takes "
                f"{spec.origin or 'another one'}; rename the file"
            )

    def _adapters(self) -> set[str]:
        found = set()
        for path in self.path.glob("model/*.yaml"):
            try:
                adapter = read_preset(path).get("adapter")
            except HambenchError:
                continue  # a listing names it
            if isinstance(adapter, str) and _CLASS.fullmatch(adapter):
                found.add(adapter)
        return found


def model_folders() -> list[ModelFolder]:
    """The folders that the variable names; Python looks for modules there last.

    Raises:
        ConfigError: one of them does not exist, or holds no presets.
    """
    given = os.environ.get(VARIABLE, "").split(os.pathsep)
    folders = dict.fromkeys(Path(word).expanduser().absolute() for word in given if word)
    for folder in folders:
        if not any([*folder.glob("model/*.yaml"), *folder.glob("recipe/*.yaml")]):
            what = "holds no model/NAME.yaml" if folder.is_dir() else "is no folder"
            raise ConfigError(
                f"{VARIABLE} names {folder}, which {what}; correct the variable, or unset it"
            )
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    return [ModelFolder(folder) for folder in folders]
