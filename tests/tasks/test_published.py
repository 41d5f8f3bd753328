"""Tasks on public files: verified first, split by rules, recorded in results; or our own labels."""

from __future__ import annotations

import copy
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlite_files import FIXTURES, NABLA, NABLA_LM, WATER, edited, write_energies

from hambench import rundir
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.data import manifest
from hambench.data.conventions import Conventions
from hambench.data.location import DATA_VARIABLE
from hambench.data.published import PublishedTask
from hambench.data.store import write_store
from hambench.data.verify import verify
from hambench.errors import ConfigError, DataError, VerificationError
from hambench.registry import TASKS, load_task, task_names
from hambench.tasks.md17 import Md17
from hambench.tasks.nabla2dft import Nabla2dft, Nabla2dftEnergy
from hambench.tasks.omol_csh import OmolCsh
from hambench.tasks.qh9_tasks import StableMolecules

PARTS = {
    "train": {"rule": "permutation", "seed": 42, "stop": 16},
    "validation": {"rule": "permutation", "seed": 42, "start": 16, "stop": 20},
    "test": {"rule": "permutation", "seed": 42, "start": 20},
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DATA_VARIABLE, str(tmp_path / "data"))


def small_water(**changes: Any) -> dict[str, Any]:
    """``md17_water`` as if its file had the 24 rows of the fixture."""
    content = copy.deepcopy(TASKS.preset("md17_water").content)
    content["files"]["main"]["rows"] = [24]
    content["splits"] = PARTS
    return content | changes


def verified(task: PublishedTask, **options: Any) -> None:
    """Write the manifests of all files that are here."""
    pytest.importorskip("pyscf")
    for path, rows in task.unverified():
        manifest.write(path, verify(rows, theory=None, fock_rows=0, progress=False, **options))


@pytest.fixture
def water(tmp_path: Path) -> Path:
    pytest.importorskip("ase")
    return Path(shutil.copy(WATER, tmp_path / "water.db"))


def test_every_task_says_all_there_is_to_say() -> None:
    for name in task_names():
        about = load_task(name).describe()
        for key in ("version", "title", "citation", "license", "basis", "elements", "theory",
                    "unit", "files", "splits", "targets", "metrics", "protocol"):  # fmt: skip
            assert about[key], (name, key)
        assert about["protocol"]["seeds"] == [0, 1, 2]
    assert {"md17_water", "nabla2dft_100k", "omol_csh_58k", "qh9_stable"} < set(task_names())


def test_a_file_is_verified_before_it_is_used(water: Path) -> None:
    task = Md17(small_water(), water)
    with pytest.raises(DataError, match="was not verified, or changed since; do it once: hambench"):
        task.split("train")
    verified(task)
    task = Md17(small_water(), water)
    assert [len(task.split(name)) for name in PARTS] == [16, 4, 4]
    order = np.random.RandomState(42).permutation(24)
    assert task.split("train").ids == tuple(str(i + 1) for i in order[:16])
    (about,) = task.files()
    assert (about["verified"], about["rows"], about["order"]) == (True, 24, "orca")
    assert about["residuals"]["overlap"] < 1e-6
    before = task.fingerprint
    assert Md17(small_water(), water).fingerprint == before
    assert Md17(small_water(version=2), water).fingerprint != before
    with closing(sqlite3.connect(water)) as connection:
        connection.execute("PRAGMA user_version = 7")  # changes the file, not its rows
    with pytest.raises(DataError, match="was not verified, or changed since"):
        _ = Md17(small_water(), water).fingerprint


def test_another_number_of_rows_is_another_release(water: Path) -> None:
    verified(Md17(small_water(), water))
    task = load_task("md17_water", water)
    for call in (lambda: task.split("train"), task.unverified):
        with pytest.raises(
            DataError, match="has 24 rows, expected 4999 or 4900; it is not the publ"
        ):
            call()


def test_rows_of_another_molecule_are_not_verified_for_a_task(water: Path) -> None:
    rows = Md17(small_water(), water).read(water)
    Md17(small_water(), water).check_rows(water, rows, rows.ids[:2])
    with pytest.raises(DataError, match="row '2': holds O, the task H C; give the data of"):
        Md17(small_water(elements=["H", "C"]), water).check_rows(water, rows, rows.ids[1:2])


