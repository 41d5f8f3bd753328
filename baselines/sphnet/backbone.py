"""SPHNet's backbone: scalars of the first stage, then two convolutions with spherical harmonics.

Features are (N, (L+1)^2, C) and keep the parity of the harmonics (arXiv 2502.01171 and its public
code; names of ours).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hambench.baselines.sphnet.sparsity import (
    GateForm,
    GateScope,
    Kept,
    PairGate,
    path_coefficients,
)
from hambench.baselines.sphnet.vectorial import VectorialStage
from hambench.data.counts import Counts
from hambench.data.graph import Batch
from hambench.o3.frames import EdgeFrames
from hambench.o3.layers import degree_rows, per_row
from hambench.o3.products import HarmonicProduct, triangle_paths
from hambench.o3.radial import BernsteinBasis
from hambench.o3.scalars import DegreeLinear, NormGate, WeightNetwork, inner_products
from hambench.o3.wigner import POLAR

NormLayout = Literal["corrected", "published"]
HIDDEN = 32
"""Width of the hidden layer of the networks that make the convolutions' weights."""


@dataclass(frozen=True)
class FarEdges:
    """The edges of the convolutions.

    Attributes:
        sender, receiver: (E,) atoms.
        vectors: (E, 3) from sender to receiver, in the network's axes.
        frames: rotations into the edges' frames.
        basis: (E, K) radial basis.
    """

    sender: Tensor
    receiver: Tensor
    vectors: Tensor
    frames: EdgeFrames
    basis: Tensor

    def select(self, kept: Kept) -> FarEdges:
        """The rows that a gate keeps."""
        rows = kept.rows
        vectors = self.vectors.index_select(0, rows)
        return FarEdges(
            self.sender.index_select(0, rows),
            self.receiver.index_select(0, rows),
            vectors,
            EdgeFrames(vectors, self.frames.lmax),
            self.basis.index_select(0, rows),
        )


