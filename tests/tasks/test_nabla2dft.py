"""The nabla2DFT readers: truth by PySCF itself, the order found from overlaps, energies, damage."""

from __future__ import annotations

import pickle
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
from sqlite_files import (
    ATOMS,
    NABLA,
    NABLA_LM,
    edited,
    formation_energy,
    in_pyscf_order,
    nabla_truth,
    pyscf_mole,
    write_energies,
)

import hambench
from hambench.chem import dft, functional
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory
from hambench.data.conventions import Conventions, RawOverlap, decide
from hambench.data.verify import verify
from hambench.errors import ConfigError, DataError, VerificationError
from hambench.tasks.nabla2dft_energy import Nabla2dftEnergies
from hambench.tasks.nabla2dft_hamiltonian import Nabla2dftHamiltonians
from hambench.units import BOHR

PSI4, CANONICAL = Conventions("bohr", "psi4"), Conventions("bohr", "canonical")
FILES = {"psi4": NABLA, "canonical": NABLA_LM}


@pytest.fixture(scope="module")
def rows() -> Nabla2dftHamiltonians:
    """The fixture in Psi4's order, which its overlaps tell."""
    return Nabla2dftHamiltonians(NABLA)


def _id(row: int) -> str:
    return f"{nabla_truth(row, 'moses_id')}-{nabla_truth(row, 'conformer_id')}"


# -- Hamiltonians: truth -------------------------------------------------------------------------


@pytest.mark.parametrize("order", FILES)
def test_every_row_is_the_truth(order: str) -> None:
    """Both files hold the same molecules, and each is found to be in its own order."""
    rows = hambench.open_data(FILES[order])
    assert isinstance(rows, Nabla2dftHamiltonians)
    assert rows.conventions == Conventions("bohr", order)
    assert rows.ids == tuple(map(_id, range(4)))
    for row, molecule in enumerate(rows):
        mole = pyscf_mole(molecule)
        assert (molecule.id, molecule.basis) == (_id(row), "def2-svp")
        assert molecule.numbers.tolist() == nabla_truth(row, "Z").tolist()
        assert molecule.energy == float(nabla_truth(row, "E"))  # to the last bit
        for value, name, tolerance in (
            (molecule.positions / BOHR, "positions_bohr", 1e-12),
            (molecule.forces * BOHR, "forces_Eh_per_bohr", 1e-7),
            (in_pyscf_order(molecule.hamiltonian, mole), "H", 9e-6),
            (in_pyscf_order(molecule.overlap, mole), "S", 3e-8),
            (scipy.linalg.eigvalsh(molecule.hamiltonian, molecule.overlap), "mo_energy", 9e-6),
        ):
            expected = nabla_truth(row, name)
            np.testing.assert_allclose(value, expected, rtol=0, atol=tolerance)
            assert value.dtype == np.float64


def test_electrons_levels_and_fock_matrix_by_pyscf(rows: Nabla2dftHamiltonians) -> None:
    molecule = rows[3]  # CC(F)=O: 32 electrons
    mole = pyscf_mole(molecule)
    pairs = mole.nelectron // 2
    overlap = mole.intor_symmetric("int1e_ovlp")
    levels, orbitals = scipy.linalg.eigh(in_pyscf_order(molecule.hamiltonian, mole), overlap)
    density = 2 * orbitals[:, :pairs] @ orbitals[:, :pairs].T
    stored = in_pyscf_order(molecule.overlap, mole)
    assert np.trace(density @ stored) == pytest.approx(mole.nelectron, abs=1e-5)
    expected = nabla_truth(3, "mo_energy")[pairs - 1 : pairs + 1]
    np.testing.assert_allclose(levels[pairs - 1 : pairs + 1], expected, atol=2e-6)
    rebuilt = functional.fock_of(molecule.hamiltonian, molecule, Theory.from_dict(rows.theory))
    assert np.abs(rebuilt - molecule.hamiltonian).mean() < 1e-4  # grid and density fitting


# -- Hamiltonians: the order ---------------------------------------------------------------------


def test_the_order_is_found_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Nabla2dftHamiltonians(NABLA)
    calls: list[Any] = []
    overlap = dft.overlap
    monkeypatch.setattr(dft, "overlap", lambda *args: calls.append(args) or overlap(*args))
    assert len(rows.ids) == 4
    assert not calls
    for _ in range(2):
        assert rows[0].id == _id(0)
    assert len(calls) == 6  # 3 rows, 2 units
    assert pickle.loads(pickle.dumps(rows))[0].id == _id(0)
    assert Nabla2dftHamiltonians(NABLA, conventions=PSI4)[0].id == _id(0)
    assert len(calls) == 6


def test_pyscf_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf", None)
    rows = Nabla2dftHamiltonians(NABLA)
    with pytest.raises(ConfigError, match=r"does not say the order of its orbitals.*PySCF"):
        rows[0]
    known = Nabla2dftHamiltonians(NABLA, conventions=PSI4)[0]
    assert known.energy == float(nabla_truth(0, "E"))


