"""What operators a piece of work calls: its products of matrices, which can run again alone, and
the bytes it moves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from hambench.profiling.modes import OperatorMode

FACTORS: Final = {
    **dict.fromkeys(("aten::mm", "aten::bmm", "aten::mv", "aten::dot"), 0),
    **dict.fromkeys(("aten::addmm", "aten::addmm_", "aten::addmv", "aten::addmv_"), 1),
    **dict.fromkeys(("aten::baddbmm", "aten::baddbmm_"), 1),
}
"""Position of the first of the two factors among the arguments."""

_KINDS: Final[dict[tuple[int, int], Callable[..., Tensor]]] = {
    (3, 3): torch.bmm,
    (2, 2): torch.mm,
    (2, 1): torch.mv,
    (1, 1): torch.dot,
}
"""By the dimensions of the factors."""


class Contraction(NamedTuple):
    """A product of two matrices, or of two batches of them: shapes and strides of the factors."""

    left: tuple[int, ...]
    left_strides: tuple[int, ...]
    right: tuple[int, ...]
    right_strides: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * prod(self.left) * self._columns

    @property
    def bytes(self) -> int:
        """Of both factors and the product, each once."""
        rows = prod(self.left[:-1])
        size = prod(self.left) + prod(self.right) + rows * self._columns
        return size * self.dtype.itemsize

    @property
    def _columns(self) -> int:
        return self.right[-1] if len(self.right) > 1 else 1

    def again(self) -> Callable[[], object]:
        """The same product of random matrices; of whatever was added to it nothing is left."""
        left = self._random(self.left, self.left_strides)
        right = self._random(self.right, self.right_strides)
        multiply = _KINDS[left.ndim, right.ndim]
        out = multiply(left, right)
        return lambda: multiply(left, right, out=out)

    def _random(self, shape: tuple[int, ...], strides: tuple[int, ...]) -> Tensor:
        size = 1 + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        memory = torch.randn(max(size, 1), dtype=self.dtype, device=self.device)
        return memory.as_strided(shape, strides)


class Recorder(OperatorMode):
    """Records what runs in its context, forward and backward.

    Attributes:
        calls: of operators, without those that only look at memory in another way.
        bytes: of all tensors that these read or write, as if nothing stayed in a cache. What is
            changed in place counts twice; memory that is only taken does not count.
        contractions: products of matrices, in order; empty ones left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.bytes = 0
        self.contractions: list[Contraction] = []

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Count, and run as usual."""
        first = FACTORS.get(func._schema.name)
        if first is not None:
            left, right = args[first : first + 2]
            if left.numel() and right.numel():
                self.contractions.append(
                    Contraction(
                        tuple(left.shape), left.stride(), tuple(right.shape), right.stride(),
                        left.dtype, left.device,
                    )
                )  # fmt: skip
        out = super().seen(func, args, kwargs)
        if not func.is_view:
            self.calls += 1
            self.bytes += _moved(func._schema, args, kwargs, out)
        return out


def _moved(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> int:
    """Bytes that an operator reads and writes."""
    if "empty" in schema.name:
        return 0
    moved = 0
    for place, argument in enumerate(schema.arguments):
        value = args[place] if place < len(args) else kwargs.get(argument.name)
        written = argument.alias_info is not None and argument.alias_info.is_write
        moved += _size(value) * (written + (not argument.is_out))
    results = out if len(schema.returns) > 1 else (out,)
    for result, value in zip(schema.returns, results, strict=False):
        if result.alias_info is None:  # else it is one of the arguments
            moved += _size(value)
    return moved


def _size(value: Any) -> int:
    """Bytes in memory of a tensor, or of those in a list; what is repeated is there once."""
    if isinstance(value, Tensor):
        pairs = zip(value.shape, value.stride(), strict=True)
        return prod(n for n, step in pairs if step or not n) * value.itemsize
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0


def replay(contractions: Sequence[Contraction]) -> Callable[[], None]:
    """A function that runs all of them again, alike ones on the same matrices."""
    calls = {one: one.again() for one in set(contractions)}
    order = [calls[one] for one in contractions]

    def run() -> None:
        for call in order:
            call()

    return run
