"""Every model learns one water geometry by heart at full size, to less than 1e-5 Eh."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

import hambench
from hambench.baselines import SPHNet
from hambench.data.graph import collate
from hambench.model import Model


@dataclass(frozen=True)
class Plan:
    """How a model is trained: by Adam, and long enough that the end of the cosine counts.

    Attributes:
        model: preset.
        steps: of the optimiser.
        lr: largest learning rate.
        options: of the model.
        limit: mean error in Eh to be reached.
    """

    model: str
    steps: int
    lr: float
    options: Mapping[str, Any] = field(default_factory=dict)
    limit: float = 1e-5

    def factor(self, part: float) -> float:
        """Of the learning rate after a part of the steps: a warm-up, then half a cosine."""
        return min(1.0, 20 * part + 1 / self.steps) * (1 + math.cos(math.pi * part)) / 2


PHASES = {"random_steps": 100, "adaptive_steps": 50, "initial_guess": "none"}
PLANS = [
    Plan("helm", 1300, 1e-3, limit=1e-6),
    Plan("phisnet", 3500, 3e-3),
    Plan("qhnet", 3000, 1e-3),
    Plan("schnorb", 320, 5e-5),
    Plan("sphnet", 4000, 1e-3, PHASES),
]


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.model)
def test_one_water_is_learnt(plan: Plan) -> None:
    assert trained(plan, print) < plan.limit


def trained(plan: Plan, log: Callable[[str], None]) -> float:
    """Mean absolute error in Eh after training as planned; SPHNet ends in its fixed phase."""
    task = hambench.load_task("water_mini")
    molecule = task.split("train")[0]
    torch.manual_seed(0)
    model: Model = hambench.build_model(plan.model, task.basis, **plan.options)
    model.prepare([molecule])
    batch = collate([molecule], model.graph)
    optimizer = torch.optim.Adam(model.parameters(), lr=plan.lr, betas=(0.9, 0.95), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: plan.factor(k / plan.steps))
    truth = torch.from_numpy(molecule.hamiltonian)
    for k in range(plan.steps):
        optimizer.zero_grad()
        prediction = model(batch)
        model.loss(prediction, batch).value().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if k % 50 == 0:
            error = (prediction.matrices()[0].detach() - truth).abs().mean()
            log(f"{plan.model} step {k}: {float(error):.2e} Eh")
    if isinstance(model, SPHNet):
        assert model.choice().phase == "fixed"
    with torch.no_grad():
        matrix = model.eval()(batch).matrices()[0]
    error = float((matrix - truth).abs().mean())
    log(f"{plan.model}: {error:.2e} Eh")
    return error
