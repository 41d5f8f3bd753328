"""What the cells of a plan will take: time and memory, from a few steps of each kind of cells."""

from __future__ import annotations

import json
import logging
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tqdm import tqdm

from hambench import models
from hambench.config import RunConfig
from hambench.data.workers import THREADS, cores
from hambench.launch.plan import Node, Plan
from hambench.learn import Recipe

if TYPE_CHECKING:
    from hambench.launch.trial import Trial

SECONDS: Final = 30.0
"""After which the steps of a kind are ended."""

_START: Final = 60.0  # seconds for what comes before the first step
_POLL: Final = 0.1  # seconds between looks at a trial
_WARM: Final = 2  # steps before the machine is at speed
# Of a recipe: what a step's time and memory depend on.
_COSTLY = ("batch_size", "max_edges", "pad", "accumulate", "alignment", "precision")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Estimate:
    """What the training of a cell takes on this machine, in one process.

    Without its start (statistics of the labels, initial guesses) and its scoring; and as if it
    used up its budget, which `patience` may spare it.

    Attributes:
        seconds: validations included; None where it is not known.
        memory: bytes at most, of the GPU, else of the process; None where it is not known.
        step_s: seconds of a step, median.
        validation_s: seconds of one validation.
        device: name of what it was measured on.
        bound: whether ``seconds`` and ``step_s`` are lower bounds: no step was done in time.
        reason: why something is not known; empty otherwise.
    """

    seconds: float | None = None
    memory: int | None = None
    step_s: float | None = None
    validation_s: float | None = None
    device: str = ""
    bound: bool = False
    reason: str = ""


