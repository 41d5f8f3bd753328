"""Lightning Fabric on the device the user asked for."""

from __future__ import annotations

import ctypes
import resource
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import torch

from hambench.errors import ConfigError
from hambench.learn.processes import ALONE, Processes, gpu_of

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
_MMAP_MAX: Final = -4
"""Parameters of glibc's mallopt."""


def open_fabric(device: str, processes: Processes = ALONE) -> Fabric:
    """Fabric on one device, of each process.

    Precision stays with us: Fabric's double precision would convert outputs to torch's default
    type.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.
        processes: which share a model; of each, the GPU of its number.

    Raises:
        ConfigError: the device is not there, or is one for several processes.
    """
    from lightning_fabric import Fabric  # slow to import

    # a run on one device is started by itself, on machines with SLURM too
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"device is '{device}', expected auto, cpu, cuda or cuda:NUMBER")
    if number and processes.several:
        raise ConfigError(
            f"device={device} is one GPU for {processes.size} processes; leave out its number"
        )
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={device} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu, or see `hambench doctor`"
        )
    if processes.several:
        return _distributed(kind, processes)
    if kind == "cpu":
        return Fabric(accelerator="cpu", devices=1)
    return Fabric(accelerator="cuda", devices=[int(number or 0)])


def _distributed(kind: str, processes: Processes) -> Fabric:
    """Fabric with DDP, for which every process is a node of one device."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import TorchElasticEnvironment
    from lightning_fabric.strategies import DDPStrategy

    class Joined(TorchElasticEnvironment):
        """The variables of torchrun, whatever SLURM says, with one device for each node."""

        def node_rank(self) -> int:
            return self.global_rank()

        def local_rank(self) -> int:
            return 0

    strategy = DDPStrategy(
        cluster_environment=Joined(),
        broadcast_buffers=False,  # all have the same
        # A parameter that no process uses keeps no gradient, as in one process alone, and buckets
        # are never rearranged: sums are added in the same order before and after a restart.
        find_unused_parameters=True,
    )
    for known in ("find_unused_parameters=True was", "`broadcast_buffers` is deprecated"):
        warnings.filterwarnings("ignore", message=known)
    devices = [gpu_of(processes.local_rank)] if kind == "cuda" else 1
    fabric = Fabric(accelerator=kind, devices=devices, num_nodes=processes.size, strategy=strategy)
    fabric.launch()
    return fabric


@contextmanager
def memory_kept() -> Iterator[None]:
    """Memory that is freed in the block stays with the process, as a step soon asks for it again.

    The C library hands large pieces back to the system, which clears them page by page when they
    are asked for anew: up to half of the time of a pass over a tensor, and a sixth of a step of few
    atoms and many parameters. Does nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not (hasattr(library, "mallopt") and hasattr(library, "malloc_trim")):
        yield
        return
    library.mallopt(_MMAP_MAX, 0)
    library.mallopt(_TRIM_THRESHOLD, -1)  # never
    try:
        yield
    finally:  # to what glibc comes to by itself in a process with large tensors
        library.mallopt(_MMAP_MAX, 65536)
        library.mallopt(_MMAP_THRESHOLD, 2**25)
        library.mallopt(_TRIM_THRESHOLD, 2**26)
        library.malloc_trim(0)


def peak_memory(device: torch.device) -> int:
    """Largest memory used so far in bytes: of the GPU, or on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
