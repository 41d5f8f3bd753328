"""A small model of real Hamiltonian blocks, molecules for it, and a program that trains it."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import Batch, GraphSpec
from hambench.errors import HambenchError
from hambench.learn import FitResult, Recipe, fit
from hambench.losses import squared_errors
from hambench.model import Loss, Model, Prediction

RECIPE: dict[str, Any] = {
    "optimizer": {"name": "adamw", "lr": 3e-3},
    "schedule": {"name": "cosine", "warmup_steps": 5},
    "batch_size": 4,
    "ema_decay": 0.9,
    "clip_norm": 1.0,
    "max_steps": 30,
    "validate_every": 8,
    "log_every": 5,
    "checkpoint_every_steps": 3,
}


def basis() -> OrbitalBasis:
    return OrbitalBasis.load("def2-svp", [1, 8])


def molecules(count: int, seed: int = 0) -> list[Molecule]:
    """Distorted water with symmetric matrices that depend smoothly on the geometry."""
    rng = np.random.default_rng(seed)
    numbers = np.array([8, 1, 1])
    water = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
    size = basis().nao(numbers)
    fixed = np.random.default_rng(99).normal(size=(4, size, size))
    rows = []
    for k in range(count):
        positions = water + rng.normal(scale=0.05, size=(3, 3))
        stretch = np.linalg.norm(positions[1:] - positions[0], axis=1) - 0.96
        h = fixed[0] + stretch[0] * fixed[1] + stretch[1] * fixed[2]
        rows.append(
            Molecule(numbers, positions, basis="def2-svp", hamiltonian=h + h.T, id=f"row{k}")
        )
    return rows


class Toy(Model):
    """On-site blocks by element, pair blocks by a network of the distance; with dropout."""

    def __init__(self, width: int = 8, dropout: float = 0.1, broken_at: int = 0) -> None:
        super().__init__(basis())
        self.hyperparameters = {"width": width, "dropout": dropout}
        size = self.graph.layout.size
        self.onsite = nn.Embedding(10, size)
        self.first = nn.Linear(3, width)
        self.drop = nn.Dropout(dropout)
        self.second = nn.Linear(width, size)
        self.register_buffer("shift", torch.zeros(size, dtype=torch.float64))
        self.broken_at, self.calls = broken_at, 0

    @property
    def graph(self) -> GraphSpec:
        dtype = self.second.weight.dtype if hasattr(self, "second") else torch.float32
        return GraphSpec(self.basis, cutoff=5.0, space="uncoupled", dtype=dtype)

    def prepare(self, molecules: Any, progress: Any = None) -> None:
        self.shift += sum(float(m.hamiltonian.mean()) for m in molecules)

    def forward(self, batch: Batch) -> Prediction:
        i, j = batch.edge_index
        distance = (batch.positions[i] - batch.positions[j]).norm(dim=1)
        kinds = torch.stack([distance, batch.numbers[i] / 8, batch.numbers[j] / 8], 1)
        edge = self.second(self.drop(torch.tanh(self.first(kinds.to(distance.dtype)))))
        return Prediction(batch, self.graph, node=self.onsite(batch.numbers), edge=edge)

    def loss(self, prediction: Prediction, batch: Batch) -> Loss:
        loss = squared_errors(prediction, batch)
        if self.training:
            self.calls += 1
        if self.training and self.calls == self.broken_at:
            return Loss(loss.terms * float("nan"), loss.counts, loss.finish)
        return loss


def train(folder: Path, values: dict[str, Any], pause: float = 0.0) -> FitResult:
    """Train in ``folder``, each forward pass taking ``pause`` seconds longer; keeps the outcome."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = Toy()
    model.drop.register_forward_hook(lambda *_: time.sleep(pause))
    recipe = Recipe.parse(values)
    rows = molecules(21), molecules(7, seed=1)
    result = fit(model, *rows, recipe, folder, seed=3, device="cpu", progress=False)
    torch.save(model.state_dict(), folder / "final.pt")
    (folder / "fit.json").write_text(json.dumps(asdict(result)))
    return result


def rows(folder: Path) -> list[dict[str, Any]]:
    """The log without the timings."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    timings = ("elapsed_s", "molecules_per_s")
    return [{k: v for k, v in json.loads(line).items() if k not in timings} for line in lines]


def program(folder: Path, values: dict[str, Any], pause: float) -> None:
    """`train` as a program: message on stderr and exit code as on the command line."""
    try:
        train(folder, values, pause)
    except HambenchError as error:
        (folder / "message").write_text(str(error))
        sys.exit(error.exit_code)
