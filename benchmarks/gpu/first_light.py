"""Does every model compute on a GPU what it computes on a CPU?

Usage: ``python benchmarks/gpu/first_light.py --out FOLDER [--device cuda] [--smoke]``. Loss,
matrices and gradients of each model on the CPU and on the device; and the losses of a short
training, step by step and as replayed CUDA graphs. Writes ``first_light.json`` into the folder
after every comparison, so that a stop leaves what was found. Exit code 1: some comparison failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from entries import FEW_MODELS, MODELS, Scale

import hambench
from hambench.bench.molecules import ETHANOL, MEDIUM, WATER
from hambench.cell import Cell
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.data.location import data_folder
from hambench.learn import fit
from hambench.learn.weights import cast
from hambench.model import Model

BASIS: Final = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
LIMITS: Final = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Of a difference, relative to the largest number there."""
COURSE_LIMIT: Final = 1e-6
"""Of losses of a training in float64, relative. Captured optimisers read their rates in float32,
whose rounding grows from step to step."""

_STEPS, _MOLECULES = 20, 40  # of the training

Found = dict[str, float]
"""Differences by what was compared."""


@dataclass(frozen=True)
class Comparison:
    """One thing to compare: its name, what is allowed, and what finds the differences."""

    name: str
    limit: float
    differences: Callable[[], Found]


def comparisons(device: torch.device, smoke: bool) -> Iterator[Comparison]:
    """All that is to be compared."""
    models = FEW_MODELS if smoke else MODELS
    for model in models:
        for name, molecules, preset in _cases(model, smoke):
            for dtype, limit in LIMITS.items():
                find = partial(equality, preset, molecules, dtype, device)
                yield Comparison(f"{preset}, {name}, {dtype}", limit, find)
    for model in models:
        find = partial(course, f"{model}_small", device, 3 if smoke else _STEPS)
        yield Comparison(f"{model}_small, training", COURSE_LIMIT, find)


def _cases(model: str, smoke: bool) -> Iterator[tuple[str, list[Molecule], str]]:
    """Molecules with random labels (what they hold does not matter here), and a preset for them."""
    if smoke:
        yield "water x2", list(WATER.molecules(2, seed=1)), f"{model}_small"
        return
    yield "water x5", list(WATER.molecules(5, seed=1)), model
    yield "ethanol x2", list(ETHANOL.molecules(2, seed=1)), model
    yield "40 atoms", list(MEDIUM.molecules(1, seed=1)), f"{model}_small"


def equality(
    preset: str, molecules: Sequence[Molecule], dtype: torch.dtype, device: torch.device
) -> Found:
    """Loss, matrices and gradients of the same network on the CPU and on the device."""
    cpu = _computed(preset, molecules, dtype, torch.device("cpu"))
    there = _computed(preset, molecules, dtype, device)
    return {name: worst(one, there[name]) for name, one in cpu.items()}


def _computed(
    preset: str, molecules: Sequence[Molecule], dtype: torch.dtype, device: torch.device
) -> dict[str, list[torch.Tensor]]:
    torch.manual_seed(0)
    options = {"initial_guess": "none"} if preset.startswith("sphnet") else {}
    model = hambench.build_model(preset, BASIS, **options)
    cast(model, dtype)
    model.prepare(molecules)
    model.to(device).eval()  # without what training draws at random
    batch = hambench.collate(molecules, model.graph).to(device)
    prediction = model(batch)
    loss = model.loss(prediction, batch).value()
    loss.backward()
    found = {
        "loss": [loss],
        "matrices": prediction.matrices(),
        "gradients": [p.grad for p in model.parameters() if p.grad is not None],
    }
    return {name: [t.detach().cpu().double() for t in some] for name, some in found.items()}


def worst(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    """Largest difference, relative to the largest number."""
    size = max(float(a.abs().max()) for a in one)
    return max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True)) / size


def course(preset: str, device: torch.device, steps: int) -> Found:
    """Losses of a training on the device: eager ones against those of replayed CUDA graphs.

    And against those with padded batches. Without CUDA all trainings are eager.
    """
    eager = _losses(preset, device, steps)
    graphs = device.type == "cuda"
    others = {
        "": _losses(preset, device, steps, cuda_graph=graphs),
        ", padded": _losses(preset, device, steps, "recipe.pad=true", cuda_graph=graphs),
    }
    return {
        f"step {step}{how}": abs(b - a) / abs(a)
        for how, losses in others.items()
        for step, (a, b) in enumerate(zip(eager, losses, strict=True), start=1)
    }


def _losses(
    preset: str, device: torch.device, steps: int, *changes: str, cuda_graph: bool = False
) -> list[float]:
    rows = Scale(str(device), data_folder(), Path()).task("water_mini")
    words = [
        *rows, f"model={preset}", f"max_steps={steps}", "precision=float64",
        "recipe.batch_size=5", "recipe.log_every=1", f"device={device}", *changes,
    ]  # fmt: skip
    cell = Cell.build(compose(words))
    assert isinstance(cell.model, Model)
    train = cell.task.split(cell.training_split)[:_MOLECULES]
    with tempfile.TemporaryDirectory() as folder:
        fit(
            cell.model, train, [], cell.recipe, Path(folder), seed=0, device=str(device),
            progress=False, cuda_graph=cuda_graph,
        )  # fmt: skip
        log = map(json.loads, (Path(folder) / "log.jsonl").read_text("utf-8").splitlines())
        return [row["train_loss"] for row in log if "train_loss" in row]


def main(words: Sequence[str] | None = None) -> None:
    """Compare everything, and write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--smoke", action="store_true", help="small models, next to no steps")
    asked = parser.parse_args(words)
    asked.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    for one in comparisons(torch.device(asked.device), asked.smoke):
        found[one.name] = {"limit": one.limit, **_found(one)}
        print(one.name, found[one.name], flush=True)
        (asked.out / "first_light.json").write_text(json.dumps(found, indent=1), "utf-8")
    sys.exit(not all(row["agrees"] for row in found.values()))


def _found(one: Comparison) -> dict[str, Any]:
    try:
        differences = one.differences()
    except Exception as error:  # the other comparisons are worth having
        traceback.print_exc()
        return {"agrees": False, "failed": f"{type(error).__name__}: {error}"}
    agrees = bool(differences) and all(value <= one.limit for value in differences.values())
    return {"agrees": agrees, **differences}


if __name__ == "__main__":
    main()
