"""Modes of torch that are told of every call in their context, forward and backward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode


class _Told:
    """What both kinds of modes do with a call."""

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Called in place of ``func``; a subclass adds to it, or gives it other arguments."""
        return func(*args, **kwargs)

    def _told(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.seen(func, args, kwargs or {})


class OperatorMode(_Told, TorchDispatchMode):
    """Of the operators that run, those of backward passes too."""

    __torch_dispatch__ = _Told._told


class FunctionMode(_Told, TorchFunctionMode):
    """Of functions and methods of torch that are called from Python."""

    __torch_function__ = _Told._told
