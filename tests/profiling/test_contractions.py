"""Products, calls and bytes of known operators."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hambench.profiling.contractions import Recorder, replay


def test_products_are_recorded_forward_and_backward() -> None:
    linear = nn.Linear(5, 7)
    x, y = torch.randn(3, 5, requires_grad=True), torch.randn(4, 6, 7)
    with Recorder() as seen:
        h = linear(x)  # 3 x 5 by 5 x 7
        (h @ y.transpose(1, 2)).sum().backward()  # folded, or four of 3 x 7 by 7 x 6
    forward = [2 * 3 * 5 * 7, 2 * 4 * 3 * 7 * 6]
    flops = sum(one.flops for one in seen.contractions)
    assert flops == forward[0] * 3 + forward[1] * 2  # y needs no gradient
    assert seen.calls >= len(seen.contractions)


def test_products_into_memory_of_others_count_views_do_not() -> None:
    a, b, out = torch.randn(4, 6), torch.randn(12, 5), torch.empty(8, 5)
    with Recorder() as seen:
        torch.mm(a, b[::2], out=out[1::2])
        out.addmm_(torch.randn(8, 2), torch.randn(2, 5))
        torch.randn(0, 4) @ torch.randn(4, 5)
        a.mv(torch.randn(6))
        out.unsqueeze(0).baddbmm_(torch.randn(1, 8, 3), torch.randn(1, 3, 5))
        out.view(-1)[3:].unsqueeze(0).transpose(0, 1)
    assert [one.flops for one in seen.contractions] == [240, 160, 48, 240]
    assert [one.bytes for one in seen.contractions] == [4 * n for n in (74, 66, 34, 79)]
    assert seen.contractions[0].right_strides == (10, 1)
    assert seen.calls == 5 + 7  # and the random numbers
    alone = replay(seen.contractions * 2)
    with Recorder() as again:
        alone()
    assert [one.flops for one in again.contractions] == [240, 160, 48, 240] * 2
    assert again.contractions[0].right_strides == (10, 1)


A, B, OUT = (torch.ones(10, 10) for _ in range(3))
ROW = torch.ones(1, 10)


@pytest.mark.parametrize(
    ("work", "numbers"),
    [
        (lambda: A + B, 300),
        (lambda: A + ROW, 210),
        (lambda: A + ROW.expand(10, 10), 210),  # its ten rows are one in memory
        (lambda: A.add_(B), 300),  # read, read, written
        (lambda: torch.mm(A, B), 300),
        (lambda: torch.mm(A, B, out=OUT), 300),
        (lambda: torch.cat([A, B]), 400),
        (lambda: torch._foreach_mul([A, B], 2.0), 400),
        (lambda: torch._foreach_mul_([A, B], 1.0), 400),
        (lambda: A.sum(), 101),
        (lambda: A.view(-1)[5:].view(5, 19).T, 0),
        (lambda: torch.empty(7), 0),
        (lambda: torch.zeros(7), 7),
        (lambda: A.topk(1), 130),  # the indices have eight bytes each
    ],
)  # fmt: skip
def test_bytes_that_operators_move(work: Callable[[], object], numbers: int) -> None:
    with Recorder() as seen:
        work()
    assert seen.bytes == 4 * numbers


def test_bytes_of_a_backward_pass() -> None:
    x = torch.ones(100, requires_grad=True)
    with Recorder() as forward:
        y = x * x
    with Recorder() as both:
        y.backward(torch.ones(100))
    assert forward.bytes == 4 * 300
    assert both.bytes >= 4 * (100 + 2 * 300 + 300)  # ones; two products; their sum
