"""What makes a host wait for a GPU is counted, also where there is none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from hambench.profiling.waits import count_waits

CPU = torch.device("cpu")
X = torch.arange(-3.0, 3.0)
TIMES = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda: X.sum().item(), 1),
        (lambda: float(X[0]) + float(X[1]), 2),
        (lambda: 1 if X[0] > 0 else 2, 1),
        (lambda: X.tolist(), 1),
        (lambda: X.numpy(), 1),
        (lambda: X.cpu(), 1),
        (lambda: X.nonzero(), 1),
        (lambda: X[X > 0], 1),
        (lambda: X.clone().__setitem__(X > 0, 0.0), 1),
        (lambda: TIMES.unique(), 1),
        (lambda: X[:2].repeat_interleave(TIMES), 1),
        (lambda: X[:2].repeat_interleave(TIMES, output_size=3), 0),
        (lambda: X[TIMES], 0),
        (lambda: X.masked_fill(X > 0, 0.0), 0),
        (lambda: torch.where(X > 0, X, 0.0).sum(), 0),
        (lambda: torch.nn.utils.clip_grad_norm_([X], 1.0), 0),
    ],
)
def test_waits_on_a_cpu_are_those_that_there_would_be(
    work: Callable[[], object], waits: int
) -> None:
    assert count_waits(work, CPU) == waits


def test_waits_of_a_backward_pass_count_too() -> None:
    class Asks(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return 2 * x

        @staticmethod
        def backward(ctx, gradient):
            return gradient * gradient.sum().item()

    x = X.clone().requires_grad_()
    assert count_waits(lambda: Asks.apply(x).sum().backward(), CPU) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_waits_on_a_gpu_are_what_its_profiler_saw() -> None:
    device = torch.device("cuda")
    x = torch.ones(5, device=device)
    assert count_waits(lambda: x + 1, device) == 0
    assert count_waits(lambda: (x.sum().item(), x.max().item()), device) == 2
