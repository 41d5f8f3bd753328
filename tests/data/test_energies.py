"""Energies joined from files of the user's: CSV, Parquet, ASE-LMDB."""

from __future__ import annotations

from pathlib import Path

import pytest

from hambench.data.energies import WithEnergies, read_energies
from hambench.errors import DataError
from hambench.registry import load_task
from hambench.units import HARTREE_EV

FOUND = {"water-0000": -76.25, "water-0001": -76.5}


def _csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_every_kind_of_file_gives_the_same(tmp_path: Path) -> None:
    table = _csv(tmp_path / "e.csv", "id,energy,note\nwater-0000,-76.25,x\nwater-0001,-76.5,\n")
    assert read_energies(table) == FOUND
    in_ev = "".join(f"{name},{e * HARTREE_EV!r}\n" for name, e in FOUND.items())
    assert read_energies(_csv(tmp_path / "ev.csv", "id,energy_ev\n" + in_ev)) == pytest.approx(
        FOUND
    )
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"id": list(FOUND), "energy": list(FOUND.values())}
    pq.write_table(pa.table(columns), tmp_path / "e.parquet")
    assert read_energies(tmp_path / "e.parquet") == FOUND
    pytest.importorskip("ase_db_backends")
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase_db_backends.aselmdb import LMDBDatabase

    database = LMDBDatabase(str(tmp_path / "e.aselmdb"))
    for name, energy in FOUND.items():
        atoms = Atoms("OHH", [[0, 0, 0], [0, 0, 1], [0, 1, 0]])
        atoms.calc = SinglePointCalculator(atoms, energy=energy * HARTREE_EV)
        database.write(atoms, data={"source": name})
    database.close()
    assert read_energies(tmp_path / "e.aselmdb") == pytest.approx(FOUND)


def test_rows_get_their_energies(tmp_path: Path) -> None:
    rows = load_task("water_mini").rows[:2]
    joined = WithEnergies(rows, FOUND, tmp_path / "e.csv")
    assert joined.ids == rows.ids
    assert [molecule.energy for molecule in joined] == list(FOUND.values())
    assert (joined[1].hamiltonian == rows[1].hamiltonian).all()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("e.txt", "", r"read from .csv, .parquet, .aselmdb files"),
        ("e.csv", "id,e\na,1\n", "its columns are id, e; expected 'id' and one of energy or"),
        ("e.csv", "", "its columns are none"),
        ("e.csv", "id,energy,energy_ev\na,1,2\n", "expected 'id' and one of"),
        ("e.csv", "id,energy\na,-1\na,-2\n", "row 2: the id 'a' was there before"),
        ("e.csv", "id,energy\na,\n", "row 1, id 'a': the energy is None, expected a number"),
        ("e.csv", "id,energy\na,x\n", "row 1, id 'a': the energy is 'x', expected a number"),
        ("e.parquet", "PAR1", "cannot be read|needs pyarrow"),
        ("e.aselmdb", "nothing", "cannot be read|needs ase_db_backends"),
    ],
)
def test_wrong_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = _csv(tmp_path / name, text)
    with pytest.raises(DataError, match=message) as caught:
        read_energies(path)
    assert str(path) in str(caught.value)


def test_missing_and_impossible_energies_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        read_energies(tmp_path / "none.csv")
    rows = load_task("water_mini").rows[:2]
    with pytest.raises(DataError, match=r"lacks the energies of 1 of 2 rows .first: 'water-0001'"):
        WithEnergies(rows, {"water-0000": -76.2}, tmp_path / "e.csv")
    in_ev = {name: e * HARTREE_EV for name, e in FOUND.items()}
    with pytest.raises(DataError, match=r"e\.csv, id 'water-0000': the energy -2074.* no total"):
        WithEnergies(rows, in_ev, tmp_path / "e.csv")[0]
