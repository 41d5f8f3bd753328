"""Names to tasks and models: entry points, and the YAML presets that stand beside their code.

A package joins with one entry point and one YAML file per name::

    [project.entry-points."hambench.models"]
    mynet = "mypackage:MyNet"              # mypackage/model/mynet.yaml, mypackage/recipe/mynet.yaml

    [project.entry-points."hambench.tasks"]
    mydata = "mypackage:Provider"          # mypackage/task/mydata_water.yaml

Listing names reads YAML and imports the named packages (whose ``__init__`` has to be light), but
not the class behind an entry point: that happens on first use.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hambench.errors import ConfigError, DataError, HambenchError, RegistryError, nearest
from hambench.settings import checked

if TYPE_CHECKING:
    from torch import Tensor

    from hambench.chem.orbitals import OrbitalBasis
    from hambench.data.rows import Rows
    from hambench.data.synthetic import SyntheticFormat
    from hambench.data.task import Task
    from hambench.energy_model import EnergyModel
    from hambench.external import ExternalModel
    from hambench.model import Model


@dataclass(frozen=True)
class Preset:
    """A name that can be used on the command line, and where it comes from.

    Attributes:
        name: what the user types.
        content: the YAML file, as a dictionary.
        path: the YAML file.
        package: importable package it stands in.
        entry: the entry point that provides it.
        origin: distribution and version of that package.
    """

    name: str
    content: dict[str, Any]
    path: Path
    package: str
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
        for entry in metadata.entry_points(group=self.group):
            if entry.name in found:
                raise RegistryError(
                    f"{self.kind} provider '{entry.name}' is claimed by {origin(found[entry.name])}"
                    f" and by {origin(entry)}; uninstall one of them"
                )
            found[entry.name] = entry
        return found

    @cached_property
    def packages(self) -> dict[str, metadata.EntryPoint]:
        """Importable packages that hold presets, each with its first entry point."""
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
            return point.load()
        except HambenchError:
            raise
        except Exception as error:
            raise RegistryError(
                f"{self.kind} provider '{entry}' ({point.value}) of {origin(point)} cannot be "
                f"imported: {_reason(error)}; mend or uninstall that package"
            ) from error

    @cached_property
    def _scan(
        self,
    ) -> tuple[dict[str, metadata.EntryPoint], dict[str, Preset], list[Broken]]:
        packages: dict[str, metadata.EntryPoint] = {}
        presets: dict[str, Preset] = {}
        broken: list[Broken] = []
        for entry in self.entries.values():
            try:
                package, folder = _package_of(entry)
            except Exception as error:  # whatever a foreign package raises when imported
                broken.append(Broken(entry.name, origin(entry), _reason(error)))
                continue
            if package in packages:
                continue
            packages[package] = entry
            for path in sorted((folder / self.kind).glob("*.yaml")):
                try:
                    content = _read(path)
                except HambenchError as error:
                    broken.append(Broken(path.stem, origin(entry), str(error)))
                    continue
                if path.stem in presets:
                    raise RegistryError(
                        f"{self.kind} '{path.stem}' is defined twice, in {presets[path.stem].path} "
                        f"and in {path}; uninstall one of the packages"
                    )
                provider = str(content.get("adapter", entry.name))
                presets[path.stem] = Preset(
                    path.stem, content, path, package, provider, origin(entry)
                )
        return packages, dict(sorted(presets.items())), broken


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
    """Hydra search path of all packages that bring presets: ``["pkg://hambench.helm", ...]``."""
    return [f"pkg://{package}" for package in {**TASKS.packages, **MODELS.packages}]


def is_external(name: str) -> bool:
    """Whether a preset's model runs in an environment of its own, see `build_external`."""
    from hambench.external import ExternalModel

    adapter = MODELS.load(MODELS.preset(name).entry)
    return inspect.isclass(adapter) and issubclass(adapter, ExternalModel)


def build_external(name: str, basis: OrbitalBasis, **hyperparameters: Any) -> ExternalModel:
    """The model of a preset that runs in an environment of its own, untrained.

    Args:
        name, basis, hyperparameters: as `build_model`.

    Raises:
        RegistryError, ConfigError: as `build_model`.
    """
    preset = MODELS.preset(name)
    adapter: type[ExternalModel] = _complete(preset)
    settings = _settings(preset, adapter, hyperparameters)
    model = adapter(basis, **settings)
    model.hyperparameters = settings
    return model


def build_model(name: str, basis: OrbitalBasis, **hyperparameters: Any) -> Model:
    """The model of a preset, freshly initialised.

    Args:
        name: a preset, see `model_names`.
        basis: orbital basis of the Hamiltonians it is to predict.
        hyperparameters: replace those of the preset; all are kept in ``model.hyperparameters``.

    Raises:
        RegistryError: no such preset, or what stands behind it is no model.
        ConfigError: ``basis`` is no `OrbitalBasis`, a hyperparameter the model does not have, or a
            value it refuses.
    """
    from hambench.chem.orbitals import OrbitalBasis

    if not isinstance(basis, OrbitalBasis):
        raise ConfigError(
            f"basis is {basis!r:.60}, expected an OrbitalBasis: that of a task (task.basis), or "
            "OrbitalBasis.load('def2-svp', [1, 8])"
        )
    preset = MODELS.preset(name)
    adapter = _adapter(preset)
    settings = _settings(preset, adapter, hyperparameters)
    with _fits(name, hyperparameters):
        model = adapter(basis, **settings)
    model.hyperparameters = settings
    return model


