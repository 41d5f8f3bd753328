"""Embeddings of models and runs: what rotation and order leave, files, numbers, mistakes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hambench import experiment
from hambench.analysis.atoms import Atoms
from hambench.chem.molecule import Molecule
from hambench.compose import compose
from hambench.data.rows import Rows
from hambench.embedding import embed, invariants, on_site_energies, vectors_of
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.learn.weights import cast
from hambench.model import Model
from hambench.models import build_model
from hambench.registry import load_task
from hambench.trained import load_trained

TINY = [f"model.hyperparameters.{word}" for word in ("channels=8", "layers=1", "gaussians=8")]
ORGANIC = load_task("organic_mini")


class Listed(Rows):
    """Molecules of a list."""

    def __init__(self, molecules: Sequence[Molecule]) -> None:
        self.molecules = molecules

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(molecule.id for molecule in self.molecules)

    def row(self, index: int) -> Molecule:
        return self.molecules[index]


@pytest.fixture(scope="module")
def model() -> Model:
    """Untrained, in float64."""
    torch.manual_seed(3)
    made = build_model("helm_small", ORGANIC.basis, channels=8, layers=2, gaussians=16)
    cast(made, torch.float64)
    return made


def vectors(model: Model, molecules: Sequence[Molecule], **options: object) -> list[np.ndarray]:
    """In the order of the molecules."""
    options = options or {"batch_size": 4, "norms": True}
    found = dict(vectors_of(model, Listed(molecules), **options))
    return [found[row] for row in range(len(molecules))]


def test_vectors_of_turned_molecules_are_the_same(model: Model):
    molecules = ORGANIC.geometries(12)
    turns = Rotation.random(len(molecules), random_state=5).as_matrix()
    turned = [
        Molecule(m.numbers, m.positions @ turn.T + 3.0, id=m.id)
        for m, turn in zip(molecules, turns, strict=True)
    ]
    for one, other in zip(vectors(model, molecules), vectors(model, turned), strict=True):
        assert one.dtype == np.float64
        assert one.shape[1] == 8 * (model.backbone.lmax + 1)
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_vectors_follow_the_order_of_the_atoms(model: Model, rng: np.random.Generator):
    molecules = ORGANIC.geometries(12)
    orders = [rng.permutation(len(m)) for m in molecules]
    mixed = [
        Molecule(m.numbers[order], m.positions[order], id=m.id)
        for m, order in zip(molecules, orders, strict=True)
    ]
    found = zip(vectors(model, molecules), vectors(model, mixed), orders, strict=True)
    for one, other, order in found:
        np.testing.assert_allclose(one[order], other, atol=1e-10)
        assert np.abs(one - other).max() > 1e-3


def test_vectors_do_not_depend_on_the_batches(model: Model):
    molecules = ORGANIC.geometries(12)
    by_edges = vectors(model, molecules, max_edges=150)
    alone = vectors(model, molecules, batch_size=1)
    for one, other in zip(by_edges, alone, strict=True):
        assert one.shape[1] == 8
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_invariants_are_scalars_and_norms():
    features = torch.randn(5, 9, 4, dtype=torch.float64)
    assert torch.equal(invariants(features), features[:, 0])
    both = invariants(features, norms=True)
    squares = features.square()
    expected = [features[:, 0], squares[:, 1:4].sum(1).sqrt(), squares[:, 4:].sum(1).sqrt()]
    torch.testing.assert_close(both, torch.cat(expected, 1))
    assert torch.equal(invariants(features[:, 0], norms=True), features[:, 0])


def test_on_site_energies_are_means_over_the_orbitals_of_an_atom():
    task = load_task("water_mini")
    rows = task.split("test")[:6]
    atoms = Atoms.of(rows, rows.ids)
    chosen = atoms[np.array([0, 2, 7])]
    found = on_site_energies(rows, task.basis, chosen)
    for value, molecule, index in zip(found, chosen.molecule, chosen.index, strict=True):
        diagonal = rows[int(molecule)].hamiltonian.diagonal()
        blocks = [diagonal[:14], diagonal[14:19], diagonal[19:]]  # O, H, H in def2-SVP
        assert value == pytest.approx(blocks[index].mean(), rel=1e-12)
    bare = Listed(ORGANIC.geometries(2))
    assert on_site_energies(bare, ORGANIC.basis, Atoms.of(bare, bare.ids)) is None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two short runs of a tiny HELM on water, of different length."""
    root = tmp_path_factory.mktemp("runs")
    words = ["task=water_mini", "model=helm_small", "device=cpu", f"root={root}", *TINY]
    return [
        experiment.run(compose([*words, f"max_steps={steps}"]), progress=False).folder
        for steps in (2, 12)
    ]


