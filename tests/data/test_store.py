"""The HDF5 store: exact round trip, lazy rows, every kind of damage, fork and spawn."""

from __future__ import annotations

import multiprocessing
import pickle
import resource
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.store import Store, write_store
from hambench.errors import ConfigError, DataError, RunError

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 8])


def _molecules(count: int = 7) -> list[Molecule]:
    """Random labels, the same at every call."""
    rng, molecules = np.random.default_rng(1), []
    for index in range(count):
        numbers = np.array([8, 1, 1] if index % 2 else [6, 8, 1, 1])
        nao = BASIS.nao(numbers)
        hamiltonian, overlap = (a + a.T for a in rng.normal(size=(2, nao, nao)))
        molecules.append(
            Molecule(
                numbers,
                rng.normal(size=(len(numbers), 3)) * 2,
                charge=index - 1,
                basis="def2-svp",
                hamiltonian=hamiltonian,
                overlap=overlap,
                energy=float(rng.normal()),
                forces=rng.normal(size=(len(numbers), 3)),
                id=f"row-{index}",
            )
        )
    return molecules


def _assert_same(a: Molecule, b: Molecule) -> None:
    for name in ("numbers", "positions", "hamiltonian", "overlap", "forces"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.id, a.charge, a.multiplicity, a.energy) == (b.id, b.charge, b.multiplicity, b.energy)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A small store of two kinds of molecules."""
    target = tmp_path / "small.h5"
    write_store(target, iter(_molecules()), basis=BASIS, theory={"xc": "pbe"}, provenance={"a": 1})
    return target


def test_round_trip_is_exact(path: Path) -> None:
    store = Store(path)
    assert len(store) == 7
    assert (store.basis, store.theory, store.provenance) == (BASIS, {"xc": "pbe"}, {"a": 1})
    for read, written in zip(store, _molecules(), strict=True):
        _assert_same(read, written)
        assert read.basis == "def2-svp"
    _assert_same(store[-1], store[6])


def test_slices_are_lazy_parts(path: Path) -> None:
    part = Store(path)[1:6:2]
    assert part.ids == ("row-1", "row-3", "row-5")
    assert part[::-1].ids == ("row-5", "row-3", "row-1")
    assert part[::-1][0].id == "row-5"


def test_rows_without_labels(tmp_path: Path) -> None:
    bare = [Molecule(m.numbers, m.positions, id=m.id) for m in _molecules()]
    write_store(tmp_path / "bare.h5", bare, basis=BASIS)
    read = Store(tmp_path / "bare.h5")[3]
    assert read.hamiltonian is None
    assert read.energy is None
    np.testing.assert_array_equal(read.positions, bare[3].positions)
    write_store(tmp_path / "empty.h5", [], basis=BASIS)
    assert len(Store(tmp_path / "empty.h5")) == 0


def test_rows_of_more_than_one_batch(tmp_path: Path) -> None:
    molecules = _molecules(150)
    write_store(tmp_path / "many.h5", molecules, basis=BASIS)
    store = Store(tmp_path / "many.h5")
    for index in (0, 63, 64, 65, 127, 128, 149):
        _assert_same(store[index], molecules[index])


def test_same_rows_give_the_same_bytes(path: Path) -> None:
    again = path.with_name("again.h5")
    write_store(again, _molecules(), basis=BASIS, theory={"xc": "pbe"}, provenance={"a": 1})
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("index", [7, -8, 1000])
def test_row_out_of_range(path: Path, index: int) -> None:
    with pytest.raises(DataError, match=rf"small\.h5.*no row {index}; rows go from 0 to 6"):
        Store(path)[index]


def test_missing_foreign_and_truncated_files(path: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.h5 is not there; check the path"):
        Store(tmp_path / "nowhere.h5")
    text = tmp_path / "text.h5"
    text.write_text("not a store")
    with pytest.raises(DataError, match=r"text\.h5, header: cannot be read as HDF5"):
        Store(text)
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["fock"] = [1.0]
    with pytest.raises(
        DataError, match=r"foreign\.h5, header: an HDF5 file, but not one of hambench"
    ):
        Store(tmp_path / "foreign.h5")
    content = path.read_bytes()
    for size in (10, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(DataError, match=r"small\.h5"):
            list(Store(path))


def test_other_version_is_refused(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 99
    with pytest.raises(DataError, match=r"small\.h5.*version 99.*reads version 1; update hambench"):
        Store(path)


def test_changed_bytes_are_found(path: Path) -> None:
    """Anywhere in the file: either the damage is named, or it hit nothing that is read."""
    content = bytearray(path.read_bytes())
    sound = list(Store(path))
    found = 0
    for place in range(0, len(content), len(content) // 150):
        damaged = content.copy()
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            for read, written in zip(Store(path), sound, strict=True):
                np.testing.assert_array_equal(read.hamiltonian, written.hamiltonian)
        except DataError:
            found += 1
    assert found > 3


def test_rows_that_are_not_sound(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["hamiltonian"][int(file["matrix_offset"][2]) + 5] = np.nan
        del file["forces"]
        file["forces"] = np.zeros((3, 3))
    with pytest.raises(DataError, match="lengths of its columns do not fit its 7 rows"):
        Store(path)
    with h5py.File(path, "r+") as file:
        del file["forces"]
    store = Store(path)
    assert store[1].forces is None
    with pytest.raises(
        DataError, match=r"small\.h5, row 2: molecule 'row-2': hamiltonian holds NaN"
    ):
        store[2]


def test_unsound_rows_are_not_written(tmp_path: Path) -> None:
    target = tmp_path / "new.h5"
    good = _molecules()
    skewed = good[0].hamiltonian + np.triu(np.ones_like(good[0].hamiltonian))
    wrong = {
        "not symmetric": [*good, replace(good[0], hamiltonian=skewed, id="skew")],
        "'row-0' is empty or used twice": [*good, good[0]],
        "need the same labels": [*good, replace(good[0], forces=None, id="bare")],
    }
    for message, rows in wrong.items():
        with pytest.raises(DataError, match=message):
            write_store(target, rows, basis=BASIS)
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; choose another"):
        write_store(tmp_path / "file" / "new.h5", _molecules(), basis=BASIS)


def _write_limited(target: Path, size: int, queue: multiprocessing.SimpleQueue[str]) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        write_store(target, _molecules(100), basis=BASIS)
    except RunError as error:
        queue.put(str(error))
    else:
        queue.put("written")


@pytest.mark.parametrize("size", [100, 5_000, 300_000])
def test_failing_disk_leaves_nothing(tmp_path: Path, size: int) -> None:
    """A limit on file sizes stands for the full disk, which HDF5 by itself does not survive."""
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=_write_limited, args=(tmp_path / "big.h5", size, queue))
    child.start()
    assert "cannot write" in queue.get()
    child.join()
    assert child.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def _energies(store: Store) -> list[float | None]:
    return [molecule.energy for molecule in store]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_crosses_process_borders(path: Path, method: str) -> None:
    store = Store(path)
    expected = _energies(store)  # the file is open here when the workers start
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_energies, [store] * 4) == [expected] * 4
    assert _energies(store) == expected
    assert _energies(pickle.loads(pickle.dumps(store))) == expected


def _inherited(store: Store, queue: multiprocessing.SimpleQueue[list[float | None]]) -> None:
    queue.put(_energies(store))


def test_fork_does_not_use_the_inherited_handle(path: Path) -> None:
    context = multiprocessing.get_context("fork")
    store = Store(path)
    expected = _energies(store)
    queue = context.SimpleQueue()
    child = context.Process(target=_inherited, args=(store, queue))
    child.start()
    assert queue.get() == expected
    child.join()
    assert _energies(store) == expected
