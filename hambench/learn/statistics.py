"""What models learn of their training set before training, kept for the runs that follow.

Label statistics and element references need a pass over all labels. They depend on the data and
the model's settings alone, so the other seeds, strategies and restarts find them done.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hambench.chem.molecule import Molecule
from hambench.data.location import data_folder
from hambench.errors import HambenchError
from hambench.files import atomic_write
from hambench.learn.weights import identity
from hambench.model import Model, Progress

FOLDER = "statistics"
"""In the folder of data files."""

logger = logging.getLogger(__name__)


def prepare(model: Model, train: Sequence[Molecule], data: str | None, progress: Progress) -> None:
    """`Model.prepare`, or what it found for the same data and settings before; tells `remarks`.

    Args:
        model: in its final precision.
        train: the training set.
        data: fingerprint of exactly these molecules; None: nothing is kept.
        progress: shown over the molecules.
    """
    kept = None if data is None else _file(model, data)
    found = None if kept is None else _read(kept)
    if found is None:
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        model.prepare(train, progress)
        if kept is not None:
            _keep(kept, {n: b for n, b in model.named_buffers() if not torch.equal(b, before[n])})
    else:
        buffers = dict(model.named_buffers())
        for name, tensor in found.items():
            buffers[name].copy_(tensor)
    for remark in model.remarks():
        logger.warning(remark)


def _keep(path: Path, buffers: Mapping[str, Tensor]) -> None:
    """Write what `Model.prepare` found; a folder that cannot be written keeps no run from going."""
    if not buffers:
        return
    content = safetensors.torch.save({n: b.cpu().contiguous() for n, b in buffers.items()})
    try:
        with atomic_write(path, "wb") as file:
            file.write(content)
    except HambenchError as error:
        logger.warning("statistics of the training set are not kept: %s", error)


def _file(model: Model, data: str) -> Path:
    """Where statistics of these data for this model are kept."""
    parts = [data, identity(model), str(model.dtype)]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return data_folder() / FOLDER / f"{digest}.safetensors"


def _read(path: Path) -> dict[str, Tensor] | None:
    """Statistics of an earlier run; None where there are none that can be read."""
    try:
        return safetensors.torch.load(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("%s cannot be read (%s), statistics are computed anew", path, error)
        return None
