"""Memory of tensors, and what is free."""

from __future__ import annotations

import torch

from hambench.profiling.memory import free_memory, peak_and_launches

CPU = torch.device("cpu")


def test_peak_is_that_of_tensors() -> None:
    x = torch.ones(1000)

    def work() -> None:
        y = x + 1
        z = y * y  # two of 4 kB
        del y
        (z + 1).sum()

    peak, launches = peak_and_launches(work, CPU)
    assert 8000 <= peak < 8200
    assert launches is None


def test_free_memory_is_that_of_this_machine() -> None:
    assert 2**26 < free_memory(CPU) < 2**46
