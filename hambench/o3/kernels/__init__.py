"""Passes over the features of edges, each written twice: in PyTorch and in Triton.

What HELM does beside its matrix products reads and writes memory: rotations into and out of the
frames of edges, and the gate. `plain` has these passes in PyTorch; it runs everywhere, is the
default everywhere, and is what `fused` is tested against. `fused` has each as one Triton kernel
(`device`) for GPUs; ``HAMBENCH_TRITON=1`` takes it. Nothing else knows that there are two.

What they move per edge, in KiB of float32 with 128 channels and lmax = 4, at 30 edges per atom.
This is counted from the sizes of what each operator reads and writes; no time was measured.

| pass               | plain, read + written (operators) | fused, in one kernel |
|--------------------|-----------------------------------|----------------------|
| pairs              | 101 + 75 (35)                     | 41 + 25              |
| pairs, backward    | 162 + 76 (61)                     | 42 + 15              |
| at atoms           | 51 + 26 (36)                      | 13 + 0.4             |
| at atoms, backward | 51 + 38 (35)                      | 13 + 13              |
| in space           | 51 + 38 (31)                      | 13 + 13              |
| in space, backward | 38 + 25 (30)                      | 13 + 13              |
| gate               | 22 + 15 (7)                       | 14 + 13              |
| gate, backward     | 66 + 32 (20)                      | 27 + 14              |

`fused` also keeps no rotated features (25 KiB per edge and layer) for its backward pass, nor the
factors of the gate (2.5 KiB).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol

from packaging.version import Version
from torch import Tensor

from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.o3.frames import EdgeFrames

VARIABLE: Final = "HAMBENCH_TRITON"
OLDEST: Final = "3.6"
"""Triton that the kernels were compiled with."""


class Passes(Protocol):
    """What both have. Features per |m| are as `hambench.o3.frames` says.

    Each forward pass also returns what its own backward pass takes as ``kept``.
    """

    def pairs(
        self, nodes: Tensor, weights: Tensor, frames: EdgeFrames, mmax: int
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Gather, rotate, multiply.

        ``part_m[+, e, l-m, end] = w_m[e, l-m, end] (D_l x_end)[l+m]``, and ``[-]`` with ``[l-m]``.

        Args:
            nodes: (N, S, C) features in space.
            weights: (E, sum of the L+1-m, 2C) factors.
            frames: of the E edges.
            mmax: largest |m| that is wanted.

        Returns:
            Per |m| (signs, E, L+1-m, 2C), and what to keep.
        """
        ...

    def pairs_backward(
        self, grads: Sequence[Tensor], kept: Sequence[Tensor], frames: EdgeFrames, mmax: int
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Gradients of nodes, of the packed matrices (if ``frames.turning``), of weights."""
        ...

    def to_space(
        self, parts: Sequence[Tensor], frames: EdgeFrames, summed: bool
    ) -> tuple[Tensor, list[Tensor]]:
        """``x_l = D_l^T y_l`` of each edge (E, S, C), or summed at its target (N, S, C)."""
        ...

    def to_space_backward(
        self, grad: Tensor, kept: Sequence[Tensor], frames: EdgeFrames, summed: bool
    ) -> tuple[Tensor | None, list[Tensor]]:
        """Gradients of the packed matrices (if ``frames.turning``), and of the parts."""
        ...

    def gate(self, parts: Sequence[Tensor], gates: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Every (m, l) times the factor of its l: sigmoid of itself, or tanh of the gate.

        Args:
            parts: per |m| (signs, E, L+1-m, C), of the first |m| or of all.
            gates: (E, L*C).
        """
        ...

    def gate_backward(
        self, grads: Sequence[Tensor], kept: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Gradients of the gates and of the parts."""
        ...


def chosen(features: Tensor) -> Passes:
    """The passes for features like these.

    Raises:
        ConfigError: ``HAMBENCH_TRITON`` asks for Triton, which is not here or has no GPU to run on.
    """
    asked = os.environ.get(VARIABLE, "")
    if asked in ("", "0"):
        return plain_passes()
    if asked != "1":
        raise ConfigError(
            f"{VARIABLE} is '{asked}', expected 1 (Triton kernels) or 0 (PyTorch alone)"
        )
    if find_spec("triton") is None:
        raise ConfigError(
            f"{VARIABLE} is 1 but triton is not installed; it comes with PyTorch for CUDA, "
            f"or unset {VARIABLE}"
        )
    import triton

    if Version(triton.__version__) < Version(OLDEST):
        raise ConfigError(
            f"{VARIABLE} is 1 but triton is {triton.__version__}, expected {OLDEST} or later; "
            f"install a newer PyTorch for CUDA, or unset {VARIABLE}"
        )
    if features.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise ConfigError(
            f"{VARIABLE} is 1 but the model runs on device '{features.device.type}', expected "
            f"cuda; unset {VARIABLE}, or set TRITON_INTERPRET=1 to try kernels slowly without a GPU"
        )
    from hambench.o3.kernels import fused

    return fused


def plain_passes() -> Passes:
    """Those in PyTorch, which alone have gradients of the matrices of the frames."""
    from hambench.o3.kernels import plain

    return plain
