"""Energy metrics against their formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.errors import ConfigError, DataError
from hambench.scoring import METRICS, Scorer, score

ENERGY = [name for name, metric in METRICS.items() if metric.of == "energy"]


def test_metrics_equal_their_formulas(molecules: list[Molecule]) -> None:
    off = np.array([1e-3, -4e-3, 2.5e-2])
    predicted = [m.energy + e for m, e in zip(molecules, off, strict=True)]
    found = score(predicted, molecules, ENERGY)
    assert found["energy_mae"].value == pytest.approx(np.abs(off).mean(), rel=1e-9)
    per_atom = np.abs(off) / np.array([3, 4, 2])
    assert found["energy_mae_per_atom"].value == pytest.approx(per_atom.mean(), rel=1e-9)
    assert found["energy_rmse"].value == pytest.approx(np.sqrt((off**2).mean()), rel=1e-9)
    assert all(
        (s.unit, s.n) == ("Eh", 3) and s.ci95[0] <= s.value <= s.ci95[1] for s in found.values()
    )
    tensors = torch.tensor(predicted, dtype=torch.float64, requires_grad=True)
    assert score(list(tensors), molecules, ENERGY) == found


def test_failures_are_counted(molecules: list[Molecule]) -> None:
    predicted = [molecules[0].energy, float("nan"), molecules[2].energy + 1.0]
    found = score(predicted, molecules, ["energy_mae"])
    assert found["energy_mae"].value == pytest.approx(0.5)
    assert found["energy_mae"].n == 2
    assert found["failure_rate"].value == pytest.approx(1 / 3)


def test_conformers_are_drawn_together(molecules: list[Molecule]) -> None:
    names = [f"{k}-{c}" for k in range(8) for c in range(4)]
    many = [replace(molecules[0], id=name) for name in names]
    off = np.repeat(np.linspace(0, 7e-3, 8), 4)
    predicted = [m.energy + e for m, e in zip(many, off, strict=True)]
    apart = score(predicted, many, ["energy_mae"])["energy_mae"]
    groups = [name.partition("-")[0] for name in names]
    together = score(predicted, many, ["energy_mae"], groups=groups)["energy_mae"]
    assert together.value == apart.value
    assert np.diff(together.ci95) > 1.5 * np.diff(apart.ci95)


def test_what_does_not_fit_is_refused(molecules: list[Molecule]) -> None:
    with pytest.raises(ConfigError, match="h_mae and energy_mae are metrics of different quant"):
        Scorer(["h_mae", "energy_mae"])
    water = molecules[0]
    with pytest.raises(DataError, match="'water' has no energy to compare with"):
        score([1.0], [replace(water, energy=None)], ["energy_mae"])
    for wrong in (water.hamiltonian, "1", None, 1j):
        with pytest.raises(DataError, match=r"'water': the predicted energy is .* one real number"):
            score([wrong], [water], ["energy_mae"])
