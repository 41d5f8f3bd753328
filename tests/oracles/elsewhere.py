"""A device that is not there, with tensors that say they are on it and have numbers all the same.

Tensors without data (device ``meta``) cannot stand for those of a GPU where a program asks for
their values. These can: `There` keeps its numbers on the CPU, and `Elsewhere` computes with them
and notes every operation of tensors of both devices, which a GPU would refuse or wait for. What a
program makes of numbers of Python it has to move: ``torch.tensor(values, device=...)`` has no data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only

DEVICE = torch.device("meta")
_MOVES = {torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default}


class There(Tensor):
    """A tensor on `DEVICE`. Its numbers are read and changed within `Elsewhere` alone."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> There:
        made: There = Tensor._make_wrapper_subclass(
            cls, numbers.shape, strides=numbers.stride(), storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype, device=DEVICE,
        )  # fmt: skip
        made.numbers = numbers
        return made

    def tolist(self) -> Any:
        """Of the numbers: torch has none of tensors of other classes."""
        return self.numbers.tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"There({self.numbers!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} of a tensor that is elsewhere, outside of Elsewhere()")


class Elsewhere(TorchDispatchMode):
    """Computes with tensors of `DEVICE`.

    Attributes:
        mixed: operations of tensors of both devices that bring nothing from one to the other.
        calls: number of operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixed: set[str] = set()
        self.calls = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """The outcome, on the device that is asked for or where the tensors are."""
        self.calls += 1
        kwargs = dict(kwargs or {})
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        there = {isinstance(tensor, There) for tensor in tensors}
        if len(there) == 2 and func not in _MOVES:
            self.mixed.add(str(func))
        asked = kwargs.get("device")
        if asked is not None:
            kwargs["device"] = torch.device("cpu")
        inner = tree_map_only(There, lambda t: t.numbers, (args, kwargs))
        out = func(*inner[0], **inner[1])
        if not (True in there if asked is None else torch.device(asked) == DEVICE):
            return out
        out = tree_map_only(Tensor, lambda t: t if isinstance(t, There) else There(t), out)
        return return_and_correct_aliasing(func, args, kwargs, out)


def moved(module: nn.Module) -> None:
    """Bring the parameters and buffers of a module to `DEVICE`, in place."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(
                    There(parameter.detach()), requires_grad=parameter.requires_grad
                )
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = There(buffer)
