"""HELM's read-outs: gated linear maps to the coupled blocks of H, and the energy head.

The published head gates every degree by scalars and maps it linearly to as many irreps as the
block layout holds. With reductions it predicts only what symmetry leaves free: on-site blocks are
symmetric, and a pair's two blocks are each other's transpose.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hambench.chem.blocks import BlockLayout, Irrep
from hambench.data.graph import Batch
from hambench.errors import ConfigError
from hambench.helm.backbone import Edgewise, Geometry
from hambench.o3.layers import gated

SIGMOID_SCALE = 1.8467055342154763
TANH_SCALE = 1.5937334472592695
"""e3nn's gate constants, its seeded Monte-Carlo estimates of the inverse second moments (the exact
ones are 1.84623 and 1.59254); published checkpoints were trained with these digits."""


PairGates = Literal["even", "own"]


@dataclass(frozen=True)
class Reductions:
    """Which symmetries of H the head builds in.

    Attributes:
        node: on-site blocks symmetric between slots, predicted once per slot pair a < b.
        node_intra: and inside a slot, where odd L vanish.
        edge: the two blocks of a pair each other's transpose, exactly.
        pair_gates: what gates the difference of a pair's two directions where ``edge`` is built in.
            ``even``: scalars of their sum. ``own``: scalars of the difference itself, as in the
            public code. These vanish where a turn exchanges the two atoms, as in H2 or the two
            hydrogens of a symmetric water, and with them all of l > 0, which such a block needs
            (its s-p elements, for one); near such a geometry H then changes within 0.001 Angstrom.
    """

    node: bool = True
    node_intra: bool = True
    edge: bool = True
    pair_gates: PairGates = "even"

    @property
    def odd_gates(self) -> bool:
        """Whether the gate must let a sign change of its input through."""
        return self.edge and self.pair_gates == "own"

    def __post_init__(self) -> None:
        if self.node_intra and not self.node:
            raise ConfigError("reduce_node_intra needs reduce_node; set both, or neither")


class IrrepMap(nn.Module):
    """Linear read-out of chosen irreps of the block layout from features (rows, S, C).

    Per degree one matrix (C, n_l) times C^(-1/2), as e3nn's linear layer normalises; bias on l = 0.

    Args:
        layout: the block layout.
        channels: C.
        wanted: which irreps it predicts, in layout order.
        bias: learn a bias of the l = 0 outputs.
    """

    def __init__(self, layout: BlockLayout, channels: int, wanted: list[Irrep], bias: bool) -> None:
        super().__init__()
        self.sizes = [2 * l + 1 for l in range(layout.lmax + 1)]
        counts = [sum(i.l == l for i in wanted) for l in range(layout.lmax + 1)]
        self.weights = nn.ParameterDict(
            {str(l): nn.Parameter(torch.randn(channels, n)) for l, n in enumerate(counts) if n}
        )
        self.bias = nn.Parameter(torch.zeros(counts[0])) if bias else None
        self.starts = self._starts(wanted, counts)
        self.width = sum(n * size for n, size in zip(counts, self.sizes, strict=True))

    def _starts(self, wanted: list[Irrep], counts: list[int]) -> dict[Irrep, tuple[int, int]]:
        """Of each irrep: place of its m = -l in the output, and the step to the next m."""
        base = [0]
        for n, size in zip(counts, self.sizes, strict=True):
            base.append(base[-1] + n * size)
        seen = [0] * len(counts)
        starts = {}
        for irrep in wanted:
            starts[irrep] = (base[irrep.l] + seen[irrep.l], counts[irrep.l])
            seen[irrep.l] += 1
        return starts

    def places(self, irrep: Irrep) -> Tensor:
        """Where the 2l+1 components of a predicted irrep stand in the output."""
        start, step = self.starts[irrep]
        return start + step * torch.arange(2 * irrep.l + 1)

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, width), degree by degree, m outer."""
        scale = x.shape[-1] ** -0.5
        parts = x.split(self.sizes, dim=1)
        out = [parts[int(l)] @ (weight * scale) for l, weight in self.weights.items()]
        if self.bias is not None:
            out[0] = out[0] + self.bias
        return torch.cat([o.flatten(1) for o in out], dim=1)


