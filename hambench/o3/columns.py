"""Features of a few rows at a time, component by component, in memory that is used again.

Products of features are many cheap operations on one component of all rows and channels. Torch
does them at the speed of the memory the components lie in: in the processor's cache, if so few rows
are worked on at a time that everything fits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor

CACHE: Final = 1_200_000
"""Bytes of the largest intermediate of a block of rows on a CPU: half of its cache, about."""

MEMORY: Final = 2**28
"""The same on other devices, where memory alone limits it."""


class Columns:
    """(S, rows * C): the components of features (rows, S, C) of a block of rows.

    Attributes:
        flat: all of them.
        lines: each.
    """

    def __init__(self, like: Tensor, size: int, rows: int) -> None:
        """Memory for ``size`` components of ``rows`` rows, C channels and type as of ``like``."""
        self._folded = like.new_empty(size, rows, like.shape[-1])
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


def block_rows(x: Tensor, size: int) -> int:
    """Rows (R, ...) of a block, when the largest intermediate has ``size`` components."""
    limit = CACHE if x.device.type == "cpu" else MEMORY
    most = max(limit // (size * x.shape[-1] * x.element_size()), 1)
    blocks = max(-(-len(x) // most), 1)
    return max(-(-len(x) // blocks), 1)


def blocks(x: Tensor, rows: int) -> Iterator[slice]:
    """All rows of (R, ...), ``rows`` at a time."""
    for start in range(0, len(x), rows):
        yield slice(start, start + rows)


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
