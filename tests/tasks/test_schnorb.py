"""The SchNOrb reader: truth by PySCF itself, both encodings, energies, processes, damage."""

from __future__ import annotations

import base64
import json
import multiprocessing
import pickle
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from sqlite_files import WATER, WATER_TRUTH, edited, in_pyscf_order, pyscf_mole

import hambench
from hambench.chem import functional
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory
from hambench.data.conventions import Conventions
from hambench.data.verify import verify
from hambench.errors import ConfigError, DataError, VerificationError
from hambench.tasks.schnorb import SchnorbDatabase
from hambench.units import BOHR

db = pytest.importorskip("ase.db")


@pytest.fixture(scope="module")
def rows() -> SchnorbDatabase:
    """The fixture."""
    return SchnorbDatabase(WATER)


def _equal(a: Molecule, b: Molecule) -> bool:
    names = ("numbers", "positions", "hamiltonian", "overlap", "forces", "energy")
    return a.id == b.id and all(
        np.array_equal(getattr(a, name), getattr(b, name)) for name in names
    )


# -- truth ---------------------------------------------------------------------------------------


def test_every_row_is_the_truth(rows: SchnorbDatabase) -> None:
    assert len(rows) == 24
    assert rows.ids == tuple(map(str, range(1, 25)))
    for row, molecule in enumerate(rows):
        mole = pyscf_mole(molecule)
        assert molecule.basis == "def2-svp"
        assert molecule.numbers.tolist() == WATER_TRUTH["Z"].tolist()
        assert molecule.energy == pytest.approx(WATER_TRUTH["E"][row], abs=1e-10)
        for value in (molecule.positions, molecule.hamiltonian, molecule.overlap, molecule.forces):
            assert value.dtype == np.float64
        for value, name, tolerance in (
            (molecule.positions, "positions_angstrom", 1e-8),
            (molecule.forces * BOHR, "forces_Eh_per_bohr", 1e-8),
            (in_pyscf_order(molecule.hamiltonian, mole), "H", 1e-6),
            (in_pyscf_order(molecule.overlap, mole), "S", 3e-8),
            (scipy.linalg.eigvalsh(molecule.hamiltonian, molecule.overlap), "mo_energy", 1.1e-6),
        ):
            np.testing.assert_allclose(value, WATER_TRUTH[name][row], rtol=0, atol=tolerance)


def test_electrons_levels_and_fock_matrix_by_pyscf(rows: SchnorbDatabase) -> None:
    molecule = rows[5]
    mole = pyscf_mole(molecule)
    overlap = mole.intor_symmetric("int1e_ovlp")
    levels, orbitals = scipy.linalg.eigh(in_pyscf_order(molecule.hamiltonian, mole), overlap)
    density = 2 * orbitals[:, :5] @ orbitals[:, :5].T
    stored = in_pyscf_order(molecule.overlap, mole)
    assert np.trace(density @ stored) == pytest.approx(10, abs=1e-6)
    assert levels[4] == pytest.approx(WATER_TRUTH["mo_energy"][5, 4], abs=1e-6)
    rebuilt = functional.fock_of(molecule.hamiltonian, molecule, Theory.from_dict(rows.theory))
    assert np.abs(rebuilt - molecule.hamiltonian).mean() < 1e-5


def test_verification_passes_and_tells_a_wrong_order_or_unit(rows: SchnorbDatabase) -> None:
    theory = Theory.from_dict(rows.theory)
    found = verify(rows, theory=theory, count=4, fock_rows=1, progress=False)
    assert (found.unit, found.order) == ("angstrom", "orca")
    wrong = rows.with_conventions(Conventions("angstrom", "pyscf"))
    with pytest.raises(VerificationError, match="the orbitals are in orca or psi4 order"):
        verify(wrong, count=1, progress=False)
    wrong = rows.with_conventions(Conventions("bohr", "orca"))
    with pytest.raises(VerificationError, match="the positions are in angstrom"):
        verify(wrong, count=1, progress=False)


# -- encodings and energies ----------------------------------------------------------------------


