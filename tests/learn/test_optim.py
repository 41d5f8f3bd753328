"""Optimisers: they converge, Muon orthogonalises, state round-trips."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from hambench.learn.optim import (
    Muon,
    build_optimizers,
    muon_parameters,
    orthogonal,
    set_capturable,
)
from hambench.learn.recipe import Adam, AdamW
from hambench.learn.recipe import Muon as MuonOptions

CHOICES = {
    "adam": Adam(name="adam", lr=0.05),
    "amsgrad": Adam(name="adam", lr=0.05, amsgrad=True),
    "adamw": AdamW(name="adamw", lr=0.05, weight_decay=1e-4),
    "muon": MuonOptions(name="muon", lr=0.1, adamw_lr=0.05),
    "muon_published": MuonOptions(name="muon", lr=0.1, adamw_lr=0.05, variant="published"),
    "muon_plain": MuonOptions(name="muon", lr=0.1, adamw_lr=0.05, nesterov=False),
}


class Bowl(nn.Module):
    """A quadratic in parameters of every kind."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 4)
        self.square = nn.Parameter(torch.randn(6, 6))
        self.tall = nn.Parameter(torch.randn(9, 4))
        self.stack = nn.Parameter(torch.randn(3, 4, 9))
        self.bias = nn.Parameter(torch.randn(7))
        self.still = nn.Parameter(torch.ones(3, 3), requires_grad=False)

    def forward(self):
        return sum(p.square().sum() for p in self.parameters() if p.requires_grad)


def descend(model, optimizers, steps, start=0):
    for step in range(start, start + steps):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * 0.99**step
            optimizer.zero_grad()
        model().backward()
        for optimizer in optimizers:
            optimizer.step()


@pytest.mark.parametrize("name", CHOICES)
def test_converges_on_a_quadratic(name):
    model = Bowl()
    first = model().item()
    descend(model, build_optimizers(model, CHOICES[name]), 400)
    assert model().item() < 1e-3 * first
    assert torch.equal(model.still, torch.ones(3, 3))


@pytest.mark.parametrize("name", CHOICES)
def test_state_round_trips(name):
    model = Bowl()
    optimizers = build_optimizers(model, CHOICES[name])
    descend(model, optimizers, 10)
    other = copy.deepcopy(model)
    others = build_optimizers(other, CHOICES[name])
    for target, source in zip(others, optimizers, strict=True):
        target.load_state_dict(copy.deepcopy(source.state_dict()))
    descend(model, optimizers, 10, start=10)
    descend(other, others, 10, start=10)
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_every_parameter_has_one_optimizer():
    model = Bowl()
    for options in CHOICES.values():
        owned = [
            p for o in build_optimizers(model, options) for g in o.param_groups for p in g["params"]
        ]
        assert len(owned) == 5
        assert {id(p) for p in owned} == {id(p) for p in model.parameters() if p.requires_grad}


def test_groups_of_torch_are_told_of_captures():
    muon, adamw = build_optimizers(Bowl(), MuonOptions(name="muon"))
    for optimizer in (muon, adamw):
        for group in optimizer.param_groups:
            set_capturable(group, True)
    assert "capturable" not in muon.param_groups[0]
    assert adamw.param_groups[0]["capturable"] is True


def test_what_goes_to_muon():
    model = Bowl()
    named = {id(p): name for name, p in model.named_parameters()}
    ours = {named[id(p)] for p in muon_parameters(model, "matrices")}
    published = {named[id(p)] for p in muon_parameters(model, "published")}
    assert ours == {"square", "tall", "stack"}
    assert published == ours | {"table.weight"}


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 40), (2, 40, 8)])
def test_newton_schulz_brings_singular_values_near_one_and_keeps_the_vectors(shape):
    torch.manual_seed(1)
    matrices = torch.randn(shape, dtype=torch.float64)
    result = orthogonal(matrices, torch.float64)
    u, s, vt = torch.linalg.svd(matrices, full_matrices=False)
    left = u.mT @ result @ vt.mT
    values = left.diagonal(dim1=1, dim2=2)
    assert torch.allclose(left, torch.diag_embed(values), atol=1e-10)
    well = s / s.norm(dim=1, keepdim=True) > 0.02  # tiny ones rise only 3.4^5-fold
    assert values[well].min() > 0.65
    assert values[well].max() < 1.25
    single = torch.cat([orthogonal(m[None], torch.float64) for m in matrices])
    assert torch.allclose(result, single, atol=1e-12)


def test_one_step_is_the_equation():
    torch.manual_seed(2)
    for nesterov in (True, False):
        weight = nn.Parameter(torch.randn(8, 4))
        before = weight.detach().clone()
        optimizer = Muon([weight], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=0.5)
        momentum = torch.zeros_like(weight)
        for _ in range(3):
            weight.grad = torch.randn(8, 4)
            momentum = 0.9 * momentum + weight.grad
            direction = weight.grad + 0.9 * momentum if nesterov else momentum
            update = orthogonal(direction[None])[0]
            before = before * (1 - 0.1 * 0.5) - 0.1 * 2**0.5 * update
            optimizer.step()
        assert torch.allclose(weight, before, atol=1e-6)


def test_published_variant_mixes_the_stack_and_ours_does_not():
    torch.manual_seed(3)
    gradient = torch.randn(3, 5, 5)
    updates = {}
    for published in (True, False):
        weight = nn.Parameter(torch.zeros(3, 5, 5))
        weight.grad = gradient.clone()
        Muon([weight], lr=1.0, nesterov=False, published=published).step()
        updates[published] = -weight.detach()
    whole = orthogonal(gradient.reshape(1, 3, 25), torch.bfloat16).float()
    assert torch.equal(updates[True], whole.reshape(3, 5, 5))
    for k in range(3):
        assert torch.allclose(updates[False][k], orthogonal(gradient[k : k + 1])[0], atol=1e-6)
