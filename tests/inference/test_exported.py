"""Predictions of an exported folder: those of the run, bit for bit, wherever it is."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hambench
from hambench import rundir
from hambench.errors import DataError
from hambench.export import export
from hambench.exported import MANIFEST, WEIGHTS
from hambench.inference.hamiltonians import hamiltonians
from hambench.learn.loop import BEST
from hambench.learn.weights import save_weights

pytest.importorskip("pyscf")

HF = "model.hyperparameters.theory={xc:hf,basis:def2-svp}"  # needs no grid
MODELS = {
    "helm_small": ["model.hyperparameters.channels=4", "model.hyperparameters.layers=1"],
    "qhnet_small": [],
    "phisnet_small": [],
    "sphnet_small": [HF],  # learns beyond an initial guess
    "schnorb_small": [],
}


@pytest.mark.parametrize("model", MODELS)
def test_bits_of_every_model(
    model: str, finished: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """From another folder, with another folder of data, the run gone."""
    run = finished(tmp_path / "run", f"model={model}", *MODELS[model])
    _shake(run)
    rows = hambench.load_task("water_mini").split("test")[:3]
    wanted = dict(hamiltonians(hambench.load_trained(run).model, rows, batch_size=3))
    folder = export(run, tmp_path / "mine")
    shutil.rmtree(run)
    moved = folder.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path / "none"))
    found = dict(hamiltonians(hambench.load_trained(moved).model, rows, batch_size=3))
    assert all(np.array_equal(found[place], wanted[place]) for place in range(3))
    assert len({matrix.tobytes() for matrix in found.values()}) == 3


def _shake(run: Path) -> None:
    """Weights that are not those a model begins with, which may give zero."""
    model = hambench.load_trained(run).model
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.01 * torch.randn_like(parameter)
    save_weights(run / rundir.CHECKPOINTS / BEST, model, 0, None)


def test_a_task_whose_data_are_not_here(
    finished: Callable[..., Path], tmp_path: Path, one: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path / "none"))
    small = ["model=helm_small", *MODELS["helm_small"]]
    run = finished(tmp_path / "run", *small, task="qh9_stable")
    folder = export(run, tmp_path / "mine")
    told = {"device": "cpu", "progress": False}
    reports = [hambench.predict(path, one, **told) for path in (run, folder, folder / WEIGHTS)]
    first, *others = [report.to_dict() | {"run_dir": ""} for report in reports]
    assert first == others[0] == others[1]
    assert first["molecules"][0]["gap"] is not None
    water = reports[0].rows[0].molecule
    assert np.array_equal(hambench.scf_guess(run, water), hambench.scf_guess(folder, water))


@pytest.mark.parametrize("precision", [None, "float64"])
def test_a_model_of_energies_is_a_calculator(
    precision: str | None, finished: Callable[..., Path], tmp_path: Path
):
    from ase import Atoms

    small = ["model=helm_small", *MODELS["helm_small"]]
    run = finished(tmp_path / "run", *small, task="organic_mini_energy")
    folder = export(run, tmp_path / "mine")
    found = []
    for path in (run, folder):
        atoms = Atoms("OH2", [[0, 0, 0.1173], [0, 0.7572, -0.4692], [0.1, -0.7572, -0.4692]])
        with warnings.catch_warnings(action="ignore"):  # it has no references
            atoms.calc = hambench.calculator(path, "cpu", precision)
            found.append((atoms.get_potential_energy(), atoms.get_forces()))
    assert found[0][0] == found[1][0] != 0
    assert np.array_equal(found[0][1], found[1][1])
    assert np.abs(found[0][1]).max() > 0
    assert "hambench.calculator" in (folder / "README.md").read_text()


def test_weights_without_their_manifest_are_nothing(finished: Callable[..., Path], tmp_path: Path):
    run = finished(tmp_path / "run", "model=helm_small", *MODELS["helm_small"])
    folder = export(run, tmp_path / "mine")
    (folder / MANIFEST).unlink()
    with pytest.raises(DataError, match=r"nor the model\.safetensors of an export"):
        hambench.load_trained(folder / WEIGHTS)
