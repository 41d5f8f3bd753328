"""Layers on spherical features (rows, (L+1)^2, F), degree l at l^2, channels last.

Building blocks of PhiSNet (Unke et al., NeurIPS 2021, arXiv 2106.02347) as its public code has
them. Every one also takes features of a lower degree, those of bare elements being of degree 0, and
then has no weights for what would be zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hambench.o3.layers import SO3Linear, per_row
from hambench.o3.products import Path, PathProduct, triangle_paths


def orthogonal(count: int, rows: int, columns: int) -> nn.Parameter:
    """(count, rows, columns) random matrices, each with orthonormal rows or columns."""
    q, r = torch.linalg.qr(torch.randn(count, max(rows, columns), min(rows, columns)))
    q = q * r.diagonal(dim1=1, dim2=2).sign()[:, None]  # else not evenly distributed
    return nn.Parameter((q if rows >= columns else q.transpose(1, 2)).contiguous())


def mixing_paths(lmax: int, top: int | None = None) -> list[Path]:
    """Products of two degrees l1 < l2 of one feature, to degrees up to ``top`` (None: lmax)."""
    last = lmax if top is None else top
    return [p for p in triangle_paths(lmax) if p.l1 < p.l2 and p.l3 <= last]


def halves(x: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """The first components of features (R, S, F), and the others; one backward pass joins them."""
    one, other = x.split([first, x.shape[1] - first], dim=1)
    return one, other


def scaled(x: Tensor, factors: Tensor) -> Tensor:
    """Features (R, S, F), each degree times its own factors (R, L+1, F)."""
    parts = x.split([2 * l + 1 for l in range(factors.shape[1])], dim=1)
    return torch.cat([p * f for p, f in zip(parts, factors.split(1, dim=1), strict=True)], dim=1)


def plus(x: Tensor, y: Tensor) -> Tensor:
    """The sum of two features, of which one may lack the higher degrees of the other."""
    if x.shape[1] < y.shape[1]:
        x, y = y, x
    if x.shape[1] == y.shape[1]:
        return x + y
    shared, rest = halves(x, y.shape[1])
    return torch.cat([shared + y, rest], dim=1)


class Swish(nn.Module):
    """``alpha x sigmoid(beta x)``, alpha and beta trained; spherical features change at l = 0."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(features))
        self.beta = nn.Parameter(torch.full((features,), 1.702))

    def scalars(self, x: Tensor) -> Tensor:
        """(..., F) -> (..., F)."""
        return self.alpha * x * torch.sigmoid(self.beta * x)

    def forward(self, x: Tensor) -> Tensor:
        """(R, S, F) -> (R, S, F)."""
        if x.shape[1] == 1:
            return self.scalars(x)
        first, rest = halves(x, 1)
        return torch.cat([self.scalars(first), rest], dim=1)


class SelfMix(nn.Module):
    """``y_L = k_L x_L + sum over l1 < l2 of c_{l1,l2,L} (x_l1 (x) x_l2)_L``, channel by channel.

    Args:
        lmax: degree of the input.
        features: F.
        top: degree of the output, at most that of the input; None: the same.
    """

    def __init__(self, lmax: int, features: int, top: int | None = None) -> None:
        super().__init__()
        self.top = lmax if top is None else top
        self.paths = mixing_paths(lmax, self.top)
        terms = [1 + sum(p.l3 == l for p in self.paths) for l in range(self.top + 1)]
        bounds = [(3 / n) ** 0.5 for n in terms]
        self.keep = _uniform(bounds, features)
        self.mix: nn.Parameter | None = None
        self.product: PathProduct | None = None
        if self.paths:
            self.mix = _uniform([bounds[p.l3] for p in self.paths], features)
            self.product = PathProduct(self.paths)

    def forward(self, x: Tensor) -> Tensor:
        """(R, (lmax+1)^2, F) -> (R, (top+1)^2, F)."""
        keep = per_row(self.keep)
        kept = x if x.shape[1] == len(keep) else x[:, : len(keep)]
        if self.product is None or self.mix is None:
            return kept * keep
        return torch.addcmul(self.product(x, x, self.mix[None]), kept, keep)


class SphericalLinear(nn.Module):
    """`SelfMix`, then one matrix per degree; bias on l = 0.

    Args:
        lmax: degree.
        features: F.
        zero: begin with matrices that are zero.
    """

    def __init__(self, lmax: int, features: int, zero: bool = False) -> None:
        super().__init__()
        self.mixing = SelfMix(lmax, features)
        self.linear = SO3Linear(lmax, features, features)
        if zero:
            nn.init.zeros_(self.linear.weight)
        else:
            self.linear.weight = orthogonal(lmax + 1, features, features)

    def forward(self, x: Tensor) -> Tensor:
        """(R, S, F) -> (R, S, F)."""
        mixed = self.linear(self.mixing(x).transpose(0, 1))
        return mixed.transpose(0, 1)


class ResidualBlock(nn.Module):
    """``x + Linear2(act(Linear1(act(x))))``; begins as the identity."""

    def __init__(self, lmax: int, features: int) -> None:
        super().__init__()
        self.activation_pre = Swish(features)
        self.linear1 = SphericalLinear(lmax, features)
        self.activation_post = Swish(features)
        self.linear2 = SphericalLinear(lmax, features, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        """(R, S, F) -> (R, S, F)."""
        hidden = self.linear1(self.activation_pre(x))
        return x + self.linear2(self.activation_post(hidden))


def residual_stack(lmax: int, features: int, blocks: int) -> nn.Sequential:
    """Residual blocks one behind the other; none is the identity."""
    return nn.Sequential(*(ResidualBlock(lmax, features) for _ in range(blocks)))


class Branch(nn.Module):
    """Residual blocks, activation and linear map, as they stand before messages and after them."""

    def __init__(self, lmax: int, features: int, blocks: int) -> None:
        super().__init__()
        self.residual = residual_stack(lmax, features, blocks)
        self.activation = Swish(features)
        self.linear = SphericalLinear(lmax, features)

    def forward(self, x: Tensor) -> Tensor:
        """(R, S, F) -> (R, S, F)."""
        mixed: Tensor = self.linear(self.activation(self.residual(x)))
        return mixed


class RadialWeights(nn.Module):
    """Linear maps of the radial basis without bias: weights of paths, or factors of degrees.

    Args:
        count: of maps.
        features: F.
        basis: K, size of the radial basis.
    """

    def __init__(self, count: int, features: int, basis: int) -> None:
        super().__init__()
        self.weight = orthogonal(count, features, basis)

    def forward(self, radial: Tensor) -> Tensor:
        """(E/2, K) of pairs -> (E, count, F) of their edges, see `directed`."""
        return directed(self.weight, radial)


def directed(weight: Tensor, radial: Tensor) -> Tensor:
    """Maps (count, F, K) of the radial basis (E/2, K) of pairs, (E, count, F).

    The edges are those of all pairs, then their reverses, which have the same radial basis.
    """
    values = radial @ weight.flatten(0, 1).T
    return values.unflatten(1, weight.shape[:2]).repeat(2, 1, 1)


def _uniform(bounds: Sequence[float], features: int) -> nn.Parameter:
    """(len(bounds), features) drawn evenly between minus and plus each bound."""
    weight = torch.empty(len(bounds), features)
    for row, bound in zip(weight, bounds, strict=True):
        nn.init.uniform_(row, -bound, bound)
    return nn.Parameter(weight)
