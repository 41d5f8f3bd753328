"""Products by this package, and written plainly, path by path."""

from __future__ import annotations

import torch
from torch import Tensor

from hambench.bench.backends.product import Factors, Problem, Product
from hambench.o3.paths import components, symbols
from hambench.o3.products import HarmonicProduct, PathProduct


class Ours(Product):
    """`hambench.o3.products`. Harmonics come as the frames of their edges."""

    title = "hambench"

    def __init__(self, problem: Problem, factors: Factors) -> None:
        super().__init__(problem, factors)
        kind = HarmonicProduct if problem.harmonics else PathProduct
        self._product = kind(problem.paths, problem.coefficients)
        self._right = factors.frames if problem.harmonics else self.right

    def multiply(self) -> Tensor:
        """See `Product`."""
        product: Tensor = self._product(self.left, self._right, self.weights)
        return product


class PathByPath(Product):
    """One contraction of outer products with 3j symbols per path."""

    title = "path by path"

    def __init__(self, problem: Problem, factors: Factors) -> None:
        super().__init__(problem, factors)
        self._terms = [
            (path, (c * symbols(path)).to(problem.device, problem.dtype))
            for path, c in zip(problem.paths, problem.coefficients, strict=True)
        ]

    def multiply(self) -> Tensor:
        """See `Product`."""
        sums: list[Tensor | None] = [None] * len(self.sizes)
        for k, (path, symbol) in enumerate(self._terms):
            left, right = self.left[:, components(path.l1)], self.right[:, components(path.l2)]
            outer = left[:, :, None] * right[:, None]
            term = torch.einsum("rmnc,mnk->rkc", outer, symbol) * self.weights[:, k, None]
            before = sums[path.l3]
            sums[path.l3] = term if before is None else before + term
        shape = self.left.shape
        return torch.cat(
            [
                self.left.new_zeros(shape[0], size, shape[2]) if part is None else part
                for part, size in zip(sums, self.sizes, strict=True)
            ],
            dim=1,
        )
