"""Memory and kernel launches of a piece of work."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile


def peak_and_launches(run: Callable[[], object], device: torch.device) -> tuple[int, int | None]:
    """Most bytes of tensors at a time beyond those that were there, and kernels launched.

    A captured graph counts as one launch. Launches are None on a CPU.
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
        launches = sum(
            "LaunchKernel" in event.name() or event.name() == "cudaGraphLaunch" for event in events
        )
        return torch.cuda.max_memory_allocated(device) - before, launches
    # torch's own account of what it took and gave back: the same on every machine, and nothing of
    # what else is in the process
    changes = [event for event in events if event.name() == "[memory]"]
    now = most = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        now += change.nbytes()
        most = max(most, now)
    return most, None


def free_memory(device: torch.device) -> int:
    """Bytes that can still be taken: of a GPU, or of this machine or the container on it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        free = next(1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvail"))
    except (OSError, StopIteration):  # another system than Linux
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / f"memory.{name}").read_text() for name in ("max", "current"))
        return min(free, int(limit) - int(used))
    except (OSError, ValueError):  # no container, or one without a limit
        return free


def synchronize(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
