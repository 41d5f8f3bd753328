"""How time and memory grow with atoms, basis and batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Literal, NamedTuple

import numpy as np
import torch
from scipy.spatial import cKDTree
from tqdm import tqdm

from hambench.bench.molecules import organic
from hambench.bench.step import Step
from hambench.bench.subject import Setting, Subject, of_case
from hambench.bench.timing import Timing
from hambench.chem.molecule import Molecule
from hambench.data.graph import Batch, Shape, collate
from hambench.errors import ConfigError
from hambench.learn.device import open_fabric
from hambench.profiling.memory import free_memory, peak_and_launches, synchronize

Axis = Literal["atoms", "basis", "batch"]
Part = Literal["step", "predict"]
Basis = Literal["def2-svp", "def2-tzvpd"]

SIZES: Final[dict[Axis, tuple[int, ...]]] = {
    "atoms": (3, 5, 9, 15, 25, 40, 60, 80, 100, 125, 150),
    "basis": (3, 9, 20, 40),
    "batch": (1, 2, 5, 10, 20, 50),
}
"""Atoms of a molecule, or molecules of a batch, if nothing else is asked for."""

_ON_THE_WAY: Final[dict[Axis, tuple[int, int]]] = {
    "atoms": (15, 25),
    "basis": (15, 25),
    "batch": (5, 10),
}
"""Sizes that are built before larger ones, to tell what these need: from there on memory is linear
in edges, below it is mostly that of parameters."""

_BASES: Final[tuple[Basis, ...]] = ("def2-svp", "def2-tzvpd")
_ATOMS: Final = 9  # of each molecule of a batch of several
_ALL_ELEMENTS: Final = 40  # atoms of the smallest molecule that has every element in its share


@dataclass(frozen=True)
class Point:
    """What one size costs.

    Attributes:
        size: along the axis: atoms of a molecule, or molecules of a batch.
        molecules, atoms, edges: of the batch.
        time: of the part that was measured.
        peak: most bytes of tensors at a time in it, beyond those that stay.
        time_per_edge, peak_per_edge: seconds (of the median) and bytes.
    """

    size: int
    molecules: int
    atoms: int
    edges: int
    time: Timing
    peak: int
    time_per_edge: float
    peak_per_edge: float


@dataclass(frozen=True)
class Skipped:
    """A size that does not fit into memory.

    Attributes:
        size, edges: as in `Point`.
        needs: bytes, on the line through the two sizes before it; None: it was tried.
        limit: bytes there are.
    """

    size: int
    edges: int
    needs: int | None
    limit: int


@dataclass(frozen=True)
class Scaling:
    """How the cost of a model grows.

    Attributes:
        model, settings: preset, and hyperparameters of other values.
        axis, part, basis: what grows, what was measured, of which orbitals.
        device, precision, threads: where and how.
        parameters: trainable ones.
        points: measured, in turns.
        skipped: not measured.
        time_exponent, peak_exponent: slopes of the logarithms of time and memory over that of the
            edges, least squares over the larger half of the points; None with fewer than two.
    """

    model: str
    settings: tuple[str, ...]
    axis: Axis
    part: Part
    basis: str
    device: str
    precision: str
    threads: int
    parameters: int
    points: tuple[Point, ...]
    skipped: tuple[Skipped, ...]
    time_exponent: float | None
    peak_exponent: float | None


def measure(
    model: str,
    axis: Axis,
    *,
    part: Part = "step",
    basis: Basis | None = None,
    sizes: Sequence[int] = (),
    memory: float | None = None,
    setting: Setting,
    repeats: int = 3,
    words: Sequence[str] = (),
) -> list[Scaling]:
    """Time and memory of random molecules of several sizes; all times are taken in turns.

    Args:
        model: preset.
        axis: what grows; of ``basis`` both bases are measured on the same molecules.
        part: a training step, or a prediction: forward pass and `Prediction.matrices`.
        basis: of the other axes; None: def2-SVP.
        sizes: atoms of a molecule, or molecules of a batch; none: `SIZES`.
        memory: GB that tensors may take in what is measured; None: what is free.
        setting: where, how.
        repeats: how often each is timed.
        words: ``model.hyperparameters.KEY=VALUE``.

    Raises:
        ConfigError, RegistryError: as `of_case`; or a basis where both are measured.
    """
    if axis == "basis" and basis is not None:
        raise ConfigError(
            f"axis=basis measures both bases, so there is nothing for basis={basis} to say; leave "
            "it out, or give axis=atoms"
        )
    limit = None if memory is None else round(memory * 1e9)
    ladder = sorted(set(sizes or SIZES[axis]))
    if axis != "batch" and ladder[0] < 2:
        raise ConfigError("sizes=1 is one atom, which has no edges; give two atoms or more")
    with setting.applied(training=part == "step"):
        ladders = [
            _Ladder(model, axis, part, one, setting, tuple(words))
            for one in (_BASES if axis == "basis" else (basis or _BASES[0],))
        ]
        for one in ladders:
            one.climb(ladder, limit)
        _time_in_turns(ladders, repeats)
        return [one.result() for one in ladders]


class _Rung(NamedTuple):
    """A size that fits: what is done, its memory, and seconds as they are taken."""

    size: int
    shape: Shape
    run: Callable[[], object]
    peak: int
    seconds: list[float]


class _Ladder:
    """All sizes of one model."""

    def __init__(
        self, model: str, axis: Axis, part: Part, basis: str, setting: Setting,
        words: tuple[str, ...],
    ) -> None:  # fmt: skip
        self.model, self.axis, self.part, self.basis = model, axis, part, basis
        self.setting, self.words = setting, words
        whole = organic(_ALL_ELEMENTS, basis)
        self.subject = of_case(model, whole, 1, setting.precision, words)
        self.build, self.device = _work(self.subject, part, setting.device)
        self.rungs: list[_Rung] = []
        self.skipped: list[Skipped] = []
        self._peaks: list[tuple[int, int]] = []  # edges and bytes of all that was built

    def climb(self, sizes: Sequence[int], limit: int | None) -> None:
        """Build the batch of every size that fits, and find its memory; that also warms up."""
        smaller = (size for size in _ON_THE_WAY[self.axis] if size < sizes[-1])
        for size in tqdm(
            sorted({*sizes, *smaller}), desc=f"memory, {self.basis}", unit="size", leave=False,
            disable=None,
        ):  # fmt: skip
            found = self._tried(size, limit)
            if size not in sizes:
                continue
            if isinstance(found, Skipped):
                self.skipped.append(found)
            else:
                self.rungs.append(found)

    def _tried(self, size: int, limit: int | None) -> _Rung | Skipped:
        """What a size takes, if it fits."""
        batch = self.axis == "batch"
        case = organic(_ATOMS if batch else size, self.basis)
        count = size if batch else 1
        edges = _edges(case.geometries(count), self.subject.model.graph.cutoff)
        most = free_memory(self.device) if limit is None else limit
        needs = self._needs(edges)
        if needs > most:
            return Skipped(size, edges, needs, most)
        try:
            shape, run = self.build(list(case.molecules(count)))
            if not self._peaks:
                run()  # what stays, such as an optimiser's state, is made here
            peak, _ = peak_and_launches(run, self.device)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            return Skipped(size, edges, None, most)
        self._peaks.append((edges, peak))
        if peak > most:
            return Skipped(size, edges, peak, most)
        return _Rung(size, shape, run, peak, [])

    def _needs(self, edges: int) -> int:
        """Bytes, on the line through the last two sizes; at least those of the last one."""
        if not self._peaks:
            return 0
        known, peak = self._peaks[-1]
        if len(self._peaks) == 1:
            return peak
        before, less = self._peaks[-2]
        return peak + max(0, round((peak - less) / (known - before) * (edges - known)))

    def result(self) -> Scaling:
        """All of it, when everything has been timed."""
        points = tuple(map(_point, self.rungs))
        edges = [point.edges for point in points]
        return Scaling(
            model=self.model,
            settings=self.words,
            axis=self.axis,
            part=self.part,
            basis=self.basis,
            device=str(self.device),
            precision=self.setting.precision,
            threads=self.setting.threads,
            parameters=self.subject.model.count_parameters(),
            points=points,
            skipped=tuple(self.skipped),
            time_exponent=exponent(edges, [point.time.median for point in points]),
            peak_exponent=exponent(edges, [point.peak for point in points]),
        )


def _edges(molecules: Iterable[Molecule], cutoff: float | None) -> int:
    """Of all molecules, without a matrix of all pairs of atoms."""
    return sum(_edges_of(one, cutoff) for one in molecules)


def _edges_of(molecule: Molecule, cutoff: float | None) -> int:
    atoms = len(molecule)
    if cutoff is None:
        return atoms * (atoms - 1)
    tree = cKDTree(molecule.positions)
    return int(tree.count_neighbors(tree, cutoff)) - atoms


def _time_in_turns(ladders: Sequence[_Ladder], repeats: int) -> None:
    for _ in tqdm(range(repeats), desc="times", unit="round", leave=False, disable=None):
        for ladder in ladders:
            for rung in ladder.rungs:
                synchronize(ladder.device)
                start = time.perf_counter()
                rung.run()
                synchronize(ladder.device)
                rung.seconds.append(time.perf_counter() - start)


def _point(rung: _Rung) -> Point:
    real, spent = rung.shape, Timing.of(rung.seconds)
    return Point(
        size=rung.size,
        molecules=real.molecules,
        atoms=real.atoms,
        edges=real.edges,
        time=spent,
        peak=rung.peak,
        time_per_edge=spent.median / real.edges,
        peak_per_edge=rung.peak / real.edges,
    )


def exponent(edges: Sequence[float], costs: Sequence[float]) -> float | None:
    """p of ``cost ~ edges^p``, least squares of the logarithms over the larger half of the points.

    Args:
        edges: ascending, positive.
        costs: positive, as many.

    Returns:
        None for fewer than two points; over all of them where half are fewer than two.
    """
    if len(edges) < 2:
        return None
    first = min(len(edges) // 2, len(edges) - 2)
    slope, _ = np.polyfit(np.log(edges[first:]), np.log(costs[first:]), 1)
    return float(slope)


_Build = Callable[[Sequence[Molecule]], tuple[Shape, Callable[[], object]]]


def _work(subject: Subject, part: Part, device: str) -> tuple[_Build, torch.device]:
    """From molecules to the size of their batch and what is done with it; and where that is."""
    if part == "step":
        step = Step(subject, device)

        def train(molecules: Sequence[Molecule]) -> tuple[Shape, Callable[[], object]]:
            loaded = replace(subject, molecules=molecules).builder(step.training, 0)()
            return loaded.batch.real, partial(step.run, loaded)

        return train, step.device
    where = open_fabric(device).device
    model = subject.model.to(where).eval()
    spec = replace(model.graph, labels=())

    @torch.no_grad()
    def matrices(batch: Batch) -> None:
        model(batch).matrices()

    def predict(molecules: Sequence[Molecule]) -> tuple[Shape, Callable[[], object]]:
        batch = collate(molecules, spec).to(where)
        return batch.real, partial(matrices, batch)

    return predict, where
