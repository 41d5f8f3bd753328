"""Products by OpenEquivariance: kernels that it generates for a GPU.

Written by its documentation of version 0.7 (github.com/PASSIONLab/OpenEquivariance, README and
``docs/supported_ops.rst``); no machine with it was at hand, so that it was never run.
"""

from __future__ import annotations

from torch import Tensor

from hambench.bench.backends.e3nn import arguments
from hambench.bench.backends.product import Factors, Problem, Product
from hambench.errors import ConfigError


class OpenEquivariance(Product):
    """`openequivariance.TensorProduct`, components before channels as here."""

    title = "openequivariance"
    flat = True

    def __init__(self, problem: Problem, factors: Factors) -> None:
        if not problem.harmonics:
            raise ConfigError("has no products of features channel by channel (uuu)")
        if problem.device.type != "cuda":  # it does not even import where torch has no CUDA
            raise ConfigError("needs a GPU")
        try:
            import openequivariance as oeq
        except ImportError as error:
            raise ConfigError(
                "not installed; pip install openequivariance (builds with the CUDA toolkit)"
            ) from error
        super().__init__(problem, factors)
        features, right, instructions = arguments(problem)
        number = oeq.torch_to_oeq_dtype(problem.dtype)
        self._product = oeq.TensorProduct(
            oeq.TPProblem(
                oeq.Irreps(features), oeq.Irreps(right), oeq.Irreps(features), instructions,
                irrep_normalization="none", path_normalization="none", shared_weights=False,
                internal_weights=False, irrep_dtype=number, weight_dtype=number, layout="ir_mul",
            )
        )  # fmt: skip

    def multiply(self) -> Tensor:
        """See `Product`."""
        product: Tensor = self._product(self.left, self.right, self.weights)
        return product
