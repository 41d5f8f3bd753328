"""What is multiplied, and the interface of whatever multiplies it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from hambench.o3.frames import EdgeFrames
from hambench.o3.paths import Path, triangle_paths
from hambench.o3.products import harmonics


@dataclass(frozen=True)
class Problem:
    """A tensor product along paths, with weights of its own for every row and channel.

    Attributes:
        harmonics: whether the right factor is the spherical harmonics of edges, alike in all
            channels, which needs no gradient (``uvu`` in e3nn's words); else it is of features
            (``uuu``).
        rows, channels: R and C.
        lmax: largest degree of both factors and the result.
        dtype, device: of all tensors.
    """

    harmonics: bool
    rows: int
    channels: int
    lmax: int
    dtype: torch.dtype
    device: torch.device

    @cached_property
    def paths(self) -> list[Path]:
        """With harmonics those that keep parity, as in convolutions; else all."""
        return triangle_paths(self.lmax, natural=self.harmonics)

    @cached_property
    def coefficients(self) -> list[float]:
        """What makes a Clebsch-Gordan coefficient of a 3j symbol."""
        return [(2 * path.l3 + 1) ** 0.5 for path in self.paths]

    @cached_property
    def sizes(self) -> list[int]:
        """Components of each degree."""
        return [2 * l + 1 for l in range(self.lmax + 1)]

    def factors(self) -> Factors:
        """Random ones, always the same."""
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            # as float32 holds them, so that both types multiply the same numbers
            return torch.randn(self.rows, *shape, generator=generator).to(self.device, self.dtype)

        left = random(sum(self.sizes), self.channels)
        weights = random(len(self.paths), self.channels)
        if not self.harmonics:
            return Factors(left, random(sum(self.sizes), self.channels), weights)
        frames = EdgeFrames(random(3), self.lmax)
        return Factors(left, harmonics(frames, self.dtype), weights, frames)


@dataclass(frozen=True)
class Factors:
    """What is multiplied, degree l at l^2.

    Attributes:
        left: (R, S, C).
        right: (R, S, C) features, or (R, S, 1) harmonics.
        weights: (R, P, C).
        frames: of the edges that the harmonics belong to.
    """

    left: Tensor
    right: Tensor
    weights: Tensor
    frames: EdgeFrames | None = None


class Product(ABC):
    """A way to compute the product of a `Problem`.

    Its tensors may lie in memory as it likes them best: they are brought there before anything is
    timed.

    Args:
        problem: what is multiplied.
        factors: of it.

    Attributes:
        title: for tables.
        flat: whether a row of features, or of weights, is one line in memory.
        note: how it does it, where there are several ways.
        left, right, weights: the factors as it has them.
        leaves: of these what gradients are wanted of, by name.

    Raises:
        ConfigError: it cannot multiply them here; with the reason.
    """

    title: ClassVar[str]
    flat: ClassVar[bool] = False
    note: str = ""

    def __init__(self, problem: Problem, factors: Factors) -> None:
        self.sizes, self.channels = problem.sizes, problem.channels
        self.left, self.right = self.own(factors.left).clone(), self.own(factors.right).clone()
        weights = factors.weights.flatten(1) if self.flat else factors.weights
        self.weights = weights.clone()
        self.leaves = {"left": self.left, "weights": self.weights}
        if not problem.harmonics:
            self.leaves["right"] = self.right
        for leaf in self.leaves.values():
            leaf.requires_grad_()

    @abstractmethod
    def multiply(self) -> Tensor:
        """The product, which can be differentiated once."""

    def own(self, x: Tensor) -> Tensor:
        """Features (R, S, C) as it has them."""
        return x.flatten(1) if self.flat else x

    def features(self, x: Tensor) -> Tensor:
        """Features as it has them, (R, S, C)."""
        return self.per_path(x)

    def per_path(self, x: Tensor) -> Tensor:
        """Weights as it has them, (R, P, C)."""
        return x.unflatten(1, (-1, self.channels)) if self.flat else x
