"""Products by e3nn, channels before components in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from e3nn import o3
from torch import Tensor

from hambench.bench.backends.product import Factors, Problem, Product


class E3nn(Product):
    """`e3nn.o3.TensorProduct`."""

    title = "e3nn"
    flat = True

    def __init__(self, problem: Problem, factors: Factors) -> None:
        super().__init__(problem, factors)
        features, right, instructions = arguments(problem)
        with _default(problem.dtype):
            product = o3.TensorProduct(
                features, right, features, instructions, irrep_normalization="none",
                path_normalization="none", shared_weights=False, internal_weights=False,
            )  # fmt: skip
        self._product = product.to(problem.device)

    def multiply(self) -> Tensor:
        """See `Product`."""
        product: Tensor = self._product(self.left, self.right, self.weights)
        return product

    def own(self, x: Tensor) -> Tensor:
        """See `Product`."""
        parts = x.split(self.sizes, dim=1)
        return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)

    def features(self, x: Tensor) -> Tensor:
        """See `Product`."""
        widths = [self.channels * size for size in self.sizes]
        parts = zip(x.split(widths, dim=1), self.sizes, strict=True)
        return torch.cat([p.unflatten(1, (-1, n)).transpose(1, 2) for p, n in parts], dim=1)


@contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    """Torch's default type in the block: that of the symbols e3nn makes, whatever follows."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


Instructions = list[tuple[int, int, int, str, bool, float]]


def arguments(problem: Problem) -> tuple[str, str, Instructions]:
    """Irreps of the features and of the right factor, and the paths, as e3nn has them.

    All irreps are even, as features without a parity are; path weights are of squares.
    """
    features, harmonics = (
        "+".join(f"{count}x{l}e" for l in range(problem.lmax + 1))
        for count in (problem.channels, 1)
    )
    mode, right = ("uvu", harmonics) if problem.harmonics else ("uuu", features)
    paths = zip(problem.paths, problem.coefficients, strict=True)
    return features, right, [(*path, mode, True, c**2) for path, c in paths]
