"""A model's training step, against its own dense contractions run alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import torch
from tqdm import tqdm

from hambench.bench.molecules import ETHANOL, LARGE, MEDIUM, WATER, Case
from hambench.bench.timing import Timing
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, collate
from hambench.errors import ConfigError, nearest
from hambench.learn.device import open_fabric
from hambench.learn.ema import ExponentialAverage
from hambench.learn.optim import build_optimizers
from hambench.learn.recipe import Recipe
from hambench.learn.validation import matmul_precision
from hambench.learn.weights import cast
from hambench.model import Model, silent
from hambench.models import build_model
from hambench.profiling.contractions import Recorder, replay
from hambench.profiling.memory import peak_and_launches, synchronize
from hambench.registry import MODELS, RECIPES

Precision = Literal["float32", "float64", "tf32"]

BATCHES: Final[dict[str, tuple[Case, int]]] = {
    "water": (WATER, 50),
    "ethanol": (ETHANOL, 5),
    "40_atoms": (MEDIUM, 1),
    "100_atoms": (LARGE, 1),
}
"""Molecules by name, and how many are in a batch if nothing else is asked for."""


@dataclass(frozen=True)
class StepBench:
    """What a training step on a batch costs.

    Attributes:
        model, settings: preset, and hyperparameters of other values than its own.
        case, device, precision: of what, where.
        threads: of a CPU.
        molecules, atoms, edges: of the batch.
        parameters: trainable ones.
        forward: with the loss.
        backward: the gradients.
        update: clipping, optimisers, averaged weights.
        step: all of it, in one go.
        contractions: products of matrices of forward and backward, on random matrices of the same
            shapes; the yardstick, in turns with the step.
        products: their number.
        flops: their multiplications and additions.
        calls: of operators of the whole step, without views.
        launches: of kernels on a GPU; None on a CPU.
        peak: most bytes of tensors at a time in a step, beyond those that stay: parameters,
            optimiser, batch.
        ratio: ``step`` over ``contractions``, medians.
        rate: molecules/s.
    """

    model: str
    settings: dict[str, Any]
    case: str
    device: str
    precision: str
    threads: int
    molecules: int
    atoms: int
    edges: int
    parameters: int
    forward: Timing
    backward: Timing
    update: Timing
    step: Timing
    contractions: Timing
    products: int
    flops: int
    calls: int
    launches: int | None
    peak: int
    ratio: float
    rate: float


def measure(
    model: str,
    cases: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str = "auto",
    precision: Precision = "float32",
    threads: int = 1,
    repeats: int = 10,
    settings: Mapping[str, Any] | None = None,
) -> list[StepBench]:
    """The training step of a model, on one batch of each case.

    Args:
        model: preset.
        cases: keys of `BATCHES`.
        batch_size: molecules; None: as `BATCHES` has it.
        device: as `open_fabric` takes it.
        precision: of the parameters and of products; of any recipe.
        threads: of a CPU.
        repeats: timed steps.
        settings: hyperparameters that replace those of the preset.

    Raises:
        ConfigError: no such case or device; a model without parameters, or wrong hyperparameters.
        RegistryError: no such model, or one without a recipe.
    """
    for name in cases:
        if name not in BATCHES:
            raise ConfigError(f"no case '{name}'.{nearest(name, BATCHES)}")
    MODELS.preset(model)  # an unknown name is told before anything is shown
    where = open_fabric(device).device
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with matmul_precision("high" if precision == "tf32" else "highest"):
            return [
                _measure(model, dict(settings or {}), name, batch_size, where, precision, repeats)
                for name in tqdm(cases, desc="steps", unit="case", leave=False)
            ]
    finally:
        torch.set_num_threads(before)


def _measure(
    model: str,
    settings: dict[str, Any],
    name: str,
    batch_size: int | None,
    device: torch.device,
    precision: Precision,
    repeats: int,
) -> StepBench:
    case, size = BATCHES[name]
    basis = OrbitalBasis.load(case.basis, case.numbers.tolist())
    network = build_model(model, basis, **settings)
    if not any(p.requires_grad for p in network.parameters()):
        raise ConfigError(f"{model} has no parameters to train, so no step to measure")
    cast(network, torch.float64 if precision == "float64" else torch.float32)
    molecules = list(case.molecules(batch_size or size))
    network.to(device).prepare(molecules, silent)
    spec = replace(network.graph, guess=None)  # of random atoms; a step needs none
    batch = collate(molecules, spec).to(device)
    step = _Step(network, Recipe.parse(RECIPES.preset(model).content), batch)
    step.run()
    with Recorder() as whole:
        step.run()
    with Recorder() as recorded:
        step.forward()
        step.backward()
    step.update()
    peak, launches = peak_and_launches(step.run, device)
    alone = replay(recorded.contractions)
    times = _timed(step, alone, repeats)
    return StepBench(
        model=model,
        settings=settings,
        case=case.name,
        device=str(device),
        precision=precision,
        threads=torch.get_num_threads(),
        molecules=batch.real.molecules,
        atoms=batch.real.atoms,
        edges=batch.real.edges,
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        **times,
        products=len(recorded.contractions),
        flops=sum(one.flops for one in recorded.contractions),
        calls=whole.calls,
        launches=launches,
        peak=peak,
        ratio=times["step"].median / times["contractions"].median,
        rate=batch.real.molecules / times["step"].median,
    )


class _Step:
    """A step as `hambench.learn` does it, in parts. The learning rate is zero: random labels."""

    def __init__(self, model: Model, recipe: Recipe, batch: Batch) -> None:
        self.model, self.recipe, self.batch = model, recipe, batch
        self.optimizers = build_optimizers(model, recipe.optimizer)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = 0.0
        self.average = None
        if recipe.ema_decay is not None:
            self.average = ExponentialAverage(model, recipe.ema_decay, ramp=recipe.ema_ramp)
        model.train()

    def forward(self) -> None:
        self.loss = self.model.loss(self.model(self.batch), self.batch).value()

    def backward(self) -> None:
        self.loss.backward()
        del self.loss

    def update(self) -> None:
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()

    def run(self) -> None:
        self.forward()
        self.backward()
        self.update()


def _timed(step: _Step, alone: Callable[[], None], repeats: int) -> dict[str, Timing]:
    """Times of the step and its parts and of the contractions, in turns, after an untimed round."""
    calls = {
        "forward": step.forward,
        "backward": step.backward,
        "update": step.update,
        "contractions": alone,
    }
    if step.batch.positions.is_cuda:  # where parts that are waited for are slower than the whole
        calls["step"] = step.run
    device = step.batch.positions.device
    seconds: dict[str, list[float]] = {name: [] for name in (*calls, "step")}
    for _ in range(1 + repeats):
        for name, call in calls.items():
            synchronize(device)
            start = time.perf_counter()
            call()
            synchronize(device)
            seconds[name].append(time.perf_counter() - start)
    if "step" not in calls:
        parts = (seconds[name] for name in ("forward", "backward", "update"))
        seconds["step"] = [sum(some) for some in zip(*parts, strict=True)]
    return {name: Timing.of(times[1:]) for name, times in seconds.items()}
