"""Runs a worker script under another interpreter; the standard library is all it needs.

    python -I host.py WORKER.py JOB.json

The script has a function ``NAME(job, host)`` for every action a job may name. It is started by
`hambench.external.process`, which reads the JSON lines that come back on standard output; whatever
else is printed goes to standard error. Nothing of hambench is imported here.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import resource
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn


class Failed(Exception):  # noqa: N818 (the name its users know)
    """What the user is to read: one sentence."""


class Host:
    """What a worker script gets besides its job.

    Args:
        out: file descriptor of the events.
    """

    def __init__(self, out: int) -> None:
        self._out = os.fdopen(out, "w", encoding="utf-8")

    def tell(self, event: str, **values: Any) -> None:
        """Send an event with JSON-able values."""
        self._out.write(json.dumps({"event": event, **values}) + "\n")
        self._out.flush()

    def fail(self, reason: str) -> NoReturn:
        """End the job with a sentence for the user."""
        raise Failed(reason)

    def device(self, name: str) -> str:
        """``auto`` resolved to ``cpu`` or ``cuda``; other names as they are, if they are there."""
        import torch

        if name == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            self.fail(
                f"device={name} is not there: torch {torch.__version__} of this environment sees "
                "no GPU; use device=cpu, or make the environment with another torch"
            )
        return name

    def resources(self, device: str) -> dict[str, Any]:
        """``device``, by the name it is known by, and ``memory``: the most used, in bytes."""
        import torch

        if device.startswith("cuda"):
            used = torch.cuda.max_memory_allocated(device)
            return {"device": torch.cuda.get_device_name(device), "memory": used}
        unit = 1 if sys.platform == "darwin" else 1024
        return {
            "device": "cpu",
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        }

    def write_predictions(self, path: str, rows: Iterable[int], energies: Iterable[float]) -> None:
        """The CSV with ``row`` of the exchanged file and ``energy_ev``, its energy in eV."""
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["row", "energy_ev"])
            writer.writerows([row, repr(float(e))] for row, e in zip(rows, energies, strict=True))


def main(script: str, job_file: str) -> int:
    """Do the job; 0, or 1 after an event that tells why it failed."""
    host = Host(os.dup(1))
    os.dup2(2, 1)  # libraries print what they like: the events stay clean
    try:
        spec = importlib.util.spec_from_file_location("worker", script)
        assert spec is not None and spec.loader is not None
        worker = importlib.util.module_from_spec(spec)
        sys.modules["worker"] = worker  # dataclasses look there
        spec.loader.exec_module(worker)
        job = json.loads(Path(job_file).read_text("utf-8"))
        getattr(worker, job["action"])(job, host)
    except Exception as error:
        traceback.print_exc()
        said = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
        host.tell("failed", reason=" ".join(said.split()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