def estimate(
    plan: Plan, *, threads: int | None = None, seconds: float = SECONDS, progress: bool = True
) -> dict[Path, Estimate]:
    """Time and memory of every cell that is not done, by its run directory.

    Cells that differ in seed, budget, data they train on or learning rate are of one kind; a few
    steps of each kind are done, one kind after the other, in processes of their own.

    Args:
        plan: checked.
        threads: of a CPU; None: as many as there are cores.
        seconds: after which the steps of a kind are ended.
        progress: show a bar on a terminal, and say how long it may take.
    """
    kinds: dict[str, list[Node]] = {}
    for node in plan.unfinished:
        kinds.setdefault(_kind(node.config), []).append(node)
    if progress and kinds:
        logger.info(
            "estimating time and memory from a few steps of %d kind%s of cells, less than %.0f s "
            "each once they begin; --no-estimate leaves it out",
            len(kinds), "s" * (len(kinds) > 1), seconds,
        )  # fmt: skip
    shown = tqdm(
        kinds.values(), desc="estimate", unit="kind", leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip
    return dict(_estimates(shown, threads or cores(), seconds))


def _estimates(
    kinds: tqdm[list[Node]], threads: int, seconds: float
) -> Iterator[tuple[Path, Estimate]]:
    for nodes in kinds:
        config = nodes[0].config
        kinds.set_postfix_str(f"{config.model['name']} on {config.task['name']}")
        if models.is_external(config.model["name"]):
            reason = "in an environment of its own, nothing is measured"
            yield from ((node.folder, Estimate(reason=reason)) for node in nodes)
            continue
        trial, steps_s = _tried(config, threads, seconds)
        yield from ((node.folder, _of(node.config, trial, steps_s)) for node in nodes)


def _kind(config: RunConfig) -> str:
    """What cells of one kind share."""
    recipe = config.training
    keys = {"task", "model", "split", "device", "cuda_graph", "workers", "data", "strategy"}
    shared = config.model_dump(mode="json", include=keys)
    shared |= {key: recipe.get(key) for key in _COSTLY}
    return json.dumps([shared, recipe["optimizer"]["name"]], sort_keys=True)


def _of(config: RunConfig, trial: Trial, steps_s: float) -> Estimate:
    """The estimate of a cell from the trial of its kind, of which ``steps_s`` were for steps."""
    memory, device = trial.memory or None, trial.device
    if trial.parameters == 0:
        return Estimate(0.0, memory, 0.0, 0.0, device)
    if trial.steps:
        step_s = statistics.median(trial.steps[_WARM:] or trial.steps[-1:])
        validation_s = trial.validation_s or 0.0
        total = training_seconds(Recipe.parse(config.training), step_s, validation_s)
        return Estimate(total, memory, step_s, validation_s, device, reason=trial.reason)
    if trial.phase == "steps" and not trial.reason:
        total = training_seconds(Recipe.parse(config.training), steps_s, 0.0)
        reason = f"> {steps_s:.0f} s/step"
        return Estimate(total, memory, steps_s, None, device, bound=True, reason=reason)
    return Estimate(memory=memory, device=device, reason=trial.reason)


def training_seconds(recipe: Recipe, step_s: float, validation_s: float) -> float:
    """Seconds of a training that uses up its budget.

    Args:
        recipe: with its budgets.
        step_s: seconds of a step.
        validation_s: seconds of a validation, of which the last one follows the last step.
    """
    limit = math.inf if recipe.max_minutes is None else 60 * recipe.max_minutes
    if recipe.max_steps is None:
        return limit + validation_s
    steps_s = recipe.max_steps * step_s
    if recipe.validate_every is not None:
        validations = math.ceil(recipe.max_steps / recipe.validate_every)
    else:
        assert recipe.validate_every_minutes is not None
        validations = max(1, math.ceil(steps_s / (60 * recipe.validate_every_minutes)))
    return min(steps_s + validations * validation_s, limit + validation_s)


def _tried(config: RunConfig, threads: int, seconds: float) -> tuple[Trial, float]:
    """The trial of a cell, ended when its time is up, and the seconds it had for steps."""
    from hambench.launch.trial import Trial  # imports torch

    with tempfile.TemporaryDirectory(prefix="hambench-") as folder:
        config_file, out, said = (Path(folder, name) for name in ("config.yaml", "trial", "said"))
        config_file.write_text(config.to_yaml(), encoding="utf-8")

        def seen() -> Trial:
            return Trial(**json.loads(out.read_text("utf-8"))) if out.is_file() else Trial()

        with open(said, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "hambench.launch.trial", str(config_file), str(out)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                env=os.environ | dict.fromkeys(THREADS, str(threads)),
            )  # fmt: skip
        began, stepping = time.monotonic(), math.inf
        try:
            while process.poll() is None:
                now = time.monotonic()
                if stepping == math.inf and seen().phase != "start":
                    stepping = now
                if now - stepping > seconds or (stepping == math.inf and now - began > _START):
                    break
                time.sleep(_POLL)
            ended = process.returncode
        finally:
            process.kill()
            process.wait()
        trial = seen()
        steps_s = max(0.0, time.monotonic() - stepping)
        if ended is None and trial.phase == "start":
            trial.reason = f"nothing was trained within {_START:.0f} s"
        elif ended:
            trial.reason = _why(ended, said)
        return trial, steps_s


def _why(code: int, said: Path) -> str:
    if code == -9:
        return "ended by SIGKILL, probably for want of memory"
    lines = said.read_text("utf-8", "replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), f"exit code {code}")


def time_text(one: Estimate) -> str:
    """``"41 s"``, ``"> 12 min"``; ``"-"`` where it is not known."""
    return "-" if one.seconds is None else "> " * one.bound + _duration(one.seconds)


def memory_text(one: Estimate) -> str:
    """``"1.2 GiB"``; ``"-"`` where it is not known."""
    return "-" if one.memory is None else f"{one.memory / 2**30:.2g} GiB"


def in_all(estimates: Mapping[Path, Estimate], threads: int) -> str:
    """A line on the sum over cells, on what was measured where, and on what is not in it."""
    known = [one for one in estimates.values() if one.seconds is not None]
    hours = math.fsum(one.seconds or 0.0 for one in known) / 3600
    devices = sorted({one.device for one in known})
    on_cpu = devices in ([], ["cpu"])
    total = f"{hours * threads:.2g} core hours" if on_cpu else f"{hours:.2g} GPU hours"
    least = "more than " if any(one.bound for one in known) else ""
    lacking = len(estimates) - len(known)
    but = f" and {lacking} unknown" if lacking else ""
    where = f"{threads} core{'s' * (threads > 1)}" if on_cpu else ", ".join(devices)
    return (
        f"training takes {least}{total}{but}, by a few steps on {platform.node()} ({where}, one "
        "cell at a time); start, label statistics and scoring come on top"
    )


def _duration(seconds: float) -> str:
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return (
                f"{seconds / size:.2g} {unit}"
                if seconds < 10 * size
                else f"{seconds / size:.0f} {unit}"
            )
    return f"{seconds:.0f} s"
