"""Results made of the predictions of other codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hambench
from hambench.errors import ConfigError, DataError
from hambench.leaderboard import collect
from hambench.results import read_result
from hambench.submission import check, pack

ABOUT = """
authors: [A. Nother, "<b>Some</b> Body"]
notes: our network
task: water_mini
model: theirs
parameters: 1234
seed: 3
hyperparameters: {layers: 4}
recipe: {optimizer: adam, lr: 0.001}
cost: {device: one old GPU, wall_s: 3600, steps: 5000}
"""


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """The labels of the test split, a little off, in the order of PySCF."""
    molecules = hambench.load_task("water_mini").split("test")
    rng = np.random.default_rng(1)
    matrices = []
    for molecule in molecules:
        noise = 1e-4 * rng.normal(size=molecule.hamiltonian.shape)
        matrices.append(molecule.hamiltonian + noise + noise.T)
    path = tmp_path / "theirs.npz"
    np.savez(path, order="canonical", id=molecules.ids, hamiltonian=np.stack(matrices))
    return path


def test_a_packed_result_passes_the_check_and_is_ranked(predictions: Path, tmp_path: Path) -> None:
    about = tmp_path / "about.yaml"
    about.write_text(ABOUT)
    out = tmp_path / "theirs"
    result = read_result(pack(predictions, about, out))
    assert (result.model, result.seed, result.parameters) == ("theirs", 3, 1234)
    assert result.metrics["h_mae"].value == pytest.approx(1.13e-4, rel=0.02)
    assert result.cost.device == "one old GPU"
    (found,) = check([out])
    assert found.accepted
    texts = [finding.text for finding in found.findings]
    assert "12 metrics agree with the predictions in predictions.h5" in texts
    assert "handed in by A. Nother, <b>Some</b> Body" in texts
    (ranking,) = collect([out]).rankings
    assert ranking.entries[0].label == "theirs"
    with pytest.raises(ConfigError, match="holds a result already"):
        pack(predictions, about, out)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("seed: 3", "seed: -3", "seed"),
        ("parameters: 1234", "", "parameters"),
        ("model: theirs", "modell: theirs", "model"),
        ("model: theirs", "model: helm_small", "is the name of a model of hambench"),
        ("seed: 3", "seed: 3\nstrategy: direct", "leave out strategy"),
        ("task: water_mini", "task: water_max", "water_max"),
        ("seed: 3", "seed: 3\ntrain_on: half", "train_on=half"),
    ],
)
def test_a_wrong_description_is_named(
    predictions: Path, tmp_path: Path, old: str, new: str, reason: str
) -> None:
    about = tmp_path / "about.yaml"
    about.write_text(ABOUT.replace(old, new))
    with pytest.raises((ConfigError, DataError), match=reason):
        pack(predictions, about, tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_missing_description_is_named(predictions: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*nowhere\.yaml"):
        pack(predictions, tmp_path / "nowhere.yaml", tmp_path / "theirs")
