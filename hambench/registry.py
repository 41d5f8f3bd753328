"""Names to tasks and models: entry points, and the YAML presets that stand beside their code.

A package joins with one entry point and one YAML file per name::

    [project.entry-points."hambench.models"]
    mynet = "mypackage:MyNet"              # mypackage/model/mynet.yaml, mypackage/recipe/mynet.yaml

    [project.entry-points."hambench.tasks"]
    mydata = "mypackage:Provider"          # mypackage/task/mydata_water.yaml

Listing names reads YAML and imports the named packages (whose ``__init__`` has to be light), but
not the class behind an entry point: that happens on first use. Models also come from folders that
need no installation, see `hambench.modelfolder`.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hambench.errors import DataError, HambenchError, RegistryError, nearest
from hambench.modelfolder import GROUP, ModelFolder, model_folders
from hambench.presetfile import read_preset, reason

if TYPE_CHECKING:
    from hambench.data.rows import Rows
    from hambench.data.synthetic import SyntheticFormat
    from hambench.data.task import Task


@dataclass(frozen=True)
class Preset:
    """A name that can be used on the command line, and where it comes from.

    Attributes:
        name: what the user types.
        content: the YAML file, as a dictionary.
        path: the YAML file.
        entry: the entry point that provides it.
        origin: distribution and version of the package it stands in, or what stands for them.
    """

    name: str
    content: dict[str, Any]
    path: Path
    entry: str
    origin: str

    @property
    def title(self) -> str:
        """One line for a listing."""
        return str(self.content.get("title", ""))


@dataclass(frozen=True)
class Broken:
    """Something installed that cannot be used, and why."""

    name: str
    origin: str
    reason: str


class Registry:
    """The entry points of one group and the presets of one kind beside them; read when asked.

    Args:
        group: entry-point group.
        kind: "model", "task", "recipe", "download" or "environment": folder of the YAML files,
            and the word in messages.
    """

    def __init__(self, group: str, kind: str) -> None:
        self.group = group
        self.kind = kind

    @cached_property
    def entries(self) -> dict[str, metadata.EntryPoint]:
        """Entry points by name.

        Raises:
            RegistryError: two packages claim one name.
        """
        found: dict[str, metadata.EntryPoint] = {}
        own = [entry for folder in self.folders for entry in folder.entry_points]
        for entry in [*metadata.entry_points(group=self.group), *own]:
            if entry.name in found:
                raise RegistryError(
                    f"{self.kind} provider '{entry.name}' is claimed by {origin(found[entry.name])}"
                    f" and by {origin(entry)}; uninstall or rename one of them"
                )
            found[entry.name] = entry
        return found

    @cached_property
    def folders(self) -> list[ModelFolder]:
        """The user's own folders, where presets of models are without a package.

        Raises:
            ConfigError: the variable that names them names something else.
        """
        return model_folders() if self.group == GROUP else []

    @property
    def locations(self) -> list[str]:
        """Where presets stand, as Hydra names it: ``pkg://hambench.helm``, ``file:///FOLDER``."""
        return self._scan[0]

    @cached_property
    def presets(self) -> dict[str, Preset]:
        """Presets by name, sorted.

        Raises:
            RegistryError: two files claim one name.
        """
        return self._scan[1]

    @cached_property
    def broken(self) -> list[Broken]:
        """Plug-ins and files that cannot be used."""
        return self._scan[2]

    @property
    def names(self) -> list[str]:
        """All usable names, sorted."""
        return list(self.presets)

    def preset(self, name: str) -> Preset:
        """The preset called ``name``.

        Raises:
            RegistryError: there is none (the nearest name is suggested), or it is broken.
        """
        if not isinstance(name, str):
            raise RegistryError(f"a {self.kind} is called by its name, got {name!r:.60}")
        if name in self.presets:
            return self.presets[name]
        for bad in self.broken:
            if bad.name == name:
                raise RegistryError(f"{self.kind} '{name}' of {bad.origin} is broken: {bad.reason}")
        if not self.entries:
            raise RegistryError(
                f"no {self.kind} '{name}': no package provides any, hambench itself is not "
                "installed; run `pip install -e .` in its folder"
            )
        raise RegistryError(f"no {self.kind} '{name}'.{nearest(name, self.presets)}")

    def load(self, entry: str) -> Any:
        """The object behind the entry point called ``entry``.

        Raises:
            RegistryError: nobody provides it, or importing it fails (the plug-in is named).
        """
        if entry not in self.entries:
            raise RegistryError(f"no {self.kind} provider '{entry}'.{nearest(entry, self.entries)}")
        point = self.entries[entry]
        try:
            if isinstance(point.dist, ModelFolder):
                point.dist.check(point.value)
            return point.load()
        except HambenchError:
            raise
        except Exception as error:
            raise RegistryError(
                f"{self.kind} provider '{entry}' ({point.value}) of {origin(point)} cannot be "
                f"imported: {reason(error)}; mend it, or take it away"
            ) from error

    @cached_property
    def _scan(self) -> tuple[list[str], dict[str, Preset], list[Broken]]:
        shelves, broken = self._shelves()
        presets: dict[str, Preset] = {}
        for shelf in shelves:
            for path in sorted((shelf.folder / self.kind).glob("*.yaml")):
                try:
                    content = read_preset(path)
                    provider = self._provider(shelf, content)
                except HambenchError as error:
                    broken.append(Broken(path.stem, shelf.origin, str(error)))
                    continue
                if path.stem in presets:
                    raise RegistryError(
                        f"{self.kind} '{path.stem}' is defined twice, in {presets[path.stem].path} "
                        f"and in {path}; rename one, or uninstall one of the packages"
                    )
                presets[path.stem] = Preset(path.stem, content, path, provider, shelf.origin)
        locations = [shelf.location for shelf in shelves]
        return locations, dict(sorted(presets.items())), broken

    def _shelves(self) -> tuple[list[_Shelf], list[Broken]]:
        """Packages, each with its first entry point, and the user's folders; broken packages."""
        shelves: dict[str, _Shelf] = {}
        broken: list[Broken] = []
        for entry in self.entries.values():
            if isinstance(entry.dist, ModelFolder):
                continue
            try:
                package, folder = _package_of(entry)
            except Exception as error:  # whatever a foreign package raises when imported
                broken.append(Broken(entry.name, origin(entry), reason(error)))
                continue
            shelf = _Shelf(f"pkg://{package}", folder, origin(entry), entry.name)
            shelves.setdefault(package, shelf)
        own = [_Shelf(f"file://{f.path}", f.path, f"{f.name} {f.version}", f) for f in self.folders]
        return [*shelves.values(), *own], broken

    def _provider(self, shelf: _Shelf, content: Mapping[str, Any]) -> str:
        """Name of the entry point behind a preset; RegistryError where a folder has none."""
        if not isinstance(shelf.source, ModelFolder):
            return str(content.get("adapter", shelf.source))
        return shelf.source.provider(content) if self.kind == "model" else shelf.source.name


