"""The gradient of one optimiser step, exact for losses that are no plain sum over molecules.

A loss such as RMSE + MSE is a function ``finish(terms, counts)`` of sums over all entries. Split
into micro-batches b (and, one day, processes), its gradient is by the chain rule

    grad = sum_b  w . grad terms_b,    w = d finish / d terms  at the sums over all b,

so a first pass without gradients finds the sums and a second one the gradient; one micro-batch
alone needs no first pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hambench.data.graph import Batch
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
) -> Tensor:
    """Add the gradient of the loss over all ``batches`` to the parameters.

    Args:
        terms_of: calls ``module``, perhaps through a strategy's wrapper.
        module: the `LossTerms`.
        batches: micro-batches of one step.
        backward: ``fabric.backward``.

    Returns:
        The scalar loss over all of them, detached and still on the device.
    """
    if len(batches) == 1:
        parts = [terms_of(batches[0])]
    else:
        # both passes draw the same random numbers
        devices = [batches[0].positions.device] if batches[0].positions.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            parts = [terms_of(batch) for batch in batches]
    # The one place where processes would add up: all_reduce `terms` and `counts`.
    terms = torch.stack([part[0].detach() for part in parts]).sum(0).requires_grad_()
    counts = torch.stack([part[1] for part in parts]).sum(0)
    assert module.finish is not None
    value = module.finish(terms, counts)
    (weights,) = torch.autograd.grad(value, terms)
    for k, batch in enumerate(batches):
        own, _ = parts[k] if len(batches) == 1 else terms_of(batch)
        backward((weights * own).sum())
    return value.detach()
