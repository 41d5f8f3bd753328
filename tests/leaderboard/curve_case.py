"""Run folders of energy runs with known errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from hambench.results import Audit, Cost, Metric, Pretraining, Provenance, Result, write_result
from hambench.scoring.energy_table import ENERGIES, EnergyRow, write_energies
from hambench.units import HARTREE_EV

START = datetime(2026, 1, 1, tzinfo=UTC)
MEV = 1 / (1000 * HARTREE_EV)  # in Eh
CONFORMERS = 2
PROVENANCE = dict(
    package="0.1.0", commit=None, dirty=None, python="3.11", libraries={}, plugins={}, cuda=None,
    gpu=None, cpu="cpu", cores=2, os="Linux", command="hambench run", restarts=0, started=START,
)  # fmt: skip


def audit(**changes: Any) -> Audit:
    """One that found nothing."""
    clean = dict(unseen="molecules", rows=100, scored=12, same_molecules=0, same_geometries=0)
    return Audit(**clean | changes)


def pretraining(**changes: Any) -> Pretraining:
    """A pretraining of 50 s."""
    content = dict(
        run_id="f" * 64, task="organic_mini", task_version=1, fingerprint="cd" * 32,
        source="generated", training_split="train", preset="helm_small", seed=0, steps=400,
        wall_s=50.0, metric="h_mae", value=1e-4, fresh=("head",), left_out=(), audit=audit(),
    )  # fmt: skip
    return Pretraining(**content | changes)


def table(split: str, errors: np.ndarray, conformers: int = CONFORMERS) -> list[EnergyRow]:
    """Rows of molecules with 3, 4, 5 ... 8 atoms; ``errors`` (n,) in meV, in turns of sign."""
    return [
        EnergyRow(
            split,
            f"{split}-m{i // conformers:03d}-{i % conformers}",
            f"m{i // conformers:03d}",
            3 + i // conformers % 6,
            -40.0 - i,
            -40.0 - i + (-1) ** i * float(error) * MEV,
        )
        for i, error in enumerate(errors)
    ]


def put(
    folder: Path,
    strategy: str | None,
    size: int,
    errors: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    wall_s: float = 100.0,
    train_error: float = 1.0,
    finished: int = 100,
    conformers: int = CONFORMERS,
    log: bool = True,
    **changes: Any,
) -> Path:
    """Write a run that was trained on ``size`` molecules and has ``errors`` (n,) in meV."""
    split = f"train_{size}"
    test = table("test", np.asarray(errors), conformers)
    train = table(split, np.full(size * conformers, train_error), conformers)
    found = np.array([abs(row.prediction - row.label) for row in test])
    atoms = np.array([row.atoms for row in test])
    metrics = {
        "energy_mae": Metric(value=found.mean(), unit="Eh", ci95=None, n=len(test)),
        "energy_mae_per_atom": Metric(
            value=(found / atoms).mean(), unit="Eh", ci95=None, n=len(test)
        ),
    }
    content: dict[str, Any] = dict(
        run_id="0" * 64, task="organic_mini_energy", task_version=1, fingerprint="ab" * 32,
        source="generated", split="test", training_split=split, model="helm", preset="helm_small",
        hyperparameters={"channels": 32}, parameters=1000, recipe={"name": f"helm_{strategy}"},
        seed=seed, metrics=metrics, strategy=strategy, training_rows=size * conformers,
        training_molecules=size,
        pretraining=pretraining() if strategy in ("frozen", "finetuned") else None,
        cost=Cost(
            device="cpu", wall_s=wall_s, steps=500, epochs=10, steps_per_s=5, molecules_per_s=9,
            stopped_by="max_steps",
        ),
        provenance=Provenance(**PROVENANCE, finished=START + timedelta(seconds=finished)),
    )  # fmt: skip
    content |= changes
    write_result(folder, Result(**{"primary": next(iter(content["metrics"])), **content}))
    write_energies(folder / ENERGIES, [*test, *train])
    if log:
        target = float(np.mean(errors)) * MEV
        rows = [{"step": 0, "epoch": 0, "elapsed_s": 0.5, "train_loss": 1.0}]
        rows += [
            {"step": s, "epoch": 0, "elapsed_s": s / 5, "val_e_mae": target * (1 + 50 / (s + 1))}
            for s in range(0, 501, 50)
        ]
        (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder
