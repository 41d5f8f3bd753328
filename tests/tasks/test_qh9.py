"""The QH9 readers: small files of PySCF's own B3LYP matrices, written as the public code does."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from sqlite_files import edited, in_pyscf_order, pyscf_mole, write_qh9_dynamic, write_qh9_stable

import hambench
from hambench.chem.molecule import Molecule
from hambench.chem.theory import named
from hambench.data.conventions import Conventions
from hambench.data.verify import verify
from hambench.errors import DataError, VerificationError
from hambench.tasks.qh9 import QH9Dynamic, QH9Stable
from hambench.units import BOHR

ANGSTROM = {
    (8, 1, 1): [[0.0, 0.0, 0.1], [0.0, 0.757, -0.487], [0.05, -0.757, -0.487]],
    (9, 1): [[0.0, 0.1, 0.0], [0.3, 0.2, 0.87]],
    (7, 1, 1, 1): [[0, 0, 0.1], [0.0, 0.94, -0.28], [0.81, -0.47, -0.28], [-0.81, -0.47, -0.25]],
}
"""Positions by atomic numbers."""


class Label(NamedTuple):
    """What PySCF computed of one molecule, in its own order."""

    numbers: tuple[int, ...]
    positions: np.ndarray
    fock: np.ndarray
    energy: float


@pytest.fixture(scope="module")
def labels() -> list[Label]:
    """Three molecules, B3LYP (VWN5)/def2-SVP, by PySCF without any code of the project."""
    pyscf_dft = pytest.importorskip("pyscf.dft")
    found = []
    for numbers, angstrom in ANGSTROM.items():
        positions = np.array(angstrom, dtype=np.float64)
        field = pyscf_dft.RKS(pyscf_mole(Molecule(numbers, positions, basis="def2-svp")))
        field.xc = "b3lyp5"
        field.conv_tol = 1e-11
        energy = field.kernel()
        found.append(Label(numbers, positions, np.asarray(field.get_fock()), float(energy)))
    return found


@pytest.fixture
def stable(labels: list[Label], tmp_path: Path) -> Path:
    """A file of QH9Stable with ids 1, 7 and 20."""
    rows = [
        (name, x.numbers, x.positions, x.fock) for name, x in zip((1, 7, 20), labels, strict=True)
    ]
    return write_qh9_stable(tmp_path / "stable.db", rows)


def _dynamic(path: Path, labels: list[Label], **options: Any) -> Path:
    rows = [
        (5, geometry, x.numbers, x.positions / BOHR, x.fock, x.energy)
        for geometry, x in enumerate(labels)
    ]
    return write_qh9_dynamic(path, rows, **options)


@pytest.fixture
def dynamic(labels: list[Label], tmp_path: Path) -> Path:
    """A file of QH9Dynamic, geometries 0 to 2 of molecule 5."""
    return _dynamic(tmp_path / "dynamic.db", labels)


def _same(molecule: Molecule, label: Label) -> None:
    fock = in_pyscf_order(molecule.hamiltonian, pyscf_mole(molecule))
    assert molecule.numbers.tolist() == list(label.numbers)
    assert (molecule.basis, molecule.overlap, molecule.forces) == ("def2-svp", None, None)
    np.testing.assert_allclose(molecule.positions, label.positions, rtol=0, atol=1e-14)
    assert np.array_equal(fock, label.fock)


def test_stable_rows_are_what_pyscf_computed(stable: Path, labels: list[Label]) -> None:
    rows = hambench.open_data(stable)
    assert isinstance(rows, QH9Stable)
    assert not QH9Dynamic.recognises(stable)
    assert rows.ids == ("1", "7", "20")
    for molecule, label in zip(rows, labels, strict=True):
        _same(molecule, label)
        assert molecule.energy is None


def test_dynamic_rows_are_what_pyscf_computed(dynamic: Path, labels: list[Label]) -> None:
    rows = hambench.open_data(dynamic)
    assert isinstance(rows, QH9Dynamic)
    assert not QH9Stable.recognises(dynamic)
    assert rows.ids == ("5-0", "5-1", "5-2")
    for molecule, label in zip(rows, labels, strict=True):
        _same(molecule, label)
        assert molecule.energy == label.energy


def test_order_unit_and_theory_by_pyscf(stable: Path, dynamic: Path) -> None:
    """There is no overlap in the files: F[D] is what tells."""
    theory = named("b3lyp5/def2-svp")
    assert QH9Stable.theory == theory.to_dict()
    for rows in (QH9Stable(stable), QH9Dynamic(dynamic)):
        found = verify(rows, theory=theory, fock_rows=3, progress=False)
        assert found.checks["fock"].rows == 3
        assert found.checks["fock"].residual < 2e-5
    wrong = QH9Stable(stable, conventions=Conventions("angstrom", "canonical"))
    with pytest.raises(VerificationError, match="orbitals are in pyscf order"):
        verify(wrong, theory=theory, count=1, progress=False)


@pytest.mark.parametrize("converged", [False, 0, np.int64(0)], ids=repr)
def test_rows_that_did_not_converge(labels: list[Label], tmp_path: Path, converged: Any) -> None:
    rows = QH9Dynamic(_dynamic(tmp_path / "d.db", labels, converged=converged))
    with pytest.raises(DataError, match=r"d\.db, row 1 \('5-1'\): its SCF did not converge"):
        rows[1]


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE data SET N = 4", "'Z' holds 12 bytes, expected 16"),
        ("UPDATE data SET N = -1", "its number of atoms N is -1"),
        ("UPDATE data SET N = 'three'", "'three' is no whole number"),
        ("UPDATE data SET Z = NULL", "'Z' is empty, expected int32"),
        ("UPDATE data SET Z = x'080000000100000023000000'", "'Ham' holds 4608 bytes"),
        ("UPDATE data SET Z = x'0800000001000000ffffffff'", "atomic numbers must be 1 to 86"),
        ("UPDATE data SET pos = substr(pos, 1, 36)", "'pos' holds 36 bytes, expected 72"),
        ("UPDATE data SET Ham = substr(Ham, 1, 2304)", "'Ham' holds 2304 bytes, expected 4608"),
        ("UPDATE data SET Ham = 3.5", "'Ham' is a float, expected float64"),
        (
            "UPDATE data SET Ham = CAST(x'000000000000f87f' || substr(Ham, 9) AS BLOB)",
            "hamiltonian holds NaN",
        ),
        (
            "UPDATE data SET Ham = CAST(substr(Ham, 1, 192) || substr(Ham, 1, 4416) AS BLOB)",
            "hamiltonian is not symmetric",
        ),
    ],
)
def test_wrong_columns(stable: Path, tmp_path: Path, statement: str, message: str) -> None:
    rows = QH9Stable(edited(stable, tmp_path / "e.db", f"{statement} WHERE id = 1"))
    with pytest.raises(DataError, match=rf"e\.db, row 0 \('1'\): .*{message}"):
        rows[0]
    assert rows[1].id == "7"


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE data SET epot = NULL", "'epot' is None, expected one number"),
        ("UPDATE data SET epot = 9e999", "'epot' is inf"),
        ("UPDATE data SET epot = epot * 27.2", "no total energy of H2O in Eh"),
        ("UPDATE data SET converged = NULL", "None is no whole number"),
    ],
)
def test_wrong_columns_of_dynamics(
    dynamic: Path, tmp_path: Path, statement: str, message: str
) -> None:
    rows = QH9Dynamic(edited(dynamic, tmp_path / "f.db", f"{statement} WHERE geo_id = 0"))
    with pytest.raises(DataError, match=rf"f\.db, row 0 \('5-0'\): .*{message}"):
        rows[0]
    assert rows[1].id == "5-1"


def test_names_that_are_none_or_used_twice(stable: Path, dynamic: Path, tmp_path: Path) -> None:
    path = edited(stable, tmp_path / "g.db", "UPDATE data SET id = 1")
    with pytest.raises(DataError, match=r"g\.db: 3 rows are called '1'"):
        QH9Stable(path)
    path = edited(dynamic, tmp_path / "h.db", "UPDATE data SET id = NULL")
    with pytest.raises(DataError, match=r"h\.db, header: None is no whole number"):
        QH9Dynamic(path)
    with closing(sqlite3.connect(tmp_path / "i.db")) as connection, connection:
        connection.execute("CREATE TABLE data (id, Z)")
    with pytest.raises(DataError, match=r"i\.db, header: table 'data' has no column 'Ham'"):
        QH9Stable(tmp_path / "i.db")
    assert not QH9Stable.recognises(tmp_path / "i.db")
