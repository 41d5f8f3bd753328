"""Embeddings of a frozen body, computed once per molecule instead of once per step."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from hambench.chem.molecule import Molecule
from hambench.data.graph import collate
from hambench.data.loader import CACHE_BYTES
from hambench.energy_model import EnergyModel
from hambench.model import Model, Progress, silent

logger = logging.getLogger(__name__)


@torch.no_grad()
def frozen_embeddings(
    model: Model,
    molecules: Sequence[Molecule],
    device: torch.device,
    progress: Progress = silent,
    room: int = CACHE_BYTES,
) -> list[Tensor] | None:
    """Embeddings of every molecule, on the CPU, for `Loader`.

    Args:
        model: in its final precision, on the device.
        molecules: in the order of the loader.
        device: where the model computes.
        progress: shown over the molecules.
        room: bytes they may take.

    Returns:
        (atoms, ...) of each molecule; None for a model whose body is trained, or where they take
        more than ``room``: then every step computes them, with the same result.
    """
    if not (isinstance(model, EnergyModel) and model.frozen):
        return None
    kept: list[Tensor] = []
    for molecule in progress(molecules, "embeddings"):
        kept.append(model.embeddings(collate([molecule], model.graph).to(device)).cpu())
        room -= kept[-1].nbytes
        if room < 0:
            logger.info("embeddings of the frozen body are not kept: they take too much memory")
            return None
    return kept
