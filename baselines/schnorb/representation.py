"""SchNOrb's representation: SchNet interactions, then pair states that also update the atoms.

Everything here is invariant to rotations. Shapes: N atoms, P pairs, B features, Q factors, G
Gaussians. Equations: Schuett et al., arXiv 1906.10033, and the public code
atomistic-machine-learning/SchNOrb.
"""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines.schnorb.pairs import Geometry


def ssp(x: Tensor) -> Tensor:
    """Shifted softplus, ``ln(1 + e^x) - ln 2``."""
    return functional.softplus(x) - math.log(2.0)


def dense(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A linear layer that begins as the public code's: Xavier uniform weight, bias zero."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.xavier_uniform_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class TwoLayers(nn.Module):
    """``W2 ssp(W1 x + b1) + b2``."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first = dense(inputs, hidden)
        self.second = dense(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        return self.second(ssp(self.first(x)))


class SchNetInteraction(nn.Module):
    """``x_i += W2 ssp(W1 y_i)``, ``y_i = sum_j F(d_ij) f(d_ij) * (U x_j)`` (SchNet)."""

    def __init__(self, width: int, factors: int, gaussians: int) -> None:
        super().__init__()
        self.filter = TwoLayers(gaussians, factors, factors)
        self.inward = dense(width, factors, bias=False)
        self.out = TwoLayers(factors, width, width)

    def forward(self, x: Tensor, geometry: Geometry, mean: bool) -> Tensor:
        """(N, B) -> (N, B)."""
        filters = self.filter(geometry.gaussians) * geometry.envelope
        sent, pairs = self.inward(x), geometry.pairs
        summed = gathered(
            x.shape[0], geometry, filters * sent[pairs.second], filters * sent[pairs.first]
        )
        return x + self.out(summed * pairs.share[:, None] if mean else summed)


class PairState(nn.Module):
    """``h_ij = ssp(V(a_i * F(d_ij) f(d_ij) * a_j))`` with a = A x, symmetric in the atoms."""

    def __init__(self, width: int, factors: int, gaussians: int) -> None:
        super().__init__()
        self.filter = TwoLayers(gaussians, factors, factors)
        self.inward = dense(width, factors)
        self.factor = dense(factors, factors)

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        """(N, B) -> (P, Q)."""
        filters = self.filter(geometry.gaussians) * geometry.envelope
        a, pairs = self.inward(x), geometry.pairs
        return ssp(self.factor(a[pairs.first] * filters * a[pairs.second]))


class OrbitalBlock(nn.Module):
    """A pair state, and what the atoms learn from it: ``x_i += W2 ssp(W1 sum_j h_ij)``."""

    def __init__(self, width: int, factors: int, gaussians: int) -> None:
        super().__init__()
        self.state = PairState(width, factors, gaussians)
        self.atom = TwoLayers(factors, factors, width)

    def forward(self, x: Tensor, geometry: Geometry, mean: bool) -> tuple[Tensor, Tensor]:
        """(N, B) -> (N, B) and the pair state (P, Q), which is of the features before."""
        h = self.state(x, geometry)
        summed = gathered(len(x), geometry, h, h)
        if mean:
            summed = summed * geometry.pairs.share[:, None]
        return x + self.atom(summed), h


class Representation(nn.Module):
    """Features of the atoms, and a state of the pairs from every orbital block.

    Args:
        elements: rows of the table of elements; row 0 stays zero.
        width, factors: B and Q.
        layers: SchNet interactions.
        blocks: orbital blocks.
        gaussians: G.
        mean: sums over neighbours are divided by their number.
    """

    def __init__(
        self, elements: int, width: int, factors: int, layers: int, blocks: int, gaussians: int,
        mean: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.mean = mean
        sizes = width, factors, gaussians
        self.embedding = nn.Embedding(elements, width, padding_idx=0)
        self.interactions = nn.ModuleList(SchNetInteraction(*sizes) for _ in range(layers))
        self.blocks = nn.ModuleList(OrbitalBlock(*sizes) for _ in range(blocks))

    def forward(self, numbers: Tensor, geometry: Geometry) -> tuple[Tensor, list[Tensor]]:
        """(N,) atomic numbers -> (N, B), and the (P, Q) states of the pairs, block by block."""
        x = self.embedding(numbers)
        for layer in self.interactions:
            x = layer(x, geometry, self.mean)
        states = []
        for block in self.blocks:
            x, h = block(x, geometry, self.mean)
            states.append(h)
        return x, states


def gathered(atoms: int, geometry: Geometry, to_first: Tensor, to_second: Tensor) -> Tensor:
    """(N, ...) sums over the pairs of each atom of what comes to the first and the second one."""
    out, pairs = to_first.new_zeros(atoms, *to_first.shape[1:]), geometry.pairs
    return out.index_add(0, pairs.first, to_first).index_add(0, pairs.second, to_second)
