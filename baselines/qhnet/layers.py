"""QHNet's layers: convolutions over edges, products of an atom with itself and with another.

Features are (rows, S, C), S = (lmax+1)^2, degree l at l^2. An edge (i, j) is the pair of a row atom
i, where messages arrive, and a column atom j, where they come from; its vector points from j to i
(arXiv 2306.04922, section 3, and its public code divelab/AIRS).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hambench.baselines.qhnet.species import Species
from hambench.o3.frames import EdgeFrames
from hambench.o3.products import HarmonicProduct, Path, PathProduct, triangle_paths
from hambench.o3.scalars import DegreeLinear, NormGate, WeightNetwork, inner_products, perceptron

SecondScalars = Literal["source", "target"]


@dataclass(frozen=True)
class Edges:
    """The edges within reach, which all layers share.

    Attributes:
        target, source: (E,) atoms i and j.
        radial: (E, K) radial basis of their distances.
        frames: of their vectors.
    """

    target: Tensor
    source: Tensor
    radial: Tensor
    frames: EdgeFrames


def path_coefficients(paths: Sequence[Path]) -> list[float]:
    """``sqrt((2l+1)/n(l) sqrt((2l+1)/P))`` of each of P paths, n(l) of which lead to its l.

    The root in the root comes from the public code, which normalises twice.
    """
    ending = Counter(path.l3 for path in paths)
    widths = [2 * path.l3 + 1 for path in paths]
    return [
        (width / ending[path.l3] * (width / len(paths)) ** 0.5) ** 0.5
        for path, width in zip(paths, widths, strict=True)
    ]


class FirstConvolution(nn.Module):
    """Messages of the embeddings of elements: scalars in, all degrees out, nothing added."""

    def __init__(
        self, lmax: int, channels: int, radials: int, hidden: int, second: SecondScalars
    ) -> None:
        super().__init__()
        paths = triangle_paths(lmax, left=0)
        self.second, self.channels = second, channels
        self.product = HarmonicProduct(paths, path_coefficients(paths))
        self.radial_weights = WeightNetwork(radials, hidden, len(paths) * channels)
        self.scalar_weights = WeightNetwork(2 * channels, hidden, len(paths) * channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(self, species: Species, edges: Edges) -> Tensor:
        """(N, S, C) first features of the atoms."""
        other = edges.source if self.second == "source" else edges.target
        weights = species.of_pairs(self.scalar_weights, edges.target, other)
        weights = (self.radial_weights(edges.radial) * weights).unflatten(1, (-1, self.channels))
        sources = species.embeddings().index_select(0, edges.source)[:, None]
        messages = self.product(sources, edges.frames, weights)
        arrived = messages.new_zeros(len(species.atoms), *messages.shape[1:])
        return self.output(arrived.index_add(0, edges.target, messages))


class Convolution(nn.Module):
    """Messages weighted by distances, scalars of both ends and inner products of their features."""

    def __init__(
        self, lmax: int, channels: int, radials: int, hidden: int, second: SecondScalars
    ) -> None:
        super().__init__()
        paths = triangle_paths(lmax, natural=True)
        self.second, self.channels = second, channels
        self.product = HarmonicProduct(paths, path_coefficients(paths))
        self.inner = DegreeLinear(lmax, channels, channels)
        self.gate = NormGate(lmax, channels)
        self.node = DegreeLinear(lmax, channels, channels)
        self.radial_weights = WeightNetwork(radials, hidden, len(paths) * channels)
        self.scalar_weights = WeightNetwork((lmax + 2) * channels, hidden, len(paths) * channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """(N, S, C) -> (N, S, C), with both residuals."""
        scalars = pair_scalars(self.inner(x), edges, self.second)
        weights = self.radial_weights(edges.radial) * self.scalar_weights(scalars)
        node = self.node(self.gate(x))
        sources = node.index_select(0, edges.source)
        messages = self.product(sources, edges.frames, weights.unflatten(1, (-1, self.channels)))
        return x + self.output(node.index_add(0, edges.target, messages))


class SelfLayer(nn.Module):
    """On-site features: the product of an atom's features with themselves."""

    def __init__(self, lmax: int, channels: int) -> None:
        super().__init__()
        paths = triangle_paths(lmax)
        self.product = PathProduct(paths, path_coefficients(paths))
        self.weights = nn.Parameter(torch.randn(len(paths), channels))
        self.left_gate, self.right_gate = NormGate(lmax, channels), NormGate(lmax, channels)
        self.left = DegreeLinear(lmax, channels, channels)
        self.right = DegreeLinear(lmax, channels, channels)
        self.gate = NormGate(lmax, channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def multiplied(self, x: Tensor) -> Tensor:
        """(N, S, C) the product, and the features it is of."""
        left, right = self.left(self.left_gate(x)), self.right(self.right_gate(x))
        return x + self.product(left, right, self.weights[None])

    def forward(self, x: Tensor) -> Tensor:
        """(N, S, C) -> (N, S, C)."""
        y: Tensor = self.output(self.gate(self.multiplied(x)))
        return y


class PairLayer(nn.Module):
    """Pair features: the product of the features of two atoms."""

    def __init__(self, lmax: int, channels: int, radials: int) -> None:
        super().__init__()
        paths = triangle_paths(lmax)
        self.shape = (lmax + 1) ** 2, channels
        self.product = PathProduct(paths, path_coefficients(paths))
        self.inner = DegreeLinear(lmax, channels, channels)
        self.node_gate = NormGate(lmax, channels)
        self.node = DegreeLinear(lmax, channels, channels)
        self.radial_weights = WeightNetwork(radials, channels, len(paths) * channels)
        self.scalar_weights = perceptron((lmax + 2) * channels, channels, len(paths) * channels)
        self.gate = NormGate(lmax, channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def multiplied(self, x: Tensor, edges: Edges) -> Tensor:
        """(E, S, C) the product."""
        scalars = pair_scalars(self.inner(x), edges)
        weights = self.radial_weights(edges.radial) * self.scalar_weights(scalars)
        node = self.node(self.node_gate(x))
        ends = (node.index_select(0, index) for index in (edges.source, edges.target))
        return self.product(*ends, weights.unflatten(1, (-1, self.shape[1])))

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """(N, S, C) -> (E, S, C)."""
        y: Tensor = self.output(self.gate(self.multiplied(x, edges)))
        return y

    def beyond(self) -> Tensor:
        """(1, S, C) what a pair beyond the reach has, whose product is zero."""
        y: Tensor = self.output(self.gate(self.inner.weight.new_zeros(1, *self.shape)))
        return y


def pair_scalars(q: Tensor, edges: Edges, second: SecondScalars = "source") -> Tensor:
    """(E, (lmax+2) C) scalars of i, of j (or of i again) and the products of q_i with q_j."""
    i, j = (q.index_select(0, index) for index in (edges.target, edges.source))
    scalars = q[:, 0]
    others = edges.source if second == "source" else edges.target
    first, other = (scalars.index_select(0, index) for index in (edges.target, others))
    return torch.cat([first, other, inner_products(i, j).flatten(1)], dim=1)
