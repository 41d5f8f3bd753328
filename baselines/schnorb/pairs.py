"""Unordered pairs of atoms: indices, geometry, and groups whose blocks have one size.

Filters and factors of SchNOrb are symmetric in the two atoms, so they are computed once for every
pair; only directions change their sign with the order of the atoms.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from hambench.data.graph import Batch


@dataclass(frozen=True)
class Group:
    """Pairs ``start`` to ``stop`` - 1, with blocks of at most so many rows and columns."""

    start: int
    stop: int
    rows: int
    columns: int


@dataclass(frozen=True, eq=False)
class Pairs:
    """P pairs (i, j) of N atoms.

    Attributes:
        first, second: (P,) atoms i and j.
        edges: (2, P) number of the edge (i, j) and of the edge (j, i).
        share: (N,) one over the number of neighbours, 0 where there is none.
        groups: they cover all pairs.
    """

    first: Tensor
    second: Tensor
    edges: Tensor
    share: Tensor
    groups: tuple[Group, ...]


@dataclass(frozen=True, eq=False)
class Geometry:
    """What the network sees of the positions.

    Attributes:
        pairs: P pairs.
        direction: (P, 3) unit vectors from i to j.
        gaussians: (P, G) of the distance.
        envelope: (P, 1) cosine cutoff of the distance.
    """

    pairs: Pairs
    direction: Tensor
    gaussians: Tensor
    envelope: Tensor


@dataclass(frozen=True)
class Radial:
    """Gaussians of a distance, and where they end.

    ``g_k = exp(-(d - mu_k)^2 / (2 w^2))`` with centres from 0 to the cutoff and w their spacing;
    ``f = (cos(pi d / cutoff) + 1) / 2`` below the cutoff.

    Attributes:
        count: number of Gaussians.
        cutoff: Angstrom.
        rounded: centres and width are rounded to float32, as the public code keeps them whatever
            the type of the model (the effect is about 1e-7).
    """

    count: int
    cutoff: float
    rounded: bool = False

    def gaussians(self, distance: Tensor) -> Tensor:
        """(P,) Angstrom -> (P, G)."""
        centres, width = _centres(self, distance.dtype, distance.device)
        return torch.exp(-0.5 * ((distance[:, None] - centres) / width).square())

    def envelope(self, distance: Tensor) -> Tensor:
        """(P,) Angstrom -> (P,) between 1 and 0."""
        inside = 0.5 * (torch.cos(distance * (math.pi / self.cutoff)) + 1)
        return torch.where(distance < self.cutoff, inside, 0.0)

    def geometry(self, batch: Batch, pairs: Pairs) -> Geometry:
        """The geometry of the pairs of a batch."""
        vector = batch.positions[pairs.second] - batch.positions[pairs.first]
        distance = vector.norm(dim=1)
        return Geometry(
            pairs,
            vector / distance[:, None],
            self.gaussians(distance),
            self.envelope(distance)[:, None],
        )


def pairs_of(batch: Batch, orbitals: Tensor | None = None, width: int = 0) -> Pairs:
    """The pairs of a batch.

    On a CPU, pairs of equal block size stand together, the atom with more orbitals first. Elsewhere
    all are one group: asking for the sizes of others would wait for the device.

    Args:
        batch: with edges in both directions.
        orbitals: (Z,) orbitals of each element; None: no blocks are wanted.
        width: largest number of orbitals of an element.
    """
    there, back = batch.pair_index
    first, second = batch.edge_index[:, there]
    ones = torch.ones_like(batch.edge_index[0])
    neighbours = torch.zeros_like(batch.numbers).index_add(0, batch.edge_index[0], ones)
    share = neighbours.clamp(min=1).to(batch.positions.dtype).reciprocal() * (neighbours > 0)
    if orbitals is None or orbitals.device.type != "cpu" or len(there) == 0:
        whole = Group(0, len(there), width, width)
        return Pairs(first, second, batch.pair_index, share, (whole,) if len(there) else ())
    sizes = orbitals[batch.numbers]
    swap = sizes[first] < sizes[second]
    first, second = torch.where(swap, second, first), torch.where(swap, first, second)
    there, back = torch.where(swap, back, there), torch.where(swap, there, back)
    kinds, member, counts = torch.unique(
        torch.stack([sizes[first], sizes[second]], 1),
        dim=0,
        return_inverse=True,
        return_counts=True,
    )
    order = torch.argsort(member, stable=True)
    groups, start = [], 0
    for (rows, columns), count in zip(kinds.tolist(), counts.tolist(), strict=True):
        groups.append(Group(start, start + count, rows, columns))
        start += count
    edges = torch.stack([there[order], back[order]])
    return Pairs(first[order], second[order], edges, share, tuple(groups))


@lru_cache
def _centres(radial: Radial, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """(G,) centres and the width of the Gaussians."""
    kept = torch.float32 if radial.rounded else torch.float64
    centres = torch.linspace(0, radial.cutoff, radial.count, dtype=kept)
    return centres.to(device, dtype), (centres[1] - centres[0]).to(device, dtype)