def build_energy_model(
    name: str, basis: OrbitalBasis, hyperparameters: Mapping[str, Any], options: Mapping[str, Any]
) -> EnergyModel:
    """The model of energies that stands on the embeddings of a preset, freshly initialised.

    Args:
        name: a preset whose model offers embeddings, or is a model of energies itself.
        basis: as `build_model`.
        hyperparameters: replace those of the preset.
        options: replace those of its section ``energy``. Both are kept in
            ``model.hyperparameters``, the options as ``energy``.

    Raises:
        RegistryError, ConfigError: as `build_model`; or the model offers no embeddings.
    """
    from hambench.energy_model import EnergyModel

    preset = MODELS.preset(name)
    adapter = _adapter(preset)
    if issubclass(adapter, EnergyModel):
        model = build_model(name, basis, **hyperparameters)
        assert isinstance(model, EnergyModel)
        return model
    settings = _settings(preset, adapter, hyperparameters)
    chosen = {**preset.content.get("energy", {}), **options}
    with _fits(name, hyperparameters):
        staged = adapter.for_energies(basis, settings, chosen)
    staged.hyperparameters = {**settings, "energy": chosen}
    return staged


def _settings(preset: Preset, adapter: type, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """All hyperparameters of a preset's model, some of them replaced, checked."""
    given = {**preset.content.get("hyperparameters", {}), **hyperparameters}
    return checked(adapter, given, f"model '{preset.name}'")


@contextmanager
def _fits(name: str, hyperparameters: Mapping[str, Any]) -> Iterator[None]:
    """ConfigError where what is built in the block is larger than the memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        raise ConfigError(
            f"model '{name}' with these hyperparameters is larger than the memory here; make it "
            f"smaller ({', '.join(f'{k}={v}' for k, v in hyperparameters.items()) or 'preset'})"
        ) from error


def _adapter(preset: Preset) -> type[Model]:
    """The class behind a preset; RegistryError where it is no complete `Model`."""
    from hambench.model import Model

    if is_external(preset.name):
        raise ConfigError(
            f"model '{preset.name}' runs in an environment of its own and is no network here; "
            f"train it and predict with it on a task of energies: hambench run model={preset.name}"
        )
    adapter = MODELS.load(preset.entry)
    if not (inspect.isclass(adapter) and issubclass(adapter, Model)):
        raise RegistryError(
            f"'{preset.entry}' of {preset.origin} is no subclass of hambench.model.Model; mend or "
            "uninstall that package"
        )
    return _complete(preset)


def _complete(preset: Preset) -> Any:
    """The class behind a preset; RegistryError where methods are missing."""
    adapter = MODELS.load(preset.entry)
    if missing := sorted(adapter.__abstractmethods__):
        raise RegistryError(
            f"model '{preset.entry}' of {preset.origin} lacks {', '.join(missing)}; see 'Add a "
            "model' in CONTRIBUTING.md"
        )
    return adapter


def load_published(model: Model, state_dict: Mapping[str, Tensor]) -> None:
    """Load a checkpoint of a model's original code into ours, in place.

    The model's package maps the names: its module ``published`` has ``load_published``.

    Args:
        model: built with the hyperparameters of the checkpoint.
        state_dict: the original code's tensors by name, as torch.load(FILE, weights_only=True)
            gives them.

    Raises:
        ConfigError: ``state_dict`` is no mapping, or that model's package cannot read any original
            code's checkpoints.
        CheckpointError: a tensor is missing, left over, or of another size.
    """
    from torch import Tensor

    from hambench.model import Model

    if not isinstance(model, Model):
        raise ConfigError(f"model is {model!r:.60}, expected what hambench.build_model gives")
    if not isinstance(state_dict, Mapping):
        raise ConfigError(
            f"state_dict is {state_dict!r:.60}, expected the checkpoint's tensors by name; read a "
            "file with torch.load(FILE, map_location='cpu', weights_only=True)"
        )
    others = [str(key) for key, value in state_dict.items() if not isinstance(value, Tensor)]
    if others:
        raise ConfigError(
            f"state_dict holds {', '.join(others[:5])}, expected tensors alone; give "
            "the part of the checkpoint that has them, such as checkpoint['state_dict']"
        )
    if set(state_dict) == set(model.state_dict()):
        raise ConfigError(
            "these are weights of hambench itself, not of the original code; load them with "
            "model.load_state_dict"
        )
    spec = sys.modules[type(model).__module__].__spec__
    name = f"{spec.parent if spec else ''}.published"
    if not name.partition(".")[0] or util.find_spec(name) is None:
        raise ConfigError(
            f"{type(model).__name__} reads no checkpoints of other codes: there is no module {name}"
        )
    importlib.import_module(name).load_published(model, state_dict)


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


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number, as Hydra does (YAML 1.1 makes it a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def _read(path: Path) -> dict[str, Any]:
    """A preset file as a dictionary, its name checked."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no readable YAML: {_reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping, it holds a {type(content).__name__}")
    if content.get("name", path.stem) != path.stem:
        raise ConfigError(f"{path} names itself '{content['name']}', expected '{path.stem}'")
    return content


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
