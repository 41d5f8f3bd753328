"""Memory that a training's steps free and ask for again."""

from __future__ import annotations

import ctypes
import resource

import pytest
import torch

from hambench.learn.device import memory_kept

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")


def faults_of_a_step() -> int:
    """Pages the system cleared for a step's tensors, after some steps."""

    def step() -> None:
        for size in (4_000_000, 9_000_000, 5_000_000, 2_000_000):
            x = torch.ones(size)
            y = x * x
            del x, y

    for _ in range(5):
        step()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(3):
        step()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 3


@glibc
def test_freed_memory_is_used_again_and_then_given_back() -> None:
    with memory_kept():
        kept = faults_of_a_step()
        held = resident()
        x = torch.ones(50_000_000)
        del x
        assert resident() >= held
    assert resident() < held
    assert kept < 0.1 * 2 * 20_000_000 * 4 / resource.getpagesize()


def resident() -> int:
    """Bytes of memory the process has."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
