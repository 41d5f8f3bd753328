"""What predicting takes, as a result says it, against counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from hambench import cost
from hambench.cell import Cell
from hambench.cli.run import _inference
from hambench.compose import compose
from hambench.data.graph import collate
from hambench.learn.device import open_fabric


def cell(*words: str, model: str = "helm_small") -> Cell:
    small = ("channels=4", "layers=1", "gaussians=8") if model == "helm_small" else ()
    shrunk = [f"model.hyperparameters.{word}" for word in small]
    return Cell.build(compose(["task=water_mini", f"model={model}", "device=cpu", *shrunk, *words]))


def test_numbers_are_of_the_scored_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_MOLECULES", 25)
    built = cell("recipe.batch_size=10", "score.split=validation")
    found = cost.measured(built, progress=False)
    assert found.molecules == 25
    assert (found.batch_size, found.max_edges, found.threads) == (10, None, 1)
    assert found.model_molecules_per_s > found.molecules_per_s > 0
    assert found.molecule_s == 1 / found.molecules_per_s
    assert found.guess_s is None
    assert 0 < found.peak_memory < 2**28
    assert not built.model.training
    line = _inference(found)
    assert "in batches of 10 molecules (the model alone" in line
    assert "MFLOP per molecule" in line


def test_operations_are_those_of_every_molecule() -> None:
    """Waters are alike, so that one by one and in batches gives the same number per molecule."""
    built = cell("recipe.batch_size=50")
    found = cost.measured(built, progress=False)
    batch = collate([built.task.split("test")[3]], built.model.graph)
    alone = cost._flops(built.model, batch)
    assert found.flops == pytest.approx(alone, rel=0.02)
    linear = [m for m in built.model.modules() if isinstance(m, nn.Linear)]
    assert found.flops > 2 * sum(m.weight.numel() for m in linear)


def test_a_slow_model_is_measured_on_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_SECONDS", 0.0)
    assert cost.measured(cell("recipe.batch_size=10"), progress=False).molecules == 10


def test_edges_limit_a_batch_too() -> None:
    found = cost.measured(cell("recipe.batch_size=null", "recipe.max_edges=60"), progress=False)
    assert (found.batch_size, found.max_edges) == (None, 60)
    assert "in batches of 60 edges" in _inference(found)


@pytest.mark.usefixtures("toy")
def test_an_initial_guess_is_timed_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyscf")
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path))
    monkeypatch.setattr(cost, "_MOLECULES", 2)
    monkeypatch.setattr(cost, "_GUESSES", 1)
    built = cell(model="toy_residual")
    found = cost.measured(built, progress=False)
    assert found.guess_s > 0
    assert found.molecule_s == pytest.approx(1 / found.molecules_per_s + found.guess_s)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu() -> None:
    built = Cell.build(compose(["task=water_mini", "model=helm_small", "device=cuda"]))
    found = cost.measured(built, progress=False)
    assert open_fabric("cuda").device.type == "cuda"
    assert found.threads is None
    assert found.model_molecules_per_s > found.molecules_per_s
    assert 0 < found.peak_memory < torch.cuda.get_device_properties(0).total_memory
