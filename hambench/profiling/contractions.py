"""The dense matrix products of a piece of work: recorded while it runs, and run again alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

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
        columns = self.right[-1] if len(self.right) > 1 else 1
        return 2 * prod(self.left) * columns

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


class Recorder(TorchDispatchMode):
    """Records what runs in its context, forward and backward.

    Attributes:
        calls: of operators, without those that only look at memory in another way.
        contractions: products of matrices, in order; empty ones left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.contractions: list[Contraction] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Count, and run as usual."""
        self.calls += not func.is_view
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
        return func(*args, **(kwargs or {}))


def replay(contractions: Sequence[Contraction]) -> Callable[[], None]:
    """A function that runs all of them again, alike ones on the same matrices."""
    calls = {one: one.again() for one in set(contractions)}
    order = [calls[one] for one in contractions]

    def run() -> None:
        for call in order:
            call()

    return run
