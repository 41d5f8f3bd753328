"""Features of a few rows at a time, component by component, in memory that is used again.

Products of features are many cheap operations on one component of all rows and channels. Torch
does them at the speed of the memory the components lie in: in the processor's cache, if so few rows
are worked on at a time that everything fits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

CACHE: Final = 1_200_000
"""Bytes of the largest intermediate of a block of rows on a CPU: half of its cache, about."""

MEMORY: Final = 2**28
"""The same on other devices, where memory alone limits it."""

_STEP: Final = 4
_MOST: Final = 8

K = TypeVar("K", bound=Hashable)
W = TypeVar("W")


class Block(NamedTuple):
    """How many rows are worked on at a time, and what they are: channels, type, device."""

    rows: int
    channels: int
    dtype: torch.dtype
    device: torch.device


class Columns:
    """(S, rows * C): the components of features (rows, S, C) of a block of rows.

    Attributes:
        flat: all of them.
        lines: each.
    """

    def __init__(self, block: Block, size: int) -> None:
        """Memory for ``size`` components; what is in it before a first `load` is undefined."""
        rows, channels, dtype, device = block
        self._folded = torch.empty(size, rows, channels, dtype=dtype, device=device)
        self.flat = self._folded.flatten(1)
        self.lines = self.flat.unbind(0)

    def load(self, x: Tensor, scale: Tensor | None = None) -> None:
        """Take (at most rows, >= S, C) features, times factors (S, 1, 1)."""
        x = x[:, : len(self.flat)].transpose(0, 1)
        here = self._folded[:, : x.shape[1]]
        if scale is None:
            here.copy_(x)
        else:
            torch.mul(x, scale, out=here)

    def store(self, x: Tensor, scale: Tensor | None = None) -> None:
        """Write to (at most rows, >= S, C) features, times factors; further components are zero."""
        size = len(self.flat)
        here = self._folded[:, : len(x)]
        x[:, :size].copy_((here if scale is None else here.mul_(scale)).transpose(0, 1))
        x[:, size:].zero_()


def block_of(x: Tensor, size: int) -> Block:
    """A block of the rows of (R, ..., C), when the largest intermediate has ``size`` components."""
    limit = CACHE if x.device.type == "cpu" else MEMORY
    most = max(limit // (size * x.shape[-1] * x.element_size()), 1)
    rows = _shares(len(x), _shares(len(x), most))
    if rows > 2 * _STEP:
        rows = _STEP * _shares(rows, _STEP)  # few sizes, so that one block serves many batches
    return Block(rows, x.shape[-1], x.dtype, x.device)


def _shares(count: int, size: int) -> int:
    return max(-(-count // size), 1)


def blocks(x: Tensor, block: Block) -> Iterator[slice]:
    """All rows of (R, ...), some at a time; one block without any where there are none."""
    for start in range(0, max(len(x), 1), block.rows):
        yield slice(start, start + block.rows)


class Kept(threading.local, Generic[K, W]):
    """What was made for a block of rows, kept for the next: a few, and for each thread its own."""

    def __init__(self, make: Callable[[K, Block], W]) -> None:
        self._make, self._kept = make, lru_cache(maxsize=_MOST)(make)

    def get(self, plan: K, block: Block) -> W:
        """On a CPU alone, where blocks are small and making them costs as much as using them."""
        return (self._kept if block.device.type == "cpu" else self._make)(plan, block)


def wide(device: torch.device) -> bool:
    """Whether a call costs the device more than its arithmetic, so that few large ones are best."""
    return device.type != "cpu"


def check_components(x: Tensor, size: int, factor: str) -> None:
    """Refuse features (R, S, C) of fewer components than paths need.

    Raises:
        ValueError: S is less than ``size``.
    """
    if x.shape[1] < size:
        raise ValueError(
            f"the {factor} factor has {x.shape[1]} components; these paths need {size}"
        )
