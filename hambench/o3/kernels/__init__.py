"""Passes over the features of edges, each written twice: in PyTorch and in Triton.

What HELM does beside its matrix products reads and writes memory: rotations into and out of the
frames of edges, and the gate. `plain` has these passes in PyTorch; it runs everywhere, is the
default everywhere, and is what `fused` is tested against. `fused` has each as one Triton kernel
(`device`) for GPUs; ``HAMBENCH_TRITON=1`` takes it. Nothing else knows that there are two.

Numbers that are read (r) and written (w) per edge and pass, forward and backward, in units of C
numbers, of lmax = 4 (S = 25 rows, 15 weights per end); rows of atoms, which stay in a GPU's cache,
count like all others. They are counted, not measured, and no pass was timed on a GPU yet.

| pass               | plain                         | fused                  |
|--------------------|-------------------------------|------------------------|
| pairs              | r 200 w 150, 36 kernels       | r 80 w 50, 1 kernel    |
| pairs, backward    | r 440 w 260, 77 kernels       | r 80 w 30, 1 kernel    |
| at atoms           | r 75 w 75, 41 kernels         | r 25, 1 kernel         |
| at atoms, backward | r 75 w 75, 36 kernels         | r 25 w 25, 1 kernel    |
| gate               | r 60 w 30, 7 kernels          | r 29 w 25, 1 kernel    |
| gate, backward     | r 160 w 60, 20 kernels        | r 54 w 29, 1 kernel    |
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Protocol

from torch import Tensor

from hambench.errors import ConfigError

if TYPE_CHECKING:
    from hambench.o3.frames import EdgeFrames

VARIABLE: Final = "HAMBENCH_TRITON"


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
    from triton import knobs

    if features.device.type != "cuda" and not knobs.runtime.interpret:
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
