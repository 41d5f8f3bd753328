"""Checkpoints of PhiSNet's public code, and of nablaDFT's variant of it, for our models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from hambench.baselines.phisnet.energy import PhiSNetEnergy
from hambench.baselines.phisnet.names import SIGNS_KNOWN, Entry, entries
from hambench.errors import CheckpointError, first_of
from hambench.unused import UnusedWeights

if TYPE_CHECKING:
    from hambench.baselines.phisnet.model import PhiSNet

_TABLES: Final = re.compile(
    r"(^|\.)(electron_config|cutoff|logc|n|v)$|(^|\.)clebsch_gordan[._]|(^|[._])idx[._]|_idx$"
)
"""Constants that the public code stores with its weights."""
_OF_MATRICES: Final = re.compile(
    r"(residual|activation|output)_(full|core|over)_|mix_s\.|angular_fn\."
)
"""Parts that energies have no use for."""


def load_published(model: PhiSNet | PhiSNetEnergy, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict of the public code, or of nablaDFT's variant of it, in place.

    Args:
        model: `PhiSNet` with ``overlap`` and ``unused_weights``, of the checkpoint's ``molecule``;
            or a `PhiSNetEnergy`, which takes what it has a use for.
        weights: the public code's tensors by name; constants among them are not read.

    Raises:
        CheckpointError: a tensor that is missing, left over, or of another size (the first is
            named), degrees beyond those whose signs are known, or weights of on-site overlaps
            that are not zero.
    """
    if model.size.lmax > SIGNS_KNOWN:
        raise CheckpointError(
            f"this PhiSNet has order {model.size.lmax}; the signs of the public code's couplings "
            f"are known up to {SIGNS_KNOWN}, so build one of that order"
        )
    energies = isinstance(model, PhiSNetEnergy)
    given = {
        name: tensor
        for name, tensor in weights.items()
        if tensor.is_floating_point() and not _TABLES.search(name)
        if not (energies and _OF_MATRICES.match(name))
    }
    known = {entry.name: entry for entry in entries(model)}
    spare = _spare(model)
    for name, tensor in given.items():
        _check_place(name, tensor, known.get(name), spare)
    wanted = [e.name for e in known.values() if e.parameter is not None or spare]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise CheckpointError(
            f"the published checkpoint lacks {first_of(missing)}; build "
            "the model with the checkpoint's modules, residual blocks and layers"
        )
    with torch.no_grad():
        for name, tensor in given.items():
            entry = known[name]
            if entry.parameter is not None:
                entry.parameter[entry.index] = entry.ours(tensor).to(entry.parameter)
            if spare and entry.unused is not None:
                spare[name].copy_(entry.rest(tensor))


def _check_place(
    name: str, tensor: Tensor, entry: Entry | None, spare: Mapping[str, Tensor] | None
) -> None:
    """CheckpointError where a published tensor does not fit."""
    if entry is None or (spare is not None and entry.unused is not None and name not in spare):
        raise CheckpointError(
            f"published tensor '{name}' has no place in this model; build it with "
            "unused_weights=true, overlap=true, and the checkpoint's modules and layers"
        )
    if tuple(tensor.shape) != entry.shape:
        raise CheckpointError(
            f"published tensor '{name}' is of shape {tuple(tensor.shape)}, expected {entry.shape}; "
            "build the model with the checkpoint's widths and its molecule"
        )
    if entry.frozen and bool(tensor.any()):
        raise CheckpointError(
            f"published tensor '{name}' is not zero, as in all checkpoints of the public code; "
            "this one is of another model"
        )


def _spare(model: PhiSNet | PhiSNetEnergy) -> dict[str, nn.Parameter] | None:
    """Places of weights that nothing depends on; None: a model that reads none."""
    if isinstance(model, PhiSNetEnergy):
        return None
    return {} if model.unused is None else model.unused.by_name()


def unused_weights_of(model: PhiSNet) -> UnusedWeights:
    """What the public code has beyond the weights of a model."""
    found = [entry for entry in entries(model) if entry.unused is not None]
    unused = UnusedWeights(
        {entry.name: entry.unused for entry in found if entry.unused is not None}
    )
    for entry in found:
        if entry.frozen:
            unused.by_name()[entry.name].requires_grad_(False)
    return unused
