"""Weights of a model in a safetensors file, with what is needed to tell whose they are."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hambench.energy_model import EnergyModel
from hambench.errors import CheckpointError, DataError
from hambench.files import atomic_write
from hambench.model import Model

FORMAT = "hambench-weights-1"


@dataclass(frozen=True)
class WeightsInfo:
    """What a weights file says of itself.

    Attributes:
        step: optimiser steps behind these weights.
        value: validation metric they reached, None where nothing was validated.
        identity: the model, see `identity`.
    """

    step: int
    value: float | None
    identity: dict[str, Any]


def identity(model: Model) -> dict[str, Any]:
    """What two models must share for one's weights to fit the other (JSON-able)."""
    kind = type(model)
    return {
        "class": f"{kind.__module__}.{kind.__qualname__}",
        "version": model.checkpoint_version,
        "hyperparameters": model.hyperparameters,
        "basis": model.basis.to_dict(),
    }


def check_identity(found: dict[str, Any], model: Model, where: Path) -> None:
    """Compare the identity in a file with a model's.

    Raises:
        CheckpointError: they differ; the first difference is named.
    """
    found, wanted = _plain(found), _plain(identity(model))
    if found == wanted:
        return
    key, is_, should = first_difference(found, wanted)
    raise CheckpointError(
        f"{where} holds another model: its {key} is {is_}, this model's is {should}; "
        "build the model it was saved from, or choose another file"
    )


def first_difference(one: Any, other: Any, key: str = "") -> tuple[str, str, str]:
    """Dotted key and both values, abbreviated, where two JSON-like trees first differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name):
                return first_difference(one.get(name), other.get(name), f"{key}.{name}".strip("."))
    return key, f"{one!r:.60}", f"{other!r:.60}"


def save_weights(path: Path, model: Model, step: int, value: float | None) -> None:
    """Write the parameters and buffers as they are now, atomically.

    Raises:
        RunError: the disk is full or the folder cannot be written.
    """
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in model.state_dict().items()}
    metadata = {
        "format": FORMAT,
        "step": str(step),
        "value": json.dumps(value),
        "dtype": str(model.dtype).removeprefix("torch."),
        "identity": json.dumps(identity(model)),
    }
    content = safetensors.torch.save(tensors, metadata)
    with atomic_write(path, "wb") as file:
        file.write(content)


def load_weights(path: str | os.PathLike[str], model: Model) -> WeightsInfo:
    """Give ``model`` the weights of a file, and the floating type they were trained in.

    Raises:
        DataError: the file is missing or corrupt.
        CheckpointError: it is no weights file of ours, or of another model.
    """
    tensors, metadata = _read(Path(path))
    found = json.loads(metadata["identity"])
    check_identity(found, model, Path(path))
    cast(model, getattr(torch, metadata["dtype"]))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} does not hold the tensors of the model it names "
            f"({' '.join(str(error).split()):.200}); copy it again"
        ) from error
    return WeightsInfo(int(metadata["step"]), json.loads(metadata["value"]), found)


def adopt_weights(path: str | os.PathLike[str], model: EnergyModel) -> dict[str, list[str]]:
    """Give a model of energies the body of a Hamiltonian model, in the type it was trained in.

    Returns:
        What differs between the two, see `EnergyModel.adopt`.

    Raises:
        DataError: as `load_weights`.
        CheckpointError: it is no weights file of ours, was trained in another basis, or does not
            fit the model.
    """
    tensors, metadata = _read(Path(path))
    check_body(json.loads(metadata["identity"]), model, str(path))
    cast(model, getattr(torch, metadata["dtype"]))
    return model.adopt(tensors, str(path))


def check_body(found: dict[str, Any], model: Model, where: str) -> None:
    """Compare a Hamiltonian model's identity with a model of energies that is to have its body.

    Raises:
        CheckpointError: their bases, or hyperparameters that both have, differ.
    """
    found, wanted = _plain(found), _plain(identity(model))
    shared = found["hyperparameters"].keys() & wanted["hyperparameters"].keys()
    was, is_ = (
        {
            "basis": one["basis"],
            "hyperparameters": {key: one["hyperparameters"][key] for key in shared},
        }
        for one in (found, wanted)
    )
    if was != is_:
        key, theirs, ours = first_difference(was, is_)
        raise CheckpointError(
            f"{where} has {key}={theirs}, the model of energies has {ours}; give both the same"
        )


def read_identity(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The `identity` of the model in a weights file.

    Raises:
        DataError: the file is missing or corrupt.
        CheckpointError: it is no weights file of ours.
    """
    with _opened(Path(path)) as (_, metadata):
        found: dict[str, Any] = json.loads(metadata["identity"])
    return found


def cast(model: Model, dtype: torch.dtype) -> None:
    """Convert the parameters, and the buffers of the parameters' type, in place.

    What a module names in ``exact``, such as label means beside float32 parameters, stays as it is.
    """
    before = model.dtype
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if parameter.dtype == before:
                parameter.data = parameter.data.to(dtype)
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.dtype == before and name not in getattr(module, "exact", ()):
                setattr(module, name, buffer.to(dtype))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a weights file of ours."""
    with _opened(path) as (file, metadata):
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, str]]]:
    """A weights file of ours, whose tensors are read when asked for, and its metadata."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    f"{path} has format {metadata.get('format')!r}, expected {FORMAT!r}; weights "
                    "of other programs are loaded with hambench.load_published"
                )
            if not _is_whole(metadata):
                raise CheckpointError(
                    f"{path} does not say what model its weights are of; copy it again"
                )
            yield file, metadata
    except FileNotFoundError:
        raise DataError(
            f"there is no weights file {path}; check the path, or, where a run has lost it, train "
            "anew with overwrite=true"
        ) from None
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is no readable weights file ({error}); copy it again, or train the run anew "
            "with overwrite=true"
        ) from error


def _is_whole(metadata: dict[str, str]) -> bool:
    """Whether the metadata of a weights file have all that is read of them."""
    try:
        found = json.loads(metadata["identity"])
        int(metadata["step"]), json.loads(metadata["value"])
    except (KeyError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and metadata.get("dtype") in ("float32", "float64")


def _plain(tree: Any) -> Any:
    """The tree as JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(tree))
