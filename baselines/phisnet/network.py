"""PhiSNet's network: from elements and positions to features of atoms and of pairs of atoms.

Equations of arXiv 2106.02347 and its public code. Edges stand in an order of their own, all pairs
(i < j) first and then their reverses: what depends on a distance alone is computed once per pair.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hambench.baselines.phisnet.embedding import LAST, ElementEmbedding
from hambench.baselines.phisnet.layers import (
    Branch,
    RadialWeights,
    directed,
    orthogonal,
    plus,
    residual_stack,
    scaled,
)
from hambench.chem.molecule import symbol
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch
from hambench.errors import ConfigError
from hambench.o3.frames import EdgeFrames
from hambench.o3.products import HarmonicProduct, PathProduct, triangle_paths
from hambench.o3.radial import BernsteinBasis
from hambench.o3.wigner import POLAR
from hambench.units import BOHR


@dataclass(frozen=True)
class Size:
    """Hyperparameters of the network.

    Attributes:
        lmax: largest degree of features, ``order`` of the public code.
        features: F.
        basis: K, radial functions.
        modules: modular blocks.
        blocks: residual blocks of each stack but those of the heads.
        head_blocks: residual blocks of the heads.
        cutoff: of the radial functions, Angstrom.
    """

    lmax: int
    features: int
    basis: int
    modules: int
    blocks: int
    head_blocks: int
    cutoff: float

    @classmethod
    def of(
        cls,
        basis: OrbitalBasis,
        *,
        order: int | None,
        features: int,
        basis_functions: int,
        modules: int,
        residual_blocks: int,
        head_blocks: int,
        cutoff: float,
    ) -> Size:
        """Of a network for the blocks of a basis.

        Args: as `phisnet.model.PhiSNet`.

        Raises:
            ConfigError: an order below the largest l, or an element beyond radon.
        """
        if order is not None and order < basis.lmax:
            raise ConfigError(
                f"order={order} is below the largest l of {basis.name}, {basis.lmax}; set it to "
                f"{2 * basis.lmax} (or null), or at least {basis.lmax}"
            )
        if basis.elements[-1] > LAST:
            raise ConfigError(
                f"PhiSNet has electron configurations up to {symbol(LAST)}, the basis covers "
                f"{symbol(basis.elements[-1])}; choose a task of lighter elements"
            )
        lmax = 2 * basis.lmax if order is None else order
        return cls(lmax, features, basis_functions, modules, residual_blocks, head_blocks, cutoff)


@dataclass(frozen=True)
class Edges:
    """A batch's edges, pairs i < j and then their reverses.

    Attributes:
        places: (E,) where each stands in the batch.
        i: (E,) row atoms, where neighbours are summed.
        j: (E,) column atoms.
        radial: (E/2, K) radial basis of the pairs.
        frames: of all edges, along r_j - r_i.
    """

    places: Tensor
    i: Tensor
    j: Tensor
    radial: Tensor
    frames: EdgeFrames

    def sums(self, values: Tensor, atoms: int) -> Tensor:
        """(atoms, ...) sums of (E, ...) over the edges of each row atom."""
        return values.new_zeros(atoms, *values.shape[1:]).index_add(0, self.i, values)


class Angular(nn.Module):
    """Factors ``s_l`` of spherical harmonics per channel: a linear map 1 -> F, biased on l = 0.

    As Y_0 = 1, the bias adds to the factor of l = 0.
    """

    def __init__(self, lmax: int, features: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(orthogonal(lmax + 1, features, 1)[..., 0].detach().clone())
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self) -> Tensor:
        """(L+1, F)."""
        return torch.cat([self.scale[:1] + self.bias, self.scale[1:]])


class Interaction(nn.Module):
    """Messages between atoms, ``x + Linear(act(Residual(y_i + sum_j v_ij)))``.

    ``v_ij = sum over paths W_p b(r) (y_j (x) s Y)_p + sum_L R_L b(r) s'_L Y_L y_j0``: both terms
    are products with spherical harmonics, so they are one, with weights folded together.

    Args:
        size: of the network.
        lower: degree of x; higher paths of it have no weights.
    """

    degrees: Tensor
    roots: Tensor

    def __init__(self, size: Size, lower: int) -> None:
        super().__init__()
        lmax, features = size.lmax, size.features
        self.own = Branch(lower, features, size.blocks)
        self.other = Branch(lower, features, size.blocks)
        self.after = Branch(lmax, features, size.blocks)
        paths = triangle_paths(lmax, left=lower)
        self.mixing = orthogonal(len(paths), features, size.basis)
        self.radial = orthogonal(lmax + 1, features, size.basis)
        self.angular1, self.angular2 = Angular(lmax, features), Angular(lmax, features)
        self.product = HarmonicProduct(paths)
        degrees = torch.tensor([p.l2 for p in paths])
        self.register_buffer("degrees", degrees, persistent=False)
        roots = torch.arange(1, 2 * lmax + 2, 2)  # integers, so that no change of type rounds them
        self.register_buffer("roots", roots, persistent=False)

    def path_weights(self) -> Tensor:
        """(P, F, K) maps from the radial basis to the weights of all paths."""
        mixing = self.mixing * self.angular1().index_select(0, self.degrees)[..., None]
        # paths (0, L, L) come first, and give Y_L y_0 / sqrt(2L + 1)
        factors = self.angular2() * self.roots.to(self.radial.dtype).sqrt()[:, None]
        direct = self.radial * factors[..., None]
        return torch.cat([mixing[: len(direct)] + direct, mixing[len(direct) :]])

    def forward(self, x: Tensor, edges: Edges) -> Tensor:
        """(N, S', F) -> (N, S, F)."""
        neighbours = self.other(x).index_select(0, edges.j)
        weights = directed(self.path_weights(), edges.radial)
        messages = edges.sums(self.product(neighbours, edges.frames, weights), len(x))
        return plus(x, self.after(plus(messages, self.own(x))))


class ModularBlock(nn.Module):
    """An interaction between residual blocks, and what it adds to the features of atoms."""

    def __init__(self, size: Size, lower: int) -> None:
        super().__init__()
        self.before = residual_stack(lower, size.features, size.blocks)
        self.interaction = Interaction(size, lower)
        self.behind = residual_stack(size.lmax, size.features, size.blocks)
        self.output = residual_stack(size.lmax, size.features, size.blocks)

    def forward(self, x: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """(N, S', F) -> (N, S, F) for the next block, and (N, S, F) of the output."""
        x = self.behind(self.interaction(self.before(x), edges))
        return x, self.output(x)


class Trunk(nn.Module):
    """Atoms as they see themselves (central) and as neighbours see them.

    Args:
        size: of the network.
        rounded: see `phisnet.embedding.configurations`.
    """

    def __init__(self, size: Size, rounded: bool) -> None:
        super().__init__()
        self.lmax = size.lmax
        self.basis = BernsteinBasis(size.basis, size.cutoff, 0.5, unit=BOHR)
        self.embedding = ElementEmbedding(size.features, rounded)
        self.blocks = nn.ModuleList(
            ModularBlock(size, 0 if k == 0 else size.lmax) for k in range(size.modules)
        )
        self.central = residual_stack(size.lmax, size.features, size.blocks)
        self.neighbour = residual_stack(size.lmax, size.features, size.blocks)

    def edges(self, batch: Batch) -> Edges:
        """Edges of a batch; every pair of atoms of a molecule has one in both directions."""
        places = batch.pair_index.reshape(-1)
        i, j = batch.edge_index.index_select(1, places)
        pairs = batch.pair_index.shape[1]
        vectors = batch.positions.index_select(0, j[:pairs])
        vectors = vectors - batch.positions.index_select(0, i[:pairs])
        frames = EdgeFrames(torch.cat([vectors, -vectors])[:, POLAR], self.lmax)
        return Edges(places, i, j, self.basis(vectors.norm(dim=1)), frames)

    def forward(self, numbers: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """(N,) atomic numbers -> (N, S, F) central and (N, S, F) neighbour features."""
        x = self.embedding(numbers)[:, None]
        total: Tensor | None = None
        for block in self.blocks:
            x, y = block(x, edges)
            total = y if total is None else total + y
        assert total is not None
        return self.central(total), self.neighbour(total)


class AtomFeatures(nn.Module):
    """``g_i = Residual(c_i + sum_j A b(r_ij) n_j)`` of central c and neighbour features n."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.radial = RadialWeights(size.lmax + 1, size.features, size.basis)
        self.residual = residual_stack(size.lmax, size.features, size.blocks)

    def forward(self, central: Tensor, neighbour: Tensor, edges: Edges) -> Tensor:
        """(N, S, F)."""
        around = scaled(neighbour.index_select(0, edges.j), self.radial(edges.radial))
        atoms: Tensor = self.residual(central + edges.sums(around, len(central)))
        return atoms


class PairFeatures(nn.Module):
    """``g_ij = Residual(PairMix(c_i, c_j) + sum over k not i, j of B b(r_ik) n_k)``."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        paths = triangle_paths(size.lmax)
        self.mixing = RadialWeights(len(paths), size.features, size.basis)
        self.product = PathProduct(paths)
        self.radial = RadialWeights(size.lmax + 1, size.features, size.basis)
        self.residual = residual_stack(size.lmax, size.features, size.blocks)

    def forward(self, central: Tensor, neighbour: Tensor, edges: Edges) -> Tensor:
        """(E, S, F)."""
        i, j = edges.i, edges.j
        mixed = self.product(
            central.index_select(0, i), central.index_select(0, j), self.mixing(edges.radial)
        )
        around = scaled(neighbour.index_select(0, j), self.radial(edges.radial))
        others = edges.sums(around, len(central)).index_select(0, i) - around
        pairs: Tensor = self.residual(mixed + others)
        return pairs
