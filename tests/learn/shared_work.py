"""What the processes of test_processes.py do, by names they can import."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from toy_model import Toy, molecules

from hambench import experiment
from hambench.cell import Cell
from hambench.compose import compose
from hambench.data.loader import Loader
from hambench.learn import Recipe, fit
from hambench.learn.device import open_fabric
from hambench.learn.gradients import LossTerms, accumulate
from hambench.learn.processes import Processes, join
from hambench.learn.training import Training
from hambench.learn.validation import evaluate
from hambench.learn.weights import cast
from hambench.model import Model

FIXTURE = Path(__file__).parents[1] / "fixtures" / "organic_mini_24.h5"


def model_and_rows(preset: str, task: str, processes: Processes) -> tuple[Model, Any]:
    """A fresh model in float64, and some of its training set."""
    words = [f"data={FIXTURE}"] if task == "organic_mini" else []
    cell = Cell.build(compose([f"task={task}", f"model={preset}", "device=cpu", *words]))
    model, rows = cell.model, cell.task.split("train")[:40]
    assert isinstance(model, Model)
    cast(model, torch.float64)
    if model.graph.guess is not None:
        processes.in_turn(partial(model.graph.guess.complete, rows, None, 1))
    model.prepare(rows)
    return model, rows


def gradient(
    preset: str, task: str, gpus: int, sizes: dict[str, int], accumulate_: int
) -> dict[str, Any]:
    """Of the loss over the first ``accumulate_`` batches, with the rows they held."""
    processes = join(1, gpus, "cpu")
    model, rows = model_and_rows(preset, task, processes)
    fabric = open_fabric("cpu", processes)
    module = LossTerms(model)
    terms_of = fabric.setup_module(module)
    share = (processes.rank, processes.size)
    loader = Loader(rows, model.graph, seed=5, share=share, guesses=False, **sizes)
    stream = loader.stream()
    loaded = [next(stream) for _ in range(accumulate_)]
    stream.close()
    loss = accumulate(
        terms_of, module, [item.batch for item in loaded], fabric.backward,
        counted=[bool(item.rows) for item in loaded], processes=processes,
        hold=lambda: fabric.no_backward_sync(terms_of),
    )  # fmt: skip
    return {
        "loss": float(loss),
        "rows": [item.rows for item in loaded],
        "molecules": [item.molecules for item in loaded],
        "gradient": {
            name: None if p.grad is None else p.grad.numpy()
            for name, p in model.named_parameters()
        },
    }  # fmt: skip


def validation(preset: str, task: str, gpus: int, batch_size: int) -> dict[str, Any]:
    """Of the first rows of the training split, some batches smaller than the crowd."""
    processes = join(1, gpus, "cpu")
    model, rows = model_and_rows(preset, task, processes)
    rows = rows[:7]
    loader = Loader(
        rows, model.graph, batch_size=batch_size, shuffle=False, references=True,
        share=(processes.rank, processes.size),
    )  # fmt: skip
    result = evaluate(model, loader, lambda: False, processes=processes)
    assert result is not None
    return asdict(result)


def train_toy(folder: Path, gpus: int, values: dict[str, Any], pause: float) -> dict[str, Any]:
    """A whole training of the toy model; the weights are those it ends with."""
    torch.manual_seed(0)
    model = Toy(dropout=0.0)
    model.drop.register_forward_hook(lambda *_: time.sleep(pause))
    processes = join(1, gpus, "cpu")
    with processes.course():
        result = fit(
            model, molecules(21), molecules(7, seed=1), Recipe.parse(values), folder, seed=3,
            device="cpu", progress=False, processes=processes,
        )  # fmt: skip
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return {"result": asdict(result), "weights": weights}


def cell(*words: str) -> dict[str, Any]:
    """A run from start to finish."""
    outcome = experiment.run(compose(words), progress=False)
    return {"fresh": outcome.fresh, "result": outcome.result.model_dump(mode="json")}


def failing_cell(rank: int, how: str, *words: str) -> dict[str, Any]:
    """As `cell`, one process of which fails in its third step."""
    step = Training.step

    def fails(self: Training, *arguments: Any) -> None:
        if self.state.step == 2 and self.processes.rank == rank:
            if how == "memory":
                raise torch.OutOfMemoryError("none left")
            if how == "defect":
                raise ZeroDivisionError("a defect")
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, *arguments)

    Training.step = fails  # type: ignore[method-assign]
    return cell(*words)