def _raw(row: int = 0, scale: float = 1.0, noise: float = 0.0) -> RawOverlap:
    """A conformer's overlap in PySCF's order, as its truth has it."""
    overlap = nabla_truth(row, "S") + noise
    return RawOverlap(
        nabla_truth(row, "Z"), nabla_truth(row, "positions_bohr") * scale, overlap, _id(row)
    )


def test_decide_finds_every_unit_and_order() -> None:
    found, residual = decide([_raw(0), _raw(2)], "def2-svp")
    assert found == Conventions("bohr", "pyscf")
    assert residual < 1e-7
    found, residual = decide([_raw(0, scale=BOHR)], "def2-svp")
    assert found == Conventions("angstrom", "pyscf")
    assert residual < 1e-7


def test_decide_refuses_what_is_not_decided() -> None:
    with pytest.raises(DataError, match=r"no units and orders .*bohr and pyscf 1\.0e-02"):
        decide([_raw(noise=1e-2)], "def2-svp")
    with pytest.raises(DataError, match="no units and orders"):
        decide([_raw()], "def2-svp", [PSI4, CANONICAL])
    with pytest.raises(DataError, match="no units and orders"):  # not the same for all rows
        decide([_raw(0), _raw(2, scale=BOHR)], "def2-svp")
    atom = RawOverlap(np.array([1]), np.zeros((1, 3)), dft.overlap([1], [[0] * 3], "def2-svp"), "H")
    with pytest.raises(DataError, match=r"6 units and orders explain .*decide by larger molecules"):
        decide([atom], "def2-svp")
    short = RawOverlap(_raw().numbers, _raw().positions, np.eye(84), "x")
    with pytest.raises(DataError, match=r"row 'x': the overlap has shape \(84, 84\), expected"):
        decide([short], "def2-svp")


def test_a_file_whose_overlaps_fit_nothing(tmp_path: Path) -> None:
    path = edited(NABLA, tmp_path / "a.db", "UPDATE data SET S = H")
    with pytest.raises(DataError, match=r"a\.db: no units and orders explain"):
        Nabla2dftHamiltonians(path)[0]


def test_damaged_rows_do_not_decide(tmp_path: Path) -> None:
    path = edited(NABLA, tmp_path / "b.db", "UPDATE data SET S = NULL WHERE id < 3")
    rows = Nabla2dftHamiltonians(path)
    assert rows[3].id == _id(3)
    assert rows.conventions == PSI4
    with pytest.raises(DataError, match=r"b\.db, row 0 .*'S' is empty"):
        rows[0]
    path = edited(NABLA, tmp_path / "c.db", "UPDATE data SET S = NULL")
    with pytest.raises(DataError, match=r"c\.db, row .*'S' is empty"):
        Nabla2dftHamiltonians(path)[0]


def test_verification_passes_and_tells_a_wrong_order() -> None:
    rows = Nabla2dftHamiltonians(NABLA_LM)
    found = verify(rows, count=4, fock_rows=0, progress=False)
    assert (found.unit, found.order) == ("bohr", "canonical")
    wrong = rows.with_conventions(PSI4)
    with pytest.raises(VerificationError, match=r"the orbitals are in canonical.* order"):
        verify(wrong, count=1, progress=False)


# -- Hamiltonians: access and damage -------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE data SET E = NULL", "its energy E is None"),
        ("UPDATE data SET E = 0.0", r"its energy E is 0\.0"),
        ("UPDATE data SET E = 'low'", "its energy E is 'low'"),
        ("UPDATE data SET E = -3.5", "no total energy of C2H5Br"),
        ("UPDATE data SET E = 9e999", "no total energy"),
        ("UPDATE data SET Z = NULL", "'Z' is empty, expected int32"),
        ("UPDATE data SET Z = zeroblob(0)", "."),
        ("UPDATE data SET Z = x'010203'", "'Z' holds 3 bytes, expected a multiple of 4"),
        ("UPDATE data SET Z = zeroblob(32)", "atomic numbers must be 1 to 86"),
        ("UPDATE data SET Z = substr(Z, 1, 28)", "'R' holds 96 bytes, expected 84"),
        ("UPDATE data SET R = 'text'", "'R' is a str, expected float32"),
        ("UPDATE data SET F = substr(F, 1, 40)", "'F' holds 40 bytes, expected 96"),
        ("UPDATE data SET H = substr(H, 1, 28896)", "'H' holds 28896 bytes, expected 28900"),
        ("UPDATE data SET H = H || H", "'H' is a str, expected float32"),
        ("UPDATE data SET S = NULL", "'S' is empty"),
        ("UPDATE data SET H = CAST(x'0000c07f' || substr(H, 5) AS BLOB)", "holds NaN"),
        ("DELETE FROM data", "there is no such row"),
    ],
)
def test_wrong_columns(tmp_path: Path, statement: str, message: str) -> None:
    path = edited(NABLA, tmp_path / "d.db", f"{statement} WHERE id = 1")
    rows = Nabla2dftHamiltonians(path, conventions=PSI4)
    with pytest.raises(DataError, match=rf"d\.db, row 1 \('{_id(1)}'\): .*{message}"):
        rows[1]
    assert rows[0].id == _id(0)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DROP TABLE basisset", "no table 'basisset'"),
        ("ALTER TABLE data RENAME COLUMN H TO F0", "table 'data' has no column 'H'"),
        ("UPDATE basisset SET orbitals = x'0000000000000000' WHERE Z = 1", "H shells of l = .0, 0"),
        ("UPDATE basisset SET orbitals = NULL", "orbitals of Z = 1.* is empty"),
        ("UPDATE basisset SET Z = 200 WHERE Z = 35", "table 'basisset': "),
        ("UPDATE metadata SET N = 5", r"gives \[5\] as the number of rows, 'dataset_ids' has 4"),
        ("DELETE FROM metadata", r"gives \[\] as the number of rows"),
        ("UPDATE dataset_ids SET MOSES_ID = 'x'", "'x' is no whole number"),
    ],
)
def test_wrong_header(tmp_path: Path, statement: str, message: str) -> None:
    path = edited(NABLA, tmp_path / "e.db", statement)
    with pytest.raises(DataError, match=rf"e\.db, header: .*{message}"):
        Nabla2dftHamiltonians(path)


