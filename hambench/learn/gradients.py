"""The gradient of one optimiser step, exact for losses that are no plain sum over molecules.

A loss such as RMSE + MSE is a function ``finish(terms, counts)`` of sums over all entries. Split
into micro-batches b, of one process or of several, its gradient is by the chain rule

    grad = sum_b  w . grad terms_b,    w = d finish / d terms  at the sums over all b,

so a first pass without gradients finds the sums and a second one the gradient; one micro-batch
alone needs no first pass. Processes add up their sums before w is taken, and their gradients after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from hambench.data.graph import Batch
from hambench.learn.processes import ALONE, Processes
from hambench.learn.recipe import Alignment
from hambench.losses import alignment
from hambench.model import Loss, Model, Prediction

Finish = Callable[[Tensor, Tensor], Tensor]


class LossTerms(nn.Module):
    """A model as the function batch -> (terms, counts), which is what a distributed strategy wraps.

    Its outputs are tensors alone, as hooks for gradients need; `finish` is left by the last call.

    Args:
        model: with a loss of its own.
        aligned: add the alignment loss to that.
    """

    def __init__(self, model: Model, aligned: Alignment | None = None) -> None:
        super().__init__()
        self.model, self.aligned = model, aligned
        self.finish: Finish | None = None

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sums (k,) of the training loss over the batch, and their numbers of entries (k,)."""
        loss = self.loss(self.model(batch), batch)
        self.finish = loss.finish
        return loss.terms, loss.counts

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """The training loss of a prediction."""
        own = self.model.loss(prediction, batch)
        if self.aligned is None:
            return own
        options = self.aligned.model_dump(exclude={"weight"})
        return own.plus(alignment(prediction, batch, **options), self.aligned.weight)


def accumulate(
    terms_of: nn.Module,
    module: LossTerms,
    batches: Sequence[Batch],
    backward: Callable[[Tensor], None],
    *,
    counted: Sequence[bool] | None = None,
    processes: Processes = ALONE,
    hold: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> Tensor:
    """Add the gradient of the loss over all ``batches``, of all processes, to the parameters.

    Args:
        terms_of: calls ``module``, perhaps through a strategy's wrapper.
        module: the `LossTerms`.
        batches: micro-batches of one step.
        backward: ``fabric.backward``; the mean over the processes is taken by ``terms_of``.
        counted: of each micro-batch, whether it counts; None: all do.
        processes: which have as many micro-batches each, and share their parameters.
        hold: for all micro-batches but the last: gradients stay in their process.

    Returns:
        The scalar loss over all of them, detached and still on the device.
    """
    factors = [1.0] * len(batches) if counted is None else [float(own) for own in counted]
    if len(batches) == 1:
        parts = [terms_of(batches[0])]
    else:
        # both passes draw the same random numbers
        devices = [batches[0].positions.device] if batches[0].positions.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            parts = [terms_of(batch) for batch in batches]
    found = zip(parts, factors, strict=True)
    sums = [[_times(factor, tensor.detach()) for tensor in part] for part, factor in found]
    terms, counts = (torch.stack(tensors).sum(0) for tensors in zip(*sums, strict=True))
    if processes.several:
        terms, counts = _summed(processes, terms, counts)
    terms.requires_grad_()
    assert module.finish is not None
    value = module.finish(terms, counts)
    (weights,) = torch.autograd.grad(value, terms)
    last = len(batches) - 1
    for k, (batch, factor) in enumerate(zip(batches, factors, strict=True)):
        with nullcontext() if k == last else hold():
            own, _ = parts[k] if len(batches) == 1 else terms_of(batch)
            backward((_times(processes.size * factor, weights) * own).sum())
    return value.detach()


def _times(factor: float, tensor: Tensor) -> Tensor:
    """The product; nothing is computed for a factor of one."""
    return tensor if factor == 1 else factor * tensor


def _summed(processes: Processes, terms: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Both over all processes, at once and in float64."""
    whole = processes.sum(torch.cat([terms.double(), counts.double()]))
    return whole[: len(terms)].to(terms), whole[len(terms) :].to(counts)
