"""All measurements of `hambench bench data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from hambench.bench.loading import Memory, Supply, measure_memory, measure_supply
from hambench.bench.molecules import CASES, LARGE, MEDIUM, WATER
from hambench.bench.reading import Reading, measure_reading
from hambench.bench.shapes import Shapes, measure_shapes
from hambench.bench.subject import for_random
from hambench.learn.device import open_fabric
from hambench.registry import formats


@dataclass(frozen=True)
class DataBench:
    """What was measured; ``memory`` is None where no sparse file was asked for."""

    reading: list[Reading]
    supply: list[Supply]
    shapes: Shapes
    memory: Memory | None


def measure(
    folder: Path,
    *,
    repeats: int,
    model: str,
    device: str,
    batch_size: int,
    workers: int,
    seconds: float,
    size: int,
) -> DataBench:
    """Everything, with files in ``folder`` that are left there.

    Args:
        folder: an empty one.
        repeats: timed reads of each kind.
        model: preset, see `measure_supply`.
        device: as `open_fabric` takes it.
        batch_size, workers, seconds: see `measure_supply`.
        size: bytes of the sparse file; 0: none.

    Raises:
        ConfigError: a format's library is not installed, the device is not there, or the model
            has no parameters.
        RegistryError: no such model.
        RunError: the process that reads the sparse file failed.
    """
    where = open_fabric(device).device
    # a wrong name is told before anything is measured
    networks = [(case, for_random(model, case)) for case in (WATER, MEDIUM)]
    known = formats()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker; a plain read has no more either
    try:
        reading = [
            one
            for case in tqdm(CASES, desc="reading", unit="file", leave=False)
            for one in measure_reading(case, known[case.format], folder, repeats)
        ]
    finally:
        torch.set_num_threads(threads)
    supply = [
        one
        for case, network in tqdm(networks, desc="loading", unit="file", leave=False)
        for one in measure_supply(
            case, known[case.format], folder, model=model, network=network, device=where,
            batch_size=batch_size, workers=workers, seconds=seconds,
        )
    ]  # fmt: skip
    memory = measure_memory(known[LARGE.format], folder, size) if size else None
    return DataBench(reading, supply, measure_shapes(), memory)