def test_names_used_twice(tmp_path: Path) -> None:
    path = edited(NABLA, tmp_path / "f.db", "UPDATE dataset_ids SET MOSES_ID = 7, CONFORMER_ID = 1")
    with pytest.raises(DataError, match="4 rows are called '7-1'"):
        Nabla2dftHamiltonians(path)


# -- energies ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def energies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conformers of the fixture as an energy database."""
    return write_energies(tmp_path_factory.mktemp("energies") / "energies.db")


def test_energies_are_the_truth_and_join_by_id(energies: Path, rows: Nabla2dftHamiltonians) -> None:
    found = hambench.open_data(energies)
    assert isinstance(found, Nabla2dftEnergies)
    assert found.ids == tuple(map(_id, (2, 0, 3, 1)))
    by_id = {molecule.id: molecule for molecule in rows}
    for molecule in found:
        same = by_id[molecule.id]
        assert molecule.numbers.tolist() == same.numbers.tolist()
        assert molecule.hamiltonian is None
        assert molecule.energy == pytest.approx(same.energy, abs=1e-9)
        np.testing.assert_allclose(molecule.positions, same.positions, rtol=0, atol=1e-8)
        np.testing.assert_allclose(molecule.forces, same.forces, rtol=0, atol=1e-7)


def test_formation_energies(energies: Path) -> None:
    found = Nabla2dftEnergies(energies, energies="formation")
    assert [m.energy for m in found] == [formation_energy(row) for row in (2, 0, 3, 1)]
    with pytest.raises(ConfigError, match="energies are total or formation, not 'free'"):
        Nabla2dftEnergies(energies, energies="free")  # type: ignore[arg-type]


def test_energies_of_atoms_as_a_mapping(energies: Path, tmp_path: Path) -> None:
    path = write_energies(tmp_path / "map.db", atoms={str(z): e for z, e in ATOMS.items()})
    expected = [molecule.energy for molecule in Nabla2dftEnergies(energies)]
    assert [molecule.energy for molecule in Nabla2dftEnergies(path)] == expected


def _message(path: Path, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        list(Nabla2dftEnergies(path, **options))
    assert path.name in str(caught.value)
    return str(caught.value)


def test_energies_of_atoms_that_are_missing(tmp_path: Path) -> None:
    path = write_energies(tmp_path / "a.db", atoms={"1": ATOMS[1], "6": ATOMS[6]})
    assert "no energy of the atom" in _message(path)
    assert len(list(Nabla2dftEnergies(path, energies="formation"))) == 4
    path = edited(path, tmp_path / "b.db", "DELETE FROM information WHERE name = 'metadata'")
    assert "no energies of atoms" in _message(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM number_key_values WHERE id = 2", "id 2 has not exactly one 'moses_id'"),
        ("INSERT INTO number_key_values VALUES ('moses_id', 3, 2)", "id 2 has not exactly one"),
        ("UPDATE number_key_values SET value = 0.5 WHERE id = 2", "0.5 is no whole number"),
        ("UPDATE systems SET data = NULL", "row 0"),
        ("UPDATE systems SET positions = zeroblob(12)", "'positions' holds 12 bytes"),
    ],
)
def test_damaged_energies(energies: Path, tmp_path: Path, statement: str, message: str) -> None:
    path = edited(energies, tmp_path / "d.db", statement)
    assert message in _message(path)
    assert Nabla2dftEnergies.recognises(path)


def test_formats_are_told_apart(energies: Path, tmp_path: Path) -> None:
    plain = write_energies(tmp_path / "plain.db", pairs=False)
    assert not Nabla2dftEnergies.recognises(plain)
    with pytest.raises(DataError, match="of no format that an installed reader knows"):
        hambench.open_data(plain)
    assert not Nabla2dftEnergies.recognises(NABLA)
    assert not Nabla2dftHamiltonians.recognises(energies)
    assert isinstance(hambench.open_data(shutil.copy(NABLA, tmp_path / "x"))[0], Molecule)