class EquivariantNorm(nn.Module):
    """Layer norm of the scalars, one root mean square of all higher degrees (EquiformerV2).

    ``y_lmc = x_lmc scale_lc / sqrt(mean_c sum_l sum_m x^2 / (L (2l+1)) + eps)``

    Args:
        lmax: L, at least 1.
        channels: C.
        layout: ``published``: in the memory order (c, m) of a degree, entry k is multiplied by
            ``scale[l, k mod C]``, as the public code does by mistake; no rotation commutes with
            it, unless all scales are equal.
    """

    share: Tensor
    mixed: Tensor | None

    def __init__(self, lmax: int, channels: int, layout: NormLayout, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.scalar = nn.LayerNorm(channels)
        self.scale = nn.Parameter(torch.ones(lmax, channels))
        rows = degree_rows(lmax)[1:]
        self.register_buffer("share", lmax * (2 * rows + 1), persistent=False)
        mixed = None
        if layout == "published":
            place = torch.arange(channels) * (2 * rows + 1)[:, None]  # c (2l+1) + m
            place = (place + (torch.arange(1, len(rows) + 1) - rows.square())[:, None]) % channels
            mixed = place + (rows - 1)[:, None] * channels
        self.register_buffer("mixed", mixed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, S, C) -> (N, S, C)."""
        rest = x[:, 1:]
        power = (rest.square().mean(-1) / self.share).sum(-1)
        if self.mixed is None:
            scale = per_row(self.scale, first=1)
        else:
            scale = self.scale.reshape(-1)[self.mixed]
        rest = rest * (power + self.eps).rsqrt()[:, None, None] * scale
        return torch.cat([self.scalar(x[:, :1]), rest], dim=1)


class FirstConvolution(nn.Module):
    """Scalars (N, C) -> features (N, S, C), along the paths (0, l, l)."""

    def __init__(self, lmax: int, channels: int, radial: int, layout: NormLayout) -> None:
        super().__init__()
        paths = triangle_paths(lmax, left=0)
        self.product = HarmonicProduct(paths, path_coefficients(paths))
        self.radial = WeightNetwork(radial, HIDDEN, len(paths) * channels)
        self.scalars = WeightNetwork(2 * channels, HIDDEN, len(paths) * channels)
        self.norm = EquivariantNorm(lmax, channels, layout)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(self, h: Tensor, edges: FarEdges) -> Tensor:
        """Convolve, normalise, mix channels."""
        return self.output(self.norm(self.messages(h, edges)))

    def messages(self, h: Tensor, edges: FarEdges) -> Tensor:
        """(N, S, C) sums of messages."""
        sent = h.index_select(0, edges.sender)
        both = torch.cat([h.index_select(0, edges.receiver), sent], dim=-1)
        weights = self.radial(edges.basis) * self.scalars(both)
        terms = self.product(sent[:, None], edges.frames, by_path(weights, h.shape[-1]))
        return terms.new_zeros(len(h), *terms.shape[1:]).index_add(0, edges.receiver, terms)


class SecondConvolution(nn.Module):
    """Features -> what is added to them, along all paths that keep parity."""

    def __init__(
        self,
        lmax: int,
        channels: int,
        radial: int,
        layout: NormLayout,
        sparsity: float | None,
        form: GateForm,
        scope: GateScope,
    ) -> None:
        super().__init__()
        paths = triangle_paths(lmax, natural=True)
        self.product = HarmonicProduct(paths, path_coefficients(paths))
        scalars = (lmax + 2) * channels
        self.before = DegreeLinear(lmax, channels, channels)
        self.gate = NormGate(lmax, channels)
        self.linear = DegreeLinear(lmax, channels, channels)
        self.select = None if sparsity is None else PairGate(scalars, sparsity, form, scope)
        self.radial = WeightNetwork(radial, HIDDEN, len(paths) * channels)
        self.scalars = WeightNetwork(scalars, HIDDEN, len(paths) * channels)
        self.norm = EquivariantNorm(lmax, channels, layout)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(self, x: Tensor, edges: FarEdges, batch: Batch) -> Tensor:
        """Convolve, normalise, add the gated input, mix channels."""
        y = self.linear(self.gate(x))
        return self.output(self.norm(self.messages(x, y, edges, batch)) + y)

    def messages(self, x: Tensor, y: Tensor, edges: FarEdges, batch: Batch) -> Tensor:
        """(N, S, C) sums of messages over the edges that the gate keeps."""
        both, shares = self.edge_scalars(x, edges), None
        if self.select is not None:
            owner = batch.batch.index_select(0, edges.receiver)
            kept = self.select(both, owner, len(batch.nao), Counts.of(batch).molecules)
            both, edges = kept.gates * both.index_select(0, kept.rows), edges.select(kept)
            shares = kept.shares
        weights = self.radial(edges.basis) * self.scalars(both)
        weights = weights if shares is None else weights * shares
        sent = y.index_select(0, edges.sender)
        terms = self.product(sent, edges.frames, by_path(weights, y.shape[-1]))
        return torch.zeros_like(y).index_add(0, edges.receiver, terms)

    def edge_scalars(self, x: Tensor, edges: FarEdges) -> Tensor:
        """(E, (L+2) C) scalars of both atoms, products of their higher degrees."""
        p = self.before(x)
        own = p.index_select(0, edges.receiver)
        other = p.index_select(0, edges.sender)
        scalars = own[:, 0], other[:, 0], inner_products(own, other).flatten(1)
        return torch.cat(scalars, dim=-1)


class Backbone(nn.Module):
    """Features of the atoms.

    Args:
        lmax: L, at least 1.
        channels: C.
        radial: size of the radial basis of the convolutions.
        cutoff: of that basis, Angstrom.
        vectorial: the first stage.
        layout: see `EquivariantNorm`.
        sparsity: share of edges the second convolution leaves out; None: it takes all.
        form, scope: see `PairGate`.
    """

    def __init__(
        self,
        lmax: int,
        channels: int,
        radial: int,
        cutoff: float,
        vectorial: VectorialStage,
        layout: NormLayout,
        sparsity: float | None,
        form: GateForm,
        scope: GateScope,
    ) -> None:
        super().__init__()
        self.lmax = lmax
        self.vectorial = vectorial
        self.basis = BernsteinBasis(radial, cutoff, 0.5, rounded=True)
        self.first = FirstConvolution(lmax, channels, radial, layout)
        self.second = SecondConvolution(lmax, channels, radial, layout, sparsity, form, scope)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Scalars (N, C) of the first stage, features (N, S, C) after each convolution."""
        h = self.vectorial(batch)
        edges = self.edges(batch)
        x1 = self.first(h, edges)
        return h, x1, x1 + self.second(x1, edges, batch)

    def edges(self, batch: Batch) -> FarEdges:
        """The batch's edges of the convolutions."""
        sender, receiver = batch.edge_index[:, batch.nearest_index]
        vectors = batch.positions[receiver] - batch.positions[sender]
        basis = self.basis(vectors.norm(dim=-1))
        vectors = vectors[:, list(POLAR)]
        return FarEdges(sender, receiver, vectors, EdgeFrames(vectors, self.lmax), basis)


def by_path(weights: Tensor, channels: int) -> Tensor:
    """(R, P C) -> (R, P, C)."""
    return weights.unflatten(-1, (-1, channels))
