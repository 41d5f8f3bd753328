"""Draw the README's figure from a finished demo run: training curve and one predicted matrix.

python scripts/demo_figure.py RUN_DIR FLOOR_RUN_DIR... --out docs/demo.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.colors import LogNorm

from hambench import load_task
from hambench.results import read_result
from hambench.scoring.predictions import Predictions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("floors", type=Path, nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    sns.set_theme(context="paper", style="ticks", palette="colorblind")
    figure, (curve, image) = plt.subplots(1, 2, figsize=(8, 3.2), layout="constrained")
    draw_curve(curve, options.run, options.floors)
    draw_matrix(figure, image, options.run)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=160)


def draw_curve(axes: plt.Axes, run: Path, floors: list[Path]) -> None:
    """Validation error against optimiser steps, and the floors' test errors as lines."""
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    points = [(r["step"], 1e6 * r["val_h_mae"]) for r in rows if "val_h_mae" in r]
    model = read_result(run).preset
    axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=f"{model} (validation)")
    for colour, folder in enumerate(floors, start=1):
        result = read_result(folder)
        value = 1e6 * result.metrics["h_mae"].value
        axes.axhline(value, color=f"C{colour}", ls="--", label=f"{result.preset} (test)")
    axes.set(yscale="log", xlabel="optimiser steps", ylabel="h_mae / uEh")
    axes.legend(frameon=False)
    sns.despine(ax=axes)


def draw_matrix(figure: plt.Figure, axes: plt.Axes, run: Path) -> None:
    """Absolute error of every matrix element of the first test molecule."""
    result = read_result(run)
    molecule = load_task(result.task).split("test")[0]
    (predicted,) = Predictions(run / "predictions.h5").matrices([molecule.id])
    error = 1e6 * np.abs(predicted - molecule.hamiltonian)
    shown = axes.imshow(np.maximum(error, 1), norm=LogNorm(), cmap="viridis")
    figure.colorbar(shown, ax=axes, label="|error| / uEh")
    borders = (13.5, 18.5)
    for border in borders:
        axes.axhline(border, color="w", lw=0.6)
        axes.axvline(border, color="w", lw=0.6)
    axes.set(xticks=[7, 16, 21], yticks=[7, 16, 21], title=f"test molecule {molecule.id}")
    axes.set_xticklabels(["O", "H", "H"])
    axes.set_yticklabels(["O", "H", "H"])


if __name__ == "__main__":
    main()
