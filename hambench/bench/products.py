"""Tensor products of this package against those of other libraries, at the shapes models have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from hambench.bench.backends.cuequivariance import CuEquivariance
from hambench.bench.backends.e3nn import E3nn
from hambench.bench.backends.openequivariance import OpenEquivariance
from hambench.bench.backends.own import Ours, PathByPath
from hambench.bench.backends.product import Problem, Product
from hambench.bench.timing import Timing, interleaved
from hambench.errors import ConfigError, nearest
from hambench.learn.device import open_fabric
from hambench.learn.validation import matmul_precision
from hambench.profiling.contractions import Recorder
from hambench.profiling.memory import peak_and_launches, synchronize

KINDS: Final = ("features", "harmonics")
"""What features are multiplied with."""

YARDSTICKS: Final[tuple[type[Product], ...]] = (PathByPath, E3nn, CuEquivariance, OpenEquivariance)
"""What `Ours` is compared with."""

TOLERANCES: Final = {torch.float64: 1e-10, torch.float32: 1e-5}
"""How far apart equal products and gradients may be, of the largest number in each."""


@dataclass(frozen=True)
class Cost:
    """What a product costs.

    Attributes:
        forward: the product alone.
        both: with the gradients of its factors, but for harmonics, and of its weights.
        ratio: ``both`` over that of `Ours`, medians.
        calls: of operators, forward and backward, without views.
        launches: of kernels on a GPU; None on a CPU.
        peak: most bytes of tensors at a time, forward and backward, beyond the factors.
    """

    forward: Timing
    both: Timing
    ratio: float
    calls: int
    launches: int | None
    peak: int


@dataclass(frozen=True)
class ProductBench:
    """A product by one library.

    Attributes:
        kind: features times features, or times spherical harmonics of edges.
        rows, channels, lmax, paths: of the product.
        device, precision, threads: where; threads of a CPU.
        by: whose product.
        difference: largest one from ours, of the product and all gradients, each relative to its
            largest number; None where it could not be computed.
        cost: None where it could not be computed, or is not equal to ours.
        remark: why; else how, where there are several ways.
    """

    kind: str
    rows: int
    channels: int
    lmax: int
    paths: int
    device: str
    precision: str
    threads: int
    by: str
    difference: float | None = None
    cost: Cost | None = None
    remark: str = ""

    @property
    def product(self) -> str:
        """Its kind and size, for tables."""
        return f"{self.kind}, {self.rows} x {self.channels}, l <= {self.lmax}"


def measure(
    kinds: Sequence[str],
    rows: Sequence[int],
    *,
    channels: int = 128,
    lmax: int = 4,
    device: str = "auto",
    precision: Literal["float32", "float64"] = "float32",
    threads: int = 1,
    repeats: int = 10,
) -> list[ProductBench]:
    """All libraries on each kind of product and number of rows, in turns with ours.

    Args:
        kinds: of `KINDS`.
        rows: numbers of them.
        channels, lmax: of all products.
        device: as `open_fabric` takes it.
        precision: of all numbers.
        threads: of a CPU.
        repeats: timed rounds.

    Raises:
        ConfigError: no such kind; the device is not there.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise ConfigError(f"no kind '{kind}' of products.{nearest(kind, KINDS)}")
    where, number = open_fabric(device).device, getattr(torch, precision)
    problems: list[tuple[str, Problem]] = [
        (kind, Problem(kind == "harmonics", count, channels, lmax, number, where))
        for kind in kinds
        for count in rows
    ]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with matmul_precision("highest"):
            return [
                row
                for kind, problem in tqdm(problems, desc="products", unit="shape", leave=False)
                for row in compare(kind, problem, repeats)
            ]
    finally:
        torch.set_num_threads(before)


def compare(
    kind: str,
    problem: Problem,
    repeats: int,
    yardsticks: Sequence[type[Product]] = YARDSTICKS,
) -> list[ProductBench]:
    """Ours and every yardstick on one product; only equal ones are timed."""
    factors = problem.factors()
    ours = Ours(problem, factors)
    expected = _everything(ours)
    products: dict[str, Product] = {Ours.title: ours}
    differences: dict[str, float] = {Ours.title: 0.0}
    remarks: dict[str, str] = {}
    for yardstick in yardsticks:
        name = yardstick.title
        try:
            product = yardstick(problem, factors)
            differences[name] = _difference(_everything(product), expected)
        except ConfigError as error:
            remarks[name] = str(error)
            continue
        except Exception as error:  # of a library; the others go on
            remarks[name] = f"failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        allowed = TOLERANCES[problem.dtype]
        if differences[name] <= allowed:
            products[name], remarks[name] = product, product.note
        else:
            remarks[name] = f"not equal: differs by {differences[name]:.1e}, allowed {allowed:g}"
    costs = _costs(products, problem.device, repeats)
    return [
        ProductBench(
            kind, problem.rows, problem.channels, problem.lmax, len(problem.paths),
            str(problem.device), str(problem.dtype).removeprefix("torch."),
            torch.get_num_threads(), name, differences.get(name), costs.get(name),
            remarks.get(name, ""),
        )
        for name in (Ours.title, *(one.title for one in yardsticks))
    ]  # fmt: skip


def _everything(product: Product) -> dict[str, Tensor]:
    """The product, and the gradients of a sum of it with weights that are all different."""
    found = product.features(product.multiply())
    seed = torch.linspace(-1, 1, found.numel(), dtype=found.dtype, device=found.device)
    slopes = torch.autograd.grad((found * seed.view_as(found)).sum(), [*product.leaves.values()])
    return {
        "product": found.detach(),
        **{
            name: product.per_path(slope) if name == "weights" else product.features(slope)
            for name, slope in zip(product.leaves, slopes, strict=True)
        },
    }


def _difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Infinite where something is missing, of another shape, or no number."""
    if {k: x.shape for k, x in found.items()} != {k: x.shape for k, x in expected.items()}:
        return float("inf")
    apart = [float((found[name] - x).abs().max() / x.abs().max()) for name, x in expected.items()]
    return max(value if value == value else float("inf") for value in apart)


def _costs(products: dict[str, Product], device: torch.device, repeats: int) -> dict[str, Cost]:
    calls: dict[str, Callable[[int], object]] = {}
    for name, product in products.items():
        calls[f"{name} forward"] = partial(_waited, product.multiply, device)
        calls[f"{name} both"] = partial(_waited, partial(_both, product), device)
    times = interleaved(calls, repeats)
    costs = {}
    for name, product in products.items():
        with Recorder() as seen:
            _both(product)
        peak, launches = peak_and_launches(partial(_both, product), device)
        both = times[f"{name} both"]
        costs[name] = Cost(
            forward=times[f"{name} forward"],
            both=both,
            ratio=both.median / times[f"{Ours.title} both"].median,
            calls=seen.calls,
            launches=launches,
            peak=peak,
        )
    return costs


def _both(product: Product) -> None:
    """Forward and backward."""
    found = product.multiply()
    torch.autograd.grad(found, [*product.leaves.values()], torch.ones_like(found))


def _waited(run: Callable[[], object], device: torch.device, number: int) -> None:
    run()
    synchronize(device)