def test_a_run_goes_on_where_rules_have_known_sizes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its configuration is the same after a round through its file."""
    words = ["task=md17_water", "model=mean_block", f"run_dir={tmp_path / 'run'}"]
    config = compose(words)
    rundir.begin(config.folder, config, "0" * 64)
    rundir.check_same(config.folder, compose(words))
    assert compose([*words, "split=qhnet42"]).run_id == config.run_id
    assert compose([*words, "split=contiguous"]).run_id != config.run_id


def test_variants_have_fingerprints_of_their_own(water: Path) -> None:
    stored = {k: {**v, "rule": "as_stored", "seed": None} for k, v in PARTS.items()}
    content = small_water(variants={"contiguous": stored})
    verified(Md17(content, water))
    one, other = Md17(content, water), Md17(content, water, split="contiguous")
    assert other.split("train").ids == tuple(str(i + 1) for i in range(16))
    assert one.fingerprint != other.fingerprint
    assert (one.spec.variant, other.spec.variant) == ("qhnet42", "contiguous")


def nabla_files(folder: Path) -> Path:
    """Training and test files; in the tests conformers 5 and higher of the same molecules."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(NABLA, folder / "train_2k.db")
    moved = "UPDATE dataset_ids SET CONFORMER_ID = CONFORMER_ID + 5"
    edited(NABLA, folder / "test_2k_conformers.db", moved)
    return folder


def nabla_content(unseen: bool = False) -> dict[str, Any]:
    content = copy.deepcopy(TASKS.preset("nabla2dft_2k").content)
    content["splits"]["train"] = {"rule": "as_stored", "stop": -1}
    content["splits"]["validation"] = {"rule": "as_stored", "start": -1}
    if unseen:
        content["splits"]["test"]["unseen"] = "molecules"
    return content


def test_a_task_of_several_files(tmp_path: Path) -> None:
    folder = nabla_files(tmp_path / "data")
    verified(Nabla2dft(nabla_content()), count=2)
    task = Nabla2dft(nabla_content())
    assert task.available
    assert task.files()[0]["order"] == "psi4"
    test = task.split("test")
    assert test[0].hamiltonian is not None
    assert not set(test.ids) & set(task.split("train").ids)
    assert len(task.fingerprint) == 64
    with pytest.raises(DataError, match=r"are not at .*test_structures\.db; get them with"):
        task.split("test_structures")
    same = Nabla2dft(nabla_content(), folder / "train_2k.db")  # any of the files shows the folder
    assert same.fingerprint == task.fingerprint
    with pytest.raises(ConfigError, match=r"has several files and .* is none of them; give the f"):
        _ = Nabla2dft(nabla_content(), FIXTURES / "nabla_mini.db").path


def test_seen_molecules_are_found_across_files(tmp_path: Path) -> None:
    nabla_files(tmp_path / "data")
    verified(Nabla2dft(nabla_content()), count=2)
    with pytest.raises(DataError, match="of split 'test' is in 'train' too, where it must not"):
        Nabla2dft(nabla_content(unseen=True)).split("test")
    shutil.copy(NABLA, tmp_path / "data" / "test_2k_conformers.db")
    verified(Nabla2dft(nabla_content()), count=2)
    with pytest.raises(DataError, match="in split 'test' and in 'train' too; splits must not over"):
        Nabla2dft(nabla_content()).split("train")


def test_what_verification_found_is_what_a_file_is_read_with(tmp_path: Path) -> None:
    """The same conformers in two orders of orbitals are the same molecules."""
    loaded = []
    for name in (NABLA, NABLA_LM):
        folder = tmp_path / name.stem
        folder.mkdir()
        shutil.copy(name, folder / "train_2k.db")
        verified(Nabla2dft(nabla_content(), folder), count=2)
        loaded.append(Nabla2dft(nabla_content(), folder).split("train")[0])
    assert np.abs(loaded[0].hamiltonian - loaded[1].hamiltonian).max() < 1e-6


