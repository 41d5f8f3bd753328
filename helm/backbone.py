"""HELM's backbone: message passing with SO(2) convolutions in edge frames, on atoms and on pairs.

Equations follow arXiv 2510.00224 and its public code. Node features (N, S, C) and edge features
(E, S, C) with S = (lmax+1)^2; all irreps are even, so proper rotations are the symmetry. As
published, messages do not vanish at the cutoff; an envelope that makes them is an option.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hambench.data.graph import Batch
from hambench.errors import ConfigError
from hambench.o3.ends import Ends
from hambench.o3.frames import EdgeFrames
from hambench.o3.layers import EquivariantRMSNorm, FeedForward, GaussianBasis, RadialMLP
from hambench.o3.so2 import SO2Convolution, gate_m
from hambench.o3.wigner import POLAR

ELEMENTS = 100
CHARGES = 10
"""Charges -10..10 have an embedding."""
MULTIPLICITIES = 11
"""Multiplicities 0..10 have one; a singlet is 1."""
MESSAGE_SCALE = 5.0
"""The sum of edge-degree embeddings at an atom is divided by this."""

NodeScalars = Literal["element", "element_charge_spin"]


@dataclass(frozen=True)
class Geometry:
    """What all layers share of a batch's edges.

    Attributes:
        frames: rotations into the edge frames; messages arrive at the target of their edge.
        invariants: (E, 3C) source element, distance basis, target element.
        envelope: (E,) factors of the messages to atoms; None: one.
    """

    frames: EdgeFrames
    invariants: Tensor
    envelope: Tensor | None = None

    def faded(self, messages: Tensor) -> Tensor:
        """Messages (E, rows, C) or (signs, E, rows, C) to atoms, times the envelope."""
        return messages if self.envelope is None else messages * self.envelope[:, None, None]


class Edgewise(nn.Module):
    """Rotate both atoms' features into the edge frame, convolve twice with a gate between."""

    def __init__(self, lmax: int, channels: int, invariants: int) -> None:
        super().__init__()
        radial = [invariants, channels, channels]
        self.conv1 = SO2Convolution(lmax, 2 * channels, channels, lmax * channels, radial)
        self.conv2 = SO2Convolution(lmax, channels, channels)

    def forward(self, nodes: Tensor, geometry: Geometry, mmax: int | None = None) -> list[Tensor]:
        """Node features (N, S, C) -> messages in the edge frames, per |m| (signs, E, L+1-m, C).

        ``mmax``: the largest |m| that is wanted; None: all.
        """
        weights = self.conv1.weights(geometry.invariants)
        hidden, gates = self.conv1(geometry.frames.pairs(nodes, weights, mmax))
        messages: list[Tensor] = self.conv2(gate_m(hidden, gates))[0]
        return messages


class NodeBlock(nn.Module):
    """Pre-norm block: messages summed at the target atom, then a feed-forward network."""

    def __init__(self, lmax: int, channels: int, invariants: int) -> None:
        super().__init__()
        self.norm1 = EquivariantRMSNorm(lmax, channels)
        self.edgewise = Edgewise(lmax, channels, invariants)
        self.norm2 = EquivariantRMSNorm(lmax, channels)
        self.feedforward = FeedForward(lmax, channels)

    def forward(self, x: Tensor, geometry: Geometry) -> Tensor:
        """(N, S, C) -> (N, S, C)."""
        messages = self.edgewise(self.norm1(x), geometry)
        x = x + geometry.frames.at_atoms([geometry.faded(part) for part in messages])
        return x + self.feedforward(self.norm2(x))


class EdgeBlock(nn.Module):
    """Post-norm block on pairs, fed by the updated atoms of its layer; nothing flows back."""

    def __init__(self, lmax: int, channels: int, invariants: int) -> None:
        super().__init__()
        self.edgewise = Edgewise(lmax, channels, invariants)
        self.norm1 = EquivariantRMSNorm(lmax, channels)
        self.norm2 = EquivariantRMSNorm(lmax, channels)
        self.feedforward = FeedForward(lmax, channels)

    def forward(self, z: Tensor, x: Tensor, geometry: Geometry) -> Tensor:
        """Pair features (E, S, C) and atom features (N, S, C) -> (E, S, C)."""
        z = z + self.norm1(geometry.frames.in_space(self.edgewise(x, geometry)))
        return z + self.feedforward(self.norm2(z))