def _rewritten(path: Path, change: Any, metadata: dict[str, Any] | None = None) -> SchnorbDatabase:
    """Three rows of the fixture, written by ASE after ``change`` of their data."""
    source = db.connect(WATER)
    with db.connect(path) as connection:
        for row in source.select(limit=3):
            connection.write(row.toatoms(), data=change(dict(row.data)))
    mean = {"mean_energy": source.metadata["mean_energy"]} if metadata is None else metadata
    db.connect(path).metadata = mean
    return SchnorbDatabase(path)


def _as_base64(data: dict[str, Any]) -> dict[str, Any]:
    """What SchNetPack 0.x made of arrays."""
    encoded: dict[str, Any] = {}
    for name, value in data.items():
        encoded[name] = base64.b64encode(np.ascontiguousarray(value)).decode("utf-8")
        encoded[f"_shape_{name}"] = value.shape
        encoded[f"_dtype_{name}"] = str(value.dtype)
    return encoded


def test_base64_gives_the_same_rows(rows: SchnorbDatabase, tmp_path: Path) -> None:
    encoded = _rewritten(tmp_path / "encoded.db", _as_base64)
    assert SchnorbDatabase.recognises(encoded.path)
    assert all(_equal(a, b) for a, b in zip(encoded, rows[:3], strict=True))


def test_data_as_json_give_the_same_rows(rows: SchnorbDatabase, tmp_path: Path) -> None:
    """As ASE wrote them before version 9."""
    encode = pytest.importorskip("ase.io.jsonio").encode
    path = edited(WATER, tmp_path / "old.db", "DELETE FROM systems WHERE id > 3")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE information SET value = '8' WHERE name = 'version'")
        for row in db.connect(WATER).select(limit=3):
            text = encode(row.data)
            connection.execute("UPDATE systems SET data = ? WHERE id = ?", (text, row.id))
    assert SchnorbDatabase.recognises(path)
    assert all(_equal(a, b) for a, b in zip(SchnorbDatabase(path), rows[:3], strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hamiltonian": "AAAA"}, r"'hamiltonian' holds 3 bytes, expected 2304"),
        ({"hamiltonian": "???"}, r"cannot be read"),
        ({"_dtype_hamiltonian": "object"}, r"cannot be read|expected"),
        ({"_shape_hamiltonian": (12, 48)}, r"of shape \(12, 48\), expected .*\(24, 24\)"),
        ({"_shape_forces": (3, 2.5)}, r"2.5 is no whole number"),
    ],
    ids=str,
)
def test_damaged_base64(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    encoded = _rewritten(tmp_path / "encoded.db", lambda data: {**_as_base64(data), **change})
    with pytest.raises(DataError, match=rf"encoded\.db, row 1 \('2'\): .*{message}"):
        encoded[1]


def test_a_file_without_a_mean_energy(tmp_path: Path) -> None:
    rows = _rewritten(tmp_path / "bare.db", dict, metadata={})
    with pytest.raises(DataError, match=r"bare\.db, row 0 \('1'\).*no total energy of H2O.*mean_"):
        rows[0]
    mean = float(db.connect(WATER).metadata["mean_energy"])
    energy = SchnorbDatabase(rows.path, mean_energy=mean)[0].energy
    assert energy == pytest.approx(WATER_TRUTH["E"][0], abs=1e-10)


@pytest.mark.parametrize("mean", [-76.27 * 27.2114, 0.0, "much", [1.0, 2.0], float("nan")], ids=str)
def test_a_mean_energy_that_is_none(tmp_path: Path, mean: Any) -> None:
    with pytest.raises(DataError, match=r"odd\.db"):
        _rewritten(tmp_path / "odd.db", dict, metadata={"mean_energy": mean})[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": np.eye(23)}, r"'overlap' is float64 of shape \(23, 23\), expected"),
        ({"hamiltonian": np.full((24, 24), np.nan)}, "hamiltonian holds NaN"),
        ({"hamiltonian": np.tri(24)}, "hamiltonian is not symmetric"),
        ({"forces": [["a"] * 3] * 3}, "'forces' is .*expected numbers"),
        ({"energy": None}, "'energy' is "),
    ],
    ids=str,
)
def test_wrong_data(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    rows = _rewritten(tmp_path / "wrong.db", lambda data: {**data, **change})
    with pytest.raises(DataError, match=rf"wrong\.db, row 2 \('3'\): .*{message}"):
        rows[2]


def test_data_that_are_missing(tmp_path: Path) -> None:
    def without(data: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in data.items() if name != "overlap"}

    rows = _rewritten(tmp_path / "less.db", without)
    with pytest.raises(DataError, match=r"have no 'overlap' .they have energy, forces, ham"):
        rows[0]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        (
            "UPDATE systems SET numbers = x'08000000ffffffff01000000'",
            "atomic numbers must be 1 to 86",
        ),
        ("UPDATE systems SET numbers = x'080000000100000041000000'", "no orbitals for Tb"),
        ("UPDATE systems SET numbers = 8", "'numbers' is a int, expected int32"),
        ("UPDATE systems SET positions = NULL", "'positions' is empty, expected float64"),
        ("UPDATE systems SET positions = x'00'", "'positions' holds 1 bytes"),
        ("UPDATE systems SET positions = zeroblob(72)", "Angstrom apart"),
        ("UPDATE systems SET data = substr(data, 1, 500)", "cannot be read"),
        ("UPDATE systems SET data = 'null'", "its data are no dictionary"),
        ("UPDATE systems SET data = 7", "cannot be read"),
        ("UPDATE systems SET data = NULL", "cannot be read"),
    ],
)
def test_wrong_columns(tmp_path: Path, statement: str, message: str) -> None:
    rows = SchnorbDatabase(edited(WATER, tmp_path / "a.db", f"{statement} WHERE id = 4"))
    with pytest.raises(DataError, match=rf"a\.db, row 3 \('4'\): .*{message}"):
        rows[3]
    assert rows[4].id == "5"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("ALTER TABLE systems RENAME TO atoms", "no table 'systems'"),
        ("ALTER TABLE systems RENAME COLUMN data TO stuff", "has no column 'data'"),
        ("UPDATE information SET value = '12' WHERE name = 'version'", "version 12, .*update"),
        ("UPDATE information SET value = '3' WHERE name = 'version'", "ase.db.convert"),
        ("UPDATE information SET value = 'new' WHERE name = 'version'", "cannot be read"),
        ("UPDATE information SET value = '[1' WHERE name = 'metadata'", "cannot be read"),
        ("UPDATE information SET value = '[1]' WHERE name = 'metadata'", "no dictionary"),
    ],
)
def test_wrong_header(tmp_path: Path, statement: str, message: str) -> None:
    path = edited(WATER, tmp_path / "b.db", statement)
    with pytest.raises(DataError, match=rf"b\.db, header: .*{message}"):
        SchnorbDatabase(path)


