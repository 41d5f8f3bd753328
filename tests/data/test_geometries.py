"""Users' geometries: xyz, extended xyz, lists of SMILES; ids, electrons, and what is refused."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hambench.chem import smiles
from hambench.chem.molecule import Molecule, formula
from hambench.data.geometries import Source, check_fit, from_file
from hambench.errors import ConfigError, DataError

WATER = "3\n{}\nO 0.0 0.0 0.1\nH 0.0 0.76 -0.5\nH 0.0 -0.76 -0.5\n"
RMD17 = (
    '3\nLattice="100.0 0 0 0 100.0 0 0 0 100.0" Properties=species:S:1:pos:R:3:forces:R:3 '
    'Energy=-2078.5 pbc="F F F"\n'
    "O 0.12345678 -0.00000001 0.1 1 2 3\nH 0 0.76 -0.5 1 2 3\nH 0 -0.76 -0.5 1 2 3\n"
)


def _file(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_plain_xyz(tmp_path: Path) -> None:
    text = WATER.format("") + WATER.format("-76.3 anything").replace("O", "8") + "\n\n"
    path = _file(tmp_path, "two waters.xyz", text)
    source = from_file(path)
    assert [m.id for m in source.molecules] == ["two_waters_0", "two_waters_1"]
    for molecule in source.molecules:
        assert molecule.numbers.tolist() == [8, 1, 1]
        assert molecule.positions[1].tolist() == [0.0, 0.76, -0.5]
        assert (molecule.charge, molecule.multiplicity) == (0, 1)
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    assert source.recipe["file"] == "two waters.xyz"
    assert source.recipe["sha256"] == sha256
    assert len(from_file(path, n=1).molecules) == 1
    with pytest.raises(ConfigError, match=r"two waters\.xyz has 2 geometries, 3 were asked for"):
        from_file(path, n=3).first(3)


def test_extended_xyz_of_rmd17(tmp_path: Path) -> None:
    molecule = from_file(_file(tmp_path, "rmd17.extxyz", RMD17)).molecules[0]
    assert molecule.positions[0].tolist() == [0.12345678, -0.00000001, 0.1]
    assert molecule.forces is None
    turned = "1\nproperties=forces:R:3:pos:R:3:Z:I:1\n9 9 9 1 2 3 18\n"
    molecule = from_file(_file(tmp_path, "turned.xyz", turned)).molecules[0]
    assert (formula(molecule.numbers), molecule.positions.tolist()) == ("Ar", [[1.0, 2.0, 3.0]])


@pytest.mark.parametrize(
    ("comment", "row", "charge", "multiplicity"),
    [
        ("id=a/b charge=2", "a/b", 2, 1),
        ('id="q 7"', None, 0, 1),
        ("molecule=12 conformer=3", "12-3", 0, 1),
        ("charge=-1.0 multiplicity=2", "x_0", -1, 2),
        ("charge=+2 spin=0", "x_0", 2, 1),
        ("spin=1", "x_0", 0, 1),
        ("spin=3", "x_0", 0, 3),
    ],
)
def test_keys_of_the_comment(
    tmp_path: Path, comment: str, row: str | None, charge: int, multiplicity: int
) -> None:
    path = _file(tmp_path, "x.xyz", WATER.format(comment))
    if row is None:
        with pytest.raises(DataError, match=r"x\.xyz, line 1: molecule 'q 7': an id has no spaces"):
            from_file(path)
        return
    molecule = from_file(path).molecules[0]
    assert (molecule.id, molecule.charge, molecule.multiplicity) == (row, charge, multiplicity)


BAD = {
    "cut": (WATER.format("") + "3\n\nO 0 0 0\n", r"line 6: a frame of 3 atoms .* ends after 1 of"),
    "count": (WATER.format("") + "O 0 0 0\n", r"line 6: the number of atoms .* found 'O 0 0 0'"),
    "zero": ("0\n\n", r"line 1: the number of atoms"),
    "element": (WATER.format("").replace("O 0", "Xx 0"), r"line 3: an element and its x y z"),
    "number": (WATER.format("").replace("0.76", "0,76"), r"line 4: .* found 'H 0.0 0,76 -0.5'"),
    "few": (WATER.format("").replace(" 0.76 -0.5", " 0.76"), r"line 4: an element"),
    "nan": (WATER.format("").replace("0.1", "nan"), r"line 3: an element"),
    "short": (
        "4\n" + WATER.format("").partition("\n")[2] + WATER.format(""),
        r"line 6: an element",
    ),
    "charge": (WATER.format("charge=one"), r"line 2: charge=one is no whole number"),
    "half": (WATER.format("charge=0.5"), r"line 2: charge=0.5 is no whole number"),
    "columns": (WATER.format("Properties=species:S:1"), r"line 2: Properties=species:S:1 names no"),
    "bohr": (WATER.format("").replace("0.76", "0.03"), r"line 1: molecule .* 0.06 Angstrom apart"),
    "twice": (WATER.format("id=a") * 2, r"line 6: molecule 'a' has the id of that of line 1"),
    "empty": ("", r"holds no geometries"),
    "binary": (b"\x89HDF\xff\xfe", r"it is no text"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_of_an_xyz_file_are_named_with_their_line(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    with pytest.raises(DataError, match=rf"bad\.xyz.*{message}") as raised:
        from_file(_file(tmp_path, "bad.xyz", text))
    assert "\n" not in str(raised.value)


def test_other_files_and_options_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*none\.xyz"):
        from_file(tmp_path / "none.xyz")
    with pytest.raises(ConfigError, match=r"not 'mine\.pdb'"):
        from_file(_file(tmp_path, "mine.pdb", ""))
    with pytest.raises(ConfigError, match="conformers and seed are for lists of SMILES"):
        from_file(_file(tmp_path, "x.xyz", WATER.format("")), seed=3)


def test_foreign_elements_and_open_shells_are_refused() -> None:
    def source(*molecules: Molecule) -> Source:
        return Source(molecules, {}, "f.xyz", ("line 1", "line 5")[: len(molecules)])

    far = np.arange(3)[:, None] * np.eye(3)
    water = Molecule([8, 1, 1], far, id="w")
    check_fit(source(water), ("H", "O"), "t")
    with pytest.raises(ConfigError, match=r"f\.xyz, line 5: molecule 's' holds S, .* is of H O"):
        check_fit(source(water, Molecule([16, 1, 1], far, id="s")), ("H", "O"), "t")
    for charge, multiplicity in ((1, 1), (0, 3), (10, 1)):
        odd = Molecule([8, 1, 1], far, charge=charge, multiplicity=multiplicity, id="odd")
        with pytest.raises(
            ConfigError, match=r"line 1: molecule 'odd': H2O of charge .* no closed"
        ):
            check_fit(source(odd), ("H", "O"), "t")
    check_fit(source(Molecule([8, 1, 1], far, charge=2)), ("H", "O"), "t")


def test_missing_rdkit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("rdkit", "rdkit.Chem", "rdkit.rdBase"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"need RDKit, .* 'hambench\[smiles\]', or give"):
        from_file(_file(tmp_path, "a.smi", "CCO\n"))


@pytest.fixture
def rdkit() -> Any:
    return pytest.importorskip("rdkit", reason="needs RDKit: pip install 'hambench[smiles]'")


def test_smiles_become_conformers(rdkit: Any, tmp_path: Path) -> None:
    path = _file(tmp_path, "a.smi", "CCO ethyl alcohol\n\nC[NH3+]\n")
    source = from_file(path, conformers=2, seed=5, progress=False)
    rows = ["ethyl_alcohol-0", "ethyl_alcohol-1", "1-0", "1-1"]
    assert [m.id for m in source.molecules] == rows
    assert [formula(m.numbers) for m in source.molecules[::2]] == ["C2H6O", "CH6N"]
    assert [m.charge for m in source.molecules] == [0, 0, 1, 1]
    assert source.places == ("line 1", "line 1", "line 3", "line 3")
    assert source.recipe["seed"] == 5
    assert source.recipe["rdkit"] == rdkit.rdBase.rdkitVersion
    again = from_file(path, n=3, conformers=2, seed=5, progress=False)
    for one, other in zip(source.molecules, again.molecules, strict=False):
        np.testing.assert_array_equal(one.positions, other.positions)
    other = from_file(path, conformers=2, seed=6, progress=False)
    assert np.abs(source.molecules[0].positions - other.molecules[0].positions).max() > 1e-3


def test_conformers_are_displaced_minima(rdkit: Any) -> None:
    found = smiles.conformers("O", 40, 1)
    bonds = np.array([np.linalg.norm(m.positions[1] - m.positions[0]) for m in found])
    assert bonds.mean() == pytest.approx(0.97, abs=0.03)
    assert bonds.std() == pytest.approx(smiles.DISPLACEMENT * 2**0.5, rel=0.35)
    methane, silane = (smiles.conformers(text, 1, 1)[0].positions for text in ("C", "[SiH4]"))
    assert methane.shape == silane.shape
    assert methane.tolist() == methane.round(6).tolist()


def test_smiles_in_a_table(rdkit: Any, tmp_path: Path) -> None:
    path = _file(tmp_path, "a.csv", 'Name,SMILES\nw,O\n"x, y",C\n')
    source = from_file(path, progress=False)
    assert [(m.id, formula(m.numbers)) for m in source.molecules] == [
        ("w-0", "H2O"),
        ("x,_y-0", "CH4"),
    ]
    with pytest.raises(DataError, match=r"b\.csv, line 1: no column 'smiles' among a, b"):
        from_file(_file(tmp_path, "b.csv", "a,b\n1,2\n"), progress=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("C1CC", r"'C1CC' is no valid SMILES"),
        ("[Fe]", r"MMFF94 has no parameters for '\[Fe\]'"),
        ("C#C#C#C", r"'C#C#C#C' is no valid"),
    ],
)
def test_bad_smiles_are_named(rdkit: Any, tmp_path: Path, text: str, message: str) -> None:
    path = _file(tmp_path, "a.smi", f"CCO\n{text}\n")
    with pytest.raises(DataError, match=rf"a\.smi, line 2: .*{message}"):
        from_file(path, progress=False)


def test_the_task_s_own_geometries(tmp_path: Path) -> None:
    molecule = Molecule([2], [[0, 0, 0]], id="he")
    task = SimpleNamespace(name="t", recipe={"a": 1}, geometries=lambda n: [molecule][:n])
    source = Source.of_task(task)  # type: ignore[arg-type]
    assert (source.recipe, source.where(0)) == ({"a": 1}, "task 't': molecule 'he'")
