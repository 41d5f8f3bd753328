"""Atoms of a molecule put into groups, for models whose messages reach far by way of groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["heavy", "kmeans"]

_TIE: Final = 1e-6
"""Angstrom by which a hydrogen has to be nearer to one atom than to all others to join it."""
_ROUNDS: Final = 300
"""Rounds of Lloyd's algorithm at most (it ends of itself long before)."""


@dataclass(frozen=True)
class Grouping:
    """How atoms are grouped, and which groups an atom sees.

    Attributes:
        rule: ``heavy``: every atom but hydrogen is a group, together with the hydrogens it is the
            nearest to; a hydrogen that is equally near to two, or alone, is a group of its own.
            That turns, moves and reorders with the molecule. ``kmeans``: Lloyd's algorithm on the
            positions, which depends on the order of the atoms.
        size: atoms in a group of ``kmeans``, about; molecules of fewer atoms have one per group.
        reach: an atom sees groups whose centre, weighted by atomic numbers, is closer (Angstrom).
    """

    rule: Rule = "heavy"
    size: int = 4
    reach: float = 9.0


def group_labels(
    numbers: NDArray[np.int64], positions: NDArray[np.float64], grouping: Grouping
) -> NDArray[np.int64]:
    """(N,) the group of each atom, numbers below N with gaps.

    Args:
        numbers: (N,) atomic numbers.
        positions: (N, 3) Angstrom.
        grouping: the rule.
    """
    if grouping.rule == "kmeans":
        return _kmeans(positions, len(positions) // grouping.size)
    labels = np.arange(len(numbers))
    heavy, light = np.flatnonzero(numbers > 1), np.flatnonzero(numbers <= 1)
    if len(heavy) and len(light):
        distance = np.linalg.norm(positions[light, None] - positions[None, heavy], axis=-1)
        near = distance < distance.min(1, keepdims=True) + _TIE
        owner = heavy[near.argmax(1)]
        labels[light] = np.where(near.sum(1) == 1, owner, light)
    return labels


def group_pairs(
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
    labels: NDArray[np.int64],
    reach: float,
) -> NDArray[np.int64]:
    """(2, M) atoms, ascending, and the groups whose centres are within ``reach`` Angstrom."""
    weights = np.zeros((len(labels), len(labels)))
    weights[labels, np.arange(len(labels))] = numbers
    groups = np.unique(labels)
    weights = weights[groups]
    centres = weights @ positions / weights.sum(1, keepdims=True)
    distance = np.linalg.norm(positions[:, None] - centres[None], axis=-1)
    atom, group = np.nonzero(distance < reach)
    return np.stack([atom, groups[group]])


def _kmeans(positions: NDArray[np.float64], clusters: int) -> NDArray[np.int64]:
    """Labels of Lloyd's algorithm, begun by k-means++ with a fixed seed.

    Too few atoms for a cluster are groups of their own.
    """
    n = len(positions)
    if clusters < 2:
        return np.zeros(n, dtype=np.int64) if clusters else np.arange(n)
    draw = np.random.default_rng(0)
    centres = positions[[draw.integers(n)]]
    while len(centres) < clusters:
        nearest = _squares(positions, centres).min(1)
        chosen = draw.choice(n, p=nearest / nearest.sum())
        centres = np.concatenate([centres, positions[[chosen]]])
    labels = np.full(n, -1)
    for _ in range(_ROUNDS):
        before, labels = labels, _squares(positions, centres).argmin(1)
        if np.array_equal(labels, before):
            break
        for cluster in np.unique(labels):  # an empty one stays where it is
            centres[cluster] = positions[labels == cluster].mean(0)
    return labels


def _squares(positions: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, K) squared distances."""
    squares: NDArray[np.float64] = np.square(positions[:, None] - centres[None]).sum(-1)
    return squares
