"""A trained model, and the Hamiltonians it predicts for molecules, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.data.loader import Loader
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError
from hambench.learn.device import open_fabric
from hambench.learn.reporters import bar
from hambench.learn.validation import matmul_precision
from hambench.learn.weights import cast
from hambench.model import Model
from hambench.trained import Trained, load_trained

Matrix = NDArray[np.float64]
Precision = Literal["float32", "float64"]


def load_hamiltonian_model(
    checkpoint: str | os.PathLike[str], device: str = "auto", precision: Precision | None = None
) -> Trained:
    """A finished run whose model predicts Hamiltonians.

    Args:
        checkpoint: a run directory, or the best weights in it.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        precision: of the parameters; None: the one they were trained in.

    Raises:
        ConfigError: a run on energies, or of a model in an environment of its own; no such device.
        DataError, CheckpointError: as `load_trained`.
    """
    open_fabric(device)
    trained = load_trained(checkpoint, device)
    check_predicts_hamiltonians(trained.model, f"the run in {trained.folder}")
    if precision is not None:
        cast(trained.model, getattr(torch, precision))
    return trained


def check_predicts_hamiltonians(model: Model, called: str) -> None:
    """ConfigError for a model of energies."""
    if isinstance(model, EnergyModel):
        raise ConfigError(
            f"{called} predicts energies, here Hamiltonians are wanted; give a run of a task of "
            "Hamiltonians (for energies there is hambench.calculator)"
        )


def hamiltonians(
    model: Model,
    molecules: Sequence[Molecule],
    *,
    batch_size: int | None = None,
    max_edges: int | None = None,
    progress: bool = False,
) -> Iterator[tuple[int, Matrix]]:
    """Place and predicted Hamiltonian of every molecule, those of one batch together.

    The model predicts in evaluation mode on the device it is on, with float32 products in full
    precision. With ``max_edges`` places may come out of order.

    Args:
        model: of Hamiltonians.
        molecules: read by place; no labels are needed.
        batch_size, max_edges: see `Loader`; one of them.
        progress: show a bar on a terminal where initial guesses are computed.

    Yields:
        The place, and (nao, nao) float64 in Eh, symmetric, canonical order; not finite where the
        model failed.

    Raises:
        ConfigError, DataError: a molecule that the model does not take.
    """
    model.eval()
    graph = replace(model.graph, labels=())
    if graph.guess is not None:
        graph.guess.check(molecules)
        graph.guess.complete(molecules, bar if progress else None)
    tensors = chain(model.parameters(), model.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    loader = Loader(
        molecules, graph, batch_size=batch_size, max_edges=max_edges, shuffle=False, device=device,
        cache_bytes=0,
    )  # fmt: skip
    for places, loaded in zip(loader.plan(0), loader.once(), strict=True):
        with torch.no_grad(), matmul_precision("highest"):  # not while others go on
            matrices = model(loaded.batch).matrices()
        yield from zip(places, (matrix.cpu().numpy() for matrix in matrices), strict=True)
