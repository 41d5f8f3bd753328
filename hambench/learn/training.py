"""`Training`: a model with all that changes while it is trained, as one checkpoint holds it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from hambench.data.graph import Batch, GraphSpec
from hambench.data.loader import Loaded, Position
from hambench.errors import CheckpointError, ConfigError, RunError
from hambench.learn.captured import CapturedSteps, DeviceNumbers, Graphs
from hambench.learn.checkpoint import random_state, restore_random_state
from hambench.learn.ema import ExponentialAverage
from hambench.learn.gradients import LossTerms, accumulate
from hambench.learn.optim import build_optimizers, set_capturable
from hambench.learn.processes import ALONE, Processes
from hambench.learn.recipe import Recipe
from hambench.learn.schedule import Schedule
from hambench.learn.weights import check_identity, first_difference, identity
from hambench.model import Loss, Model, Prediction

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass
class State:
    """Numbers that change while training; plain values, so that a checkpoint can hold them.

    Times are seconds over all restarts.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    molecules: int = 0
    elapsed: float = 0.0
    training: float = 0.0  # of it in steps, not in validations and checkpoints
    best: float = math.inf
    best_step: int = 0
    since_best: int = 0  # validations
    validated: int = 0  # step of the last validation
    validated_at: float = 0.0
    logged: int = 0  # step of the last training row
    logged_molecules: int = 0
    logged_training: float = 0.0
    log_size: int = 0
    restarts: int = 0
    peak_memory: int = 0

    @property
    def position(self) -> Position:
        """Of the next batch."""
        return Position(self.epoch, self.batch)


class _Numbers(NamedTuple):
    """What the host decides of a step: numbers, or tensors of shape () on the device.

    Attributes:
        rates: learning rate of each group of parameters.
        weight: of the new parameters in their average.
        place: of the loss among those since the last row of the log.
    """

    rates: Sequence[float | Tensor]
    weight: float | Tensor
    place: int | Tensor


