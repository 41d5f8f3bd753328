"""How often a piece of work makes the host wait for a GPU: measured on one, predicted on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from hambench.profiling.memory import synchronize
from hambench.profiling.modes import FunctionMode, OperatorMode

_CALLS: Final = (
    "cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy",
)  # fmt: skip
"""Calls of CUDA that return when the device has done its work; `cudaMemcpyAsync` does not."""
_RANGE: Final = "hambench: counted"

_SIZES: Final = frozenset(
    f"aten::{name}"
    for name in (
        "_local_scalar_dense", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
        "unique_consecutive", "unique_dim_consecutive", "bincount", "equal", "allclose",
    )
)  # fmt: skip
"""Operators whose outcome the host has to know: a number, or the size of what comes out."""
_INDEXED: Final = frozenset(
    ("aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_")
)
_TO_HOST: Final = (Tensor.tolist, Tensor.numpy, Tensor.cpu)


def count_waits(run: Callable[[], object], device: torch.device) -> int:
    """Times the host waits for the device while ``run`` runs.

    Args:
        run: called once.
        device: of a GPU its profiler is asked. On a CPU, where nothing waits, what would wait if
            all tensors were on a GPU is counted: numbers that are taken out of tensors, sizes that
            depend on values, masks as indices, whole tensors that are brought to the host.
    """
    if device.type != "cuda":
        with _Values() as values, _Copies() as copies:
            run()
        return values.count + copies.count
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        with record_function(_RANGE):
            run()
        synchronize(device)
    events = seen.profiler.kineto_results.events()
    begin, end = next(
        (event.start_ns(), event.end_ns()) for event in events if event.name() == _RANGE
    )
    return sum(event.name() in _CALLS and begin <= event.start_ns() < end for event in events)


class _Values(OperatorMode):
    """Counts operators that need values of tensors on the host, forward and backward."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Count, and run as usual."""
        name = func._schema.name
        repeats = name == "aten::repeat_interleave" and kwargs.get("output_size") is None
        masked = name in _INDEXED and any(_is_mask(index) for index in args[1])
        self.count += name in _SIZES or repeats or masked
        return super().seen(func, args, kwargs)


class _Copies(FunctionMode):
    """Counts tensors brought to the host, which no operator is called for on a CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Count, and run as usual."""
        self.count += func in _TO_HOST
        return super().seen(func, args, kwargs)


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)
