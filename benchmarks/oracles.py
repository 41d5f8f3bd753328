"""A training step of a model against one of the same equations written path by path.

The oracles are those that the tests compare values and gradients with (tests/oracles). They take
the place of the network in the step that `hambench run` does: forward pass, loss, backward pass,
clipping, optimiser, averaged weights. Both sides are timed in turns; on a GPU ours runs as it is,
and as one captured CUDA graph. Example:

    python benchmarks/oracles.py qhnet ethanol --batch-size 1 --repeats 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "oracles"))

from oracle_models import oracle_model

from hambench.baselines import SPHNet
from hambench.bench.molecules import BATCHES, batch_of
from hambench.bench.report import Report
from hambench.bench.step import Measured, Step, cuda_graphs, measured
from hambench.bench.subject import Setting, Subject, of_case
from hambench.bench.tables import Table, milliseconds
from hambench.bench.timing import Timing, interleaved
from hambench.cli.table import align, as_json
from hambench.data.graph import Batch, pair_labels
from hambench.data.loader import Loaded
from hambench.errors import HambenchError, RunError
from hambench.learn import Recipe
from hambench.learn.captured import STEPS_TO_CAPTURE, Graphs
from hambench.model import Model, Prediction
from hambench.profiling.memory import synchronize

LIMIT = 1e-4
"""Of an `Agreement`, far above what rounding of float32 makes of it."""

PRESETS: dict[str, tuple[str, tuple[str, ...]]] = {
    "phisnet": ("phisnet_md17", ("molecule=null", "overlap=true", "unused_weights=true")),
    "qhnet": ("qhnet", ()),
    "schnorb": ("schnorb", ("rotate=false",)),
    "sphnet": ("sphnet", ()),
}
"""The preset that is measured, and what of its hyperparameters the oracle or the case needs."""


@dataclass(frozen=True)
class Agreement:
    """How far ours is from the oracle, each relative to the largest or to the value.

    Attributes:
        elements: predicted matrix elements, of H, and of S where that is learned.
        loss: the training loss.
        gradient: length of the gradient of all weights, which ours and public names share.
    """

    elements: float
    loss: float
    gradient: float


@dataclass(frozen=True)
class OracleBench(Measured):
    """What a training step costs, path by path and ours.

    Attributes:
        agreement: of both, found before anything was timed.
        oracle: the eager step path by path.
        eager: ours, eager.
        graph: ours as one CUDA graph; None on a CPU.
        eager_ratio, graph_ratio: the oracle's median over ours.
    """

    agreement: Agreement
    oracle: Timing
    eager: Timing
    graph: Timing | None
    eager_ratio: float
    graph_ratio: float | None


def measure(
    preset: str, words: Sequence[str], case: str, size: int | None, setting: Setting, repeats: int
) -> OracleBench:
    """Steps of a model and of its oracle, in turns.

    Args:
        preset: of a model that has an oracle.
        words: hyperparameters, KEY=VALUE.
        case: a key of `BATCHES`.
        size: molecules of the batch; None: as `BATCHES` has it.
        setting: where, how.
        repeats: timed steps of each.

    Raises:
        ConfigError: as `of_case`; the device is not there.
        RunError: ours and the oracle do not agree.
    """
    molecules, size = batch_of(case, size)
    settings = [f"model.hyperparameters.{word}" for word in words]
    with setting.applied() as device:
        subject = prepared(of_case(preset, molecules, size, setting.precision, settings), device)
        oracle = replace(subject, model=oracle_model(subject.model))
        steps = {
            "oracle": Step(oracle, setting.device),
            "eager": Step(subject, setting.device),
        }
        loaded = subject.builder(steps["eager"].training, 0)()
        agreement = compare(subject.model, oracle.model, loaded.batch)
        if (graphs := graphs_of(device, subject.recipe)) is not None:
            steps["graph"] = Step(subject, setting.device, graphs)
            for _ in range(STEPS_TO_CAPTURE):
                steps["graph"].run(loaded)
        times = interleaved({name: _timed(step, loaded) for name, step in steps.items()}, repeats)
    slow = times["oracle"].median
    graph = times.get("graph")
    return OracleBench(
        **measured(preset, words, subject, setting, loaded),
        agreement=agreement,
        oracle=times["oracle"],
        eager=times["eager"],
        graph=graph,
        eager_ratio=slow / times["eager"].median,
        graph_ratio=None if graph is None else slow / graph.median,
    )


def prepared(subject: Subject, device: torch.device) -> Subject:
    """Fit to be compared: paths of SPHNet are fixed, and there are overlaps to learn.

    Weights are halved, as the first predictions of QHNet for 40 atoms on a grid are not finite
    else; those that are zero at first, and would hide what is before them, are drawn.
    """
    if isinstance(subject.model, SPHNet):
        subject.model.freeze()
    with torch.no_grad():
        for parameter in subject.model.parameters():
            parameter.mul_(0.5)
            if parameter.requires_grad and not parameter.any():
                parameter.normal_(std=0.02)
    subject.model.to(device)
    unit = np.eye(subject.model.basis.nao(subject.molecules[0].numbers))
    return replace(subject, molecules=[replace(one, overlap=unit) for one in subject.molecules])


def compare(ours: Model, oracle: Model, batch: Batch) -> Agreement:
    """How far a model is from its oracle; RunError where that is more than `LIMIT`."""
    (elements, loss, gradient), (true, true_loss, true_gradient) = (
        _computed(model, batch) for model in (ours, oracle)
    )
    found = Agreement(
        max(
            float((one - other).abs().max() / other.abs().max())
            for one, other in zip(elements, true, strict=True)
        ),
        abs(loss - true_loss) / abs(true_loss),
        abs(gradient - true_gradient) / true_gradient,
    )
    for name, value in vars(found).items():
        if not value <= LIMIT:  # nor if it is not a number
            raise RunError(
                f"{name}: ours and the oracle differ by {value:.1e}, {LIMIT:g} is allowed; one of "
                "them does not compute what the other does, so there is nothing to time"
            )
    return found


def _computed(model: Model, batch: Batch) -> tuple[list[Tensor], float, float]:
    """Predicted matrix elements, loss, and length of the gradient."""
    model.train()
    prediction = model(batch)
    loss = model.loss(prediction, batch).value()
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    lengths = [torch.linalg.vector_norm(one, dtype=torch.float64) for one in gradients]
    length = math.hypot(*map(float, lengths))
    model.zero_grad(set_to_none=True)
    return _elements(prediction, batch), float(loss.detach()), length


def _elements(prediction: Prediction, batch: Batch) -> list[Tensor]:
    """Matrix elements that have labels: of the Hamiltonian, and of an overlap that is learned."""
    places = batch.node_places, pair_labels(batch)[0]
    kinds = [(prediction.node, prediction.edge)]
    if prediction.overlap is not None:
        kinds.append(prediction.overlap)
    return [
        torch.cat([some.detach().reshape(-1)[at] for some, at in zip(kind, places, strict=True)])
        for kind in kinds
    ]


def graphs_of(device: torch.device, recipe: Recipe) -> Graphs | None:
    """What captures our steps; None where there is nothing that does."""
    return cuda_graphs(device, recipe) if device.type == "cuda" else None


def _timed(step: Step, loaded: Loaded) -> Callable[[int], None]:
    def call(_: int) -> None:
        step.run(loaded)
        synchronize(step.device)

    return call


def table(one: OracleBench) -> Table:
    """For people."""
    worst = max(vars(one.agreement).values())
    head = ("molecules", "on", "step of", "time/ms", "path by path / ours", "differ by")
    where = f"{one.device}, {one.precision}"
    rows = [("path by path", one.oracle, None), ("ours", one.eager, one.eager_ratio)]
    if one.graph is not None:
        rows.append(("ours, one graph", one.graph, one.graph_ratio))
    return [
        head,
        *(
            (
                f"{one.molecules} x {one.case}", where, f"{one.model}, {name}", milliseconds(time),
                "-" if ratio is None else f"{ratio:.1f}", f"{worst:.0e}",
            )
            for name, time, ratio in rows
        ),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure one model on one case."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "model", choices=PRESETS, help="of phisnet the preset phisnet_md17, which learns overlaps"
    )
    parser.add_argument("case", choices=BATCHES)
    parser.add_argument(
        "--batch-size", type=_count, help="molecules; as many as `hambench bench model` takes"
    )
    parser.add_argument("--repeats", type=_count, default=3, help="steps of each that are timed")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:NUMBER")
    parser.add_argument("--small", action="store_true", help="the small preset of the model")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="other hyperparameters"
    )
    asked = parser.parse_args(words)
    preset, needed = PRESETS[asked.model]
    preset = f"{asked.model}_small" if asked.small else preset
    started = datetime.now(UTC)
    torch.manual_seed(0)
    try:
        found = measure(
            preset, [*needed, *asked.set], asked.case, asked.batch_size, Setting(asked.device),
            asked.repeats,
        )  # fmt: skip
    except HambenchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if asked.json:
        print(as_json(Report("oracles", started, [found]).document()))
    else:
        print(align(table(found)))


def _count(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{word} is less than 1")
    return number


if __name__ == "__main__":
    main()
