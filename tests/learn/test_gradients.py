"""Gradients accumulated over micro-batches are those of the whole batch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_model import RECIPE, Toy, basis, molecules

from hambench.chem.molecule import Molecule
from hambench.data.graph import Batch, collate
from hambench.errors import ConfigError
from hambench.helm import HelmEnergy
from hambench.learn import Recipe, fit
from hambench.learn.gradients import LossTerms, accumulate
from hambench.learn.recipe import Alignment
from hambench.learn.weights import cast
from hambench.losses import alignment, rmse_plus_mse
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


ALIGNED = Alignment(weight=3.0, occupied=1.0, virtual=0.2, off_diagonal=0.4)


def with_overlaps(count: int, seed: int = 0) -> list[Molecule]:
    matrix = np.random.default_rng(1).normal(scale=0.02, size=(24, 24))
    overlap = np.eye(24) + matrix + matrix.T
    return [replace(m, overlap=overlap) for m in molecules(count, seed)]


def aligned_batch(model: Model, rows: list[Molecule]) -> Batch:
    spec = model.graph
    return collate(rows, replace(spec, labels=(*spec.labels, "orbitals")))


@pytest.mark.parametrize("sizes", [[6], [4, 2], [1] * 6])
def test_the_alignment_loss_adds_exactly(sizes):
    """To the loss of a model that is no plain sum either: value and gradient of both together."""
    torch.manual_seed(0)
    model, rows = Toy(dropout=0.0), with_overlaps(6)
    cast(model, torch.float64)
    whole = aligned_batch(model, rows)
    prediction = model(whole)
    options = {"occupied": 1.0, "virtual": 0.2, "off_diagonal": 0.4}
    second = alignment(prediction, whole, **options).value()
    value = model.loss(prediction, whole).value() + 3.0 * second
    expected = torch.autograd.grad(value, list(model.parameters()))
    assert float(second.detach()) > 0.1

    ends = np.cumsum(sizes)
    batches = [aligned_batch(model, rows[e - n : e]) for e, n in zip(ends, sizes, strict=True)]
    module = LossTerms(model, ALIGNED)
    model.zero_grad()
    loss = accumulate(module, module, batches, torch.Tensor.backward)
    assert float(loss) == pytest.approx(float(value.detach()), rel=1e-13)
    for one, p in zip(expected, model.parameters(), strict=True):
        assert (one - p.grad).abs().max() < 1e-12 * max(1.0, float(one.abs().max()))


def test_a_run_with_the_alignment_loss(tmp_path: Path):
    """It is in the losses of training and validation, and its training lowers it."""
    rows, ends = with_overlaps(12), {}
    for name, aligned in (("with", {"weight": 10.0}), ("without", None)):
        torch.manual_seed(0)
        model = Toy(dropout=0.0)
        values = {**RECIPE, "optimizer": {"name": "adam", "lr": 0.1}, "clip_norm": None}
        values |= {"ema_decay": None, "max_steps": 60, "alignment": aligned}
        found = fit(
            model, rows, rows[:4], Recipe.parse(values), tmp_path / name,
            seed=1, device="cpu", progress=False,
        )  # fmt: skip
        assert found.stopped_by == "max_steps"
        batch = aligned_batch(model, rows[:4])
        with torch.no_grad():
            prediction = model(batch)
            extra = alignment(prediction, batch, virtual=0.1).value()
            ends[name] = float(model.loss(prediction, batch).value()), float(extra)
    assert ends["with"][1] < 0.9 * ends["without"][1]
    log = [json.loads(line) for line in (tmp_path / "with" / "log.jsonl").read_text().splitlines()]
    own, extra = ends["with"]
    best = min((row for row in log if "val_h_mae" in row), key=lambda row: row["val_h_mae"])
    assert best["val_loss"] == pytest.approx(own + 10 * extra, rel=1e-4)


def test_energies_have_no_orbitals_to_align(tmp_path: Path):
    recipe = Recipe.parse({**RECIPE, "alignment": {"weight": 1.0}})
    model, rows = HelmEnergy(basis(), channels=8, layers=1), molecules(2)
    with pytest.raises(ConfigError, match=r"recipe\.alignment aligns the orbitals of Hamiltonians"):
        fit(model, rows, [], recipe, tmp_path, seed=0, device="cpu", progress=False)