def test_ase_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ase.db.core", None)
    assert SchnorbDatabase.recognises(WATER)
    with pytest.raises(ConfigError, match=r"ASE.*not installed.*hambench\[ase\]"):
        SchnorbDatabase(WATER)


# -- access --------------------------------------------------------------------------------------


def test_the_file_is_recognised() -> None:
    assert isinstance(hambench.open_data(WATER), SchnorbDatabase)


def test_rows_are_read_when_asked_for(tmp_path: Path) -> None:
    path = edited(WATER, tmp_path / "c.db", "UPDATE systems SET data = x'00' WHERE id = 2")
    rows = SchnorbDatabase(path)
    part = rows[:4]
    assert part[0].id == "1"
    with pytest.raises(DataError, match="row 1"):
        part[1]


def _first(rows: SchnorbDatabase, queue: Any) -> None:
    queue.put(json.dumps(rows[3].hamiltonian.tolist()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes(rows: SchnorbDatabase, method: str) -> None:
    context = multiprocessing.get_context(method)
    expected = rows[3].hamiltonian  # the handle is open when the children start
    queues = [context.Queue() for _ in range(2)]
    children = [context.Process(target=_first, args=(rows, queue)) for queue in queues]
    for child in children:
        child.start()
    for child, queue in zip(children, queues, strict=True):
        assert np.array_equal(json.loads(queue.get(timeout=60)), expected)
        child.join(60)
        assert child.exitcode == 0
    assert np.array_equal(rows[3].hamiltonian, expected)


def test_pickle_threads_and_close(rows: SchnorbDatabase) -> None:
    again = pickle.loads(pickle.dumps(rows))
    assert _equal(again[2], rows[2])
    again.close()
    assert _equal(again[2], rows[2])
    found: list[Molecule] = []
    threads = [threading.Thread(target=lambda i=i: found.append(again[i])) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(int(m.id) for m in found) == list(range(1, 9))
