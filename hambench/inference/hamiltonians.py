"""A trained model, and the Hamiltonians it predicts for molecules, in batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.energy_model import EnergyModel
from hambench.errors import ConfigError
from hambench.learn.device import open_fabric
from hambench.learn.outputs import outputs_of
from hambench.learn.reporters import bar
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
        checkpoint: a run directory or an export, or the weights in it.
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
    """Place and predicted Hamiltonian of every molecule, see `outputs_of`.

    Args:
        model: of Hamiltonians.
        molecules, batch_size, max_edges: see `outputs_of`.
        progress: show a bar on a terminal where initial guesses are computed.

    Raises:
        ConfigError, DataError: a molecule that the model does not take.
    """
    if (guess := model.graph.guess) is not None:
        guess.check(molecules)
        guess.complete(molecules, bar if progress else None)
    return outputs_of(model, molecules, batch_size=batch_size, max_edges=max_edges)
