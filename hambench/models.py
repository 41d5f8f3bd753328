"""Models by name: presets built with their hyperparameters, and weights of original codes."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import util
from typing import Any

from torch import Tensor

from hambench import registry
from hambench.chem.orbitals import OrbitalBasis
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError, RegistryError
from hambench.external import ExternalModel
from hambench.model import Model
from hambench.registry import Preset
from hambench.settings import checked


def is_external(name: str) -> bool:
    """Whether a preset's model runs in an environment of its own, see `build_external`."""
    adapter = registry.MODELS.load(registry.MODELS.preset(name).entry)
    return inspect.isclass(adapter) and issubclass(adapter, ExternalModel)


def build_external(name: str, basis: OrbitalBasis, **hyperparameters: Any) -> ExternalModel:
    """The model of a preset that runs in an environment of its own, untrained.

    Args:
        name, basis, hyperparameters: as `build_model`.

    Raises:
        RegistryError, ConfigError: as `build_model`.
    """
    preset = registry.MODELS.preset(name)
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
    if not isinstance(basis, OrbitalBasis):
        raise ConfigError(
            f"basis is {basis!r:.60}, expected an OrbitalBasis: that of a task (task.basis), or "
            "OrbitalBasis.load('def2-svp', [1, 8])"
        )
    preset = registry.MODELS.preset(name)
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
    preset = registry.MODELS.preset(name)
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
    if is_external(preset.name):
        raise ConfigError(
            f"model '{preset.name}' runs in an environment of its own and is no network here; "
            f"train it and predict with it on a task of energies: hambench run model={preset.name}"
        )
    adapter = registry.MODELS.load(preset.entry)
    if not (inspect.isclass(adapter) and issubclass(adapter, Model)):
        raise RegistryError(
            f"'{preset.entry}' of {preset.origin} is no subclass of hambench.model.Model; mend or "
            "uninstall that package"
        )
    return _complete(preset)


def _complete(preset: Preset) -> Any:
    """The class behind a preset; RegistryError where methods are missing."""
    adapter = registry.MODELS.load(preset.entry)
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
