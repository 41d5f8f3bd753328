"""What a trained model gives for molecules, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.data.loader import Loader
from hambench.learn.validation import matmul_precision
from hambench.model import Model


def outputs_of(
    model: Model,
    molecules: Sequence[Molecule],
    *,
    batch_size: int | None = None,
    max_edges: int | None = None,
) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Place and output of every molecule, those of one batch together.

    The model predicts in evaluation mode on the device it is on, with float32 products in full
    precision. With ``max_edges`` places may come out of order.

    Args:
        model: its initial guesses, if it has any, are there.
        molecules: read by place; no labels are needed.
        batch_size, max_edges: see `Loader`; one of them.

    Yields:
        The place, and float64 in Eh: (nao, nao), symmetric, canonical order; or the total energy,
        of shape (). Not finite where the model failed.
    """
    model.eval()
    tensors = chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    loader = Loader(
        molecules, replace(model.graph, labels=()), batch_size=batch_size, max_edges=max_edges,
        shuffle=False, device=device, cache_bytes=0,
    )  # fmt: skip
    for places, loaded in zip(loader.plan(0), loader.once(), strict=True):
        with torch.no_grad(), matmul_precision("highest"):  # not while others go on
            outputs = model(loaded.batch).outputs()
        yield from zip(places, (output.cpu().numpy() for output in outputs), strict=True)
