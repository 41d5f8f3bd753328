"""Weights that published networks carry and never use."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn


class UnusedWeights(nn.Module):
    """Parameters without effect or gradient, so that counts and checkpoints of a public code fit.

    A model has them under the name ``unused`` in the presets that reproduce a publication, and
    nowhere else. Nothing computes with them.

    Args:
        shapes: of each tensor, by its name in the public code.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.names = tuple(shapes)
        self.tensors = nn.ParameterList(torch.zeros(shape) for shape in shapes.values())

    def by_name(self) -> dict[str, nn.Parameter]:
        """The tensors by their names in the public code."""
        return dict(zip(self.names, self.tensors, strict=True))
