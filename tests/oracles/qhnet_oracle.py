"""QHNet path by path: the equations of arXiv 2306.04922 as its public code evaluates them.

Slow and plain: features are one tensor (rows, channels, 2l+1) per degree, every path of a product
is a product of its own, every pair of atoms has all of its networks evaluated. It computes with the
parameters of a `QHNet` and shares nothing else with it, so it is both the test of the fast
implementation and the yardstick of its speed.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from e3nn import o3
from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines import QHNet
from hambench.data.graph import Batch
from hambench.model import Prediction

Features = list[Tensor]
SSP = 1.878204668541552  # e3nn's second moment of the shifted softplus


class PathByPath(nn.Module):
    """The oracle of a model, with the model's own parameters."""

    def __init__(self, model: QHNet) -> None:
        super().__init__()
        self.model = model
        self.degrees = range(model.lmax + 1)
        paths = [
            (l1, l2, l3)
            for l1 in self.degrees
            for l2 in self.degrees
            for l3 in range(abs(l1 - l2), min(l1 + l2, model.lmax) + 1)
        ]
        self.all_paths = paths
        self.natural_paths = [p for p in paths if sum(p) % 2 == 0]
        self.first_paths = [p for p in paths if p[0] == 0]

    def forward(self, batch: Batch) -> Prediction:
        model = self.model
        dst, src = batch.edge_index
        vector = batch.positions[dst] - batch.positions[src]
        radial = self.radial(vector.norm(dim=1))
        harmonics = o3.spherical_harmonics(
            list(self.degrees), vector.roll(-1, 1), normalize=True, normalization="component"
        )
        y = [part[:, None] for part in harmonics.split([2 * l + 1 for l in self.degrees], 1)]
        embedding = model.embedding.weight[batch.numbers]

        f = self.first(embedding, dst, src, radial, y)
        fii: Features = []
        fij: Features = []
        for k in range(1, 1 + len(model.convolutions)):
            f = self.convolution(model.convolutions[k - 1], f, dst, src, radial, y)
            if k > model.start_layer:
                number = k - model.start_layer - 1
                fii = plus(self.self_layer(model.self_layers[number], f), fii)
                fij = plus(self.pair_layer(model.pair_layers[number], f, dst, src, radial), fij)

        diagonal = self.expand(model.on_site, fii, embedding)
        both = torch.cat([embedding[dst], embedding[src]], 1)
        offdiagonal = self.expand(model.pair, fij, both)
        diagonal = diagonal + diagonal.transpose(1, 2)
        number = {pair: k for k, pair in enumerate(zip(dst.tolist(), src.tolist(), strict=True))}
        reverse = torch.tensor([number[j, i] for i, j in number], dtype=torch.long).to(dst.device)
        offdiagonal = offdiagonal + offdiagonal[reverse].transpose(1, 2)
        square = model.graph.layout.square.to(dst.device).reshape(-1)
        vectors = (
            torch.zeros_like(blocks.flatten(1)).index_copy(1, square, blocks.flatten(1))
            for blocks in (diagonal, offdiagonal)
        )
        node, edge = vectors
        return Prediction(batch, model.graph, node=node, edge=edge)

    def radial(self, r: Tensor) -> Tensor:
        """Exponential Bernstein polynomials, lengths in the unit of alpha."""
        basis = self.model.radial
        r, cutoff = r / basis.unit, basis.cutoff / basis.unit
        raw = basis.raw
        alpha = basis.fixed * basis.unit if raw is None else functional.softplus(raw)
        v = torch.arange(basis.count, device=r.device, dtype=r.dtype)
        n = basis.count - 1 - v
        logarithms = [math.log(math.comb(basis.count - 1, k)) for k in range(basis.count)]
        logc = torch.tensor(logarithms, dtype=torch.float32).to(r)
        x = -alpha * r[:, None]
        near = r < cutoff
        inside = torch.where(near, r, 0.0)
        fade = torch.exp(-(inside**2) / ((cutoff - inside) * (cutoff + inside)))
        fade = torch.where(near, fade, 0.0)
        return fade[:, None] * torch.exp(logc + n * x + v * torch.log(-torch.expm1(x)))

    def first(
        self, embedding: Tensor, dst: Tensor, src: Tensor, radial: Tensor, y: Features
    ) -> Features:
        """The first convolution: embeddings in, no residual."""
        layer = self.model.first
        second = src if layer.second == "source" else dst
        scalars = torch.cat([embedding[dst], embedding[second]], 1)
        weights = fully_connected(layer.radial_weights, radial)
        weights = weights * fully_connected(layer.scalar_weights, scalars)
        messages = product(self.first_paths, [embedding[src][:, :, None]], y, weights)
        arrived = [scattered(m, dst, len(embedding)) for m in messages]
        return linear(layer.output, arrived)

    def convolution(
        self, layer: nn.Module, f: Features, dst: Tensor, src: Tensor, radial: Tensor, y: Features
    ) -> Features:
        """A convolution over edges with both residuals."""
        inner = linear(layer.inner, f)
        scalars = pair_scalars(inner, dst, src, src if layer.second == "source" else dst)
        weights = fully_connected(layer.radial_weights, radial)
        weights = weights * fully_connected(layer.scalar_weights, scalars)
        x = linear(layer.node, norm_gate(layer.gate, f))
        messages = product(self.natural_paths, [part[src] for part in x], y, weights)
        arrived = [scattered(m, dst, len(part)) for m, part in zip(messages, x, strict=True)]
        return plus(linear(layer.output, plus(arrived, x)), f)

    def self_layer(self, layer: nn.Module, f: Features) -> Features:
        """The product of an atom with itself."""
        left = linear(layer.left, norm_gate(layer.left_gate, f))
        right = linear(layer.right, norm_gate(layer.right_gate, f))
        multiplied = product(self.all_paths, left, right, layer.weights.reshape(1, -1))
        return linear(layer.output, norm_gate(layer.gate, plus(multiplied, f)))

    def pair_layer(
        self, layer: nn.Module, f: Features, dst: Tensor, src: Tensor, radial: Tensor
    ) -> Features:
        """The product of two atoms."""
        scalars = pair_scalars(linear(layer.inner, f), dst, src, src)
        weights = fully_connected(layer.radial_weights, radial) * layer.scalar_weights(scalars)
        x = linear(layer.node, norm_gate(layer.node_gate, f))
        z = product(self.all_paths, [part[src] for part in x], [part[dst] for part in x], weights)
        return linear(layer.output, norm_gate(layer.gate, z))

    def expand(self, head: nn.Module, f: Features, embedding: Tensor) -> Tensor:
        """(rows, K, K) blocks, with weights of the rows' elements."""
        g = linear(head.reduce, f)
        weights, biases = head.weights(embedding), head.biases(embedding)
        slots, width = head.expansion.slots, g[0].shape[1]
        kinds = sorted(set(slots))
        counts = {l: slots.count(l) for l in kinds}
        parts: dict[tuple[int, int], Tensor] = {}
        used = biased = 0
        for l in range(head.expansion.lmax + 1):
            for la in kinds:
                for lb in kinds:
                    if not abs(la - lb) <= l <= la + lb:
                        continue
                    shape = (width, counts[la], counts[lb])
                    weight = weights[:, used : used + math.prod(shape)].reshape(-1, *shape)
                    used += math.prod(shape)
                    t = torch.einsum("bwuv,bwk->buvk", weight, g[l])
                    if l == 0:
                        area = math.prod(shape[1:])
                        t = t + biases[:, biased : biased + area].reshape(-1, *shape[1:], 1)
                        biased += area
                    symbol = w3j((la, lb, l), t.dtype, t.device)
                    block = torch.einsum("ijk,buvk->buivj", symbol, t) / width
                    block = block.flatten(3, 4).flatten(1, 2)
                    parts[la, lb] = parts[la, lb] + block if (la, lb) in parts else block
        rows = [torch.cat([parts[la, lb] for lb in kinds], 2) for la in kinds]
        order = torch.tensor(slot_order(slots)).to(embedding.device)
        return torch.cat(rows, 1)[:, order][:, :, order]