class Backbone(nn.Module):
    """Embeddings of atoms and, where asked for, of pairs.

    Args:
        lmax: largest degree, mmax equals it.
        channels: C, width of features and of hidden layers.
        layers: node (and edge) blocks.
        gaussians: size of the distance basis.
        cutoff: reach of the distance basis, Angstrom.
        gaussian_width: width of a Gaussian in units of their spacing.
        node_scalars: ``element``, or ``element_charge_spin`` (charge and multiplicity of the
            molecule mixed in).
        edges: build the edge blocks.
        envelope: let the messages to atoms fade to zero at the cutoff (`fade`).
    """

    def __init__(
        self,
        lmax: int,
        channels: int,
        layers: int,
        gaussians: int,
        cutoff: float,
        gaussian_width: float,
        node_scalars: NodeScalars,
        edges: bool = True,
        envelope: bool = False,
    ) -> None:
        super().__init__()
        self.lmax, self.channels, self.cutoff = lmax, channels, cutoff
        self.envelope = envelope
        self.distance_basis = GaussianBasis(gaussians, cutoff, gaussian_width)
        self.element = nn.Embedding(ELEMENTS, channels)
        self.source = nn.Embedding(ELEMENTS, channels)
        self.target = nn.Embedding(ELEMENTS, channels)
        for embedding in (self.source, self.target):
            nn.init.uniform_(embedding.weight, -1e-3, 1e-3)
        if node_scalars == "element_charge_spin":
            self.charge = nn.Embedding(2 * CHARGES + 1, channels)
            self.multiplicity = nn.Embedding(MULTIPLICITIES, channels)
            self.mixer: nn.Linear | None = nn.Linear(3 * channels, channels)
        elif node_scalars == "element":
            self.mixer = None
        else:
            raise ConfigError(
                f"node_scalars is '{node_scalars}', expected element or element_charge_spin"
            )
        invariants = 2 * channels + gaussians
        self.edge_degree = RadialMLP(invariants, channels, channels, (lmax + 1) * channels)
        sizes = (lmax, channels, invariants)
        self.node_blocks = nn.ModuleList(NodeBlock(*sizes) for _ in range(layers))
        self.edge_blocks = nn.ModuleList(EdgeBlock(*sizes) for _ in range(layers if edges else 0))
        self.norm = EquivariantRMSNorm(lmax, channels)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Geometry]:
        """Normalised embeddings of atoms (N, S, C) and pairs (E, S, C), and the geometry.

        Without edge blocks the pair embeddings are the initial ones, unused.
        """
        geometry = self.geometry(batch)
        return *self.features(batch, geometry), geometry

    def features(self, batch: Batch, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """The embeddings of atoms and pairs, as `forward`, for a known geometry."""
        x, z = self.initial(batch, geometry)
        for k, node_block in enumerate(self.node_blocks):
            x = node_block(x, geometry)
            if self.edge_blocks:
                z = self.edge_blocks[k](z, x, geometry)
        return self.norm(x), self.norm(z) if self.edge_blocks else z

    def geometry(self, batch: Batch) -> Geometry:
        """Edge frames and invariants of a batch."""
        source, target = batch.edge_index
        vectors = batch.positions[source] - batch.positions[target]
        distances = vectors.norm(dim=-1)
        invariants = [
            self.source(batch.numbers[source]),
            self.distance_basis(distances),
            self.target(batch.numbers[target]),
        ]
        ends = Ends(source, target, len(batch.numbers))
        frames = EdgeFrames(vectors[:, list(POLAR)], self.lmax, ends)
        envelope = fade(distances / self.cutoff) if self.envelope else None
        return Geometry(frames, torch.cat(invariants, dim=-1), envelope)

    def initial(self, batch: Batch, geometry: Geometry) -> tuple[Tensor, Tensor]:
        """Initial features: element scalars plus axial functions of the edges, and these alone."""
        coefficients = self.edge_degree(geometry.invariants)
        z = geometry.frames.axial_to_space(coefficients.unflatten(-1, (self.lmax + 1, -1)))
        scalars = self.node_scalars(batch)
        x = torch.cat(
            [scalars[:, None], scalars.new_zeros(len(scalars), z.shape[1] - 1, self.channels)], 1
        )
        arrived = geometry.frames.ends.sum_at_target(geometry.faded(z))
        return x + arrived / MESSAGE_SCALE, z

    def node_scalars(self, batch: Batch) -> Tensor:
        """(N, C) scalars of the element, with charge and multiplicity where they are mixed in."""
        element = self.element(batch.numbers)
        if self.mixer is None:
            return element
        charge = self.charge(batch.charge + CHARGES)[batch.batch]
        multiplicity = self.multiplicity(batch.multiplicity)[batch.batch]
        return self.mixer(torch.cat([element, charge, multiplicity], dim=-1))


def fade(x: Tensor) -> Tensor:
    """``1 - 28 x^6 + 48 x^7 - 21 x^8``: from 1 to 0 at x = 1, there with two zero derivatives.

    The polynomial envelope of DimeNet (arXiv 2003.03123, equation 8) with p = 6, not divided by x.
    """
    return 1 - x**6 * (28 - 48 * x + 21 * x**2)
