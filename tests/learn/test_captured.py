"""Captured steps: a stand-in for CUDA graphs calls again what was captured, on the same memory."""

from __future__ import annotations

import copy
from collections import defaultdict
from contextlib import nullcontext
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from graphs_stand_in import StandIn
from shared_work import model_and_rows
from toy_model import RECIPE, Toy, molecules, rows

from hambench.cell import Cell
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.data.graph import Batch, Shape, collate
from hambench.data.loader import Loaded, Loader
from hambench.data.packed import Packed
from hambench.errors import ConfigError, RunError
from hambench.learn import Recipe, fit
from hambench.learn.captured import CapturedSteps, CudaGraphs, check_cuda_graph
from hambench.learn.checkpoint import load_checkpoint
from hambench.learn.device import open_fabric
from hambench.learn.processes import ALONE
from hambench.learn.reporters import Reporter
from hambench.learn.training import Training
from hambench.learn.weights import cast
from hambench.model import Model
from hambench.models import build_model

MODELS = ("helm", "qhnet", "phisnet", "sphnet", "schnorb")
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "amsgrad": {"name": "adam", "lr": 2e-3, "amsgrad": True},
    "adamw": {"name": "adamw", "lr": 2e-3},
    "muon": {"name": "muon", "lr": 5e-3, "adamw_lr": 1e-3, "weight_decay": 0.01},
}


def recipe(**changes: Any) -> Recipe:
    values = {"optimizer": OPTIMIZERS["adamw"], "schedule": {"name": "cosine", "warmup_steps": 3}}
    return Recipe.parse({**RECIPE, **values, "ema_decay": 0.99, "log_every": 50, **changes})


def trained(model: Model, recipe: Recipe, loaded: list[Loaded], graphs=None) -> Training:
    """Steps on these batches; as of the 9th the average weighs parameters by less than a half.

    Above that the kernels for numbers and for tensors round differently.
    """
    training = Training(model, recipe, 0, open_fabric("cpu"), ALONE, graphs)
    if training.ema is not None:
        training.ema.updates = 8
    for k, item in enumerate(loaded):
        training.step([item], k / len(loaded))
    return training


def same(one: Any, other: Any) -> bool:
    """Whether checkpoints are the same to the last bit and type."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def batches(model: Model, molecules: Any, count: int) -> list[Loaded]:
    """Of two molecules each; the last of an epoch of an odd number has one."""
    stream = Loader(molecules, model.graph, batch_size=2, seed=1, guesses=False).stream()
    try:
        return list(islice(stream, count))
    finally:
        stream.close()


def random_molecules(basis: OrbitalBasis, count: int) -> list[Molecule]:
    """Of 3 or 4 atoms, with random Hamiltonians and overlaps."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        numbers = rng.choice(basis.elements, rng.integers(3, 5))
        halves = rng.normal(size=(2, *[basis.nao(numbers)] * 2))
        hamiltonian, overlap = halves + halves.mT
        found.append(
            Molecule(numbers, rng.normal(size=(len(numbers), 3)) * 1.2, basis=basis.name,
                     hamiltonian=hamiltonian, overlap=overlap)
        )  # fmt: skip
    return found


QUICK = {"qhnet": "amsgrad", "schnorb": "muon"}  # all others are slow tests


@pytest.mark.parametrize(
    ("preset", "optimizer"),
    [
        pytest.param(f"{m}_small", o, marks=[] if QUICK.get(m) == o else [pytest.mark.slow])
        for m in MODELS
        for o in OPTIMIZERS
    ],
)
def test_replayed_steps_are_the_eager_ones(preset, optimizer):
    """Bit by bit: weights, moments, averages, losses, with rates and ramp that change."""
    model, train = model_and_rows(preset, "water_mini", ALONE)
    if preset == "sphnet_small":
        model.freeze()
    loaded = batches(model, train[:3], 8)
    assert len({item.packed.form for item in loaded}) == 2
    graphs, options = StandIn(), recipe(optimizer=OPTIMIZERS[optimizer])
    expected = trained(copy.deepcopy(model), options, loaded).content()
    found = trained(model, options, loaded, graphs).content()
    assert (graphs.eager_calls, graphs.captures, graphs.replays) == (4, 2, 4)
    assert same(found, expected)
    losses = expected["losses"][:8].tolist()
    assert losses[-1] != losses[0]


