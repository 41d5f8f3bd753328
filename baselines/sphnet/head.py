"""SPHNet's head: features of atoms and pairs by products of atoms, expanded to orbital blocks.

All triangle paths count here, so inversions are no symmetry (arXiv 2502.01171, its public code).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hambench.baselines.sphnet.backbone import by_path
from hambench.baselines.sphnet.sparsity import (
    Choice,
    Chosen,
    GateForm,
    GateScope,
    Kept,
    PairGate,
    SparseProduct,
)
from hambench.chem.blocks import BlockLayout
from hambench.data.counts import Counts
from hambench.data.graph import Batch
from hambench.o3.expansion import OrbitalExpansion
from hambench.o3.radial import BernsteinBasis
from hambench.o3.scalars import (
    SSP_SCALE,
    DegreeLinear,
    NormGate,
    inner_products,
    perceptron,
    shifted_softplus,
)

PairOrder = Literal["symmetric", "published"]


class AtomBlock(nn.Module):
    """Product of an atom's features with themselves, by weights that all atoms share."""

    def __init__(self, lmax: int, channels: int, sparsity: float | None) -> None:
        super().__init__()
        self.left_gate, self.right_gate = NormGate(lmax, channels), NormGate(lmax, channels)
        self.left = DegreeLinear(lmax, channels, channels)
        self.right = DegreeLinear(lmax, channels, channels)
        self.product = SparseProduct(lmax, sparsity)
        self.weight = nn.Parameter(torch.randn(len(self.product.paths), channels))
        self.gate = NormGate(lmax, channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(self, x: Tensor, choice: Choice | None, residual: bool) -> Tensor:
        """(N, S, C) -> (N, S, C); ``residual``: the features are added to their product."""
        t = self.multiplied(x, choice)
        return self.output(self.gate(t + x if residual else t))

    def multiplied(self, x: Tensor, choice: Choice | None) -> Tensor:
        """(N, S, C) the product."""
        chosen = self.product.choose(choice, x)
        weight = chosen.columns(self.weight, 0) * chosen.coefficients[:, None]
        left, right = self.left(self.left_gate(x)), self.right(self.right_gate(x))
        return self.product(left, right, weight[None], chosen)


class PairWeights(nn.Module):
    """Weights of pairs' products: a network of the distance times one of the scalars.

    Only the columns of paths that are taken are computed; coefficients are in the last layer of
    the first network.
    """

    def __init__(self, radial: int, scalars: int, paths: int, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.radial_hidden = nn.Parameter(torch.randn(radial, channels))
        self.radial_last = nn.Parameter(torch.randn(channels, paths, channels))
        self.scalar_hidden = nn.Linear(scalars, channels)
        self.scalar_last = nn.Linear(channels, paths * channels)

    def forward(self, basis: Tensor, scalars: Tensor, chosen: Chosen) -> Tensor:
        """(R, radial), (R, scalars) -> (R, n, C)."""
        scale = len(self.radial_hidden) ** -0.5
        hidden = SSP_SCALE * shifted_softplus(basis @ (scale * self.radial_hidden))
        last = chosen.columns(self.radial_last, 1) * chosen.coefficients[:, None]
        by_distance = hidden @ (self.channels**-0.5 * last.flatten(1))
        weight = chosen.columns(self.scalar_last.weight.unflatten(0, (-1, self.channels)), 0)
        bias = chosen.columns(self.scalar_last.bias.unflatten(0, (-1, self.channels)), 0)
        hidden = functional.silu(self.scalar_hidden(scalars))
        by_scalars = functional.linear(hidden, weight.flatten(0, 1), bias.flatten())
        return by_path(by_distance * by_scalars, self.channels)


class PairBlock(nn.Module):
    """Product of the features of two atoms, by weights of the pair.

    Args:
        lmax, channels, radial: sizes.
        sparsity: share of paths left out; None: none.
        pair_sparsity: share of pairs left out; None: none.
        form, scope: see `PairGate`.
        order: see `Head`.
    """

    def __init__(
        self,
        lmax: int,
        channels: int,
        radial: int,
        sparsity: float | None,
        pair_sparsity: float | None,
        form: GateForm,
        scope: GateScope,
        order: PairOrder,
    ) -> None:
        super().__init__()
        self.order = order
        scalars = (lmax + 1) * channels
        self.before = DegreeLinear(lmax, channels, channels)
        self.input_gate = NormGate(lmax, channels)
        self.input = DegreeLinear(lmax, channels, channels)
        self.select = (
            None if pair_sparsity is None else PairGate(scalars, pair_sparsity, form, scope)
        )
        self.product = SparseProduct(lmax, sparsity)
        self.weights = PairWeights(radial, scalars, len(self.product.paths), channels)
        self.gate = NormGate(lmax, channels)
        self.output = DegreeLinear(lmax, channels, channels)

    def forward(
        self, x: Tensor, pairs: Tensor, basis: Tensor, batch: Batch, choice: Choice | None
    ) -> tuple[Tensor, Kept | None]:
        """Features of the pairs that are kept.

        Args:
            x: (N, S, C).
            pairs: (2, R) row and column atom.
            basis: (R, K).
            batch: of the atoms.
            choice: of paths.

        Returns:
            (n, S, C), or (2n, S, C) of the pairs and then of these reversed; which rows these are.
        """
        t, kept = self.multiplied(x, pairs, basis, batch, choice)
        return self.output(self.gate(t)), kept

    def multiplied(
        self, x: Tensor, pairs: Tensor, basis: Tensor, batch: Batch, choice: Choice | None
    ) -> tuple[Tensor, Kept | None]:
        """As `forward`, the products."""
        scalars, kept = self.pair_scalars(x, pairs), None
        if self.select is not None:
            owner = batch.batch.index_select(0, pairs[0])
            kept = self.select(scalars, owner, len(batch.nao), Counts.of(batch).molecules)
            scalars = kept.gates * scalars.index_select(0, kept.rows)
            pairs, basis = pairs.index_select(1, kept.rows), basis.index_select(0, kept.rows)
        chosen = self.product.choose(choice, x)
        weights = self.weights(basis, scalars, chosen)
        y = self.input(self.input_gate(x))
        row, column = y.index_select(0, pairs[0]), y.index_select(0, pairs[1])
        products = [self.product(column, row, weights, chosen)]
        if self.order == "symmetric":
            products.append(self.product(row, column, weights, chosen))
        return torch.cat(products), kept

    def pair_scalars(self, x: Tensor, pairs: Tensor) -> Tensor:
        """(R, (L+1) C) mean scalars, products of higher degrees: the same for both orders."""
        p = self.before(x)
        row, column = p.index_select(0, pairs[0]), p.index_select(0, pairs[1])
        mean = 0.5 * (row[:, 0] + column[:, 0])
        return torch.cat([mean, inner_products(row, column).flatten(1)], dim=-1)


class Expansion(nn.Module):
    """Features to coupled block vectors, by weights from the scalars of the elements."""

    def __init__(self, blocks: BlockLayout, lmax: int, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.bottleneck = DegreeLinear(lmax, channels, bottleneck, bias=False)
        self.expansion = OrbitalExpansion(blocks.slots, lmax, bottleneck)
        self.weights = perceptron(channels, channels, self.expansion.weights)
        self.biases = perceptron(channels, channels, self.expansion.biases)

    def forward(self, features: Tensor, scalars: Tensor) -> Tensor:
        """(n R, S, C) features of R rows in n versions, (R, C) scalars -> (n R, K^2)."""
        weights, biases = self.weights(scalars), self.biases(scalars)
        versions = len(features) // max(len(scalars), 1)
        if versions > 1:
            weights, biases = weights.repeat(versions, 1), biases.repeat(versions, 1)
        blocks: Tensor = self.expansion(self.bottleneck(features), weights, biases)
        return blocks


class Head(nn.Module):
    """Coupled block vectors of atoms and pairs.

    Args:
        blocks: of the basis.
        lmax, channels, radial, bottleneck: sizes.
        cutoff: of the radial basis of pairs, Angstrom.
        sparsity: share of paths, and in the second block of pairs, left out; None: none.
        form, scope: see `PairGate`.
        order: ``symmetric``: a pair is computed in both orders, and its block is the mean of one
            and the transpose of the other; ``published``: the product is taken in one order, of
            the atom that comes first with the later one, so it depends on the order of the atoms.
    """

    def __init__(
        self,
        blocks: BlockLayout,
        lmax: int,
        channels: int,
        radial: int,
        bottleneck: int,
        cutoff: float,
        sparsity: float | None,
        form: GateForm,
        scope: GateScope,
        order: PairOrder,
    ) -> None:
        super().__init__()
        self.blocks, self.order = blocks, order
        self.basis = BernsteinBasis(radial, cutoff, 0.5, rounded=True)
        self.atom = nn.ModuleList(AtomBlock(lmax, channels, sparsity) for _ in range(2))
        self.pair = nn.ModuleList(
            PairBlock(lmax, channels, radial, sparsity, sparsity if k else None, form, scope, order)
            for k in range(2)
        )
        self.atom_expansion = Expansion(blocks, lmax, channels, bottleneck)
        self.pair_expansion = Expansion(blocks, lmax, channels, bottleneck)

    def products(self) -> list[SparseProduct]:
        """The products whose paths are chosen, in the order they are computed."""
        layers = [*self.atom, *self.pair]
        return [layer.product for layer in layers if isinstance(layer.product, SparseProduct)]

    def forward(
        self, h: Tensor, x: tuple[Tensor, Tensor], batch: Batch, choice: Choice | None
    ) -> tuple[Tensor, Tensor]:
        """Scalars (N, C) and the features (N, S, C) of both blocks -> (N, K^2), (E, K^2)."""
        node = self.atom_expansion(self.atom_features(x, choice), h)
        pairs = batch.edge_index.index_select(1, batch.pair_index[1])
        features = self.pair_features(x, pairs, batch, choice)
        scalars = h.index_select(0, pairs[0]) + h.index_select(0, pairs[1])
        vectors = self.pair_expansion(features, scalars)
        if self.order == "symmetric":
            forth, back = vectors.tensor_split(2)
            vectors = 0.5 * (forth + self.blocks.flip(back))
        both = torch.cat([vectors, self.blocks.flip(vectors)])
        places = torch.cat([batch.pair_index[1], batch.pair_index[0]])
        return node, torch.empty_like(both).index_copy(0, places, both)

    def atom_features(self, x: tuple[Tensor, Tensor], choice: Choice | None) -> Tensor:
        """(N, S, C) sums of both blocks."""
        first = self.atom[0](x[0], choice, residual=False)
        second: Tensor = self.atom[1](x[1], choice, residual=True)
        return first + second

    def pair_features(
        self, x: tuple[Tensor, Tensor], pairs: Tensor, batch: Batch, choice: Choice | None
    ) -> Tensor:
        """(R, S, C) sums of both blocks, or (2R, S, C) with the reversed pairs behind."""
        ends = batch.positions[pairs]
        basis = self.basis((ends[0] - ends[1]).norm(dim=-1))
        first, _ = self.pair[0](x[0], pairs, basis, batch, choice)
        second, kept = self.pair[1](x[1], pairs, basis, batch, choice)
        if kept is None:
            return first + second
        shares, rows = kept.shares[..., None], kept.rows
        if self.order == "symmetric":
            shares, rows = shares.repeat(2, 1, 1), torch.cat([rows, rows + pairs.shape[1]])
        out: Tensor = first.index_add(0, rows, second * shares)
        return out
