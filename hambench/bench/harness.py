"""What the training loop adds to a model's step: `fit` against a bare loop, in turns."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from tqdm import tqdm

from hambench.bench.molecules import batch_of
from hambench.bench.step import cuda_graphs
from hambench.bench.subject import Setting, Subject, of_case
from hambench.bench.timing import Timing
from hambench.data.graph import Batch
from hambench.data.loader import Loader
from hambench.data.packed import Packed
from hambench.learn import Recipe, fit
from hambench.learn.captured import CapturedSteps, Graphs
from hambench.learn.ema import ExponentialAverage
from hambench.learn.optim import build_optimizers, set_capturable
from hambench.learn.recipe import Constant
from hambench.learn.reporters import Reporter, Row
from hambench.model import Model
from hambench.profiling.memory import synchronize

_BATCHES: Final = 20  # of an epoch
_FIRST: Final = 3  # steps of a block that are not timed: their batches were built while others ran
_SEED: Final = 0


@dataclass(frozen=True)
class HarnessBench:
    """What the loop costs.

    Attributes:
        model, settings: preset, and hyperparameters of other values.
        case, device, precision, threads: of what, where, how.
        molecules: of a batch.
        cuda_graph: whether both replayed their steps as CUDA graphs.
        blocks, steps: of each loop, and timed steps of each block.
        ours: seconds of a step of `fit`, over blocks.
        bare: of a step of the bare loop.
        added: what ours took more than the bare block that followed it.
        overhead: medians of ``added`` over ``bare``.
        loss_difference: largest relative difference of the two loops' losses, means over the steps
            of each row of the log.
    """

    model: str
    settings: tuple[str, ...]
    case: str
    device: str
    precision: str
    threads: int
    cuda_graph: bool
    molecules: int
    blocks: int
    steps: int
    ours: Timing
    bare: Timing
    added: Timing
    overhead: float
    loss_difference: float


def measure(
    model: str,
    cases: Sequence[str],
    *,
    batch_size: int | None = None,
    setting: Setting,
    blocks: int = 10,
    steps: int = 20,
    cuda_graph: bool = False,
    words: Sequence[str] = (),
) -> list[HarnessBench]:
    """Steps of the training loop against the same steps in a bare loop.

    Args:
        model: preset.
        cases: of random molecules, keys of `BATCHES`.
        batch_size: molecules; None: as `BATCHES` has it.
        setting: where, how.
        blocks: of both loops, in turns.
        steps: that are timed of each.
        cuda_graph: replay the steps of both loops as CUDA graphs.
        words: ``model.hyperparameters.KEY=VALUE``.

    Raises:
        ConfigError, RegistryError: as `of_case`; or no such case.
        RunError: the loss of random labels runs away.
    """
    batches = [batch_of(name, batch_size) for name in cases]
    found = []
    with setting.applied() as device:
        for case, size in tqdm(batches, desc="loops", unit="case", leave=False, disable=None):
            subject = of_case(model, case, size, setting.precision, words, batches=_BATCHES)
            subject = replace(subject, recipe=_undisturbed(subject.recipe))
            graphs = cuda_graphs(device, subject.recipe) if cuda_graph else None
            turns = _Turns(subject, device, blocks, steps, graphs)
            with tempfile.TemporaryDirectory(prefix="hambench-bench-") as folder:
                fit(
                    subject.model, subject.molecules, [], subject.recipe, Path(folder),
                    seed=_SEED, device=setting.device, max_steps=turns.total, progress=False,
                    reporters=[turns], cuda_graph=cuda_graph,
                )  # fmt: skip
            added = [one - other for one, other in zip(turns.ours, turns.bare, strict=True)]
            ours, bare, more = map(Timing.of, (turns.ours, turns.bare, added))
            one = HarnessBench(
                model=model,
                settings=tuple(words),
                case=case.name,
                device=str(device),
                precision=setting.precision,
                threads=setting.threads,
                cuda_graph=cuda_graph,
                molecules=size,
                blocks=blocks,
                steps=steps,
                ours=ours,
                bare=bare,
                added=more,
                overhead=more.median / bare.median,
                loss_difference=turns.loss_difference(),
            )
            found.append(one)
    return found


def _undisturbed(recipe: Recipe) -> Recipe:
    """The recipe with a constant learning rate, one batch a step, and no checkpoints on the way.

    Rows of the log come at least once an epoch, so that there are some.
    """
    changes = {
        "schedule": Constant(name="constant", warmup_steps=0),
        "accumulate": 1,
        "checkpoint_every_steps": None,
        "checkpoint_every_seconds": None,
        "max_minutes": None,
        "log_every": min(recipe.log_every, _BATCHES),
    }
    return recipe.model_copy(update=changes)


class _Bare:
    """A training step and nothing else, on batches that are on the device already."""

    def __init__(
        self, model: Model, recipe: Recipe, device: torch.device, graphs: Graphs | None
    ) -> None:
        self.model, self.clip_norm = model.train(), recipe.clip_norm
        self.optimizers = build_optimizers(model, recipe.optimizer)
        self.average = None
        if recipe.ema_decay is not None:
            self.average = ExponentialAverage(model, recipe.ema_decay, ramp=recipe.ema_ramp)
        self.losses: list[Tensor] = []
        self._loss = torch.zeros((), dtype=model.dtype, device=device)
        self._captured = None
        if graphs is not None:
            for group in (group for one in self.optimizers for group in one.param_groups):
                set_capturable(group, True)
            self._captured = CapturedSteps(self._step, device, graphs)

    def step(self, packed: Packed) -> None:
        if self._captured is None:
            self._step(packed.batch())
        else:
            self._captured(packed, self.model.capturable)
        self.losses.append(self._loss.clone())

    def _step(self, batch: Batch) -> None:
        loss = self.model.loss(self.model(batch), batch).value()
        loss.backward()
        if self.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update()
        self._loss.copy_(loss.detach())


class _Turns(Reporter):
    """Times blocks of the steps of `fit`, and after each the same steps in a bare loop."""

    def __init__(
        self, subject: Subject, device: torch.device, blocks: int, steps: int,
        graphs: Graphs | None,
    ) -> None:  # fmt: skip
        self.device, self.steps = device, steps
        self.total = _BATCHES + blocks * (_FIRST + steps)  # the first epoch builds the graphs
        self.ours: list[float] = []
        self.bare: list[float] = []
        self.rows: list[Row] = []
        self.log_every = subject.recipe.log_every
        model = copy.deepcopy(subject.model).to(device)
        self.loop = _Bare(model, subject.recipe, device, graphs)
        loader = Loader(
            subject.molecules, model.graph, batch_size=subject.recipe.batch_size, seed=_SEED,
            device=device, pad=subject.recipe.pad, guesses=False, rotate=model.graph.rotate,
        )  # fmt: skip
        with closing(loader.stream()) as stream:
            self.batches = [one.packed.to(device) for one in islice(stream, self.total)]

    def step(self, step: int, elapsed_s: float) -> None:
        """Note the time where a block begins and ends; then it is the other loop's turn."""
        if step <= _BATCHES:
            return
        place = (step - _BATCHES) % (_FIRST + self.steps)
        if place == _FIRST:
            self._began = self._now()
        elif place == 0:
            self.ours.append((self._now() - self._began) / self.steps)
            self._bare_block(step)

    def row(self, row: Row) -> None:
        """Keep the losses of our loop."""
        self.rows.append(row)

    def _bare_block(self, end: int) -> None:
        """The steps that this loop has not done yet, up to where ours is."""
        for place in range(len(self.loop.losses), end):
            if place == end - self.steps:
                began = self._now()
            self.loop.step(self.batches[place])
        self.bare.append((self._now() - began) / self.steps)

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()

    def loss_difference(self) -> float:
        """Largest of the relative differences of the losses in the rows of the log."""
        losses = torch.stack(self.loop.losses).tolist()
        found = 0.0
        for row in self.rows:
            mine, end = row.get("train_loss"), row["step"]
            assert mine is not None and end is not None
            other = math.fsum(losses[int(end) - self.log_every : int(end)]) / self.log_every
            found = max(found, abs(mine - other) / abs(other))
        return found
