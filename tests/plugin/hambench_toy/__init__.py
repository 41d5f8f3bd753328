"""A plug-in model for the tests; light, as a plug-in's ``__init__`` has to be."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "Toy":
        from hambench_toy.net import Toy

        return Toy
    if name == "Residual":
        from hambench_toy.residual import Residual

        return Residual
    raise AttributeError(name)