def test_energy_databases_give_total_energies(tmp_path: Path) -> None:
    pytest.importorskip("ase")
    content = copy.deepcopy(TASKS.preset("nabla2dft_energy_2k").content)
    content["splits"] = {
        "train": {"rule": "as_stored", "stop": 0.5},
        "validation": {"rule": "as_stored", "start": 0.5, "stop": 0.75},
        "test": {"rule": "as_stored", "start": 0.75},
    }
    path = tmp_path / content["files"]["main"]["name"]
    write_energies(path)
    with pytest.raises(VerificationError, match=r"failed check 'bond'.*positions are in another"):
        verify(
            Nabla2dftEnergy(content).read(path, Conventions("bohr", "canonical")), progress=False
        )
    verified(Nabla2dftEnergy(content, tmp_path))
    train = Nabla2dftEnergy(content, tmp_path).split("train")
    assert len(train) == 2
    assert all(molecule.energy < -100 for molecule in train)  # Eh, with all electrons


def test_energies_of_omol_are_to_be_given(tmp_path: Path) -> None:
    content = copy.deepcopy(TASKS.preset("omol_energy_common_1k").content)
    content["files"] = {"main": {"name": "omol.h5"}}
    for key, (start, stop) in {"train": (0, 3), "validation": (3, 4), "test": (4, None)}.items():
        content["splits"][key] = {"rule": "as_stored", "start": start, "stop": stop}
    path = Path(shutil.copy(FIXTURES / "omol_csh_mini.h5", tmp_path / "omol.h5"))
    with pytest.raises(DataError, match="hold no energies: give them with energies=FILE"):
        OmolCsh(content, path).split("train")
    task = OmolCsh(content, path)
    rows = task.read(path)
    (tmp_path / "e.csv").write_text(
        "id,energy\n" + "".join(f"{m.id},{-m.numbers.sum() * 2.0}\n" for m in rows)
    )
    verified(task, count=2)
    task = OmolCsh(content, path, energies=tmp_path / "e.csv")
    molecule = task.split("test")[0]
    assert molecule.energy == -2.0 * molecule.numbers.sum()
    before = task.fingerprint
    text = (tmp_path / "e.csv").read_text().replace(".0\n", ".5\n")
    (tmp_path / "e.csv").write_text(text)
    assert OmolCsh(content, path, energies=tmp_path / "e.csv").fingerprint != before
    with pytest.raises(ConfigError, match="task 'md17_water' joins no energies; leave out"):
        load_task("md17_water", energies=tmp_path / "e.csv")


def test_the_number_of_atoms_splits_stable_molecules(tmp_path: Path) -> None:
    path = tmp_path / "QH9Stable.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE data (id INTEGER, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        for i, n in enumerate((19, 20, 21, 22, 23, 29)):
            connection.execute("INSERT INTO data VALUES (?, ?, x'', x'', x'')", (i, n))
        connection.commit()
    task = load_task("qh9_stable", path, split="ood")
    assert isinstance(task, StableMolecules)
    rows = task.read(path)
    found = {k: task.rules["by_atoms"](rows, s).tolist() for k, s in task.spec.splits.items()}
    assert found == {"train": [0, 1], "validation": [2, 3], "test": [4, 5]}


def test_labels_of_our_own_take_the_place_of_files_that_are_not_here(tmp_path: Path) -> None:
    task = load_task("md17_ethanol")
    basis = OrbitalBasis.load("def2-svp", [1])
    rows = [
        Molecule([1, 1], [[0, 0, 0], [0, 0, 0.7 + 0.01 * i]], hamiltonian=np.eye(10) * i,
                 overlap=np.eye(10), energy=-1.0, forces=np.zeros((2, 3)), id=f"h-{i}")
        for i in range(20)
    ]  # fmt: skip
    place = tmp_path / "data" / "md17_ethanol.h5"
    write_store(place, rows, basis=basis, theory=task.level.to_dict())
    task = load_task("md17_ethanol")
    assert (task.source, task.path, task.spec.variant) == ("generated", place, "generated")
    assert [len(task.split(name)) for name in ("train", "validation", "test")] == [16, 2, 2]
    assert len(task.fingerprint) == 64
    assert load_task("md17_ethanol", place).fingerprint == task.fingerprint
    (tmp_path / "data" / "schnorb_hamiltonian_ethanol_dft.db").write_bytes(b"")
    assert load_task("md17_ethanol").source == "published"  # goes before our own
    write_store(place, rows, basis=basis, theory={**task.level.to_dict(), "grid_level": 2})
    with pytest.raises(DataError, match="have grid_level=2, those of task 'md17_ethanol' grid_lev"):
        load_task("md17_ethanol", place).split("train")
