"""SPHNet's first stage: scalars and vectors of atoms, over short edges and over groups of atoms.

Short layers are those of ViSNet (arXiv 2210.16518), long ones pass messages from groups of atoms to
atoms (LSR-MP, arXiv 2304.13542), both as in SPHNet (arXiv 2502.01171) and its public code. Only the
scalars leave this stage. Scalars are (N, C), vectors (N, 3, C).

What the public code computes without effect is left out: maps of the vectors of the first short
layer, which are zero; the edges' update in the last short layer; the vectors of the last long one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.data.graph import Batch
from hambench.o3.scalars import perceptron

UnitVectors = Literal["exact", "published"]
Lengths = Literal["fading", "published"]

ELEMENTS: Final = 100
GAUSSIANS: Final = 50
_OFFSET: Final = 1e-6
"""Added by the public code to every component of a vector before its norm, and to the norm."""
_SHORTEST: Final = 1e-3
"""Angstrom; vectors below it fade: an atom at the centre of its group has no direction to it."""
_SPREAD: Final = 1e-2
"""Spread of the lengths of an atom's vectors below which they fade, see `rescaled`."""


@dataclass(frozen=True)
class Edges:
    """Directed edges as a layer sees them.

    Attributes:
        source, target: (E,) where messages come from, and where they go.
        unit: (E, 3) unit vectors, from target to source over short edges, from group to atom.
        basis: (E, 50) radial basis.
        envelope: (E, 1) cosine cutoff.
    """

    source: Tensor
    target: Tensor
    unit: Tensor
    basis: Tensor
    envelope: Tensor


class ExpNormalBasis(nn.Module):
    """``f(r) exp(-b_k (exp(-5 r / c) - m_k)^2)`` with trained m, b and the cosine cutoff f.

    Args:
        cutoff: c, in Angstrom.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        first = math.exp(-cutoff)
        self.means = nn.Parameter(torch.linspace(first, 1, GAUSSIANS))
        width = (2 / GAUSSIANS * (1 - first)) ** -2
        self.betas = nn.Parameter(torch.full((GAUSSIANS,), width))

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Angstrom -> (E, 50)."""
        decay = (-5 / self.cutoff * distance).exp()[:, None]
        gaussians = (-self.betas * (decay - self.means).square()).exp()
        return cosine_cutoff(distance, self.cutoff)[:, None] * gaussians


def cosine_cutoff(distance: Tensor, cutoff: float) -> Tensor:
    """``(cos(pi r / c) + 1) / 2`` below the cutoff c, zero beyond."""
    value = 0.5 * ((math.pi / cutoff * distance).cos() + 1)
    return torch.where(distance < cutoff, value, 0.0)


