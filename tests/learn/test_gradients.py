"""Gradients accumulated over micro-batches are those of the whole batch."""

from __future__ import annotations

import pytest
import torch
from toy_model import Toy, molecules

from hambench.data.graph import collate
from hambench.learn.gradients import LossTerms, accumulate
from hambench.learn.weights import cast
from hambench.losses import rmse_plus_mse
from hambench.model import Loss, Model


def gradient(model: Model, sizes: list[int]) -> tuple[float, list[torch.Tensor]]:
    rows = molecules(sum(sizes))
    batches = []
    for size in sizes:
        batches.append(collate(rows[:size], model.graph))
        rows = rows[size:]
    module = LossTerms(model)
    model.zero_grad()
    loss = accumulate(module, module, batches, torch.Tensor.backward)
    return float(loss), [p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("sizes", [[2, 2, 2, 2], [5, 3], [1] * 8])
def test_micro_batches_give_the_gradient_of_the_whole_batch(sizes):
    torch.manual_seed(0)
    model = Toy(dropout=0.0)
    cast(model, torch.float64)
    loss, whole = gradient(model, [8])
    parts_loss, parts = gradient(model, sizes)
    assert parts_loss == pytest.approx(loss, rel=1e-14)
    for one, other in zip(whole, parts, strict=True):
        assert (one - other).abs().max() < 1e-12 * max(1.0, float(one.abs().max()))


def test_it_is_the_gradient_of_the_loss_itself():
    torch.manual_seed(0)
    model = Toy(dropout=0.0)
    cast(model, torch.float64)
    loss, ours = gradient(model, [3, 5])
    batch = collate(molecules(8), model.graph)
    model.zero_grad()
    value = model.loss(model(batch), batch).value()
    value.backward()
    assert loss == pytest.approx(value.item(), rel=1e-14)
    for one, p in zip(ours, model.parameters(), strict=True):
        assert torch.allclose(one, p.grad, rtol=1e-12, atol=1e-13)


def test_several_terms_and_a_plain_sum_over_batches_would_be_wrong():
    class TwoTerms(Toy):
        def loss(self, prediction, batch):
            terms = torch.stack([prediction.node.square().sum(), prediction.edge.square().sum()])
            counts = torch.tensor([prediction.node.numel(), prediction.edge.numel()])
            return Loss(terms, counts, lambda t, c: (t / c).sqrt().prod() + rmse_plus_mse(t, c))

    torch.manual_seed(0)
    model = TwoTerms(dropout=0.0)
    cast(model, torch.float64)
    _, whole = gradient(model, [8])
    _, parts = gradient(model, [3, 5])
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-13)
    halves = [gradient(model, [4])[1], gradient(model, [4])[1]]
    assert not torch.allclose(whole[-1], (halves[0][-1] + halves[1][-1]) / 2, rtol=1e-6)


def test_both_passes_see_the_same_dropout():
    torch.manual_seed(0)
    model = Toy(dropout=0.5)
    cast(model, torch.float64)
    state = torch.get_rng_state()
    loss, ours = gradient(model, [3, 5])
    torch.set_rng_state(state)
    rows = molecules(8)
    model.zero_grad()
    pieces = []
    for part in (rows[:3], rows[3:]):
        batch = collate(part, model.graph)
        pieces.append(model.loss(model(batch), batch))
    value = rmse_plus_mse(sum(p.terms for p in pieces), sum(p.counts for p in pieces))
    value.backward()
    assert loss == pytest.approx(value.item(), rel=1e-14)
    for one, p in zip(ours, model.parameters(), strict=True):
        assert torch.allclose(one, p.grad, rtol=1e-12, atol=1e-13)
