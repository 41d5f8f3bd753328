"""Steps of training captured as CUDA graphs: one launch instead of a thousand.

A graph holds the kernels of a step with the addresses they work at. It serves every batch of equal
form that is copied to where the first one stood; what else changes from step to step it reads from
`DeviceNumbers`. So a step must depend on nothing but tensors: `hambench.model.Model.capturable`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

from hambench.data.graph import Batch
from hambench.data.packed import Form, Packed
from hambench.errors import ConfigError, RunError
from hambench.learn.recipe import Recipe

logger = logging.getLogger(__name__)

LARGEST: Final = 64
"""Forms that are captured, the first there are; steps on further ones run as if for none."""

_EAGER: Final = 2  # steps on a form before it is captured: they leave behind what is made only once
STEPS_TO_CAPTURE: Final = _EAGER + 1
"""Steps on a form after which it is captured."""


class Graphs(Protocol):
    """What captures, and runs beside it what is not captured."""

    def eager(self, call: Callable[[], None]) -> None:
        """Run a call as it is."""

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """What does the same as the call, each time from the tensors as they are then.

        The call is made once, without effect on any tensor.
        """


class CudaGraphs:
    """CUDA graphs that share their memory, of which they keep nothing between two steps."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def eager(self, call: Callable[[], None]) -> None:
        """On the stream that captures: libraries make ready for that one."""
        outside = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(outside)
        with torch.cuda.stream(self._stream):
            call()
        outside.wait_stream(self._stream)

    def capture(self, call: Callable[[], None]) -> Callable[[], None]:
        """Capture a call; other threads, such as that of the loader, may go on meanwhile."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            call()
        return graph.replay


class DeviceNumbers:
    """Numbers of the host where kernels read them, renewed without waiting for the device.

    Args:
        count: of numbers.
        device: of a GPU they are float32, as its fused optimisers read them, else float64.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        dtype = torch.float32 if device.type == "cuda" else torch.float64
        self.values = torch.zeros(count, dtype=dtype, device=device)

    def renew(self, numbers: Sequence[float]) -> None:
        """For the kernels launched from now on."""
        pinned = self.values.is_cuda
        host = torch.tensor(numbers, dtype=self.values.dtype, pin_memory=pinned)
        self.values.copy_(host, non_blocking=True)


class _Captured(NamedTuple):
    """A graph, and the memory of the batch it works on."""

    memory: Tensor
    replay: Callable[[], None]


class CapturedSteps:
    """A step as a function of the batch, replayed for batches of a form seen before.

    The first steps on a form run as they are, and they count as any other.

    Args:
        step: of a batch on the device; changes no tensor but those that stay where they are.
        device: of the steps.
        graphs: what captures them.
        largest: number of forms that are captured, see `LARGEST`.
    """

    def __init__(
        self,
        step: Callable[[Batch], None],
        device: torch.device,
        graphs: Graphs,
        largest: int = LARGEST,
    ) -> None:
        self.step, self.device, self.graphs, self.largest = step, device, graphs, largest
        self._seen: Counter[Form] = Counter()
        self._captured: dict[Form, _Captured] = {}
        self._told: set[str] = set()

    def __call__(self, packed: Packed, capturable: bool) -> None:
        """One step.

        Args:
            packed: the batch.
            capturable: whether it may be captured, or replayed, now.

        Raises:
            RunError: the step does what no graph can.
        """
        if not capturable:
            self._tell("this model cannot be captured as a CUDA graph yet: its steps run without")
            found = None
        else:
            found = self._captured.get(packed.form)
            if found is None and self._due(packed.form):
                found = self._captured[packed.form] = self._capture(packed)
        if found is None:
            batch = packed.to(self.device).batch()
            self.graphs.eager(lambda: self.step(batch))
            return
        found.memory.copy_(packed.memory, non_blocking=True)
        found.replay()

    def _due(self, form: Form) -> bool:
        """Whether to capture a form now that it comes again."""
        if form not in self._seen and len(self._seen) == self.largest:
            self._tell(
                f"batches come in more than {self.largest} shapes: steps on further ones run "
                "without a CUDA graph; recipe.pad=true with recipe.max_edges brings them to few"
            )
            return False
        self._seen[form] += 1
        return self._seen[form] > _EAGER

    def _tell(self, what: str) -> None:
        """Warn, once."""
        if what not in self._told:
            self._told.add(what)
            logger.warning("%s", what)

    def _capture(self, packed: Packed) -> _Captured:
        memory = torch.empty_like(packed.memory, device=self.device)
        batch = Packed(memory, packed.form).batch()
        try:
            return _Captured(memory, self.graphs.capture(lambda: self.step(batch)))
        except RuntimeError as error:
            cause = error.__context__ or error  # the end of a broken capture is an error, too
            if isinstance(cause, torch.OutOfMemoryError):
                raise cause from None
            reason = str(cause).splitlines()[0]
            raise RunError(
                f"a training step of this model cannot be captured as a CUDA graph ({reason}); "
                "the last checkpoint is kept: go on with cuda_graph=false"
            ) from error


def check_cuda_graph(device: torch.device, recipe: Recipe, processes: int) -> None:
    """Whether steps can be captured there.

    Args:
        device: to train on.
        recipe: of the training.
        processes: that share a step.

    Raises:
        ConfigError: they cannot.
    """
    if device.type != "cuda":
        raise ConfigError(
            f"cuda_graph=true needs a GPU, and training is on {device.type}; leave it out, or "
            "take device=cuda"
        )
    if processes > 1:
        raise ConfigError(
            f"cuda_graph=true is for one process, and {processes} share a step; leave it out, or "
            "take gpus=1 nodes=1"
        )
    if recipe.accumulate > 1:
        raise ConfigError(
            f"cuda_graph=true is for one batch per step, and recipe.accumulate is "
            f"{recipe.accumulate}; leave it out, or take recipe.accumulate=1 and larger batches"
        )
