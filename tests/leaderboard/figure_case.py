"""Boards with all that pictures show."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from board_case import metric, put

from hambench.results import Cost, Inference, read_result
from hambench.scoring import Score
from hambench.scoring.breakdown import By, Part
from hambench.scoring.breakdown_table import BREAKDOWN, BreakdownTable, write_breakdown

PARTS: dict[By, Sequence[str]] = {
    "distance": ("on-site", "0-1 A", "1-2 A", "2-3 A"),
    "pairs": ("H", "O", "H-H", "H-O"),
}


def cost(k: int, **changes: Any) -> Cost:
    """Of the k-th model: better ones take longer; every third one runs on a GPU."""
    inference = Inference(
        molecules=100, batch_size=10, max_edges=None, threads=1, molecules_per_s=50.0 * (k + 1),
        model_molecules_per_s=100.0 * (k + 1), guess_s=None, peak_memory=2**20, flops=1e6,
    )  # fmt: skip
    content: dict[str, Any] = dict(
        device="cuda" if k % 3 == 2 else "cpu", wall_s=3600.0 / (k + 1), steps=5000, epochs=10,
        steps_per_s=25, molecules_per_s=100, stopped_by="max_steps", inference=inference,
    )  # fmt: skip
    return Cost(**content | changes)


def put_model(folder: Path, k: int, seeds: int = 2, *, log: bool = True, parts: bool = True,
              **changes: Any) -> None:  # fmt: skip
    """The k-th best of some models: runs with errors, costs, curves and breakdowns."""
    for seed in range(seeds):
        value = 100.0 * 1.25**k * (1 + 0.02 * seed)
        run = folder / f"m{k}-s{seed}"
        content: dict[str, Any] = dict(
            preset=f"model_{k}", seed=seed, cost=cost(k), run_id=f"{k:032x}{seed:032x}",
            metrics={"h_mae": metric(value), "h_mae_elem": metric(value)},
        )  # fmt: skip
        put(run, **content | changes)
        if log:
            (run / "log.jsonl").write_text(log_of(value))
        if parts:
            put_parts(run, value)


def log_of(value: float, points: int = 10) -> str:
    """A log whose last validation is ``value`` uEh."""
    rows: list[dict[str, float]] = [{"step": 1, "epoch": 0, "elapsed_s": 0.1, "train_loss": 1.0}]
    rows += [
        {"step": 500 * k, "epoch": k, "elapsed_s": 20.0 * k, "val_loss": 1.0,
         "val_h_mae": 1e-6 * value * points / k}
        for k in range(1, points + 1)
    ]  # fmt: skip
    return "".join(json.dumps(row) + "\n" for row in rows)


def put_parts(run: Path, value: float) -> None:
    """A breakdown that adds up to ``value`` uEh; the k-th part has k + 1 tenths of the elements."""
    r = read_result(run)
    table = BreakdownTable(
        task=r.task, task_version=r.task_version, fingerprint=r.fingerprint, split=r.split
    )
    for by, names in PARTS.items():
        shares = np.arange(1, len(names) + 1) / 10
        errors = value * 1e-6 * np.array([1.6, 1.2, 1.0, 0.8])
        errors *= value * 1e-6 / (errors @ shares)
        table = table.with_parts(
            by,
            [
                Part(name, Score(error, "Eh", (0.9 * error, 1.1 * error), 100), share, 0.25)
                for name, error, share in zip(names, errors, shares, strict=True)
            ],
        )
    write_breakdown(run / BREAKDOWN, table)


def put_embeddings(path: Path, run_ids: Sequence[str], atoms: int = 60) -> np.ndarray:
    """An ``embeddings.h5`` of these runs; (models, drawn, 2) places, every second atom is drawn."""
    rng = np.random.default_rng(0)
    environments = np.array([b"O(H,H)", b"H(O)", b"C(H,H,H,O)"])[np.arange(atoms) % 3]
    places = rng.normal(size=(len(run_ids), atoms // 2, 2))
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": "hambench-embeddings", "version": 1, "task": "water_mini",
                           "split": "test"})  # fmt: skip
        file["atoms/environment"] = environments
        file["drawn"] = np.arange(0, atoms, 2)
        for k, (run_id, mine) in enumerate(zip(run_ids, places, strict=True)):
            model = file.create_group(f"models/{k}")
            model.attrs.update({"run_id": run_id, "trained": True})
            model["umap"] = mine
    return places
