"""Products by NVIDIA's cuEquivariance: kernels on a GPU, plain torch elsewhere."""

from __future__ import annotations

import importlib.util
from typing import Any

from torch import Tensor

from hambench.bench.backends.product import Factors, Problem, Product
from hambench.errors import ConfigError
from hambench.o3.paths import symbols

_FRONT = "not installed; pip install 'hambench[yardsticks]'"
_KERNELS = "its kernels are not installed; pip install cuequivariance-ops-torch-cu13"


class CuEquivariance(Product):
    """`cuequivariance_torch.SegmentedPolynomial`, components before channels as here."""

    title = "cuequivariance"
    flat = True

    def __init__(self, problem: Problem, factors: Factors) -> None:
        try:
            import cuequivariance_torch
        except ImportError as error:
            raise ConfigError(_FRONT) from error
        kernels = problem.device.type == "cuda"
        if kernels and importlib.util.find_spec("cuequivariance_ops_torch") is None:
            raise ConfigError(_KERNELS)  # else it takes plain torch, and warns
        super().__init__(problem, factors)
        method = "uniform_1d" if kernels else "naive"
        self.note = f"method {method}"
        polynomial = _polynomial(problem)
        self._product = cuequivariance_torch.SegmentedPolynomial(polynomial, method=method).to(
            problem.device
        )

    def multiply(self) -> Tensor:
        """See `Product`."""
        (product,) = self._product([self.weights, self.left, self.right])
        return product


def _polynomial(problem: Problem) -> Any:
    """Weights, left, right, result; a segment of each is a path, or a degree."""
    import cuequivariance as cue

    right = "j" if problem.harmonics else "ju"
    descriptor = cue.SegmentedTensorProduct.from_subscripts(f"u,iu,{right},ku+ijk")
    for size in problem.sizes:
        descriptor.add_segment(1, (size, problem.channels))
        descriptor.add_segment(2, (size, problem.channels)[: len(right)])
        descriptor.add_segment(3, (size, problem.channels))
    for path, c in zip(problem.paths, problem.coefficients, strict=True):
        descriptor.add_path(None, *path, c=c * symbols(path).numpy())
    return cue.SegmentedPolynomial.eval_last_operand(descriptor)
