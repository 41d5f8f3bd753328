"""Checkpoints of a training run: all of its state in one file, and the one before it.

``last.pt`` is replaced atomically; the file it replaces becomes ``previous.pt``, so that a
readable checkpoint survives a broken disk block, a full disk and ``kill -9`` at any moment. Files
are read with ``weights_only=True``: they hold tensors and plain values, and run no code.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hambench.errors import CheckpointError
from hambench.files import atomic_path

FORMAT = 1
LAST, PREVIOUS = "last.pt", "previous.pt"

logger = logging.getLogger(__name__)


def save_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` (tensors, numbers, strings, lists, dicts) as the last checkpoint.

    Raises:
        RunError: the disk is full or the folder cannot be written; what was there before stays.
    """
    last = folder / LAST
    with atomic_path(last) as temporary:
        # a Python file reports a full disk as OSError, torch's own writer does not
        with open(temporary, "wb") as file:
            torch.save({"format": FORMAT, **content}, file)
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            os.replace(last, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, or None where there is none.

    Raises:
        CheckpointError: all files are unreadable, or of another format version.
    """
    broken = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            version = content["format"]
        except Exception as error:  # a damaged file fails in many ways
            reason = " ".join(str(error).split())[:120]
            logger.warning("checkpoint %s cannot be read (%s)", path, reason)
            broken.append(name)
            continue
        if version != FORMAT:
            raise CheckpointError(
                f"checkpoint {path} has format {version}, this version of hambench reads {FORMAT}; "
                "go on with the version that wrote it, or start anew in another folder"
            )
        if broken:  # set aside, or the next checkpoint would push it over the good one
            os.replace(folder / LAST, folder / "damaged.pt")
            logger.warning("going on from %s instead", path)
        return dict(content)
    if broken:
        raise CheckpointError(
            f"no checkpoint in {folder} can be read ({' and '.join(broken)} are damaged); "
            "delete that folder to start anew"
        )
    return None


def random_state(device: torch.device) -> dict[str, Any]:
    """State of all global generators, any of which a model may draw from."""
    kind, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss],
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Continue from `random_state`."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    kind, keys, position, has_gauss, gauss = state["numpy"]
    words = keys.numpy().astype(np.uint32)
    np.random.set_state((kind, words, position, has_gauss, gauss))  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
