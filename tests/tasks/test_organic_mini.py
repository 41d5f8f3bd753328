"""organic_mini: geometries, splits by molecule, and one small run from generation to result."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hambench import experiment
from hambench.chem import dft
from hambench.chem.molecule import formula
from hambench.compose import compose
from hambench.data import manifest
from hambench.data.generate import generate
from hambench.data.manifest import Manifest
from hambench.data.store import Store
from hambench.errors import DataError, RegistryError
from hambench.registry import load_task
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.tasks.organic_mini import OrganicMini, split_lists

FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture(scope="module")
def task() -> OrganicMini:
    found = load_task("organic_mini")
    assert isinstance(found, OrganicMini)
    return found


def test_geometries(task: OrganicMini) -> None:
    molecules = task.geometries()
    assert len(molecules) == 480
    assert [m.id for m in molecules[:5]] == ["0-0", "0-1", "0-2", "0-3", "1-0"]
    assert formula(molecules[0].numbers) == "CHNS"
    assert molecules[0].positions[0].tolist() == [-1.003717, -0.411353, -0.027641]
    conformers = Counter(m.id.partition("-")[0] for m in molecules)
    assert set(conformers.values()) == {4}
    heavy = [int((m.numbers > 1).sum()) for m in molecules]
    assert (min(heavy), max(heavy)) == (2, 5)
    for one, other in zip(molecules[::4], molecules[1::4], strict=True):
        assert one.numbers.tolist() == other.numbers.tolist()
    assert task.geometries(7)[-1].id == "1-2"


def test_splits_are_by_molecule(task: OrganicMini) -> None:
    assert {name: list(rows) for name, rows in task.splits.items()} == split_lists()
    molecules = {
        name: {row.partition("-")[0] for row in rows} for name, rows in task.splits.items()
    }
    assert {name: len(found) for name, found in molecules.items()} == {
        "train": 80, "validation": 10, "test": 30, "test_conformers": 80,
        "train_10": 10, "train_20": 20, "train_40": 40,
    }  # fmt: skip
    assert molecules["test_conformers"] == molecules["train"]
    assert not molecules["train"] & (molecules["test"] | molecules["validation"])
    assert not molecules["test"] & molecules["validation"]
    assert molecules["train_10"] < molecules["train_20"] < molecules["train_40"]
    rows = [r for name in ("train", "validation", "test", "test_conformers")
            for r in task.splits[name]]  # fmt: skip
    assert len(set(rows)) == len(rows) == 480


def test_every_training_set_has_all_elements(task: OrganicMini) -> None:
    numbers = {m.id: set(m.numbers.tolist()) for m in task.geometries()}
    for name in ("train_10", "train"):
        assert set().union(*(numbers[row] for row in task.splits[name])) == {1, 6, 7, 8, 9, 16}


def test_from_generation_to_a_result(tmp_path: Path) -> None:
    """The first molecules are enough to train, validate and test; on a coarse theory, for speed."""
    pytest.importorskip("pyscf")
    coarse = OrganicMini(load_task("organic_mini").spec, tmp_path / "few.h5")
    rough = replace(coarse.level, basis="sto-3g", grid_level=0)
    made = coarse.spec.model_copy(update={"theory": rough.to_dict(), "basis": "sto-3g"})
    generate(OrganicMini(made, tmp_path / "few.h5"), n=9, workers=1, progress=False)
    task = OrganicMini(made, tmp_path / "few.h5")
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [3, 4, 1]
    assert task.split("train_10").ids == ("0-0", "0-1", "0-2")
    row = task.split("test")[0]
    np.testing.assert_allclose(
        row.overlap, dft.overlap(row.numbers, row.positions, "sto-3g"), atol=1e-12
    )
    store = Store(tmp_path / "few.h5")
    assert store.provenance["first"] == 9
    with pytest.raises(DataError, match=r"have basis=sto-3g, those"):
        load_task("organic_mini", tmp_path / "few.h5").split("train")


def test_training_on_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["task=organic_mini", "model=mean_block", f"root={tmp_path}"]
    whole, part = compose(words), compose([*words, "train_on=train_10"])
    assert whole.run_id != part.run_id
    monkeypatch.setattr(type(load_task("organic_mini")), "split", lambda self, name: [])
    assert experiment.Cell.build(part).training_split == "train_10"
    for name in ("test", "train_1"):
        with pytest.raises(RegistryError, match=f"train_on={name} is no training set of task"):
            experiment.Cell.build(compose([*words, f"train_on={name}"]))


def test_labels_in_the_format_of_nabla2dft(tmp_path: Path) -> None:
    """A file of that layout is opened as it is; here one of other molecules, for its format."""
    path = Path(shutil.copy(FIXTURES / "nabla_mini_lm.db", tmp_path / "organic.db"))
    task = OrganicMini(load_task("organic_mini").spec, path)
    with pytest.raises(DataError, match=r"organic\.db was not verified, .* verify organic_mini"):
        task.rows  # noqa: B018
    ((same, rows),) = task.unverified()
    assert same == path
    assert isinstance(rows, Nabla2dftHamiltonians)
    assert task.files() == [{"file": "organic.db", "bytes": path.stat().st_size, "verified": False}]
    found = Manifest(
        rows=len(rows), sample=rows.ids, sha256="0" * 64, unit="bohr", order="canonical",
        checks={}, theory=None, versions={},
    )  # fmt: skip
    manifest.write(path, found)
    assert isinstance(task.rows, Nabla2dftHamiltonians)
    assert task.files()[0]["order"] == "canonical"
    with pytest.raises(DataError, match="lacks 240 of 240 rows of split 'train'"):
        task.split("train")