@dataclass(frozen=True)
class _Shelf:
    """A folder that presets of every kind stand in.

    Attributes:
        location: as Hydra names it.
        folder: its path.
        origin: distribution and version it belongs to.
        source: the entry point that led to it, or the user's folder that it is.
    """

    location: str
    folder: Path
    origin: str
    source: str | ModelFolder


MODELS = Registry("hambench.models", "model")
RECIPES = Registry("hambench.models", "recipe")
TASKS = Registry("hambench.tasks", "task")
DOWNLOADS = Registry("hambench.tasks", "download")
ENVIRONMENTS = Registry("hambench.models", "environment")


def model_names() -> list[str]:
    """Names `build_model` takes."""
    return MODELS.names


def task_names() -> list[str]:
    """Names `load_task` takes."""
    return TASKS.names


def plugins() -> dict[str, str]:
    """Distribution -> version of every package that provides a task or a model."""
    points = [*MODELS.entries.values(), *TASKS.entries.values()]
    return {p.dist.name: p.dist.version for p in points if p.dist is not None}


def search_path() -> list[str]:
    """Hydra search path of everything that brings presets: ``["pkg://hambench.helm", ...]``."""
    return list(dict.fromkeys([*TASKS.locations, *MODELS.locations]))


def load_task(
    name: str,
    path: str | os.PathLike[str] | None = None,
    *,
    split: str | None = None,
    energies: str | os.PathLike[str] | None = None,
) -> Task:
    """The task called ``name``; its metadata needs no data on disk.

    Args:
        name: see `task_names`.
        path: where its data is; None: where the task looks by itself.
        split: a variant of its splits, where it has several.
        energies: file of energies, for tasks whose files have none.

    Raises:
        RegistryError: no such task or variant.
        ConfigError: ``energies`` for a task that has them.
    """
    preset = TASKS.preset(name)
    options = {"path": path, "split": split, "energies": energies}
    given = {key: value for key, value in options.items() if value is not None}
    task: Task = TASKS.load(preset.entry)().task(preset.content, **given)
    return task


def open_data(path: str | os.PathLike[str]) -> Rows:
    """Any supported file as a lazy sequence of molecules; the format is detected.

    Raises:
        DataError: the file is missing or corrupt, or no installed reader knows it.
    """
    from hambench.hdf5 import is_hdf5

    if not Path(path).is_file():
        there = "is a folder" if Path(path).is_dir() else "does not exist"
        raise DataError(f"{path} {there}; give a data file")
    for entry in TASKS.entries:
        molecules: Rows | None = TASKS.load(entry)().open(Path(path))
        if molecules is not None:
            return molecules
    what = "an HDF5 file that is truncated, corrupt or of no" if is_hdf5(path) else "of no"
    raise DataError(
        f"{path} is {what} format that an installed reader knows; expected a file that `hambench "
        "data generate` wrote, or one of a data set in `hambench data list`"
    )


def formats() -> dict[str, SyntheticFormat]:
    """Synthetic files that installed readers are measured with, by key."""
    providers = (TASKS.load(entry)() for entry in TASKS.entries)
    return {
        key: form
        for provider in providers
        if hasattr(provider, "formats")
        for key, form in provider.formats().items()
    }


def origin(entry: metadata.EntryPoint) -> str:
    """Distribution and version an entry point comes from, for messages."""
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed distribution"


def _package_of(entry: metadata.EntryPoint) -> tuple[str, Path]:
    """Name and folder of the package an entry point's presets stand in, imported."""
    spec = util.find_spec(entry.module)
    if spec is None:
        raise ImportError(f"no module named '{entry.module}'")
    is_package = spec.submodule_search_locations is not None
    name = entry.module if is_package else entry.module.rpartition(".")[0]
    if not name:
        raise ImportError(f"'{entry.module}' is a lone module; presets need a package around it")
    file = importlib.import_module(name).__file__
    if file is None:
        raise ImportError(f"package '{name}' has no __init__.py")
    return name, Path(file).parent
