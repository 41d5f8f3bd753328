"""Memory and kernel launches of a piece of work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile


def peak_and_launches(run: Callable[[], object], device: torch.device) -> tuple[int, int | None]:
    """Most bytes of tensors at a time beyond those that were there, and kernels launched.

    Launches are None on a CPU.
    """
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
    with profile(activities=kinds, profile_memory=device.type == "cpu") as seen:
        run()
        synchronize(device)
    events = seen.profiler.kineto_results.events()
    if device.type == "cuda":
        launches = sum("LaunchKernel" in event.name() for event in events)
        return torch.cuda.max_memory_allocated(device) - before, launches
    # torch's own account of what it took and gave back: the same on every machine, and nothing of
    # what else is in the process
    changes = [event for event in events if event.name() == "[memory]"]
    now = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        most = max(most, now)
    return most, None


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