@pytest.fixture(scope="module")
def written(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the runs' embeddings are written to."""
    out = tmp_path_factory.mktemp("out")
    found = embed(runs, out, split="validation", untrained=True, seed=4, progress=False)
    assert (found.molecules, found.atoms, found.analysed) == (100, 300, 300)
    assert sorted(out.iterdir()) == sorted(found.files)
    return out


def test_the_archive_holds_every_atom_and_the_vectors_of_its_models(
    written: Path, runs: list[Path]
):
    rows = load_task("water_mini").split("validation")
    with h5py.File(written / "embeddings.h5") as file:
        assert file["molecules/id"].asstr()[:].tolist() == list(rows.ids)
        assert file["atoms/element"][:3].tolist() == rows[0].numbers.tolist()
        assert file["atoms/environment"].asstr()[:3].tolist() == ["O(H,H)", "H(O)", "H(O)"]
        assert file["atoms/molecule"][-1] == 99
        assert file["on_site"].shape == file["drawn"].shape == (300,)
        models = [file[f"models/{k}"] for k in range(3)]
        assert [m.attrs["trained"] for m in models] == [True, True, False]
        for model, folder in zip(models, runs, strict=False):
            trained = load_trained(folder).model
            found = dict(vectors_of(trained, rows, batch_size=7))
            for row, expected in found.items():
                held = model["vectors"][3 * row : 3 * row + 3]
                np.testing.assert_allclose(held, expected, atol=1e-5)
            assert model["umap"].shape == (300, 2)
        torch.manual_seed(0)
        fresh = build_model("helm_small", load_task("water_mini").basis, **_tiny())
        begun = dict(vectors_of(fresh, rows, batch_size=5))
        np.testing.assert_allclose(models[2]["vectors"][:3], begun[0], atol=1e-5)
        assert np.abs(models[1]["vectors"][:] - models[2]["vectors"][:]).max() > 1e-3


def _tiny() -> dict[str, int]:
    words = (word.rpartition(".")[2].split("=") for word in TINY)
    return {key: int(value) for key, value in words}


def test_the_numbers_are_those_of_the_runs(written: Path):
    about = json.loads((written / "embeddings.json").read_text())
    assert (about["task"], about["split"], about["groups"]) == ("water_mini", "validation", 100)
    names = [model["name"] for model in about["models"]]
    assert len(set(names)) == 3  # of the same cell but for the steps, so told apart by their ids
    assert names[2] == "helm_small untrained seed 0"
    for model in about["models"]:
        score = model["silhouette_element"]
        assert score["ci95"][0] < score["value"] < score["ci95"][1]
        assert model["environment_accuracy"] is None  # one environment per element
        assert model["on_site_r2"]["value"] > 0  # bond lengths are in untrained vectors too


def test_the_same_command_writes_the_same_files(written: Path, runs: list[Path], tmp_path: Path):
    found = embed(runs, tmp_path, split="validation", untrained=True, seed=4, progress=False)
    for path in found.files:
        if path.suffix == ".h5":
            with h5py.File(path) as new, h5py.File(written / path.name) as old:
                for name in ("models/1/vectors", "models/1/umap", "models/2/umap"):
                    np.testing.assert_array_equal(new[name][:], old[name][:])
        else:
            assert path.read_bytes() == (written / path.name).read_bytes()


def test_what_cannot_be_embedded_is_told_and_leaves_nothing(runs: list[Path], tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="is given twice"):
        embed([runs[0], runs[0]], out)
    with pytest.raises(RegistryError, match=r"no split 'tset'. Did you mean 'test'\?"):
        embed(runs, out, split="tset")
    with pytest.raises(DataError, match="is no run directory"):
        embed([tmp_path], out)
    words = ["task=water_mini", "model=mean_block", "device=cpu", f"root={tmp_path}"]
    mean = experiment.run(compose(words), progress=False).folder
    with pytest.raises(ConfigError, match="model 'mean_block' offers no embeddings; leave it out"):
        embed([*runs, mean], out)
    assert not out.exists()
