"""Checkpoints of a training run: all of its state in one file, and the one before it.

``last.pt`` is replaced atomically; the file it replaces becomes ``previous.pt``, so that a
readable checkpoint survives a broken disk block, a full disk and ``kill -9`` at any moment. Files
are read with ``weights_only=True``: they hold tensors and plain values, and run no code.
"""

from __future__ import annotations

import io
import logging
import os
import random
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hambench.errors import CheckpointError
from hambench.files import atomic_path

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

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
        with _Sink(io.FileIO(temporary, "wb")) as file:
            try:
                torch.save({"format": FORMAT, **content}, file)
            except RuntimeError:
                if file.error is None:
                    raise
                raise file.error from None
            file.flush()
            os.fsync(file.fileno())
        if last.exists():
            os.replace(last, folder / PREVIOUS)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, or None where there is none.

    What killed runs left half written in ``folder`` is removed.

    Raises:
        CheckpointError: all files are unreadable, or of another format version.
    """
    for left_over in folder.glob(".*"):  # names that `atomic_path` gives
        left_over.unlink(missing_ok=True)
    broken = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            content = _read(path)
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


class _Sink(io.BufferedWriter):
    """A file that remembers why a write failed, which torch.save does not tell."""

    error: OSError | None = None

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def _read(path: Path) -> dict[str, Any]:
    """Content of a checkpoint whose checksums, which torch ignores, were found right."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"wrong checksum of {damaged}")
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content


def random_state(device: torch.device) -> dict[str, Any]:
    """State of all global generators, any of which a model may draw from."""
    legacy: dict[str, Any] = np.random.get_state(legacy=False)  # noqa: NPY002
    words = torch.from_numpy(legacy["state"]["key"].astype(np.int64))
    state = {
        "python": random.getstate(),
        "numpy": {**legacy, "state": {**legacy["state"], "key": words}},
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Continue from `random_state`."""
    version, internal, gauss_next = state["python"]
    random.setstate((version, tuple(internal), gauss_next))
    legacy = state["numpy"]
    words = legacy["state"]["key"].numpy().astype(np.uint32)
    legacy = {**legacy, "state": {**legacy["state"], "key": words}}
    np.random.set_state(legacy)  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_generators(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
