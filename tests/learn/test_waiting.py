"""A step asks nothing of the device and sends it nothing: it can be captured, and never waits.

Tensors without data (device ``meta``) stand for those of a GPU: asking for a value is an error
there, and whatever else is on the CPU during a step would have to travel in every step.
"""

from __future__ import annotations

import importlib
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from shared_work import model_and_rows
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from hambench.data.graph import Batch
from hambench.data.loader import Loader
from hambench.learn import Recipe
from hambench.learn.captured import DeviceNumbers
from hambench.learn.processes import ALONE
from hambench.learn.training import Training
from hambench.model import Model

META = torch.device("meta")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "amsgrad": {"name": "adam", "lr": 2e-3, "amsgrad": True},
    "adamw": {"name": "adamw", "lr": 2e-3},
    "muon": {"name": "muon", "lr": 5e-3, "adamw_lr": 1e-3, "weight_decay": 0.01},
}


class Elsewhere(TorchDispatchMode):
    """Notes operations that touch another device than ``meta``.

    Torch's fused optimisers, which read their rate where it is, have no kernel without data.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        fused = func._schema.name.startswith("aten::_fused_")
        out = None if fused else func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, out)) if torch.is_tensor(leaf)]
        if any(tensor.device != META for tensor in tensors):
            self.found.add(str(func))
        return out


class NoDevice:
    """As much of Fabric as a step needs, for tensors without data."""

    device = META

    def setup_module(self, module: nn.Module) -> nn.Module:
        return module

    def backward(self, loss: torch.Tensor) -> None:
        loss.backward()

    def no_backward_sync(self, module: nn.Module) -> nullcontext[None]:
        return nullcontext()


def without_data(model: Model, batch: Batch, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model without data, with what a first step finds out once and keeps on the host."""
    with torch.no_grad():
        model(batch)
    monkeypatch.setattr(type(model), "graph", model.graph)
    products = {p: p._rebuilt() for p in model.modules() if hasattr(p, "_rebuilt")}
    numbers = model.clock.numbers() if products else None
    model.to(META)
    for product, (along, kept) in products.items():
        state = product.mask.data_ptr(), product.mask._version
        product._fixed = state, along.to(META), kept.to(META)
        monkeypatch.setattr(model.clock, "numbers", lambda: numbers)
    return model


@pytest.mark.parametrize(
    ("preset", "optimizer", "pad"),
    [
        ("helm_small", "muon", True),
        ("qhnet_small", "amsgrad", False),
        pytest.param("qhnet_small", "amsgrad", True, marks=pytest.mark.slow),
        pytest.param("phisnet_small", "adamw", True, marks=pytest.mark.slow),
        pytest.param("sphnet_small", "adamw", True, marks=pytest.mark.slow),
        ("schnorb_small", "muon", True),
    ],
)
def test_a_step_touches_nothing_but_the_device(preset, optimizer, pad, monkeypatch):
    monkeypatch.setattr("hambench.learn.optim._fusable", lambda params: True)
    adam = importlib.import_module("torch.optim.adam")  # hidden by a class of that name
    monkeypatch.setattr(adam, "_device_dtype_check_for_fused", lambda p: None)
    model, rows = model_and_rows(preset, "water_mini", ALONE)
    if preset == "sphnet_small":
        model.freeze()
    loader = Loader(rows[:2], model.graph, batch_size=2, guesses=False, pad=pad)
    (loaded,) = loader.once()
    model = without_data(model, loaded.batch, monkeypatch)
    values = {"optimizer": OPTIMIZERS[optimizer], "batch_size": 2, "validate_every": 1}
    recipe = Recipe.parse({**values, "clip_norm": 1.0, "ema_decay": 0.99})
    training = Training(model, recipe, 0, NoDevice(), ALONE)
    training._numbers = DeviceNumbers(len(training.groups) + 2, META)
    batch = loaded.packed.to(META).batch()
    with Elsewhere():  # the first step leaves tables behind
        training._step_by_device(batch)
    with Elsewhere() as elsewhere:
        training._step_by_device(batch)
    assert elsewhere.calls > 500
    assert not elsewhere.found


def test_it_would_be_noticed():
    with Elsewhere() as elsewhere:
        torch.zeros(3).to(META)
    assert elsewhere.found
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(3, device=META).sum().item()
