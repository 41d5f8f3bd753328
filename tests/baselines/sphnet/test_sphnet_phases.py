"""The three phases: which paths when, the same numbers behind the switch, and exact resumption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from sphnet_cases import SMALL, SVP, TINY, molecules, randomised

from hambench.baselines.sphnet.model import SPHNet
from hambench.baselines.sphnet.sparsity import Choice, SparseProduct
from hambench.chem.molecule import Molecule
from hambench.data.graph import Batch, collate
from hambench.errors import ConfigError
from hambench.learn import Recipe, fit

PHASES = {"random_steps": 2, "adaptive_steps": 2}


def labelled(count: int) -> list[Molecule]:
    return [m for k in range(count) for m in molecules(TINY, (3,), seed=k, labels=True)]


def trained_step(model: SPHNet, batches: list[Batch], optimizer: torch.optim.Optimizer) -> None:
    for batch in batches:
        model.loss(model(batch), batch).value().backward()
    optimizer.step()
    optimizer.zero_grad()


def chosen(model: SPHNet, choice: Choice | None = None) -> list[torch.Tensor]:
    """Which paths the products take by a choice, or in the present step."""
    choice = choice or model.clock.choice(model.training)
    found = []
    for product in model.head.products():
        now = product.choose(choice, product.importance)
        mask = torch.zeros(len(product.paths), dtype=torch.bool)
        places = now.coefficients.nonzero()[:, 0]
        mask[places if now.kept is None else now.kept] = True
        found.append(mask)
    return found


@pytest.mark.parametrize("clear_first", [True, False])
def test_phases_follow_the_steps(clear_first: bool) -> None:
    """In whatever order gradients are cleared, and whatever passes stand between."""
    model = randomised(TINY, random_steps=2, adaptive_steps=1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    batch = collate(labelled(1), model.graph)
    masks = []
    for step in range(1, 6):
        loss = model.loss(model(batch), batch).value()
        masks.append(chosen(model)[0])
        assert int(model.clock.step) == min(step, 4)
        if not clear_first:
            optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if clear_first:
            optimizer.zero_grad()
        model.eval()
        model(batch)
        model.train()
    assert [int(mask.sum()) for mask in masks] == [4, 4, 5, 5, 5]
    assert not torch.equal(masks[0], masks[1])
    assert torch.equal(masks[3], model.head.products()[0].mask)


def test_parts_of_a_batch_have_the_same_paths_in_both_passes() -> None:
    """First all parts are passed without gradients, then all with them."""
    model = randomised(TINY, random_steps=3, adaptive_steps=2).train()
    batch = collate(labelled(1), model.graph)
    for _ in range(3):
        with torch.no_grad():
            ahead = [chosen(model, model.choice()) for _ in range(2)]
        for expected in ahead:
            model(batch)
            assert all(map(torch.equal, chosen(model), expected))


def test_products_draw_paths_of_their_own() -> None:
    model = randomised(**PHASES).train()
    model.choice()
    one, two, three, four = chosen(model)
    assert len({tuple(mask.tolist()) for mask in (one, two, three, four)}) == 4
    assert torch.equal(one, chosen(model)[0])
    assert int(chosen(model.eval())[0].sum()) == 20  # the best ones, not drawn


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_fixed_paths_give_the_same_numbers(sign: float) -> None:
    """To 1e-6 in float32 with weights as they begin, also where path weights are negative."""
    torch.manual_seed(0)
    model = SPHNet(SVP, **SMALL, **PHASES).eval()
    with torch.no_grad():
        for product in model.head.products():
            product.importance.add_(0.3 * torch.randn(65))
            if sign < 0:  # seven of the twenty largest are negative
                product.importance[torch.arange(65) % 5 != 0] -= 3
    batch = collate(molecules(), model.graph)
    before = model(batch)
    model.freeze()
    after = model(batch)
    if sign < 0:
        assert all((p.coefficients < 0).sum() == 7 for p in model.head.products())
    assert (after.node - before.node).abs().max() < 1e-6
    assert (after.edge - before.edge).abs().max() < 1e-6
    for product in model.head.products():
        rebuilt, kept = product._rebuilt()
        assert len(rebuilt.paths) == len(kept) == 20  # nothing else is computed
        assert [product.paths[p] for p in kept.tolist()] == list(rebuilt.paths)


def test_degrees_without_a_path_are_zero() -> None:
    product = SparseProduct(4, 0.98).double()
    product.importance.data[0] = 2.0  # 0 x 0 -> 0, and the next one
    product.freeze()
    x = torch.randn(3, 25, 2, dtype=torch.float64)
    frozen = product.choose(Choice("fixed"), x)
    out = product(x, x, torch.ones(1, len(frozen.kept), 2, dtype=torch.float64), frozen)
    assert out.shape == x.shape
    assert (out[:, 4:] == 0).all()


def test_all_weights_stay_with_the_optimiser() -> None:
    """Behind the switch they are the same tensors, move as before, and nothing is rebuilt."""
    model = randomised(TINY, **PHASES).train()
    batch = collate(labelled(2), model.graph)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    known = {id(p) for p in model.parameters()}
    for _ in range(6):
        trained_step(model, [batch], optimizer)
    assert {id(p) for p in model.parameters()} == known
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    trained_step(model, [batch], optimizer)
    still = {n for n, p in model.named_parameters() if torch.equal(p, before[n])}
    assert still == {n for n in before if n.endswith("importance")}
    atom = model.head.atom[0]
    model.loss(model(batch), batch).value().backward()
    assert (atom.weight.grad[~atom.product.mask] == 0).all()
    assert (atom.weight.grad[atom.product.mask] != 0).any(1).all()


def test_dense_networks_have_no_phases() -> None:
    model = randomised(sparse=False)
    assert model.clock is None
    assert model.choice() is None
    with pytest.raises(ConfigError, match="takes all paths"):
        model.freeze()


RECIPE: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 1e-3},
    "batch_size": 2,
    "ema_decay": 0.8,
    "clip_norm": 5.0,
    "validate_every": 2,
    "max_steps": 7,
    "log_every": 3,
    "precision": "float32",
}


def run(folder: Path, stops: list[int], **changes: Any) -> dict[str, Any]:
    """Train with ``stops``, each time with a new model as a new process has it; the last state."""
    train, val = labelled(7), labelled(2)
    for steps in stops:
        torch.manual_seed(5)
        model = SPHNet(TINY, **SMALL, **PHASES)
        recipe = Recipe.parse({**RECIPE, **changes})
        fit(
            model, train, val, recipe, folder, seed=1, device="cpu", max_steps=steps, progress=False
        )
    content = torch.load(folder / "checkpoints" / "last.pt", weights_only=True)
    return {k: content[k] for k in ("weights", "optimizers", "ema", "random")} | {
        "model": model.state_dict()
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("changes", [{}, {"accumulate": 2, "ema_decay": None}], ids=["", "parts"])
def test_interrupted_runs_end_in_the_same_bits(changes: dict[str, Any], tmp_path: Path) -> None:
    """Interrupted in every phase, and right before and after the switch, which is in step 5."""
    whole = run(tmp_path / "whole", [7], **changes)
    cut = run(tmp_path / "cut", [1, 3, 4, 5, 7], **changes)
    assert int(whole["weights"]["clock.step"]) == 5
    for key, value in whole.items():
        assert same(value, cut[key]), key


def test_weights_from_before_the_switch_fit_behind_it(tmp_path: Path) -> None:
    """A validation that was best early gives the model of that time, phase and all."""
    late = randomised(**PHASES)
    early = {k: v.clone() for k, v in late.state_dict().items()}
    batch = collate(molecules(), late.graph)
    before = late.eval()(batch).node
    late.freeze()
    with torch.no_grad():
        late.head.atom[0].product.importance.mul_(torch.rand(65).double())
    behind = late(batch).node
    assert (behind - before).abs().max() < 1e-10  # path weights have no say any more
    frozen = {k: v.clone() for k, v in late.state_dict().items()}
    late.load_state_dict(early)
    assert torch.equal(late(batch).node, before)
    other = randomised(seed=9, **PHASES).eval()
    other.load_state_dict(frozen)
    assert torch.equal(other(batch).node, behind)