class Training:
    """One model in training.

    Args:
        model: in its final precision, prepared; moved to the device.
        recipe: see `Recipe`.
        seed: part of what a checkpoint must agree with.
        fabric: the device, and the strategy around forward and backward.
        processes: which train the model together; each has all of this.
        graphs: what captures steps; None: every step runs as it is.
    """

    def __init__(
        self,
        model: Model,
        recipe: Recipe,
        seed: int,
        fabric: Fabric,
        processes: Processes = ALONE,
        graphs: Graphs | None = None,
    ) -> None:
        self.model, self.recipe, self.seed, self.fabric = model, recipe, seed, fabric
        self.processes = processes
        self.state = State()
        self._module = LossTerms(model, recipe.alignment)
        self._terms_of = fabric.setup_module(self._module)
        self.optimizers = build_optimizers(model, recipe.optimizer)
        self.groups = [group for o in self.optimizers for group in o.param_groups]
        self.schedule = Schedule(recipe.schedule, recipe.optimizer.lr)
        self._parameters = list(model.parameters())  # collecting them takes long
        self.ema: ExponentialAverage | None = None
        if recipe.ema_decay is not None:
            self.ema = ExponentialAverage(model, recipe.ema_decay, ramp=recipe.ema_ramp)
        # losses of the steps since the last row of the log, kept on the device
        self._losses = torch.zeros(recipe.log_every, dtype=model.dtype, device=fabric.device)
        self._captured: CapturedSteps | None = None
        if graphs is not None:
            self._numbers = DeviceNumbers(len(self.groups) + 2, fabric.device)
            self._captured = CapturedSteps(self._step_by_device, fabric.device, graphs)
        model.train()

    @property
    def graph(self) -> GraphSpec:
        """What batches must hold: what the model wants, and what the loss does besides."""
        spec = self.model.graph
        if self.recipe.alignment is None:
            return spec
        return replace(spec, labels=(*spec.labels, "orbitals"))

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        """The training loss."""
        return self._module.loss(prediction, batch)

    def step(self, loaded: Sequence[Loaded], progress: float) -> None:
        """One optimiser step on micro-batches. Nothing here may wait for the device.

        Args:
            loaded: the batches.
            progress: share of the budget used up so far.
        """
        state = self.state
        factor = self.schedule.factor(state.step, progress)
        rates = [group["initial_lr"] * factor for group in self.groups]
        weight, place = self._weight(), state.step - state.logged
        if self._captured is None:
            counted = [bool(item.rows) for item in loaded]
            self._step([item.batch for item in loaded], _Numbers(rates, weight, place), counted)
        else:
            self._numbers.renew([*rates, weight, place])
            (item,) = loaded
            self._captured(item.packed, self.model.capturable)
            self._set_rates(rates)
        state.step += 1

    def _step_by_device(self, batch: Batch) -> None:
        """`_step` with the numbers that the device has: it depends on tensors alone."""
        *rates, weight, place = self._numbers.values.unbind()
        self._step([batch], _Numbers(rates, weight, place), [True])

    def _step(self, batches: Sequence[Batch], numbers: _Numbers, counted: Sequence[bool]) -> None:
        """Gradients, and all that follows from them.

        Args:
            batches: on the device.
            numbers: of Python, or of the device.
            counted: of each batch, whether it counts.
        """
        loss = accumulate(
            self._terms_of, self._module, batches, self.fabric.backward, counted=counted,
            processes=self.processes, hold=partial(self.fabric.no_backward_sync, self._terms_of),
        )  # fmt: skip
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.clip_norm)
        self._set_rates(numbers.rates)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(numbers.weight)
        if isinstance(numbers.place, Tensor):
            self._losses.index_copy_(0, numbers.place.long().view(1), loss.view(1))
        else:
            self._losses[numbers.place] = loss

    def _set_rates(self, rates: Sequence[float | Tensor]) -> None:
        """Learning rates of all groups; checkpoints hold numbers of Python."""
        on_gpu = self.fabric.device.type == "cuda"
        capturing = on_gpu and torch.cuda.is_current_stream_capturing()
        for group, rate in zip(self.groups, rates, strict=True):
            group["lr"] = rate
            set_capturable(group, capturing)

    def _weight(self) -> float:
        """Of the new parameters in their average: one until that begins, or if there is none."""
        if self.ema is None or self.state.epoch < self.recipe.ema_start_epoch:
            return 1.0
        return self.ema.next_weight()

    def checked_losses(self) -> list[float]:
        """Losses of the steps since the last row of the log; waits for the device.

        Raises:
            RunError: one of them, or a parameter by now, is not finite.
        """
        step = self.state.logged
        losses: list[float] = self._losses[: self.state.step - step].tolist()
        for k, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise not_finite("training loss", loss, step + k + 1)
        norms = torch.stack(torch._foreach_norm([p.detach() for p in self._parameters]))
        if not bool(norms.isfinite().all()):
            raise not_finite("norm of a parameter", float(norms.max()), self.state.step)
        return losses

    def averaged(self) -> AbstractContextManager[None]:
        """The model has the parameters to validate and keep: averaged ones, if there are any."""
        return nullcontext() if self.ema is None else self.ema.applied()

    def content(self) -> dict[str, Any]:
        """Everything the following steps depend on, as tensors and plain values."""
        return {
            "identity": json.dumps(identity(self.model)),
            "recipe": json.dumps(self.recipe.comparable()),
            "seed": self.seed,
            "state": asdict(self.state),
            "losses": self._losses,
            "weights": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedule": self.schedule.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "random": random_state(self.fabric.device),
        }

    def restore(self, content: Mapping[str, Any]) -> None:
        """Continue from `content`, which `check_same_run` accepted."""
        self.state = State(**content["state"])
        self._losses.copy_(content["losses"])
        self.model.load_state_dict(content["weights"])
        for optimizer, state in zip(self.optimizers, content["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.groups = [group for o in self.optimizers for group in o.param_groups]
        self.schedule.load_state_dict(content["schedule"])
        if self.ema is not None:
            self.ema.load_state_dict(content["ema"])
        restore_random_state(content["random"], self.fabric.device)


def check_recipe(recipe: Recipe, energies: bool) -> None:
    """ConfigError where a recipe asks of a model what models of its kind cannot do."""
    if recipe.alignment is not None and energies:
        raise ConfigError(
            "recipe.alignment aligns the orbitals of Hamiltonians, and energies are to be learned; "
            "leave it out (recipe.alignment=null)"
        )


def check_same_run(
    content: Mapping[str, Any], model: Model, recipe: Recipe, seed: int, folder: Path
) -> None:
    """Compare a checkpoint with the run that wants to go on from it.

    Raises:
        CheckpointError: another model, recipe or seed; the first difference is named.
    """
    check_identity(json.loads(content["identity"]), model, folder)
    found = {"recipe": json.loads(content["recipe"]), "seed": content["seed"]}
    wanted = {"recipe": recipe.comparable(), "seed": seed}
    if found != wanted:
        key, is_, should = first_difference(found, wanted)
        raise CheckpointError(
            f"{folder} holds a run with {key}={is_}, this one has {should}; go on with the same "
            "settings, or train in another folder"
        )


def not_finite(what: str, value: float, step: int) -> RunError:
    """The error for a number that ran away."""
    return RunError(
        f"the {what} became {value} at step {step}, the last good checkpoint is kept; lower "
        "recipe.optimizer.lr, set recipe.clip_norm, or take precision=float64: each makes it "
        "another run, so a run_dir that was named needs overwrite=true"
    )