class ShortLayer(nn.Module):
    """Attention over short edges, without a softmax.

    Args:
        channels: C.
        heads: of the attention.
        lengths: see `rescaled`.
        vectors: the vectors that come in are not zero.
        edges: update the edge features.
    """

    def __init__(
        self, channels: int, heads: int, lengths: Lengths, *, vectors: bool, edges: bool
    ) -> None:
        super().__init__()
        self.heads, self.lengths = heads, lengths
        self.norm = nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.key_edge = nn.Linear(channels, channels)
        self.value_edge = nn.Linear(channels, channels)
        self.split = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, 3 * channels)
        self.vector = nn.Linear(channels, 3 * channels, bias=False) if vectors else None
        self.edge = self.source = self.target = None
        if vectors and edges:
            self.edge = nn.Linear(channels, channels)
            self.source = nn.Linear(channels, channels, bias=False)
            self.target = nn.Linear(channels, channels, bias=False)

    def forward(
        self, s: Tensor, v: Tensor, f: Tensor, edges: Edges
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """What is added to scalars (N, C), vectors (N, 3, C) and edge features (E, C)."""
        x, v = self.norm(s), rescaled(v, self.lengths)
        i, j = edges.target, edges.source
        keys = functional.silu(self.key_edge(f))
        values = functional.silu(self.value_edge(f))
        scores = self.query(x).index_select(0, i) * self.key(x).index_select(0, j) * keys
        weights = functional.silu(by_head(scores, self.heads).sum(-1)) * edges.envelope
        messages = self.value(x).index_select(0, j) * values
        messages = (by_head(messages, self.heads) * weights[..., None]).flatten(1)
        along, outward = functional.silu(self.split(messages)).chunk(2, dim=-1)
        moved = edges.unit[..., None] * outward[:, None]
        if self.vector is not None:
            moved = moved + v.index_select(0, j) * along[:, None]
        sums = torch.zeros_like(s).index_add(0, i, messages)
        vectors = torch.zeros_like(v).index_add(0, i, moved)
        o1, o2, o3 = self.out(sums).chunk(3, dim=-1)
        if self.vector is None:
            return o3, vectors, None
        v1, v2, v3 = self.vector(v).chunk(3, dim=-1)
        scalars = (v1 * v2).sum(1) * o2 + o3
        vectors = vectors + v3 * o1[:, None]
        if self.edge is None or self.source is None or self.target is None:
            return scalars, vectors, None
        ends = self.target(v).index_select(0, i), self.source(v).index_select(0, j)
        across = rejected(ends[0], edges.unit) * rejected(ends[1], edges.unit)
        return scalars, vectors, functional.silu(self.edge(f)) * across.sum(1)


class LongLayer(nn.Module):
    """Messages from groups of atoms to atoms.

    Args:
        channels: C.
        heads: of the attention.
        lengths: see `rescaled`.
        vectors: update the vectors.
    """

    def __init__(self, channels: int, heads: int, lengths: Lengths, *, vectors: bool) -> None:
        super().__init__()
        self.heads, self.lengths = heads, lengths
        self.norm, self.group_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        self.left, self.right, self.scale, self.shift = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.direction = self.vector = self.gate = self.carry = None
        if vectors:
            self.direction = perceptron(channels, channels, channels)
            self.vector = perceptron(channels, channels, channels)
            self.gate = nn.Linear(channels, channels, bias=False)
            self.carry = nn.Linear(channels, channels, bias=False)

    def forward(
        self, s: Tensor, v: Tensor, g: Tensor, groups: Groups, edges: Edges
    ) -> tuple[Tensor, Tensor | None]:
        """What is added to scalars (N, C) and vectors (N, 3, C); ``g`` (M, C) edge features."""
        i, j = edges.target, edges.source
        x, v_own = self.norm(s), rescaled(v, self.lengths)
        group = self.group_norm(groups.mean(s))
        scores = self.query(x).index_select(0, i) * self.key(group).index_select(0, j) * g
        scores = by_head(scores, self.heads).sum(-1) * (s.shape[-1] / self.heads) ** -0.5
        weights = functional.silu(scores)
        messages = by_head(self.value(group).index_select(0, j), self.heads) * weights[..., None]
        messages = messages.flatten(1)
        sums = torch.zeros_like(s).index_add(0, i, messages)
        products = (self.left(v_own) * self.right(v_own)).sum(1)
        scalars = products * self.scale(sums) + self.shift(sums)
        if self.direction is None or self.vector is None:
            return scalars, None
        assert self.gate is not None and self.carry is not None
        v_group = rescaled(groups.mean(v), self.lengths)
        moved = self.vector(messages)[:, None] * v_group.index_select(0, j)
        moved = moved - self.direction(messages)[:, None] * edges.unit[..., None]
        vectors = torch.zeros_like(v).index_add(0, i, moved)
        return scalars, vectors + self.gate(sums)[:, None] * self.carry(v_own)


class Groups:
    """Means over the groups of a batch; there are as many rows as atoms, some of no group."""

    def __init__(self, index: Tensor, dtype: torch.dtype) -> None:
        """``index`` (N,): the group of each atom."""
        self.index = index
        ones = torch.ones(len(index), dtype=dtype, device=index.device)
        self.shares = torch.zeros_like(ones).index_add(0, index, ones).clamp(min=1).reciprocal()

    def mean(self, x: Tensor) -> Tensor:
        """(N, ...) of atoms -> (N, ...) of groups."""
        sums = torch.zeros_like(x).index_add(0, self.index, x)
        return sums * self.shares.view(-1, *[1] * (x.ndim - 1))


class VectorialStage(nn.Module):
    """From elements and positions to scalars of atoms.

    Args:
        channels: C.
        short_layers, long_layers: how many of each, at least one.
        heads: of the attentions.
        short_cutoff, long_cutoff: of the radial bases, Angstrom; the edges are the batch's.
        unit_vectors: ``published`` adds 1e-6 Angstrom to components and norms of vectors.
        lengths: see `rescaled`.
    """

    def __init__(
        self,
        channels: int,
        short_layers: int,
        long_layers: int,
        heads: int,
        short_cutoff: float,
        long_cutoff: float,
        unit_vectors: UnitVectors,
        lengths: Lengths,
    ) -> None:
        super().__init__()
        self.unit_vectors = unit_vectors
        self.element = nn.Embedding(ELEMENTS, channels)
        self.neighbour = nn.Embedding(ELEMENTS, channels)
        self.near_basis, self.group_basis = (
            ExpNormalBasis(short_cutoff),
            ExpNormalBasis(long_cutoff),
        )
        self.neighbour_filter = nn.Linear(GAUSSIANS, channels)
        self.combine = nn.Linear(2 * channels, channels)
        self.edge = nn.Linear(GAUSSIANS, channels)
        self.group_edge = nn.Linear(GAUSSIANS, channels)
        self.scalars = nn.Linear(channels, channels)
        last = short_layers - 1
        self.short = nn.ModuleList(
            ShortLayer(channels, heads, lengths, vectors=k > 0, edges=k < last)
            for k in range(short_layers)
        )
        last = long_layers - 1
        self.long = nn.ModuleList(
            LongLayer(channels, heads, lengths, vectors=k < last) for k in range(long_layers)
        )
        self.short_norm, self.long_norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.output = nn.Linear(2 * channels, channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, batch: Batch) -> Tensor:
        """(N, C) scalars of the atoms."""
        near = self.near(batch)
        s, f = self.initial(batch, near)
        v = s.new_zeros(len(s), 3, s.shape[-1])
        for short in self.short:
            ds, dv, df = short(s, v, f, near)
            s, v, f = s + ds, v + dv, f if df is None else f + df
        far_s, far_v = s, v
        far, groups = self.far(batch), Groups(batch.group_index, s.dtype)
        g = self.group_edge(far.basis)
        for long in self.long:
            ds, dv = long(far_s, far_v, g, groups, far)
            far_s, far_v = far_s + ds, far_v if dv is None else far_v + dv
        return self.output(torch.cat([self.short_norm(s), self.long_norm(far_s)], dim=-1))

    def near(self, batch: Batch) -> Edges:
        """The batch's short edges."""
        source, target = batch.edge_index[:, batch.near_index]
        vectors = batch.positions[source] - batch.positions[target]
        distance = vectors.norm(dim=-1)
        unit = vectors / distance[:, None]
        if self.unit_vectors == "published":
            unit = vectors / offset_norm(vectors)[:, None]
        basis = self.near_basis(distance)
        envelope = cosine_cutoff(distance, self.near_basis.cutoff)[:, None]
        return Edges(source, target, unit, basis, envelope)

    def far(self, batch: Batch) -> Edges:
        """Edges from groups to the atoms that see them."""
        atom, group = batch.group_pairs
        charges = batch.numbers.to(batch.positions.dtype)[:, None]
        groups = Groups(batch.group_index, charges.dtype)
        centres = groups.mean(charges * batch.positions) / groups.mean(charges).clamp(min=1e-6)
        vectors = batch.positions[atom] - centres[group]
        if self.unit_vectors == "published":
            distance = offset_norm(vectors)
            unit = vectors / distance[:, None]
        else:
            distance = safe_norm(vectors, -1)
            unit = vectors / distance.clamp(min=_SHORTEST)[:, None]
        return Edges(group, atom, unit, self.group_basis(distance), torch.ones_like(unit[:, :1]))

    def initial(self, batch: Batch, near: Edges) -> tuple[Tensor, Tensor]:
        """Scalars (N, C) of atoms that know their neighbours, and edge features (E, C)."""
        embedded = self.embedded(batch, near)
        return self.scalars(embedded), self.edge(near.basis)

    def embedded(self, batch: Batch, near: Edges) -> Tensor:
        """(N, C) embeddings of the elements and of the neighbours' elements."""
        own = self.element(batch.numbers)
        filters = self.neighbour_filter(near.basis) * near.envelope
        messages = self.neighbour(batch.numbers).index_select(0, near.source) * filters
        around = torch.zeros_like(own).index_add(0, near.target, messages)
        return self.combine(torch.cat([own, around], dim=-1))


def by_head(x: Tensor, heads: int) -> Tensor:
    """(E, C) -> (E, heads, C / heads)."""
    return x.unflatten(-1, (heads, -1))


def safe_norm(x: Tensor, dim: int) -> Tensor:
    """Norms whose gradient at zero is zero."""
    squares = x.square().sum(dim)
    some = squares > 0
    return torch.where(some, squares, 1.0).sqrt() * some


def offset_norm(vectors: Tensor) -> Tensor:
    """(E,) norms as the public code takes them, which depend a little on the axes."""
    return (vectors + _OFFSET).square().sum(-1).sqrt() + _OFFSET


def rescaled(v: Tensor, how: Lengths) -> Tensor:
    """Vectors (N, 3, C) with lengths moved to 0..1, smallest to largest, atom by atom (ViSNet).

    ``published``: divided by the spread of the lengths, however small it is: where symmetry takes
    all vectors of an atom away (the carbon of methane), rounding is blown up to vectors of length
    one, of no symmetry. ``fading``: by ``sqrt(spread^2 + 0.01^2)``, so that they vanish there.
    """
    lengths = safe_norm(v, 1)
    low, high = lengths.amin(-1, keepdim=True), lengths.amax(-1, keepdim=True)
    spread = high - low
    if how == "fading":
        scaled = (lengths - low) * (spread.square() + _SPREAD**2).rsqrt()
    else:
        scaled = (lengths - low) / torch.where(spread > 0, spread, 1.0)
    return v * (scaled / lengths.clamp(min=1e-12))[:, None]


def rejected(v: Tensor, unit: Tensor) -> Tensor:
    """The part of (E, 3, C) vectors across the unit vectors (E, 3), either sign of them."""
    unit = unit[..., None]
    return v - (v * unit).sum(1, keepdim=True) * unit