class Expansion(nn.Module):
    """Predicted irreps to the full layout: ``full[p] = sign[p] * predicted[source[p]]``."""

    source: Tensor
    sign: Tensor

    def __init__(self, layout: BlockLayout) -> None:
        super().__init__()
        self.layout = layout
        self.register_buffer("source", torch.zeros(layout.size, dtype=torch.long), persistent=False)
        sign = torch.zeros(layout.size, dtype=torch.get_default_dtype())
        self.register_buffer("sign", sign, persistent=False)

    def put(self, irrep: Irrep, places: Tensor, sign: float) -> None:
        """Fill a layout irrep from predicted places."""
        here = slice(irrep.start, irrep.start + 2 * irrep.l + 1)
        self.source[here] = places
        self.sign[here] = sign

    def forward(self, predicted: Tensor) -> Tensor:
        """(rows, width) -> (rows, K^2)."""
        return predicted.index_select(1, self.source) * self.sign


class ScalarGate(nn.Module):
    """Shared first stage: new scalars, and gate scalars for every higher degree.

    Args:
        lmax: largest degree.
        channels: C.
        odd: bias-free with gates ``tanh|g|``, so that a sign change of the input passes through.
    """

    def __init__(self, lmax: int, channels: int, odd: bool) -> None:
        super().__init__()
        self.odd = odd
        self.weight = nn.Parameter(torch.randn(channels, (lmax + 1) * channels))
        self.bias = None if odd else nn.Parameter(torch.zeros((lmax + 1) * channels))
        self.sizes = [2 * l + 1 for l in range(lmax + 1)]

    def scalars(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """New l = 0 features (rows, C), and the gates (rows, L*C)."""
        out = x[:, 0] @ (self.weight * x.shape[-1] ** -0.5)
        if self.bias is not None:
            out = out + self.bias
        new, gates = out.tensor_split([x.shape[-1]], dim=1)
        return new, (
            TANH_SCALE * gates.abs().tanh() if self.odd else SIGMOID_SCALE * gates.sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(rows, S, C) -> (rows, S, C)."""
        new, gates = self.scalars(x)
        return self._gated(new, x, gates)

    def pair(self, even: Tensor, odd: Tensor) -> tuple[Tensor, Tensor]:
        """Sum and difference of the two directions of each pair, (rows, S, C) each -> the same."""
        if self.odd:
            return self(even), self(odd)
        new, gates = self.scalars(even)
        channels = odd.shape[-1]
        unbiased = odd[:, 0] @ (self.weight[:, :channels] * channels**-0.5)
        return self._gated(new, even, gates), self._gated(unbiased, odd, gates)

    def _gated(self, new: Tensor, x: Tensor, gates: Tensor) -> Tensor:
        return gated(new[:, None], list(x.split(self.sizes, dim=1))[1:], gates)


class HamiltonianHead(nn.Module):
    """Coupled block vectors of atoms and pairs from their embeddings.

    Args:
        layout: the block layout of the basis.
        channels: C.
        reductions: symmetries built in. Without any, one shared map serves atoms and pairs, as
            published.
    """

    def __init__(self, layout: BlockLayout, channels: int, reductions: Reductions) -> None:
        super().__init__()
        self.layout, self.reductions = layout, reductions
        self.gate = ScalarGate(layout.lmax, channels, odd=reductions.odd_gates)
        irreps = list(layout.irreps)
        if not (reductions.node or reductions.edge):
            self.shared: IrrepMap | None = IrrepMap(layout, channels, irreps, bias=True)
            self.expand_shared = self._full(self.shared)
            return
        self.shared = None
        self._build_node(channels)
        self._build_edge(channels)

    def _build_node(self, channels: int) -> None:
        irreps = list(self.layout.irreps)
        kept = [i for i in irreps if self._node_keeps(i)]
        self.node = IrrepMap(self.layout, channels, kept, bias=True)
        self.expand_node = Expansion(self.layout)
        by_pair = {(i.a, i.b, i.l): i for i in kept}
        for irrep in irreps:
            mirror = by_pair.get((irrep.b, irrep.a, irrep.l))
            if irrep in self.node.starts:
                self.expand_node.put(irrep, self.node.places(irrep), 1.0)
            elif mirror is not None:  # the odd L inside a slot have none, and stay zero
                parity = float(self.layout.parity[irrep.start])
                self.expand_node.put(irrep, self.node.places(mirror), parity)

    def _node_keeps(self, irrep: Irrep) -> bool:
        if not self.reductions.node or irrep.a < irrep.b:
            return True
        return irrep.a == irrep.b and (not self.reductions.node_intra or irrep.l % 2 == 0)

    def _build_edge(self, channels: int) -> None:
        irreps = list(self.layout.irreps)
        if not self.reductions.edge:
            self.edge = IrrepMap(self.layout, channels, irreps, bias=True)
            self.expand_edge = self._full(self.edge)
            return
        even = [i for i in irreps if i.a < i.b or (i.a == i.b and i.l % 2 == 0)]
        odd = [i for i in irreps if i.a > i.b or (i.a == i.b and i.l % 2 == 1)]
        biased = not self.reductions.odd_gates
        self.even = IrrepMap(self.layout, channels, even, bias=biased)
        self.odd = IrrepMap(self.layout, channels, odd, bias=False)
        self.expand_even, self.expand_odd = Expansion(self.layout), Expansion(self.layout)
        index = {(i.a, i.b, i.l): i for i in irreps}
        for i in irreps:
            if i.a == i.b:
                part, expand = (
                    (self.even, self.expand_even) if i.l % 2 == 0 else (self.odd, self.expand_odd)
                )
                expand.put(i, part.places(i), 1.0)
            else:  # x_ab = s (V + W), x_ba = V - W, V from the even sum, W from the odd difference
                low, high = min(i.a, i.b), max(i.a, i.b)
                parity = float(self.layout.parity[i.start]) if i.a < i.b else 1.0
                upper, lower = index[low, high, i.l], index[high, low, i.l]
                self.expand_even.put(i, self.even.places(upper), parity)
                self.expand_odd.put(i, self.odd.places(lower), parity if i.a < i.b else -1.0)

    def _full(self, part: IrrepMap) -> Expansion:
        expansion = Expansion(self.layout)
        for irrep in self.layout.irreps:
            expansion.put(irrep, part.places(irrep), 1.0)
        return expansion

    def forward(self, x: Tensor, z: Tensor, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Read out.

        Args:
            x: (N, S, C) atom embeddings.
            z: (E, S, C) pair embeddings.
            pairs: (2, E/2) edge of each pair and its reverse.

        Returns:
            Coupled vectors (N, K^2) and (E, K^2).
        """
        if self.shared is not None:
            rows = self.expand_shared(self.shared(self.gate(torch.cat([x, z]))))
            return rows.split([len(x), len(z)])
        node = self.expand_node(self.node(self.gate(x)))
        return node, self._edge_rows(z, pairs)

    def _edge_rows(self, z: Tensor, pairs: Tensor) -> Tensor:
        if not self.reductions.edge:
            return self.expand_edge(self.edge(self.gate(z)))
        forth, back = z.index_select(0, pairs[0]), z.index_select(0, pairs[1])
        total, difference = self.gate.pair(forth + back, forth - back)
        even, odd = self.expand_even(self.even(total)), self.expand_odd(self.odd(difference))
        out = torch.empty(len(z), even.shape[1], dtype=even.dtype, device=even.device)
        return out.index_copy(0, pairs[0], even + odd).index_copy(0, pairs[1], even - odd)


class EnergyHead(nn.Module):
    """The public code's energy read-out: one more edge convolution, then an atomwise network.

    Only the l = 0 row of the summed messages is used, which no rotation touches. So the maps of
    m > 0 in its convolutions have no effect: they are there for published checkpoints and counts,
    are not computed, and get no gradient.
    """

    def __init__(self, lmax: int, channels: int, invariants: int) -> None:
        super().__init__()
        self.edgewise = Edgewise(lmax, channels, invariants)
        self.atomwise = nn.Sequential(
            nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, 1)
        )

    def forward(self, x: Tensor, geometry: Geometry, batch: Batch) -> Tensor:
        """Atom embeddings (N, S, C) -> energies (B,) in Eh."""
        (messages,) = self.edgewise(x, geometry, mmax=0)
        scalars = geometry.frames.ends.sum_at_target(geometry.faded(messages[0, :, :1]))
        atoms = self.atomwise(scalars[:, 0])[:, 0]
        return atoms.new_zeros(len(batch.nao)).index_add(0, batch.batch, atoms)