@pytest.mark.parametrize(
    "name",
    [pytest.param(m, marks=[] if m == "schnorb" else [pytest.mark.slow]) for m in MODELS],
)
def test_padded_batches_of_many_sizes_share_a_capture(name):
    """They hold molecules that differ in all their numbers; steps are the eager ones to the bit."""
    basis = OrbitalBasis.load("def2-svp", [1, 8])
    options = {"initial_guess": "none"} if name == "sphnet" else {}
    model = build_model(f"{name}_small", basis, **options)
    cast(model, torch.float64)
    some = random_molecules(basis, 16)
    model.prepare(some)
    if name == "sphnet":
        model.freeze()
    stream = Loader(some, model.graph, max_edges=80, seed=2, guesses=False, pad=True).stream()
    loaded = list(islice(stream, 32))
    stream.close()
    real = defaultdict(set)
    for item in loaded:
        real[item.packed.form].add(tuple(item.packed.batch().unpadded.tolist()))
    assert max(map(len, real.values())) > 2
    graphs = StandIn()
    expected = trained(copy.deepcopy(model), recipe(), loaded).content()
    found = trained(model, recipe(), loaded, graphs).content()
    assert graphs.replays >= 4
    assert same(found, expected)


def test_sphnet_is_captured_once_its_paths_are_fixed(caplog):
    model, train = model_and_rows("sphnet_small", "water_mini", ALONE)
    model.clock.random_steps = model.clock.adaptive_steps = 2  # the fifth step is of fixed paths
    loaded = batches(model, train[:4], 9)
    graphs = StandIn()
    expected = trained(copy.deepcopy(model), recipe(), loaded).content()
    found = trained(model, recipe(), loaded, graphs).content()
    assert (graphs.eager_calls, graphs.captures, graphs.replays) == (7, 1, 2)
    assert same(found, expected)
    assert [r.message.count("cannot be captured") for r in caplog.records] == [1]


def fitted(folder, graphs, monkeypatch, stop: int | None = None, **changes: Any) -> None:
    """`fit` of the toy model, captured by a stand-in where there is one; ``stop``: killed there."""

    class Killer(Reporter):
        def step(self, step: int, elapsed_s: float) -> None:
            if step == stop:
                raise KeyboardInterrupt

    monkeypatch.setattr("hambench.learn.loop.check_cuda_graph", lambda *_: None)
    monkeypatch.setattr("hambench.learn.loop.CudaGraphs", lambda device: graphs)
    torch.manual_seed(0)
    # of a constant average, see `trained`
    options = recipe(ema_ramp=False, log_every=5, **changes)
    with pytest.raises(KeyboardInterrupt) if stop else nullcontext():
        fit(
            Toy(), molecules(21), molecules(7, seed=1), options, folder, seed=3, device="cpu",
            progress=False, reporters=[Killer()], cuda_graph=graphs is not None,
        )  # fmt: skip


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("captured_first", [True, False])
def test_runs_go_on_with_and_without_graphs(captured_first, precision, tmp_path, monkeypatch):
    """And end in the bits of a run that never had any; dropout, too, is drawn anew in replays."""
    options = {"optimizer": OPTIMIZERS["muon"], "precision": precision}
    fitted(tmp_path / "whole", None, monkeypatch, **options)
    graphs = StandIn()
    both = (graphs, None) if captured_first else (None, graphs)
    fitted(tmp_path / "parts", both[0], monkeypatch, stop=14, **options)
    fitted(tmp_path / "parts", both[1], monkeypatch, **options)
    one, other = (load_checkpoint(tmp_path / f / "checkpoints") for f in ("whole", "parts"))
    assert one["state"]["step"] == other["state"]["step"] == 30
    assert graphs.captures == (1 if captured_first else 2)  # smaller batches end the epochs
    assert graphs.replays > 5
    for key in ("weights", "optimizers", "schedule", "ema", "random", "losses"):
        assert same(one[key], other[key]), key
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_further_shapes_than_there_is_room_for_run_without(caplog):
    """They are told of once, and trained on all the same."""
    seen: list[int] = []
    values = torch.zeros((), dtype=torch.long)

    def step(batch: Batch) -> None:
        values.add_(batch.nao.sum())
        seen.append(len(batch.nao))

    graphs = StandIn()
    steps = CapturedSteps(step, torch.device("cpu"), graphs, largest=2)
    packed = [Packed.of(collate(molecules(size), Toy().graph)) for size in (1, 2, 3, 4)]
    for _ in range(4):
        for one in packed:
            steps(one, capturable=True)
    assert seen == [1, 2, 3, 4] * 4
    assert int(values) == 4 * (1 + 2 + 3 + 4) * 24
    assert (graphs.captures, graphs.replays, graphs.eager_calls) == (2, 4, 12)
    assert [r.message.count("more than 2 shapes") for r in caplog.records] == [1]


def test_a_batch_takes_the_place_of_another_of_its_form():
    """In the memory of the first; what else a batch has is part of its form."""
    spec = Toy().graph
    one, other = (Packed.of(collate(molecules(2, seed=k), spec)) for k in (0, 1))
    batch = one.batch()
    assert one.form == other.form
    assert not torch.equal(batch.positions, other.batch().positions)
    one.memory.copy_(other.memory)
    for name, value in other.batch().to_dict().items():
        found = batch[name]
        assert torch.equal(found, value) if torch.is_tensor(value) else found == value
    padded = collate(molecules(2), spec)
    padded.unpadded = torch.tensor([1, 3, 6, 90, 200])
    assert Packed.of(padded).form != one.form
    assert Packed.of(padded).batch().real == Shape(1, 3, 6)


