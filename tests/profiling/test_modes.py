"""Modes are told of what runs in their context, and may give it other arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hambench.profiling.modes import FunctionMode, OperatorMode


class Doubled(OperatorMode):
    """Doubles the factors of products."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.names.append(func._schema.name)
        if func._schema.name == "aten::mm":
            args = [2 * x for x in args]
        return super().seen(func, args, kwargs)


class Named(FunctionMode):
    """Notes names."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        self.names.append(func.__name__)
        return super().seen(func, args, kwargs)


def test_operators_forward_and_backward() -> None:
    a, b = torch.full((2, 2), 3.0, requires_grad=True), torch.ones(2, 2)
    with Doubled() as mode:
        product = a @ b
        product.sum().backward()
    assert product.tolist() == [[24.0, 24.0]] * 2
    assert mode.names.count("aten::mm") == 2
    assert a.grad is not None
    assert a.grad.tolist() == [[8.0, 8.0]] * 2  # one factor is the slope, 1; both are doubled
    assert (a @ b).tolist() == [[6.0, 6.0]] * 2  # outside of it nothing is


def test_functions_called_from_python() -> None:
    x = torch.ones(2)
    with Named() as mode:
        found = torch.add(x, x, alpha=2).tolist()
    assert found == [3.0, 3.0]
    assert mode.names == ["add", "tolist"]
