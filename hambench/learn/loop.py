"""`fit`: train a model within a budget, with exact resume.

Everything a step depends on is in the checkpoint (`Training.content`): a run that was killed at
any moment and is started again ends with the same bits on a CPU, as long as its budget and its
validations are counted in steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from hambench.chem.molecule import Molecule
from hambench.data.loader import Loaded, Loader
from hambench.errors import ConfigError, RunError
from hambench.learn.captured import CudaGraphs, check_cuda_graph
from hambench.learn.checkpoint import load_checkpoint, save_checkpoint, seed_generators
from hambench.learn.device import memory_kept, open_fabric, peak_memory
from hambench.learn.frozen import frozen_embeddings
from hambench.learn.interrupts import Interrupted, StopRequest
from hambench.learn.processes import ALONE, Processes
from hambench.learn.recipe import Recipe
from hambench.learn.reporters import JsonLog, Reporter, Row, Terminal, bar
from hambench.learn.statistics import prepare
from hambench.learn.training import Training, check_recipe, check_same_run, not_finite
from hambench.learn.validation import evaluate, matmul_precision, metric_name
from hambench.learn.weights import cast, load_weights, save_weights
from hambench.model import Model, silent

CHECKPOINTS, BEST, LOG = "checkpoints", "best.safetensors", "log.jsonl"
_NO_GRADIENT = 4  # batches of a validation are larger by this: nothing is kept for a backward pass


@dataclass(frozen=True)
class FitResult:
    """How a training run ended; costs are over all restarts.

    Attributes:
        steps: optimiser steps done.
        epochs: passes over the training set.
        metric: what was validated, ``h_mae`` or ``e_mae`` (Eh).
        best_value: its best value; None without validation molecules.
        best_step: step of the best value, whose weights the model has now.
        wall_s: seconds spent, validations and checkpoints included.
        steps_per_s, molecules_per_s: speed of training alone; None if no step was done.
        peak_memory: bytes, of the GPU where there is one, else of the process.
        stopped_by: ``max_steps``, ``max_minutes``, ``patience`` or ``stop_lr``.
        restarts: how often the run went on from a checkpoint.
    """

    steps: int
    epochs: float
    metric: str
    best_value: float | None
    best_step: int
    wall_s: float
    steps_per_s: float | None
    molecules_per_s: float | None
    peak_memory: int
    stopped_by: str
    restarts: int


def fit(
    model: Model,
    train: Sequence[Molecule],
    val: Sequence[Molecule],
    recipe: Recipe,
    folder: Path,
    *,
    seed: int,
    device: str = "auto",
    workers: int = 0,
    max_steps: int | None = None,
    max_minutes: float | None = None,
    progress: bool = True,
    reporters: Sequence[Reporter] = (),
    fingerprint: str | None = None,
    processes: Processes = ALONE,
    cuda_graph: bool = False,
) -> FitResult:
    """Train ``model`` until its budget ends, going on where an earlier call in ``folder`` stopped.

    Afterwards the model has the weights of its best validation (averaged ones with EMA), or the
    last ones where ``val`` is empty. ``folder`` gets ``log.jsonl`` and ``checkpoints/`` with
    ``last.pt``, ``previous.pt`` and ``best.safetensors``. Initial guesses that the model learns
    beyond are computed first, and a fresh run lets the model `prepare`; budgets in minutes count
    from there, validations included.

    Args:
        model: freshly built; converted to the recipe's precision in place.
        train, val: molecules with labels, read by index.
        recipe: see `Recipe`.
        folder: of the run.
        seed: of the data order and of all generators.
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1``.
        workers: processes that build training batches, see `Loader`.
        max_steps, max_minutes: replace the recipe's budgets where given.
        progress: show progress, as a bar on a terminal and as log lines elsewhere.
        reporters: told about every row besides.
        fingerprint: of the molecules of ``train``; with one, statistics of their labels are kept
            for other runs, see `hambench.learn.statistics`.
        processes: which train the model together, with the same arguments. A step is the same
            whatever their number, but for rounding: batches are shared out, ``recipe.batch_size``
            is of all of them. The first one writes, and tells progress and ``reporters``.
        cuda_graph: launch all of a step at once, as a CUDA graph captured for each shape of batch
            that comes often (`hambench.learn.captured`). A step is the same but for rounding.

    Raises:
        ConfigError: no budget, a device that is not there, a recipe unfit for the model, or no
            CUDA graphs for device, recipe or processes.
        CheckpointError: ``folder`` holds checkpoints of another model, recipe or seed, or damaged
            ones alone.
        RunError: loss or metric not finite, disk full; the last good checkpoint stays.
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written after the last full step.
    """
    max_steps = recipe.max_steps if max_steps is None else max_steps
    max_minutes = recipe.max_minutes if max_minutes is None else max_minutes
    if max_steps is None and max_minutes is None:
        raise ConfigError(
            "training has no budget: set max_steps or max_minutes, e.g. max_minutes=10"
        )
    check_recipe(recipe, energies="hamiltonian" not in model.graph.labels)
    folder = Path(folder)
    fabric = open_fabric(device, processes)
    if cuda_graph:
        check_cuda_graph(fabric.device, recipe, processes.size)
    progress = progress and processes.first
    saved = processes.from_first(lambda: load_checkpoint(folder / CHECKPOINTS))
    if saved is not None:
        check_same_run(saved, model, recipe, seed, folder)
    cast(model, torch.float64 if recipe.precision == "float64" else torch.float32)
    seed_generators(seed)
    if (guess := model.graph.guess) is not None:
        for molecules in (train, val):
            processes.in_turn(partial(guess.complete, molecules, bar if progress else None))
    if saved is None:
        shown = bar if progress else silent
        processes.from_first(lambda: prepare(model, train, fingerprint, shown))
        processes.share(model)
    graphs = CudaGraphs(fabric.device) if cuda_graph else None
    training = Training(model, recipe, seed, fabric, processes, graphs)
    if saved is not None:
        training.restore(saved)
    loop = _Loop(training, train, val, folder, workers, max_steps, max_minutes, progress)
    terminal = [Terminal(max_steps, max_minutes)] if progress else []
    with matmul_precision("high" if recipe.precision == "tf32" else "highest"), memory_kept():
        stopped_by = loop.run([*terminal, *reporters])
    return loop.result(stopped_by)


class _Loop:
    """The course of one `fit`: when to step, validate, log, save and stop."""

    def __init__(
        self,
        training: Training,
        train: Sequence[Molecule],
        val: Sequence[Molecule],
        folder: Path,
        workers: int,
        max_steps: int | None,
        max_minutes: float | None,
        progress: bool,
    ) -> None:
        self.training, self.state, self.recipe = training, training.state, training.recipe
        self.model, self.device = training.model, training.fabric.device
        self.processes = processes = training.processes
        self.folder, self.best_file = folder, folder / CHECKPOINTS / BEST
        self.max_steps, self.max_minutes = max_steps, max_minutes
        self.stop = StopRequest()
        spec, size, edges = training.graph, self.recipe.batch_size, self.recipe.max_edges
        shown, share = bar if progress else silent, (processes.rank, processes.size)
        self.loader = Loader(
            train, spec, batch_size=size, max_edges=edges, seed=training.seed, device=self.device,
            workers=workers, pad=self.recipe.pad,
            embeddings=frozen_embeddings(self.model, train, self.device, shown), guesses=False,
            rotate=spec.rotate, share=share,
        )  # fmt: skip
        self.validator: Loader | None = None
        if len(val):
            self.validator = Loader(
                val,
                spec,
                batch_size=size and _NO_GRADIENT * size,
                max_edges=edges and _NO_GRADIENT * edges,
                shuffle=False,
                references="hamiltonian" in spec.labels,
                device=self.device,
                embeddings=frozen_embeddings(self.model, val, self.device, shown),
                share=share,
            )

    def run(self, others: Sequence[Reporter]) -> str:
        """Train as far as the budget goes; returns what ended it."""
        state = self.state
        reason = self._stop_reason(state.elapsed)
        if reason is not None and state.step > 0 and not self._unvalidated():
            return reason  # finished by an earlier call
        self.reporters: list[Reporter] = []
        if self.processes.first:
            self.log = JsonLog(self.folder / LOG, state.log_size)
            self.reporters = [self.log, *others]
        self._before = self._agreed = state.elapsed
        self._began = self._resumed = time.monotonic()
        try:
            for reporter in self.reporters:
                reporter.start(state.step, state.elapsed)
            if state.step > 0:
                state.restarts += 1
            self._save()
            with closing(self.loader.stream(state.position)) as stream, self.stop:
                return self._train(stream)
        finally:
            for reporter in self.reporters:
                reporter.close()

    def _train(self, stream: Iterator[Loaded]) -> str:
        while True:
            # Whatever is due here is seen from the state alone: a run that goes on from a
            # checkpoint enters at this very place.
            asked = self._agree()
            reason = self._stop_reason(self._elapsed())
            if self._validation_due() or (reason and self._unvalidated()):
                self._validate()
                asked = self._agree()
                reason = self._stop_reason(self._elapsed())
            if reason and not self._unvalidated():
                break
            if asked:
                self._save()
                raise Interrupted(
                    f"stopped by {asked} after step {self.state.step}, with a "
                    f"checkpoint in {self.folder / CHECKPOINTS}; the same command goes on from it",
                    asked,
                )
            if self._checkpoint_due():
                self._save()
            self._step(stream)
        if self.validator is None:
            self.training.checked_losses()
            with self.training.averaged():
                self._keep_weights(None)
        self._save()
        return reason

    def _step(self, stream: Iterator[Loaded]) -> None:
        state = self.state
        progress = self._progress()
        loaded = [next(stream) for _ in range(self.recipe.accumulate)]
        state.epoch, state.batch = loaded[-1].after.epoch, loaded[-1].after.batch
        state.molecules += sum(item.molecules for item in loaded)
        try:
            self.training.step(loaded, progress)
        except torch.OutOfMemoryError as error:
            size = "batch_size" if self.recipe.batch_size else "max_edges"
            raise RunError(
                f"the GPU has too little memory for step {state.step + 1}; lower recipe.{size} "
                f"(now {getattr(self.recipe, size)}) and raise recipe.accumulate to make up for it"
            ) from error
        if state.step - state.logged == self.recipe.log_every:
            self._log_training()
        for reporter in self.reporters:
            reporter.step(state.step, self._elapsed())

    def _log_training(self) -> None:
        losses = self.training.checked_losses()
        state, training = self.state, self._training_time()
        molecules = state.molecules - state.logged_molecules
        seconds = training - state.logged_training
        row: Row = {
            "train_loss": math.fsum(losses) / len(losses),
            "lr": self.training.groups[0]["lr"],
            "molecules_per_s": molecules / seconds if seconds > 0 else None,
        }
        state.logged, state.logged_molecules = state.step, state.molecules
        state.logged_training = training
        self._report(row)

    def _validate(self) -> None:
        """Validate, unless stopped on the way; keep the weights if they are the best so far."""
        assert self.validator is not None
        self.training.checked_losses()
        state = self.state
        with self._paused(), self.training.averaged():
            result = evaluate(
                self.model, self.validator, lambda: bool(self._agree()), self.training.loss,
                self.processes,
            )  # fmt: skip
            if result is None:
                return
            if not math.isfinite(result.value):
                raise not_finite(f"validation {result.metric}", result.value, state.step)
            state.validated, state.validated_at = state.step, self._elapsed()
            state.since_best += 1
            if result.value < state.best:
                state.best, state.best_step, state.since_best = result.value, state.step, 0
                self._keep_weights(result.value)
        self.training.schedule.validated(result.value, result.loss)
        self._report({f"val_{result.metric}": result.value, "val_loss": result.loss})

    def _save(self) -> None:
        """Write a checkpoint, if everything is finite."""
        self.training.checked_losses()
        with self._paused():
            self.processes.from_first(self._write)
        self._saved_step, self._saved_at = self.state.step, self._elapsed()

    def _write(self) -> None:
        state = self.state
        state.elapsed, state.log_size = self._clock(), self.log.sync()
        state.peak_memory = max(state.peak_memory, peak_memory(self.device))
        save_checkpoint(self.folder / CHECKPOINTS, self.training.content())

    def _keep_weights(self, value: float | None) -> None:
        """Write the weights as they are now, and the metric they reached."""
        step = self.state.step
        self.processes.from_first(lambda: save_weights(self.best_file, self.model, step, value))

    def _report(self, values: Row) -> None:
        state = self.state
        row: Row = {"step": state.step, "epoch": state.epoch, "elapsed_s": self._elapsed()}
        for reporter in self.reporters:
            reporter.row(row | values)

    def _stop_reason(self, elapsed: float) -> str | None:
        state = self.state
        if self.max_steps is not None and state.step >= self.max_steps:
            return "max_steps"
        if self.max_minutes is not None and elapsed >= 60 * self.max_minutes:
            return "max_minutes"
        if self.training.schedule.exhausted:
            return "stop_lr"
        if self.recipe.patience is not None and state.since_best >= self.recipe.patience:
            return "patience"
        return None

    def _progress(self) -> float:
        """Share of the budget used up; a matter of steps alone where time is not limited."""
        steps = 0.0 if self.max_steps is None else self.state.step / self.max_steps
        if self.max_minutes is None:
            return steps
        return max(steps, self._elapsed() / (60 * self.max_minutes))

    def _unvalidated(self) -> bool:
        return self.validator is not None and self.state.validated != self.state.step

    def _validation_due(self) -> bool:
        if not self._unvalidated():
            return False
        if self.recipe.validate_every is not None:
            return self.state.step % self.recipe.validate_every == 0
        assert self.recipe.validate_every_minutes is not None
        return self._elapsed() - self.state.validated_at >= 60 * self.recipe.validate_every_minutes

    def _checkpoint_due(self) -> bool:
        steps, seconds = self.recipe.checkpoint_every_steps, self.recipe.checkpoint_every_seconds
        if steps is not None and self.state.step - self._saved_step >= steps:
            return True
        return seconds is not None and self._elapsed() - self._saved_at >= seconds

    def _agree(self) -> str | None:
        """Let all processes go by one clock, and by any request to stop; returns its signal."""
        self._agreed, asked = self.processes.agreed(self._clock(), self.stop.signal)
        return asked

    def _elapsed(self) -> float:
        """Seconds of the run, over all restarts; of several processes when they last agreed."""
        return self._agreed if self.processes.several else self._clock()

    def _clock(self) -> float:
        return self._before + time.monotonic() - self._began

    def _training_time(self) -> float:
        """Seconds of it spent in steps."""
        return self.state.training + time.monotonic() - self._resumed

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """What happens in this block is no training time."""
        self.state.training = self._training_time()
        try:
            yield
        finally:
            self._resumed = time.monotonic()

    def result(self, stopped_by: str) -> FitResult:
        """Load the best weights, sum up."""
        result = self.processes.from_first(lambda: self._summed_up(stopped_by))
        self.processes.share(self.model)
        return result

    def _summed_up(self, stopped_by: str) -> FitResult:
        best = load_weights(self.best_file, self.model)
        state = self.state
        per_s = 1 / state.training if state.training > 0 else None
        return FitResult(
            steps=state.step,
            epochs=state.epoch + state.batch / len(self.loader.plan(state.epoch)),
            metric=metric_name(self.model),
            best_value=best.value,
            best_step=best.step,
            wall_s=state.elapsed,
            steps_per_s=per_s and state.step * per_s,
            molecules_per_s=per_s and state.molecules * per_s,
            peak_memory=state.peak_memory,
            stopped_by=stopped_by,
            restarts=state.restarts,
        )
