"""Files of the SQLite formats for tests, and PySCF as the judge of what is read from them.

``schnorb_water.db`` (24 geometries, PBE/def2-SVP), ``nabla_mini.db`` (Psi4 order) and
``nabla_mini_lm.db`` (m = -l..l) of the same 4 conformers (wB97X-D/def2-SVP) are in the public
formats, computed with PySCF; the ``_truth.npz`` have the same in float64 and PySCF's order.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hambench.chem.molecule import SYMBOLS, Molecule

FIXTURES = Path(__file__).parent.parent / "fixtures"
WATER = FIXTURES / "schnorb_water.db"
NABLA = FIXTURES / "nabla_mini.db"
NABLA_LM = FIXTURES / "nabla_mini_lm.db"
WATER_TRUTH = np.load(FIXTURES / "schnorb_water_truth.npz")
NABLA_TRUTH = np.load(FIXTURES / "nabla_mini_truth.npz")

ATOMS = {1: -0.5024932583661139, 6: -37.79809934247253, 7: -54.522414832380626,
         8: -74.97667809850873, 9: -99.61446950401614, 35: -2573.8571719614743}  # fmt: skip
"""Energies of atoms (Eh) in the metadata of nabla2DFT's energy databases."""


def pyscf_mole(molecule: Molecule) -> Any:
    """PySCF's molecule of the numbers and positions."""
    gto = pytest.importorskip("pyscf.gto")
    atoms = [(SYMBOLS[z], x) for z, x in zip(molecule.numbers, molecule.positions, strict=True)]
    return gto.M(atom=atoms, basis=molecule.basis, charge=molecule.charge, verbose=0)


def in_pyscf_order(matrix: np.ndarray, mole: Any) -> np.ndarray:
    """From m = -l..l to PySCF's order, by PySCF's own shells: only p (x, y, z) differs."""
    index: list[int] = []
    for shell in range(mole.nbas):
        for _ in range(mole.bas_nctr(shell)):
            width = 2 * mole.bas_angular(shell) + 1
            places = [2, 0, 1] if width == 3 else range(width)
            index += [len(index) + place for place in places]
    return matrix[np.ix_(index, index)]


def edited(source: Path, target: Path, *statements: str) -> Path:
    """A copy of a file after some SQL."""
    shutil.copyfile(source, target)
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
    return target


def nabla_truth(row: int, name: str) -> np.ndarray:
    """An array of one conformer's truth."""
    return NABLA_TRUTH[f"{row}/{name}"]


def formation_energy(row: int) -> float:
    """Of a conformer, Eh."""
    return float(nabla_truth(row, "E")) - sum(ATOMS[z] for z in nabla_truth(row, "Z").tolist())


def write_energies(
    path: Path, *, order: Sequence[int] = (2, 0, 3, 1), atoms: Any = None, pairs: bool = True
) -> Path:
    """The conformers as a nabla2DFT energy database, rows in another order than the truth's."""
    ase, db = pytest.importorskip("ase"), pytest.importorskip("ase.db")
    if atoms is None:
        atoms = [ATOMS.get(z, 0.0) for z in range(max(ATOMS) + 1)]
    with db.connect(path) as connection:
        for row in order:
            bohr = 0.52917721092  # of the PySCF that computed the truth
            names = {
                "moses_id": int(nabla_truth(row, "moses_id")),
                "conformation_id": int(nabla_truth(row, "conformer_id")),
            }
            connection.write(
                ase.Atoms(nabla_truth(row, "Z"), nabla_truth(row, "positions_bohr") * bohr),
                key_value_pairs={"smiles": str(NABLA_TRUTH["smiles"][row]), **names}
                if pairs
                else {},
                data={
                    "energy": [formation_energy(row)],
                    "forces": nabla_truth(row, "forces_Eh_per_bohr") / bohr,
                },
            )
    db.connect(path).metadata = {"atomrefs": {"energy": atoms}}
    return path


def write_qh9_stable(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    """Rows (id, Z, positions in Angstrom, H in PySCF's order) as the public code writes them."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE data (id INTEGER, N INTEGER, Z BLOB, pos BLOB, Ham BLOB)")
        for name, z, positions, ham in rows:
            z = np.asarray(z, dtype=np.int32)
            values = (name, len(z), z.tobytes(), positions.tobytes(), ham.tobytes())
            connection.execute("INSERT INTO data VALUES (?, ?, ?, ?, ?)", values)
    return path


def write_qh9_dynamic(path: Path, rows: Sequence[Sequence[Any]], converged: Any = True) -> Path:
    """Rows (id, geometry, Z, positions in bohr, H, E) as the public code writes them.

    NumPy's int64 become blobs, as in the public files.
    """
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "CREATE TABLE data (id BLOB, geo_id INTEGER, N INTEGER, Z BLOB, pos BLOB, ekin REAL, "
            "epot REAL, etot REAL, time REAL, Ham BLOB, converged BOOLEAN)"
        )
        for name, geometry, z, positions, ham, energy in rows:
            z = np.asarray(z, dtype=np.int32)
            values = (
                np.int64(name), geometry, len(z), z.tobytes(), positions.tobytes(), 0.01, energy,
                energy + 0.01, 0.5, ham.tobytes(), converged,
            )  # fmt: skip
            marks = ", ".join("?" * len(values))
            connection.execute(f"INSERT INTO data VALUES ({marks})", values)
    return path