def slot_order(slots: tuple[int, ...]) -> list[int]:
    """Place of every orbital of the slot table where shells are grouped by degree."""
    places: dict[int, list[int]] = {}
    start = 0
    for l in sorted(set(slots)):
        for slot in (k for k, other in enumerate(slots) if other == l):
            places[slot] = list(range(start, start + 2 * l + 1))
            start += 2 * l + 1
    return [place for slot in range(len(slots)) for place in places[slot]]


@cache
def w3j(path: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return o3.wigner_3j(*path, dtype=torch.float64).to(device, dtype)


def product(
    paths: list[tuple[int, int, int]], a: Features, b: Features, weights: Tensor
) -> Features:
    """The tensor product along paths, weighted path by path and channel by channel."""
    ending = {l3: sum(p[2] == l3 for p in paths) for _, _, l3 in paths}
    channels, outer, out = a[0].shape[1], {}, {}
    for k, (l1, l2, l3) in enumerate(paths):
        if (l1, l2) not in outer:
            outer[l1, l2] = (a[l1][:, :, :, None] * b[l2][:, :, None, :]).flatten(2)
        width = 2 * l3 + 1
        coefficient = math.sqrt(width / ending[l3] * math.sqrt(width / len(paths)))
        symbol = coefficient * w3j((l1, l2, l3), a[0].dtype, a[0].device).flatten(0, 1)
        weight = weights[:, k * channels : (k + 1) * channels, None]
        term = weight * (outer[l1, l2] @ symbol)
        out[l3] = out[l3] + term if l3 in out else term
    return [out[l] for l in sorted(out)]


def linear(module: nn.Module, f: Features) -> Features:
    """One matrix per degree, scaled by the root of the channels."""
    out = []
    for l, part in enumerate(f):
        y = torch.einsum("uw,zum->zwm", module.weight[l], part) / math.sqrt(part.shape[1])
        if l == 0 and module.bias is not None:
            y = y + module.bias[:, None]
        out.append(y)
    return out


def fully_connected(network: nn.Module, x: Tensor) -> Tensor:
    """Two layers with a normalised shifted softplus."""
    first, second = network.weights
    hidden = functional.softplus(x @ (first / math.sqrt(len(first)))) - math.log(2)
    return SSP * hidden @ (second / math.sqrt(len(second)))


def norm_gate(gate: nn.Module, f: Features) -> Features:
    """New scalars, and factors for the other degrees, of scalars and norms."""
    norms = []
    for part in f[1:]:
        squares = part.square().sum(2)
        norms.append(torch.where(squares > 0, squares, 1.0).sqrt() * (squares > 0))
    g = gate.network(torch.cat([f[0][:, :, 0], *norms], 1)).split(f[0].shape[1], 1)
    return [g[0][:, :, None], *(part * h[:, :, None] for part, h in zip(f[1:], g[1:], strict=True))]


def pair_scalars(q: Features, dst: Tensor, src: Tensor, second: Tensor) -> Tensor:
    """Scalars of two atoms and the products of their features."""
    inner = [(part[dst] * part[src]).sum(2) / part.shape[2] for part in q[1:]]
    return torch.cat([q[0][dst][:, :, 0], q[0][second][:, :, 0], *inner], 1)


def scattered(messages: Tensor, dst: Tensor, atoms: int) -> Tensor:
    return messages.new_zeros(atoms, *messages.shape[1:]).index_add(0, dst, messages)


def plus(f: Features, other: Features) -> Features:
    return [a + b for a, b in zip(f, other, strict=True)] if other else f
