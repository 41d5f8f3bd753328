"""Are batches built faster than a model uses them? And how much memory does a large file take?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch

from hambench.bench.molecules import LARGE, Case
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import GraphSpec, collate
from hambench.data.loader import Loader
from hambench.data.rows import Rows
from hambench.data.synthetic import SyntheticFormat
from hambench.errors import RunError
from hambench.model import Model, silent
from hambench.registry import formats

_LEAST: Final = 3  # batches, or steps, that are timed at the least
_MAX_EDGES: Final = 20_000  # two molecules of 100 atoms


@dataclass(frozen=True)
class Supply:
    """Molecules per second that are built and used.

    Attributes:
        case, model, device: what was built, for which model, where that ran.
        by: ``thread`` or ``N processes``; nothing is cached.
        built: molecules/s of the loader alone.
        used: molecules/s of the model alone: forward, loss, backward.
    """

    case: str
    model: str
    device: str
    by: str
    built: float
    used: float


@dataclass(frozen=True)
class Memory:
    """Peak memory of a process that reads a large file.

    Attributes:
        file_bytes: size of the file, most of it holes.
        batches, molecules: read.
        seconds: of it.
        before, peak: bytes resident before the first batch (libraries), and at most.
    """

    file_bytes: int
    batches: int
    molecules: int
    seconds: float
    before: int
    peak: int


def measure_supply(
    case: Case,
    form: SyntheticFormat,
    folder: Path,
    *,
    model: str,
    network: Model,
    device: torch.device,
    batch_size: int,
    workers: int,
    seconds: float,
) -> list[Supply]:
    """Speed of the loader, by a thread and by processes, and of the model it feeds.

    Args:
        case, form, folder: a file of the case is written to the folder.
        model: name of the preset, for tables.
        network: of it, for random molecules of the case; moved to the device.
        device: where it runs.
        batch_size: molecules per batch.
        workers: processes; 0 leaves them out.
        seconds: for each of the measurements.
    """
    path = folder / "supply.data"
    form.write(path, case.molecules())
    rows = form.open(path)
    network.float().to(device)
    network.prepare(rows[:8], silent)
    used = _used(network, rows, device, batch_size, seconds)
    found = []
    for processes in (0, workers) if workers else (0,):
        loader = Loader(
            rows, network.graph, batch_size=batch_size, device=device, cache_bytes=0,
            workers=processes,
        )  # fmt: skip
        by = f"{processes} processes" if processes else "thread"
        found.append(Supply(case.name, model, str(device), by, _built(loader, seconds), used))
    return found


def _used(model: Model, rows: Rows, device: torch.device, batch_size: int, seconds: float) -> float:
    batch = collate([rows[i % len(rows)] for i in range(batch_size)], model.graph).to(device)

    def step() -> int:
        loss = model.loss(model(batch), batch)
        loss.finish(loss.terms, loss.counts).backward()
        model.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return batch_size

    return _rate(step, seconds)


def _built(loader: Loader, seconds: float) -> float:
    with closing(loader.stream()) as stream:
        return _rate(lambda: next(stream).molecules, seconds)


def _rate(step: Callable[[], int], seconds: float) -> float:
    """What ``step`` counts, per second, after a first one."""
    step()
    done, calls, start = 0, 0, time.perf_counter()
    while calls < _LEAST or time.perf_counter() - start < seconds:
        done += step()
        calls += 1
    return done / (time.perf_counter() - start)


def measure_memory(form: SyntheticFormat, folder: Path, size: int, batches: int = 200) -> Memory:
    """Peak memory of a process of its own that takes batches from a sparse file of ``size`` bytes.

    Raises:
        RunError: that process failed.
    """
    assert form.write_sparse is not None
    path = folder / "sparse.data"
    form.write_sparse(path, _shuffled(LARGE), size)
    words = [sys.executable, "-c", _CHILD, LARGE.format, str(path), str(batches)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RunError(
            f"reading the sparse file of {size / 1e9:g} GB failed: "
            f"{(done.stderr.strip().splitlines() or ['no message'])[-1]}"
        )
    return Memory(path.stat().st_size, **json.loads(done.stdout.splitlines()[-1]))


def _shuffled(case: Case) -> Iterator[Molecule]:
    """Molecules of the case without end, no two with the same list of atoms."""
    rng = np.random.default_rng(0)
    while True:
        molecule = case.geometry(rng)
        yield replace(molecule, numbers=rng.permutation(molecule.numbers))


_CHILD: Final = (
    "import sys; from pathlib import Path; from hambench.bench.loading import read_batches; "
    "read_batches(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))"
)


def read_batches(name: str, path: Path, batches: int) -> None:
    """Take batches from a file of format ``name`` and print, as JSON, what that took."""
    torch.set_num_threads(1)
    rows = formats()[name].open(path)
    basis = OrbitalBasis.load(LARGE.basis, LARGE.numbers.tolist())
    spec = GraphSpec(basis, cutoff=12.0, dtype=torch.float32)
    before, start, molecules = _peak(), time.perf_counter(), 0
    with closing(Loader(rows, spec, max_edges=_MAX_EDGES).stream()) as stream:
        for _ in range(batches):
            molecules += next(stream).molecules
    print(
        json.dumps(
            {
                "batches": batches,
                "molecules": molecules,
                "seconds": time.perf_counter() - start,
                "before": before,
                "peak": _peak(),
            }
        )
    )


def _peak() -> int:
    """Most bytes this process had resident; ``ru_maxrss`` would count those of its parent too."""
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return 1024 * int(line.split()[1])
