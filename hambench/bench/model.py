"""A model's training step, against its own matrix products run alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from tqdm import tqdm

from hambench.bench.molecules import batch_of
from hambench.bench.step import Measured, Parts, Step, cuda_graphs, measured
from hambench.bench.subject import Setting, Subject, of_case, of_task
from hambench.bench.timing import Timing
from hambench.data.loader import CACHE_BYTES, Loaded
from hambench.learn.captured import STEPS_TO_CAPTURE
from hambench.profiling.contractions import replay
from hambench.profiling.memory import peak_and_launches, synchronize
from hambench.profiling.waits import count_waits


@dataclass(frozen=True)
class StepBench(Measured):
    """What a training step on a batch costs.

    Attributes:
        forward: with the loss.
        backward: the gradients.
        update: clipping, optimisers, averaged weights.
        cuda_graph: whether ``step``, ``launches`` and ``waits`` are of a step that is replayed as
            a CUDA graph; all else is of one that runs as it is.
        step: all three of one step.
        data: building the batch from its molecules, and bringing it to the device; in training
            this goes on beside the steps.
        data_kept: the same where the graphs of its molecules are kept from an earlier epoch.
        matrix_products: those of forward and backward, on random matrices of the same shapes; the
            yardstick, in turns with the step.
        products: their number.
        flops: their multiplications and additions.
        product_bytes: of their factors and outcomes.
        bytes: that all operators of the step read and write, see `Recorder`.
        calls: of operators of the step, without views.
        launches: of kernels on a GPU; None on a CPU.
        waits: of the host for a GPU, in a step; on a CPU those that there would be.
        peak: most bytes of tensors at a time in a step, beyond those that stay: parameters,
            optimiser, batch.
        ratio: ``step`` over ``matrix_products``, medians.
        update_share: ``update`` over ``step``, medians.
        molecules_per_s, edges_per_s: of the median step.
    """

    forward: Timing
    backward: Timing
    update: Timing
    cuda_graph: bool
    step: Timing
    data: Timing
    data_kept: Timing
    matrix_products: Timing
    products: int
    flops: int
    product_bytes: int
    bytes: int
    calls: int
    launches: int | None
    waits: int
    peak: int
    ratio: float
    update_share: float
    molecules_per_s: float
    edges_per_s: float


def measure(
    model: str,
    *,
    cases: Sequence[str] = (),
    task: str | None = None,
    batch_size: int | None = None,
    setting: Setting,
    repeats: int = 10,
    words: Sequence[str] = (),
    cuda_graph: bool = False,
) -> list[StepBench]:
    """The training step of a model, on one batch of each case, or of a task.

    Args:
        model: preset.
        cases: of random molecules, keys of `BATCHES`.
        task: whose training molecules are taken.
        batch_size: molecules; None: as `BATCHES` or the recipe has it.
        setting: where, how.
        repeats: timed steps.
        words: see `of_case` and `of_task`.
        cuda_graph: whether the whole step is captured, as `fit` does it.

    Raises:
        ConfigError, RegistryError, DataError: see `of_case` and `of_task`; no such case; no CUDA
            graphs on the device.
    """
    batches = [batch_of(name, batch_size) for name in cases]

    def subjects() -> Iterator[Subject]:
        for case, size in batches:
            yield of_case(model, case, size, setting.precision, words)
        if task is not None:
            yield of_task(model, task, batch_size, setting.precision, words)

    total = len(batches) + (task is not None)
    with setting.applied():
        return [
            _measure(subject, model, setting, repeats, tuple(words), cuda_graph)
            for subject in tqdm(
                subjects(), desc="steps", unit="case", total=total, leave=False, disable=None
            )
        ]


def _measure(
    subject: Subject,
    model: str,
    setting: Setting,
    repeats: int,
    words: tuple[str, ...],
    cuda_graph: bool,
) -> StepBench:
    step = Step(subject, setting.device)
    anew, kept = (subject.builder(step.training, room) for room in (0, CACHE_BYTES))
    loaded = anew()
    step.run(loaded)
    seen, products = step.recorded(loaded)
    run = partial(step.run, loaded)
    peak, launches = peak_and_launches(run, step.device)
    if cuda_graph:
        graphs = cuda_graphs(step.device, subject.recipe)
        run = partial(Step(subject, setting.device, graphs).run, loaded)
        for _ in range(STEPS_TO_CAPTURE):
            run()
        _, launches = peak_and_launches(run, step.device)
    waits = count_waits(run, step.device)
    beside = {
        "matrix_products": replay(products),
        "data": lambda: anew().batch,
        "data_kept": lambda: kept().batch,
    }
    times = _timed(step, loaded, run, beside, repeats)
    median, real = times["step"].median, loaded.batch.real
    return StepBench(
        **measured(model, words, subject, setting, loaded) | times,
        cuda_graph=cuda_graph,
        products=len(products),
        flops=sum(one.flops for one in products),
        product_bytes=sum(one.bytes for one in products),
        bytes=seen.bytes,
        calls=seen.calls,
        launches=launches,
        waits=waits,
        peak=peak,
        ratio=median / times["matrix_products"].median,
        update_share=times["update"].median / median,
        molecules_per_s=real.molecules / median,
        edges_per_s=real.edges / median,
    )


def _timed(
    step: Step,
    loaded: Loaded,
    run: Callable[[], object],
    beside: Mapping[str, Callable[[], object]],
    repeats: int,
) -> dict[str, Timing]:
    """Times of the step, its parts and what is measured beside it, in turns.

    After an untimed round. On a GPU the whole step, ``run``, is one of its own, as parts that are
    waited for are slower.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ("step", *Parts._fields, *beside)}
    for _ in range(1 + repeats):
        parts = step.in_parts(loaded)
        for name, part in parts._asdict().items():
            seconds[name].append(part)
        on_gpu = step.device.type == "cuda"
        seconds["step"].append(_seconds(run, step) if on_gpu else sum(parts))
        for name, call in beside.items():
            seconds[name].append(_seconds(call, step))
    return {name: Timing.of(times[1:]) for name, times in seconds.items()}


def _seconds(call: Callable[[], object], step: Step) -> float:
    synchronize(step.device)
    start = time.perf_counter()
    call()
    synchronize(step.device)
    return time.perf_counter() - start
