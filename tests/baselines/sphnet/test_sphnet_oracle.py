"""SPHNet against its equations written out path by path: values and all gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from sphnet_cases import PUBLISHED, SVP, TZVP, molecules, oracle, randomised, squares
from sphnet_oracle import Paths

from hambench.baselines.sphnet.model import SPHNet
from hambench.data.graph import collate

OPTIONS: dict[str, dict[str, Any]] = {
    "recommended": {},
    "published": PUBLISHED,
    "dense": {"sparse": False},
    "few paths left out": {"sparsity": 0.3, "pair_order": "published"},
}


def compare(model: SPHNet, paths: list[Paths] | None, options: dict[str, Any], basis: Any) -> None:
    """Values and gradients, to 1e-10 of the largest one where that is above one."""
    sizes = (5, 4) if basis is SVP else (3,)
    batch = collate(molecules(basis, sizes), model.graph)
    found = squares(model, batch)
    expected = oracle(model, paths, **options)(batch)
    seeds = [torch.randn_like(part) for part in found]
    names, parameters = zip(*model.named_parameters(), strict=True)
    gradients = []
    for parts in (found, expected):
        total = sum((part * seed).sum() for part, seed in zip(parts, seeds, strict=True))
        gradients.append(torch.autograd.grad(total, parameters, allow_unused=True))
    for one, other in zip(found, expected, strict=True):
        assert one.abs().max() > 1e-3
        assert (one - other).abs().max() < 1e-10 * max(1.0, float(other.detach().abs().max()))
    for name, one, other in zip(names, *gradients, strict=True):
        if one is None or other is None:
            assert one is None or one.abs().max() == 0, name
            assert other is None or other.abs().max() == 0, name
        else:
            assert (one - other).abs().max() < 1e-10 * max(1.0, other.abs().max()), name


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_all_paths_or_fixed_ones(options: dict[str, Any]) -> None:
    model = randomised(**options)
    paths = None
    if model.clock is not None:
        model.freeze()
        atoms_and_pairs = [*model.head.atom, *model.head.pair]
        paths = [Paths(coefficients=layer.product.coefficients) for layer in atoms_and_pairs]
        assert 0 < sum(p.coefficients.count_nonzero() for p in paths) < 4 * 65
    compare(model, paths, options, SVP)


@pytest.mark.parametrize("training", [True, False])
def test_paths_by_their_weights(training: bool) -> None:
    """Random paths in training, the best ones else; both with gradients of the path weights."""
    model = randomised().train(training)
    layers = [*model.head.atom, *model.head.pair]
    with torch.no_grad():
        choice = model.choice()  # of step 1, which the forward pass then begins
    assert (choice.generator is not None) == training
    order = [layers[k].product.choose(choice, layers[0].weight) for k in range(4)]
    paths = [Paths(mask=(chosen.coefficients != 0).double().detach()) for chosen in order]
    assert {int(p.mask.sum()) for p in paths} == {19 if training else 20}
    compare(model, paths, {}, SVP)


def test_f_shells() -> None:
    model = randomised(TZVP, channels=8, sparsity=0.9)
    model.freeze()
    layers = [*model.head.atom, *model.head.pair]
    paths = [Paths(coefficients=layer.product.coefficients) for layer in layers]
    compare(model, paths, {"sparsity": 0.9}, TZVP)
