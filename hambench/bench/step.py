"""The training step of `hambench.learn`, done again and again on batches that are there."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from torch import Tensor

from hambench.bench.subject import Setting, Subject
from hambench.data.loader import Loaded
from hambench.learn.captured import CudaGraphs, Graphs, check_cuda_graph
from hambench.learn.device import open_fabric
from hambench.learn.recipe import Recipe
from hambench.learn.training import Training
from hambench.profiling.contractions import Contraction, Recorder
from hambench.profiling.memory import synchronize

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Measured:
    """Of which step something was measured.

    Attributes:
        model, settings: preset, and what was asked for beside it.
        case, device, precision: of what, where.
        threads: of a CPU.
        molecules, atoms, edges: of the batch.
        parameters: trainable ones.
    """

    model: str
    settings: tuple[str, ...]
    case: str
    device: str
    precision: str
    threads: int
    molecules: int
    atoms: int
    edges: int
    parameters: int


def measured(
    model: str, settings: Sequence[str], subject: Subject, setting: Setting, loaded: Loaded
) -> dict[str, Any]:
    """The fields of `Measured`, for a subclass to add its own."""
    found = Measured(
        model=model,
        settings=tuple(settings),
        case=subject.name,
        device=str(loaded.device),
        precision=setting.precision,
        threads=setting.threads,
        **loaded.batch.real._asdict(),
        parameters=subject.model.count_parameters(),
    )
    return vars(found)


class Parts(NamedTuple):
    """Seconds of the parts of a step.

    Attributes:
        forward: with the loss.
        backward: the gradients.
        update: clipping, optimisers, averaged weights.
    """

    forward: float
    backward: float
    update: float


class Step:
    """Steps of one model.

    The learning rate is zero: after some steps on random labels there may be no finite number left.

    Args:
        subject: the model, its recipe.
        device: as `open_fabric` takes it.
        graphs: what captures steps, see `cuda_graphs`; they have no parts then.
    """

    def __init__(self, subject: Subject, device: str, graphs: Graphs | None = None) -> None:
        self._fabric = _Watched(open_fabric(device))
        self.device: torch.device = self._fabric.device
        self.training = Training(
            subject.model, subject.recipe, seed=0, fabric=cast("Fabric", self._fabric),
            graphs=graphs,
        )  # fmt: skip
        for group in self.training.groups:
            group["initial_lr"] = 0.0

    def run(self, loaded: Loaded) -> None:
        """One step; a GPU is not waited for."""
        self.training.step([loaded], progress=0.0)
        self.training.state.logged = self.training.state.step  # its losses are not kept

    def in_parts(self, loaded: Loaded) -> Parts:
        """One step whose parts are waited for."""
        marks: list[float] = []

        def mark() -> None:
            synchronize(self.device)
            marks.append(time.perf_counter())

        mark()
        self._watched(mark, loaded)
        mark()
        began, differentiated, gradients, ended = marks
        return Parts(differentiated - began, gradients - differentiated, ended - gradients)

    def recorded(self, loaded: Loaded) -> tuple[Recorder, list[Contraction]]:
        """What one step calls, and its matrix products without those of the optimiser."""
        counts: list[int] = []
        with Recorder() as seen:
            self._watched(lambda: counts.append(len(seen.contractions)), loaded)
        return seen, seen.contractions[: counts[-1]]

    def _watched(self, note: Callable[[], object], loaded: Loaded) -> None:
        self._fabric.note = note
        try:
            self.run(loaded)
        finally:
            self._fabric.note = _nothing


def cuda_graphs(device: torch.device, recipe: Recipe) -> CudaGraphs:
    """What captures steps, as `hambench.learn.fit` does it.

    Raises:
        ConfigError: the device has no CUDA graphs, or the recipe's steps are of several batches.
    """
    check_cuda_graph(device, recipe, processes=1)
    return CudaGraphs(device)


class _Watched:
    """A `Fabric` that says when backward passes begin and end."""

    def __init__(self, fabric: Fabric) -> None:
        self._fabric = fabric
        self.note: Callable[[], object] = _nothing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fabric, name)

    def backward(self, tensor: Tensor) -> None:
        """The gradients, between two notes."""
        self.note()
        self._fabric.backward(tensor)
        self.note()


def _nothing() -> None:
    """Said when nobody listens."""
