"""What is multiplied, and the interface of whatever multiplies it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from hambench.o3.paths import Path, triangle_paths
from hambench.o3.products import harmonics
from hambench.o3.so2 import EdgeFrames


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

    Attributes:
        title: for tables.
        note: how it does it, where there are several ways.
    """

    title: ClassVar[str]
    note: str = ""

    @abstractmethod
    def __init__(self, problem: Problem, factors: Factors) -> None:
        """Take the factors; ConfigError, with the reason, where it cannot multiply them here."""

    @property
    @abstractmethod
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are wanted of: ``left``, ``weights`` and, of features, ``right``."""

    @abstractmethod
    def multiply(self) -> Tensor:
        """The product, which can be differentiated once."""

    @abstractmethod
    def usual(self, x: Tensor) -> Tensor:
        """A product, or a leaf's gradient, as (R, S or P, C)."""


class InPlace(Product):
    """One that takes the factors as they are, or each row of them in one line."""

    def __init__(self, problem: Problem, factors: Factors, *, flat: bool = False) -> None:
        self.channels = problem.channels
        shaped = (x.flatten(1) if flat else x for x in (factors.left, factors.right))
        self.left, self.right = (x.clone() for x in shaped)
        self.weights = (factors.weights.flatten(1) if flat else factors.weights).clone()
        self._leaves = {"left": self.left, "weights": self.weights}
        if not problem.harmonics:
            self._leaves["right"] = self.right
        for leaf in self._leaves.values():
            leaf.requires_grad_()

    @property
    def leaves(self) -> dict[str, Tensor]:
        """See `Product`."""
        return self._leaves

    def usual(self, x: Tensor) -> Tensor:
        """See `Product`."""
        return x if x.ndim == 3 else x.unflatten(1, (-1, self.channels))
