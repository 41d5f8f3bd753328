"""Which molecules of a split the metrics are computed on that are too dear for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Sample(NamedTuple):
    """Molecules that a kind of metrics is computed on.

    Attributes:
        ids: their names.
        settings: how they were drawn, and what else these metrics depend on; JSON-able.
    """

    ids: frozenset[str]
    settings: Mapping[str, Any]


def drawn(ids: Iterable[str], n: int | None, seed: int) -> frozenset[str]:
    """Molecules drawn without replacement by ``numpy.random.default_rng(seed)``.

    The draw depends on the names alone, not on their order, and one of more molecules holds one of
    fewer: every model of a split is scored on the same.

    Args:
        ids: of the split, unique.
        n: how many; None, or as many as there are or more: all.
        seed: of the draw.
    """
    names = sorted(ids)
    if n is None or n >= len(names):
        return frozenset(names)
    places = np.random.default_rng(seed).permutation(len(names))[:n]
    return frozenset(names[place] for place in places.tolist())
