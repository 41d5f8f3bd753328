"""What waits for a GPU, in order of value: every entry as the commands it consists of.

An entry fits a call of nine minutes on one data-centre GPU and needs no other entry. With small
models and two steps the same entries try the programs on a CPU (`Scale.smoke`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Final

from hambench.registry import TASKS

ROOT: Final = Path(__file__).resolve().parents[2]
PACKED: Final = ROOT / "build" / "gpu"
"""Folder that goes to a machine without a network, see `pack`."""

MODELS: Final = ("helm", "qhnet", "phisnet", "sphnet", "schnorb")
FEW_MODELS: Final = ("helm", "sphnet")
"""Of a smoke test: a plain one, and one that needs initial guesses."""

Words = tuple[str, ...]
"""A command: ``hambench``, ``pytest``, ``first_light`` or ``oracles``, and its words; NAME=VALUE
before it is for its environment."""

_LIMIT: Final = 540  # seconds of a training, of which it trains for ...
_MINUTES: Final = 7.5  # ... at most; the rest is for starting and scoring
_PRETRAINING: Final = 4000  # steps
_ENERGIES: Final = 4000
_DIRECT: Final = 2 * _PRETRAINING + _ENERGIES  # a step on Hamiltonians takes as long as two


@dataclass(frozen=True)
class Entry:
    """One measurement, or one training.

    Attributes:
        name: what it is asked for by.
        asks: the question it answers.
        seconds: after which it is stopped. A training that is stopped has a checkpoint, from which
            the same entry goes on where its folder is still there.
        commands: done one after another; a failure does not stop those behind it.
    """

    name: str
    asks: str
    seconds: int
    commands: tuple[Words, ...]


@dataclass(frozen=True)
class Scale:
    """Where the entries run, and how large they are.

    Attributes:
        device: as ``hambench run`` takes it.
        data: folder of packed data.
        work: folder in which runs and other output of the commands are left.
        smoke: small models, few of them, and next to no steps, to try the programs.
    """

    device: str
    data: Path
    work: Path
    smoke: bool = False

    @property
    def models(self) -> Words:
        """The models that are measured."""
        return FEW_MODELS if self.smoke else MODELS

    def model(self, name: str) -> str:
        """The word for a preset, or for the small one of its family."""
        return f"model={name.partition('_')[0]}_small" if self.smoke else f"model={name}"

    def task(self, name: str) -> Words:
        """The words for a task, and for its rows where they were packed."""
        packed = self.data / str(TASKS.preset(name).content["generated"])
        return (f"task={name}", *([f"data={packed}"] if packed.is_file() else []))

    def budget(self, steps: int, minutes: float | None, prefix: str = "") -> Words:
        """The words for a budget; what is used up first ends it, at a learning rate of zero."""
        if self.smoke:
            words = ["max_steps=2", "recipe.validate_every=2", "recipe.batch_size=2"]
        else:
            words = [
                f"max_steps={steps}",
                *([] if minutes is None else [f"max_minutes={minutes:g}"]),
            ]
        return tuple(f"{prefix}{word}" for word in words)

    @property
    def graph(self) -> Words:
        """The word for steps as CUDA graphs, where there is CUDA."""
        return ("cuda_graph=true",) if self.device.startswith("cuda") else ()

    @property
    def graphs(self) -> list[Words]:
        """The words for eager steps, and those of `graph`."""
        return list(dict.fromkeys([(), self.graph]))

    @property
    def kernels(self) -> list[Words]:
        """The words for PyTorch alone, and for Triton kernels, where there is CUDA."""
        return [(), ("HAMBENCH_TRITON=1",)] if self.device.startswith("cuda") else [()]

    @property
    def precisions(self) -> tuple[str, str]:
        """Those that are compared: what is measured in TF32 on a GPU is tried in float32."""
        return "float32", "tf32" if self.device.startswith("cuda") else "float32"

    def repeats(self, count: int) -> str:
        """The word for timed repeats."""
        return f"repeats={1 if self.smoke else count}"

    def bench(self, what: str, *words: str) -> Words:
        """A command that measures."""
        return ("hambench", "bench", what, *words, f"device={self.device}", "--json")

    def train(self, task: str, model: str, *words: str, seed: int = 0) -> Words:
        """A command that trains and scores one cell, and keeps its predictions."""
        return (
            "hambench", "run", *self.task(task), self.model(model), f"seed={seed}", *words,
            f"device={self.device}", f"root={self.work / 'runs'}", "save_predictions=true",
        )  # fmt: skip


def queue(scale: Scale) -> tuple[Entry, ...]:
    """All entries, the most valuable first."""
    parts: tuple[Callable[[Scale], Iterator[Entry]], ...]
    parts = (_checks, _steps, _measurements, _water, _precision, _published, _organic, _ethanol)
    return tuple(entry for part in parts for entry in part(scale))


def _checks(scale: Scale) -> Iterator[Entry]:
    smoke = ("--smoke",) if scale.smoke else ()
    yield Entry(
        "first_light",
        "does every model compute on a GPU what it computes on a CPU, and does a step captured as "
        "a CUDA graph train as an eager one",
        420,
        (("first_light", f"--device={scale.device}", f"--out={scale.work}", *smoke),),
    )
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    marked = [str(path) for path in files if "mark.gpu" in path.read_text("utf-8")]
    yield Entry(
        "gpu_tests", "do the tests that need a GPU pass", 300,
        (("pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *marked),),
    )  # fmt: skip


def _steps(scale: Scale) -> Iterator[Entry]:
    cases = ("case=water", "batch_size=2") if scale.smoke else ("case=water,ethanol,40_atoms",)
    for name, precision in zip(("float32", "tf32"), scale.precisions, strict=True):
        words = (*cases, f"precision={precision}", scale.repeats(20))
        yield Entry(
            f"bench_{name}",
            "time, kernels and memory of an eager step of every model beside its matrix products "
            f"alone, {name}",
            300,
            tuple(scale.bench("model", scale.model(model), *words) for model in scale.models),
        )
    case = "case=water" if scale.smoke else "case=water,ethanol"
    words = (case, "batch_size=5", "precision=float32", scale.repeats(50))
    yield Entry(
        "bench_graph",
        "steps per second of batches of five, eager and as one CUDA graph (aims of HELM: 300 of "
        "water, 100 of ethanol)",
        420,
        tuple(
            scale.bench("model", scale.model(model), *words, *graph)
            for model, graph in product(scale.models, scale.graphs)
        ),
    )
    words = ("case=water" if scale.smoke else "case=40_atoms", "batch_size=10", scale.repeats(10))
    yield Entry(
        "bench_forty",
        "HELM on ten molecules of 40 atoms; half the rate of its products alone is aimed at",
        240,
        tuple(
            scale.bench("model", scale.model("helm"), *words, f"precision={precision}")
            for precision in scale.precisions
        ),
    )
    molecules = ("water",) if scale.smoke else ("water", "ethanol")
    words = ("--batch-size=5", f"--{scale.repeats(10)}", *(["--small"] if scale.smoke else []))
    yield Entry(
        "bench_oracles",
        "steps of batches of five, eager and as one CUDA graph, against the eager step of the same "
        "equations path by path; ten times as fast is aimed at",
        360,
        tuple(
            ("oracles", model, case, *words, f"--device={scale.device}", "--json")
            for model, case in product(scale.models, molecules)
            if model != "helm"  # which has none
        ),
    )
    case = "case=water" if scale.smoke else "case=water,ethanol,40_atoms"
    words = (scale.model("helm"), case, "batch_size=5", scale.repeats(20))
    yield Entry(
        "bench_triton",
        "HELM's steps with PyTorch alone and with Triton kernels, which are compiled first; their "
        "counts of bytes lack what is in kernels",
        420,
        tuple(
            (*kernels, *scale.bench("model", *words, *graph))
            for kernels, graph in product(scale.kernels, scale.graphs)
        ),
    )


def _measurements(scale: Scale) -> Iterator[Entry]:
    length = ("blocks=1", "steps=2") if scale.smoke else ("blocks=20", "steps=100")
    models = ("helm",) if scale.smoke else ("helm", "helm_small")
    yield Entry(
        "bench_harness", "what the training loop adds to a bare step", 240,
        tuple(
            scale.bench("harness", scale.model(model), "case=water", *length, *graph)
            for model, graph in product(models, scale.graphs)
        ),
    )  # fmt: skip
    axes: tuple[Words, ...] = (
        ("axis=atoms", "basis=def2-svp"),
        ("axis=atoms", "basis=def2-tzvpd"),
        ("axis=atoms", "basis=def2-tzvpd", "part=predict"),
        ("axis=basis",),
        ("axis=batch",),
    )
    sizes = ("sizes=3,4",) if scale.smoke else ()
    words = (scale.model("helm"), scale.repeats(5), *sizes)
    yield Entry(
        "bench_scaling", "time and memory of HELM over atoms, basis and batch", 540,
        tuple(scale.bench("scaling", *words, *axis) for axis in axes),
    )  # fmt: skip
    shape = ("rows=8", "channels=4", "lmax=1") if scale.smoke else ()
    yield Entry(
        "bench_products", "tensor products here beside those of e3nn and of other libraries", 240,
        (scale.bench("products", scale.repeats(20), *shape),),
    )  # fmt: skip


def _water(scale: Scale) -> Iterator[Entry]:
    words = (*scale.budget(20_000, _MINUTES), *scale.graph)
    for model in MODELS:
        yield Entry(
            f"water_{model}", f"{model} on water_mini, the 20,000 steps of the task", _LIMIT,
            (scale.train("water_mini", model, *words),),
        )  # fmt: skip


def _precision(scale: Scale) -> Iterator[Entry]:
    words = (*scale.budget(5000, None), *scale.graph)
    yield Entry(
        "water_tf32",
        "what TF32 costs in h_mae: HELM on water_mini, 5,000 steps, two seeds, float32 and TF32",
        _LIMIT,
        tuple(
            scale.train("water_mini", "helm", *words, f"precision={precision}", seed=seed)
            for seed, precision in product((0, 1), ("float32", "tf32"))
        ),
    )


def _published(scale: Scale) -> Iterator[Entry]:
    budgets = {  # steps; the plateaus of the last three end them
        "qhnet_md17": 200_000,
        "sphnet_md17": 200_000,
        "helm_paper_md17": 1_000_000,
        "phisnet_md17": 100_000_000,
        "schnorb_md17": 2_000_000,
    }
    for preset, steps in budgets.items():
        yield Entry(
            f"water_{preset}",
            f"{preset} with its published recipe on water_mini, as far towards its {steps:,} steps "
            f"as {_MINUTES:g} minutes go",
            _LIMIT,
            (scale.train("water_mini", preset, *scale.budget(steps, _MINUTES), *scale.graph),),
        )


def _organic(scale: Scale) -> Iterator[Entry]:
    words = (*scale.budget(1000, 2), "recipe.batch_size=null", "recipe.max_edges=700")
    yield Entry(
        "organic_padded",
        "HELM on organic_mini, 1,000 steps: steps per second of batches of many sizes, eager and "
        "padded to few shapes that are captured",
        300,
        tuple(
            scale.train("organic_mini", "helm", *words, *more)
            for more in ((), ("recipe.pad=true", *scale.graph))
        ),
    )
    yield Entry(
        "organic_helm",
        f"HELM on organic_mini, {_PRETRAINING:,} steps: the pretraining of the energies below",
        360,
        (scale.train("organic_mini", "helm", *scale.budget(_PRETRAINING, 3.5)),),
    )
    before = scale.budget(_PRETRAINING, 3.5, "pretraining.")
    stages = {
        "direct": scale.budget(_DIRECT, 3.5),
        "frozen": (*scale.budget(_ENERGIES, 1.75), *before),
        "finetuned": (*scale.budget(_ENERGIES, 1.75), *before),
    }
    for strategy, words in stages.items():
        parts = (("train_on=train_10",), ())
        words = (f"strategy={strategy}", *words)
        yield Entry(
            f"organic_{strategy}",
            f"energies of organic_mini, {strategy}, from 10 and from 80 molecules",
            _LIMIT,
            tuple(scale.train("organic_mini_energy", "helm", *words, *part) for part in parts),
        )


def _ethanol(scale: Scale) -> Iterator[Entry]:
    words = (*scale.budget(50_000, _MINUTES), *scale.graph)
    for model in MODELS:
        yield Entry(
            f"ethanol_{model}", f"{model} on the rows of md17_ethanol that are there", _LIMIT,
            (scale.train("md17_ethanol", model, *words),),
        )  # fmt: skip
