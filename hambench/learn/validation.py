"""Validation during training: the mean error of the molecules, and the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from hambench.data.graph import Batch
from hambench.data.loader import Loader
from hambench.learn.processes import ALONE, Processes
from hambench.model import Loss, Model, Prediction


@dataclass(frozen=True)
class Validation:
    """Outcome of one pass over the validation set.

    Attributes:
        metric: ``h_mae``, mean over molecules of the mean ``|dH|`` over the full matrix, or for
            models of energies ``e_mae``, mean ``|dE|``; both in Eh.
        value: its value, computed in float64.
        loss: training loss over the whole set.
    """

    metric: str
    value: float
    loss: float


def metric_name(model: Model) -> str:
    """The metric `evaluate` computes for this model."""
    return "h_mae" if "hamiltonian" in model.graph.labels else "e_mae"


@torch.no_grad()
def evaluate(
    model: Model,
    loader: Loader,
    stop: Callable[[], bool],
    loss_of: Callable[[Prediction, Batch], Loss] | None = None,
    processes: Processes = ALONE,
) -> Validation | None:
    """One pass over ``loader``, in full float32 products even where training uses TF32.

    Args:
        model: as it is; left in training mode.
        loader: of the validation set, with references for a model of Hamiltonians.
        stop: asked before every batch; says the same in all processes.
        loss_of: the training loss; None: the model's own.
        processes: which share out the molecules, as ``loader`` does; all get the same outcome.

    Returns:
        None when ``stop`` said so.
    """
    errors = torch.zeros(len(loader.molecules), dtype=torch.float64, device=loader.device)
    terms, counts = [], []
    loss_of = loss_of or model.loss
    model.eval()
    try:
        with matmul_precision("highest"):
            for loaded in loader.once():
                if stop():
                    return None
                prediction = model(loaded.batch)
                loss = loss_of(prediction, loaded.batch)
                if loaded.rows:
                    places = torch.tensor(loaded.rows, device=errors.device)
                    errors[places] = molecule_errors(prediction, loaded.batch)
                terms.append(loss.terms if loaded.rows else 0 * loss.terms)
                counts.append(loss.counts if loaded.rows else 0 * loss.counts)
    finally:
        model.train()
    order = torch.tensor(list(chain.from_iterable(loader.plan(0))), device=errors.device)
    value = processes.sum(errors)[order].mean()  # each is a sum of itself and zeros: exact
    sums = (processes.sum(torch.stack(tensors).sum(0)) for tensors in (terms, counts))
    return Validation(metric_name(model), float(value), float(loss.finish(*sums)))


def molecule_errors(prediction: Prediction, batch: Batch) -> Tensor:
    """(B,) mean absolute error of each molecule in Eh, float64."""
    if prediction.node is None and prediction.energies is not None:
        return (prediction.energies.double() - batch.energies).abs()
    matrices = prediction.matrices()
    references = batch.reference.split([matrix.numel() for matrix in matrices])
    pairs = zip(matrices, references, strict=True)
    return torch.stack([(matrix.reshape(-1) - truth).abs().mean() for matrix, truth in pairs])


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """Set torch's precision of float32 products (``highest``: float32, ``high``: TF32)."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