@pytest.mark.parametrize(
    ("error", "told", "message"),
    [
        (RuntimeError("not\nso"), RunError, r"cannot be captured .*\(not\); .*cuda_graph=false"),
        (torch.OutOfMemoryError("all is taken"), torch.OutOfMemoryError, "all is taken"),
    ],
)
def test_why_a_step_cannot_be_captured(error, told, message):
    """The end of a capture in which something went wrong is an error as well."""

    class Refusing(StandIn):
        def capture(self, call):
            try:
                raise error
            finally:
                raise RuntimeError("the capture is void")

    steps = CapturedSteps(lambda batch: None, torch.device("cpu"), Refusing())
    packed = Packed.of(collate(molecules(1), Toy().graph))
    for _ in range(2):
        steps(packed, capturable=True)
    with pytest.raises(told, match=message):
        steps(packed, capturable=True)


@pytest.mark.parametrize(
    ("device", "processes", "changes", "message"),
    [
        ("cpu", 1, {}, "needs a GPU, and training is on cpu"),
        ("cuda", 2, {}, "for one process, and 2 share a step"),
        ("cuda", 1, {"accumulate": 3}, "recipe.accumulate is 3"),
    ],
)
def test_where_there_are_no_graphs(device, processes, changes, message):
    with pytest.raises(ConfigError, match=message):
        check_cuda_graph(torch.device(device), recipe(**changes), processes)
    check_cuda_graph(torch.device("cuda"), recipe(), 1)


def test_a_run_refuses_graphs_on_a_cpu_before_it_begins(tmp_path):
    words = ["task=water_mini", "model=helm_small", "device=cpu", "cuda_graph=true"]
    with pytest.raises(ConfigError, match="cuda_graph=true needs a GPU"):
        Cell.build(compose(words))
    with pytest.raises(ConfigError, match="cuda_graph=true needs a GPU"):
        fit(
            Toy(), molecules(4), [], recipe(), tmp_path, seed=0, device="cpu", progress=False,
            cuda_graph=True,
        )  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_it_is_no_part_of_what_a_run_is():
    words = ["task=water_mini", "model=helm_small"]
    plain, graphs = compose(words), compose([*words, "cuda_graph=true"])
    assert graphs.cuda_graph
    assert plain.run_id == graphs.run_id
    energies = ["task=organic_mini_energy", "model=helm_small", "strategy=finetuned"]
    assert compose([*energies, "cuda_graph=true"]).pretraining.cuda_graph


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(
    ("preset", "optimizer", "precision", "close"),
    [
        ("helm_small", "muon", "float32", 1e-3),  # bfloat16 makes it orthogonal
        *((f"{name}_small", "amsgrad", "float64", 1e-10) for name in MODELS),
        *((f"{name}_small", "adamw", "float32", 1e-5) for name in MODELS),
    ],
)
def test_on_a_gpu_captured_steps_are_the_eager_ones(preset, optimizer, precision, close):
    """With rates that are numbers of float32, which is what fused optimisers read there.

    And with an eps above the rounding of gradients that vanish, or Adam would make it large.
    """
    model, train = model_and_rows(preset, "water_mini", ALONE)
    if preset == "sphnet_small":
        model.freeze()
    cast(model, getattr(torch, precision))
    fabric = open_fabric("cuda")
    rates = {**OPTIMIZERS[optimizer], "lr": 2**-9, "eps": 1e-4}
    schedule = {"name": "constant", "warmup_steps": 8}
    options = recipe(optimizer=rates, schedule=schedule, ema_decay=0.9375, ema_ramp=False)
    data = Loader(
        train[:3], model.graph, batch_size=2, guesses=False, device=fabric.device, workers=1
    )
    loaded = list(islice(data.stream(), 10))
    found = []
    for graphs in (None, CudaGraphs(fabric.device)):
        training = Training(copy.deepcopy(model), options, 0, fabric, ALONE, graphs)
        for k, item in enumerate(loaded):
            training.step([item], k / len(loaded))
        assert graphs is None or len(training._captured._captured) == 2
        found.append(training)
    eager, captured = found
    losses = [training.checked_losses() for training in found]
    assert losses[1] == pytest.approx(losses[0], rel=close)
    pairs = [*zip(eager.model.parameters(), captured.model.parameters(), strict=True)]
    pairs += zip(eager.ema.average, captured.ema.average, strict=True)
    for one, other in pairs:
        assert (one - other).abs().max() <= close * one.abs().max().clamp(min=1e-3)
