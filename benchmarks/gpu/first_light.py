"""Does what was written for GPUs hold on one? Equality with the CPU, speed, and one whole run.

Usage: ``python benchmarks/gpu/first_light.py --out FOLDER [--device cuda] [--seconds 10]``. Writes
``first_light.json`` into the folder, after every part, so that a stop leaves what was measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hambench
from hambench.bench.molecules import MEDIUM, WATER
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import batch_graphs, build_graph
from hambench.data.padding import padded
from hambench.learn.weights import cast
from hambench.model import Model

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])


def molecules() -> dict[str, list[Molecule]]:
    """Random labels; what they hold does not matter here."""
    return {
        "water x5": list(WATER.molecules(5, seed=1)),
        "40 atoms x4": list(MEDIUM.molecules(4, seed=1)),
    }


def equality(device: torch.device) -> Iterator[tuple[str, Any]]:
    """Loss, matrices and gradients of the same network on the CPU and on the device."""
    for dtype in (torch.float64, torch.float32):
        for name, mols in molecules().items():
            found = []
            for where in (torch.device("cpu"), device):
                torch.manual_seed(0)
                model = hambench.build_model("helm_small", BASIS)
                cast(model, dtype)
                model.prepare(mols)
                model.to(where)
                batch = hambench.collate(mols, model.graph).to(where)
                prediction = model(batch)
                total = model.loss(prediction, batch).value()
                total.backward()
                gradients = [
                    p.grad.cpu().double() for p in model.parameters() if p.grad is not None
                ]
                matrices = [m.detach().cpu() for m in prediction.matrices()]
                found.append((float(total.detach()), matrices, gradients))
            (loss, matrices, gradients), (loss2, matrices2, gradients2) = found
            yield (
                f"{name}, {dtype}",
                {
                    "loss": abs(loss2 - loss) / abs(loss),
                    "matrices": worst(matrices, matrices2),
                    "gradients": worst(gradients, gradients2),
                },
            )


def worst(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    size = max(float(a.abs().max()) for a in one)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / size


def speed(device: torch.device, seconds: float) -> Iterator[tuple[str, Any]]:
    """Training steps per second and peak memory, float32 and with TF32 products."""
    for preset in ("helm_small", "helm"):
        for precision in ("highest", "high"):
            for name, mols in molecules().items():
                for pad in (False, True):
                    torch.manual_seed(0)
                    model = hambench.build_model(preset, BASIS)
                    cast(model, torch.float32)
                    model.to(device)
                    graphs = [build_graph(m, model.graph) for m in mols]
                    batch = padded(graphs, model.graph, None) if pad else batch_graphs(graphs)
                    torch.set_float32_matmul_precision(precision)
                    key = f"{preset}, {name}, {precision}{', padded' if pad else ''}"
                    yield key, measured(model, batch.to(device), device, seconds)
    torch.set_float32_matmul_precision("highest")


def measured(model: Model, batch: Any, device: torch.device, seconds: float) -> dict[str, float]:
    """Steps of AdamW on one batch, after two to warm up."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        model.loss(model(batch), batch).value().backward()
        optimizer.step()

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    wait = waiter(device)
    for _ in range(2):
        step()
    wait()
    done, start = 0, time.perf_counter()
    while done < 2 or time.perf_counter() - start < seconds:
        step()
        done += 1
        if done % 10 == 0:
            wait()
    wait()
    elapsed = time.perf_counter() - start
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {"steps_per_s": done / elapsed, "steps": done, "peak_bytes": peak}


def waiter(device: torch.device) -> Callable[[], None]:
    """Waits until the device has done what was asked of it."""
    return (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)


def whole_run(out: Path, device: str, steps: int) -> Iterator[tuple[str, Any]]:
    """One cell from data to result through the command line."""
    folder = out / "run"
    words = [
        "run", "task=water_mini", "model=helm_small", "seed=0", f"device={device}",
        f"max_steps={steps}", f"run_dir={folder}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "hambench", *words], capture_output=True, text=True
    )
    if done.returncode:
        yield "failed", done.stderr[-2000:]
        return
    result = json.loads((folder / "result.json").read_text())
    yield "result", {"metrics": result["metrics"], "cost": result["cost"]}


def main() -> None:
    """Run all parts, and write down what each gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--steps", type=int, default=2000)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    device = torch.device(asked.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    found: dict[str, Any] = {"device": name, "torch": torch.__version__, "numpy": np.__version__}
    parts = {
        "equality": lambda: equality(device),
        "run": lambda: whole_run(asked.out, asked.device, asked.steps),
        "speed": lambda: speed(device, asked.seconds),
    }
    for part, run in parts.items():
        found[part] = {}
        try:
            for key, value in run():
                found[part][key] = value
                print(part, key, value, flush=True)
        except Exception:  # the other parts are worth having
            found[part]["failed"] = traceback.format_exc()
            print(found[part]["failed"], flush=True)
        (asked.out / "first_light.json").write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
