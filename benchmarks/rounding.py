"""What rounded products cost in accuracy: trainings whose matrix products see rounded factors.

GPUs round the factors of TF32 products to 10 bits after the leading one, those of bfloat16 to 7;
sums stay in float32. This does the same on a CPU, in forward and backward of every training step,
and leaves validation and scores in float32, as `recipe.precision=tf32` does. Example:

    python benchmarks/rounding.py helm_small qhnet_small --steps 500 --seeds 3
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import hambench
from hambench.data.loader import Loader
from hambench.learn import fit
from hambench.learn.recipe import Recipe
from hambench.learn.validation import evaluate
from hambench.profiling.contractions import FACTORS
from hambench.profiling.modes import OperatorMode
from hambench.registry import RECIPES

BITS = {"float32": 23, "tf32": 10, "bfloat16": 7}


class Rounded(OperatorMode):
    """Rounds the factors of every product of matrices to ``bits`` after the leading one."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.dropped = 23 - bits

    def seen(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run with rounded factors, in training alone."""
        first = FACTORS.get(func._schema.name)
        if first is not None and self.dropped and torch.get_float32_matmul_precision() != "highest":
            args = [self.round(x) if first <= k < first + 2 else x for k, x in enumerate(args)]
        return super().seen(func, args, kwargs)

    def round(self, x: Tensor) -> Tensor:
        """To the nearest, away from zero where two are as near."""
        half, mask = 1 << (self.dropped - 1), -(1 << self.dropped)
        return ((x.contiguous().view(torch.int32) + half) & mask).view(torch.float32)


def trained(name: str, bits: int, seed: int, steps: int) -> float:
    """Mean error of the water test set in Eh after a short training."""
    task = hambench.load_task("water_mini")
    torch.manual_seed(seed)
    model = hambench.build_model(name, task.basis)
    recipe = Recipe.parse(RECIPES.preset(name).content | {"precision": "tf32"})
    with tempfile.TemporaryDirectory() as folder, Rounded(bits):
        fit(
            model, task.split("train"), task.split("validation"), recipe, Path(folder),
            seed=seed, device="cpu", max_steps=steps, progress=False,
        )  # fmt: skip
    loader = Loader(task.split("test"), model.graph, batch_size=50, shuffle=False, references=True)
    found = evaluate(model, loader, lambda: False)
    assert found is not None
    return found.value


def main() -> None:
    """Train every model with every rounding, and print a table, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="*", default=["helm_small"])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {}
    for name in options.models:
        for seed in range(options.seeds):  # in turns
            for kind, bits in BITS.items():
                value = trained(name, bits, seed, options.steps)
                found.setdefault(name, {}).setdefault(kind, []).append(value)
                print(f"| `{name}` | {kind} | seed {seed} | {1e6 * value:,.1f} uEh |", flush=True)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
