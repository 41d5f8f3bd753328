"""Lightning Fabric on the device the user asked for."""

from __future__ import annotations

import resource
import sys
import warnings
from typing import TYPE_CHECKING

import torch

from hambench.errors import ConfigError

if TYPE_CHECKING:
    from lightning.fabric import Fabric


def open_fabric(device: str) -> Fabric:
    """Fabric on one device.

    Precision stays with us: Fabric's double precision would convert outputs to torch's default
    type.

    Args:
        device: ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        ConfigError: the device is not there.
    """
    from lightning.fabric import Fabric  # slow to import

    # a run on one device is started by itself, on machines with SLURM too
    warnings.filterwarnings("ignore", message="The `srun` command is available")
    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise ConfigError(f"device is '{device}', expected auto, cpu, cuda or cuda:NUMBER")
    if kind == "cpu":
        return Fabric(accelerator="cpu", devices=1)
    if int(number or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={device} is not there: torch sees {torch.cuda.device_count()} CUDA devices; "
            "use device=cpu, or see `hambench doctor`"
        )
    return Fabric(accelerator="cuda", devices=[int(number or 0)])


def peak_memory(device: torch.device) -> int:
    """Largest memory used so far in bytes: of the GPU, or on a CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
