"""What predicting takes: measured on molecules of the scored split, with nothing beside it."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import torch
from tqdm import tqdm

from hambench.cell import Cell
from hambench.chem import engine
from hambench.chem.dft import initial_fock
from hambench.data.graph import Batch, collate
from hambench.data.guess import Guess
from hambench.data.loader import Loader
from hambench.data.rows import Part, Rows, Unlabelled
from hambench.external import ExternalModel
from hambench.learn.device import open_fabric
from hambench.learn.outputs import outputs_of
from hambench.learn.reporters import bar
from hambench.learn.validation import matmul_precision
from hambench.model import Model
from hambench.profiling.contractions import Recorder
from hambench.profiling.memory import peak_and_launches, synchronize
from hambench.results import Inference

_MOLECULES: Final = 256  # at most, ...
_SECONDS: Final = 20.0  # ... and no other batch after that time
_GUESSES: Final = 3  # computed anew to be timed


def measured(cell: Cell, progress: bool = True) -> Inference | None:
    """Speed, memory and operations of predicting the scored split, batched as for its scores.

    On molecules drawn from the split, the same at every call.

    Args:
        cell: its model as it is now; moved to the device, in evaluation mode.
        progress: show a bar on a terminal.

    Returns:
        None for a model in an environment of its own.
    """
    model, device = cell.model, open_fabric(cell.config.device).device
    if isinstance(model, ExternalModel):
        return None
    split = cell.task.split(cell.config.score.split)
    order = np.random.default_rng(0).permutation(len(split))
    rows = Unlabelled(Part(split, order[:_MOLECULES].tolist()))
    model.to(device).eval()
    graph = replace(model.graph, labels=())
    if (guess := graph.guess) is not None:
        guess.complete(rows, bar if progress else None)
    batch_size, max_edges = cell.recipe.batch_size, cell.recipe.max_edges
    plan = Loader(rows, graph, batch_size=batch_size, max_edges=max_edges, shuffle=False).plan(0)
    shown = tqdm(
        plan, desc="inference", unit="batch", leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip
    flops, model_s, peak, largest = 0, 0.0, 0, -1
    done: list[int] = []
    began = time.monotonic()
    with torch.no_grad(), matmul_precision("highest"):
        for places in shown:
            batch = collate([rows[place] for place in places], graph).to(device)
            flops += _flops(model, batch)  # and the first time a batch of this shape is seen
            model_s += _seconds(model, batch, device)
            if batch.num_edges > largest:
                largest = batch.num_edges
                peak, _ = peak_and_launches(partial(model, batch), device)
            done += places
            if time.monotonic() - began > _SECONDS:
                break
    loop_s = _loop_seconds(model, Part(rows, done), batch_size, max_edges)
    return Inference(
        molecules=len(done),
        batch_size=batch_size,
        max_edges=max_edges,
        threads=torch.get_num_threads() if device.type == "cpu" else None,
        molecules_per_s=len(done) / loop_s,
        model_molecules_per_s=len(done) / model_s,
        guess_s=None if guess is None else _guess_seconds(guess, rows),
        peak_memory=peak,
        flops=flops / len(done),
    )


def _flops(model: Model, batch: Batch) -> int:
    with Recorder() as seen:
        model(batch)
    return sum(product.flops for product in seen.contractions)


def _seconds(model: Model, batch: Batch, device: torch.device) -> float:
    """Of a forward pass, from a batch on the device to the output there."""
    synchronize(device)
    began = time.perf_counter()
    model(batch)
    synchronize(device)
    return time.perf_counter() - began


def _loop_seconds(
    model: Model, molecules: Rows, batch_size: int | None, max_edges: int | None
) -> float:
    """From molecules in their files to what is predicted in memory."""
    began = time.perf_counter()
    for _ in outputs_of(model, molecules, batch_size=batch_size, max_edges=max_edges):
        pass
    return time.perf_counter() - began


def _guess_seconds(guess: Guess, rows: Rows) -> float | None:
    """Of the initial guess of a molecule, which `Loader` finds kept; None without PySCF."""
    if guess.theory is None or not engine.is_installed():
        return None
    some = rows[:_GUESSES]
    began = time.perf_counter()
    for row in range(len(some)):
        initial_fock(some.geometry(row), guess.theory)
    return (time.perf_counter() - began) / len(some)
