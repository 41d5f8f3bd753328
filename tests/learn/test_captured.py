"""Captured steps: a stand-in for CUDA graphs calls again what was captured, on the static buffers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from shared_work import model_and_rows
from toy_model import RECIPE, Toy, molecules

from hambench.data.loader import Loaded, Loader
from hambench.errors import ConfigError, RunError
from hambench.learn import Recipe, fit
from hambench.learn.captured import CapturedSteps, DeviceNumbers, check_cuda_graph
from hambench.learn.device import open_fabric
from hambench.learn.processes import ALONE
from hambench.learn.training import Training
from hambench.learn.weights import cast
from hambench.model import Model

OPTIMIZERS: dict[str, dict[str, Any]] = {
    "amsgrad": {"name": "adam", "lr": 2e-3, "amsgrad": True},
    "adamw": {"name": "adamw", "lr": 2e-3},
    "muon": {"name": "muon", "lr": 5e-3, "adamw_lr": 1e-3, "weight_decay": 0.01},
}


class StandIn:
    """Replays by calling; as in a capture, nothing is computed before the first replay."""

    def __init__(self) -> None:
        self.eager_calls = self.captures = self.replays = 0

    def eager(self, call: Callable[[], None]) -> None:
        self.eager_calls += 1
        call()

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            call()

        return replay


def recipe(optimizer: str = "adamw", **changes: Any) -> Recipe:
    schedule = {"name": "cosine", "warmup_steps": 3}
    values = {**RECIPE, "optimizer": OPTIMIZERS[optimizer], "schedule": schedule}
    return Recipe.parse({**values, "ema_decay": 0.99, "log_every": 50, **changes})


def trained(model: Model, recipe: Recipe, loaded: list[Loaded], graphs=None) -> Training:
    """Steps on these batches; as of the 9th the average weighs parameters by less than a half.

    Above that the kernels for numbers and for tensors round differently.
    """
    training = Training(model, recipe, 0, open_fabric("cpu"), ALONE, graphs)
    if training.ema is not None:
        training.ema.updates = 8
    for k, item in enumerate(loaded):
        training.step([item], k / len(loaded))
    return training


def same(one: Any, other: Any) -> bool:
    """Whether checkpoints are the same to the last bit and type."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def batches(model: Model, rows: Any, count: int, size: int = 4) -> list[Loaded]:
    """Of two sizes in turn, where there are fewer than twice as many rows as a batch has."""
    stream = Loader(rows, model.graph, batch_size=size, seed=1, guesses=False).stream()
    try:
        return list(islice(stream, count))
    finally:
        stream.close()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "preset", ["helm_small", "qhnet_small", "phisnet_small", "sphnet_small", "schnorb_small"]
)
def test_replayed_steps_are_the_eager_ones(preset, optimizer):
    """Bit by bit: weights, moments, averages, losses, with rates and ramp that change."""
    model, rows = model_and_rows(preset, "water_mini", ALONE)
    if preset == "sphnet_small":
        model.freeze()
    loaded = batches(model, rows[:3], 8, size=2)
    assert len({item.packed.form for item in loaded}) == 2
    graphs, options = StandIn(), recipe(optimizer)
    expected = trained(copy.deepcopy(model), options, loaded).content()
    found = trained(model, options, loaded, graphs).content()
    assert (graphs.eager_calls, graphs.captures, graphs.replays) == (4, 2, 4)
    assert same(found, expected)
    losses = expected["losses"][:8].tolist()
    assert losses[-1] != losses[0]


def test_sphnet_is_captured_once_its_paths_are_fixed(caplog):
    model, rows = model_and_rows("sphnet_small", "water_mini", ALONE)
    model.clock.random_steps = model.clock.adaptive_steps = 2  # the fifth step is of fixed paths
    loaded = batches(model, rows[:4], 9, size=2)
    graphs = StandIn()
    expected = trained(copy.deepcopy(model), recipe(), loaded).content()
    found = trained(model, recipe(), loaded, graphs).content()
    assert (graphs.eager_calls, graphs.captures, graphs.replays) == (7, 1, 2)
    assert same(found, expected)
    assert [r.message.count("cannot be captured") for r in caplog.records] == [1]
