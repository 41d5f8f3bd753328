"""The OMol_CSH reader: truth by PySCF itself, keys, charges, processes, wrong orders, damage.

The fixture holds five molecules in the format of the public files, computed with PySCF
(wB97M-V/def2-TZVPD, def2 ECP, grid level 2, VV10 grid level 0); ``omol_csh_mini_truth.npz`` their
matrices in PySCF's order, in float64.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.linalg

import hambench
from hambench.chem import dft
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory, named
from hambench.chem.triangle import pack_triangle
from hambench.data.conventions import Conventions
from hambench.data.verify import verify
from hambench.errors import ConfigError, DataError, VerificationError
from hambench.tasks import omol_csh_keys
from hambench.tasks.omol_csh_file import OmolCshFile
from hambench.tasks.omol_csh_names import charge_of_name
from hambench.units import BOHR

FIXTURE = Path(__file__).parent.parent / "fixtures" / "omol_csh_mini.h5"
TRUTH = np.load(FIXTURE.with_name("omol_csh_mini_truth.npz"))
KEYS = tuple(TRUTH["keys"].tolist())
SORTED = tuple(sorted(KEYS))
AMMONIUM = "s1_1_1"
PUBLIC = ".keys.json"
OWN = ".hambench-keys.json"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The fixture in a folder of its own, without the list of keys."""
    return Path(shutil.copy(FIXTURE, tmp_path / "mini.h5"))


def _edited(path: Path, edit: Callable[[h5py.File], None]) -> OmolCshFile:
    with h5py.File(path, "r+") as file:
        edit(file)
    return OmolCshFile(path, progress=False)


def _put(file: h5py.File, key: str, **datasets: object) -> None:
    """Replace datasets of a group."""
    for name, value in datasets.items():
        del file[f"{key}/{name}"]
        file[f"{key}/{name}"] = value


# -- truth ---------------------------------------------------------------------------------------


def _pyscf_molecule(molecule: Molecule) -> object:
    gto = pytest.importorskip("pyscf.gto")
    atoms = [(SYMBOLS[z], x) for z, x in zip(molecule.numbers, molecule.positions, strict=True)]
    symbols = {symbol for symbol, _ in atoms}
    ecp = {s: gto.basis.load_ecp("def2-tzvpd", s) for s in symbols if SYMBOLS.index(s) > 36}
    return gto.M(atom=atoms, basis="def2-tzvpd", ecp=ecp, charge=molecule.charge, verbose=0)


def _in_pyscf_order(matrix: np.ndarray, mol: object) -> np.ndarray:
    """From m = -l..l to PySCF's order, by PySCF's own shells: only p (x, y, z) differs."""
    index: list[int] = []
    for shell in range(mol.nbas):
        for _ in range(mol.bas_nctr(shell)):
            width = 2 * mol.bas_angular(shell) + 1
            places = [2, 0, 1] if width == 3 else range(width)
            index += [len(index) + place for place in places]
    return matrix[np.ix_(index, index)]


def test_the_level_of_theory_is_that_of_the_set() -> None:
    theory = Theory.from_dict(OmolCshFile.theory)
    assert (theory.xc, theory.basis) == ("wb97m-v", "def2-tzvpd")


@pytest.mark.parametrize("place", range(5), ids=KEYS)
def test_rows_are_the_truth_to_pyscf(place: int) -> None:
    """Matrix, electrons, levels and F[D] of what the reader delivers, by PySCF alone."""
    pyscf_dft = pytest.importorskip("pyscf.dft")
    truth = {name: TRUTH[f"{place}/{name}"] for name in ("H", "mo_energy", "nelec_valence")}
    molecule = OmolCshFile(FIXTURE)[place]
    assert molecule.id == KEYS[place]
    assert molecule.charge == TRUTH[f"{place}/charge"]
    assert (molecule.multiplicity, molecule.basis) == (1, "def2-tzvpd")
    assert molecule.numbers.tolist() == TRUTH[f"{place}/Z"].tolist()
    np.testing.assert_allclose(molecule.positions, TRUTH[f"{place}/positions_angstrom"], atol=1e-6)

    mol = _pyscf_molecule(molecule)
    fock = _in_pyscf_order(molecule.hamiltonian, mol)
    np.testing.assert_allclose(fock, truth["H"], atol=4e-6)

    overlap = mol.intor_symmetric("int1e_ovlp")
    levels, orbitals = scipy.linalg.eigh(fock, overlap)
    pairs = int(truth["nelec_valence"]) // 2
    assert mol.nelectron == truth["nelec_valence"]
    np.testing.assert_allclose(levels[:pairs], truth["mo_energy"][:pairs], atol=2e-5)
    assert levels[pairs - 1] == pytest.approx(truth["mo_energy"][pairs - 1], abs=1e-6)
    assert levels[pairs] == pytest.approx(truth["mo_energy"][pairs], abs=1e-6)
    density = 2 * orbitals[:, :pairs] @ orbitals[:, :pairs].T
    assert np.sum(density * overlap) == pytest.approx(mol.nelectron, abs=1e-8)

    field = pyscf_dft.RKS(mol, xc="wb97m-v")
    field.grids.level, field.nlcgrids.level = 2, 0
    assert np.abs(field.get_fock(dm=density) - fock).mean() < 5e-6


def test_overlaps_are_computed_once_and_kept(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("pyscf")
    assert OmolCshFile(FIXTURE)[1].overlap is None
    molecule = OmolCshFile(FIXTURE, overlap="compute")[1]
    in_pyscf_order = _in_pyscf_order(molecule.overlap, _pyscf_molecule(molecule))
    np.testing.assert_allclose(in_pyscf_order, TRUTH["1/S"], atol=3e-8)  # positions are float32

    (kept,) = cache.rglob("*.npz")
    calls = []
    monkeypatch.setattr(dft, "overlap", lambda *given: calls.append(given) or molecule.overlap)
    again = OmolCshFile(FIXTURE, overlap="compute")[1]
    np.testing.assert_array_equal(again.overlap, molecule.overlap)
    assert not calls

    kept.write_bytes(kept.read_bytes()[:-60])  # damaged: computed and kept anew
    np.testing.assert_array_equal(OmolCshFile(FIXTURE, overlap="compute")[1].overlap, again.overlap)
    assert len(calls) == 1
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 0xFF
    kept.write_bytes(content)
    assert OmolCshFile(FIXTURE, overlap="compute")[1].overlap is not None
    assert len(calls) == 2

    shutil.rmtree(cache)
    cache.write_text("no folder")  # the row is read all the same, and it is said
    assert OmolCshFile(FIXTURE, overlap="compute")[1].overlap is not None
    assert "overlaps are computed anew at every access: cannot make" in caplog.text


# -- keys ----------------------------------------------------------------------------------------


def test_format_is_detected_and_rows_are_lazy() -> None:
    rows = hambench.open_data(FIXTURE)
    assert isinstance(rows, OmolCshFile)
    assert rows.ids == KEYS
    assert rows[1:3].ids == KEYS[1:3]
    assert not OmolCshFile.recognises(FIXTURE.parent)
    assert not OmolCshFile.recognises(FIXTURE.with_name("omol_csh_mini_truth.npz"))


def test_keys_are_collected_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = OmolCshFile(path, progress=False)
    assert sorted(rows.ids) == list(SORTED)
    kept = path.with_name(path.name + OWN)
    assert json.loads(kept.read_text())["keys"] == list(rows.ids)

    def walked(*_: object) -> list[str]:
        raise AssertionError

    with monkeypatch.context() as patch:
        patch.setattr(omol_csh_keys, "_walk", walked)
        assert OmolCshFile(path).ids == rows.ids
    rows.close()
    with h5py.File(path, "r+") as file:
        del file[AMMONIUM]  # size or time of change differ now
    assert AMMONIUM not in OmolCshFile(path, progress=False).ids
    kept.write_text("{")
    assert len(OmolCshFile(path, progress=False)) == 4


def test_public_list_is_taken_over_if_it_fits(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    public = path.with_name(path.name + PUBLIC)
    order = list(reversed(KEYS))
    public.write_text(json.dumps(order))
    assert OmolCshFile(path).ids == tuple(order)
    assert not path.with_name(path.name + OWN).exists()
    wrong = [KEYS[:-1], [*KEYS, "none"], ["none"], [*KEYS[:4], KEYS[0]], [], {"a": 1}, [1, 2]]
    for keys in [*wrong, [*KEYS[:2], KEYS[3], KEYS[4]]]:
        public.write_text(json.dumps(keys))
        with caplog.at_level(logging.WARNING):
            assert sorted(OmolCshFile(path, progress=False).ids) == list(SORTED), keys
        assert "does not agree with its file" in caplog.text
        assert json.loads(public.read_text()) == (list(keys) if isinstance(keys, tuple) else keys)
        path.with_name(path.name + OWN).unlink()
        caplog.clear()


def test_list_goes_to_the_cache_where_the_folder_is_closed(path: Path, cache: Path) -> None:
    path.with_name(path.name + OWN).mkdir()  # nothing can be written under that name
    assert len(OmolCshFile(path, progress=False)) == 5
    (kept,) = cache.rglob(f"*{OWN}")
    assert len(json.loads(kept.read_text())["keys"]) == 5
    cache_before = kept.read_bytes()
    assert len(OmolCshFile(path)) == 5
    assert kept.read_bytes() == cache_before


def test_odd_trees(path: Path, tmp_path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file["loop"] = file["/"]
        file["again"] = h5py.SoftLink("/elytes")
        file["other"] = h5py.ExternalLink("elsewhere.h5", "/")
        file["notes"] = [1.0, 2.0]
        file.create_group("empty")
        file.copy(file[AMMONIUM], file.create_group("omol/deep/a_1_1"), "step0")
        file["omol/deep/a_1_1/step0"].attrs.clear()
        file.copy(file[AMMONIUM], "s1_1_1/inner")  # below a molecule nothing is looked for

    rows = _edited(path, edit)
    assert sorted(rows.ids) == sorted([*KEYS, "omol/deep/a_1_1/step0"])
    assert rows[rows.ids.index("omol/deep/a_1_1/step0")].charge == 1
    rows.close()
    with h5py.File(path) as source, h5py.File(tmp_path / "one.h5", "w") as file:
        for name in source[AMMONIUM]:
            source.copy(f"{AMMONIUM}/{name}", file)
    lone = OmolCshFile(tmp_path / "one.h5", charges={"/": 1}, progress=False)
    assert lone[0].charge == 1


def test_read_in_place(path: Path) -> None:
    """A file of 20 GB that is mostly a hole is not read through."""
    with h5py.File(path, "r+") as file:
        padding = file.create_dataset("padding", (20 << 30,), "u1")
        padding[-1] = 1
    assert path.stat().st_size > 20 << 30
    np.testing.assert_array_equal(
        next(m for m in OmolCshFile(path, progress=False) if m.id == AMMONIUM).hamiltonian,
        OmolCshFile(FIXTURE)[1].hamiltonian,
    )


# -- charges -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "protons", "charge"),
    [
        ("ani1xbb/aniBB_010_194018_0_1", 10, 0),
        ("ani1xbb/aniBB_010_194018_-2_1", 10, -2),
        ("s1_1_1", 11, 1),
        ("omol/electrolytes/md_ab12_-1_1/step0", 9, -1),
        ("omol/electrolytes/md_ab12_-1_1_37/step12", 9, -1),
        ("omol/x/step_3_1/deeper", 10, None),  # charge 3 makes no closed shell
        ("mol_0_1_12", 10, 0),
        ("mol_0_1_1", 10, 0),  # frame 1 of charge 0; charge 1 would leave a radical
        ("mol_0_1_1", 11, 1),
        ("mol_-1_1_1", 11, None),  # charge -1 or +1
        ("aniBB_194018_1_1", 11, 1),
        ("mol_0_3", 10, None),  # a triplet does not occur
        ("mol_15_1", 15, None),  # no charge but a running number
        ("metal_organics/AB12", 10, None),
        ("step0", 10, None),
    ],
)
def test_charge_of_a_name(key: str, protons: int, charge: int | None) -> None:
    assert charge_of_name(key, protons) == charge


def test_charge_from_attribute_name_or_caller(path: Path) -> None:
    def edit(file: h5py.File) -> None:
        file[AMMONIUM].attrs.clear()
        file.move("s4_0_1", "noble/telane")
        file["noble/telane"].attrs.clear()
        file["elytes/s0_0_1"].attrs["charge"] = np.array([2], dtype="i1")  # goes before the name
        file["elytes/s0_0_1"].attrs["spin"] = 0

    rows = {m: i for i, m in enumerate(_edited(path, edit).ids)}
    read = OmolCshFile(path)
    assert (read[rows[AMMONIUM]].charge, read[rows[AMMONIUM]].multiplicity) == (1, 1)
    assert (read[rows["elytes/s0_0_1"]].charge, read[rows["elytes/s0_0_1"]].multiplicity) == (2, 1)
    with pytest.raises(DataError, match=r"mini\.h5, group 'noble/telane': neither.*charges=\{'nob"):
        read[rows["noble/telane"]]
    told = OmolCshFile(path, charges={"noble/telane": -2, AMMONIUM: 3})
    assert told[rows["noble/telane"]].charge == -2
    assert told[rows[AMMONIUM]].charge == 3
    with pytest.raises(ConfigError, match=r"no group 's1_1_2'. Did you mean 's1_1_1'"):
        OmolCshFile(path, charges={"s1_1_2": 0})


# -- processes -----------------------------------------------------------------------------------


def _traces(rows: OmolCshFile) -> list[float]:
    return [float(np.trace(m.hamiltonian)) for m in rows]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_reader_crosses_process_borders(method: str) -> None:
    rows = OmolCshFile(FIXTURE)
    expected = _traces(rows)  # the file is open here when the workers start
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(_traces, [rows] * 3) == [expected] * 3
    assert _traces(pickle.loads(pickle.dumps(rows))) == expected
    rows.close()
    assert _traces(rows) == expected


def _inherited(rows: OmolCshFile, queue: multiprocessing.SimpleQueue[list[float]]) -> None:
    queue.put(_traces(rows))


def test_fork_does_not_use_the_inherited_handle() -> None:
    context = multiprocessing.get_context("fork")
    rows = OmolCshFile(FIXTURE)
    expected, queue = _traces(rows), context.SimpleQueue()
    child = context.Process(target=_inherited, args=(rows, queue))
    child.start()
    assert queue.get() == expected
    child.join()
    assert _traces(rows) == expected


# -- other conventions ---------------------------------------------------------------------------


def _only(path: Path, key: str, order: str = "omol_csh", bohr: bool = False) -> OmolCshFile:
    """One molecule of the fixture, written with another order or unit."""
    molecule = OmolCshFile(FIXTURE)[KEYS.index(key)]
    rows = OmolCshFile(FIXTURE)
    with h5py.File(path, "w") as file:
        group = file.create_group(key)
        stored = from_canonical(molecule.hamiltonian, molecule.numbers, rows.basis, order)
        group["fock"] = pack_triangle(stored)  # float64: both kinds are read
        group["elements"] = molecule.numbers.astype("u1")
        group["coords"] = molecule.positions / (BOHR if bohr else 1.0)
    return OmolCshFile(path, progress=False)


def test_with_conventions_reads_other_files(tmp_path: Path) -> None:
    rows = _only(tmp_path / "other.h5", AMMONIUM, "orca", bohr=True)
    right, wrong = rows.with_conventions(Conventions("bohr", "orca")), rows
    expected = OmolCshFile(FIXTURE)[1]
    np.testing.assert_array_equal(right[0].hamiltonian, expected.hamiltonian)
    np.testing.assert_allclose(right[0].positions, expected.positions, rtol=1e-12)
    assert not np.array_equal(wrong[0].hamiltonian, expected.hamiltonian)


def test_verify_accepts_the_fixture() -> None:
    pytest.importorskip("pyscf")
    rows = OmolCshFile(FIXTURE)
    found = verify(rows, theory=named("wb97m-v/def2-tzvpd"), fock_rows=1, progress=False)
    assert (found.rows, found.unit, found.order) == (5, "angstrom", "omol_csh")
    assert found.checks["overlap"].skipped == {"no overlap in the file": 5}
    assert found.checks["core_level"].rows == 3  # the two of Hg and Te with H have none
    assert found.checks["electrons"].residual < 1e-8
    assert found.checks["fock"].rows == 1
    assert found.checks["fock"].residual < 1e-5
    computed = OmolCshFile(FIXTURE, overlap="compute")[:1].whole
    again = verify(computed, fock_rows=0, progress=False)
    assert again.checks["overlap"].residual is None  # PySCF does not confirm itself


@pytest.mark.parametrize(
    ("order", "bohr", "said"),
    [
        ("orca", False, "the orbitals are in orca order (read as angstrom and omol_csh order)"),
        ("listed", False, "the orbitals are in listed order"),
        ("omol_csh", True, "it would fit if read differently: the positions are in bohr (read as"),
        ("orca", True, "the positions are in bohr, the orbitals are in orca order"),
    ],
)
def test_verify_says_what_a_wrong_file_is(
    tmp_path: Path, order: str, bohr: bool, said: str
) -> None:
    pytest.importorskip("pyscf")
    rows = _only(tmp_path / "wrong.h5", AMMONIUM, order, bohr)
    with pytest.raises(VerificationError, match=r"row 's1_1_1' failed check '\w+'") as caught:
        verify(rows, theory=named("wb97m-v/def2-tzvpd"), progress=False)
    assert said in str(caught.value)


# -- damage --------------------------------------------------------------------------------------

with h5py.File(FIXTURE, locking=False) as _fixture:
    _FOCK = _fixture[f"{AMMONIUM}/fock"][:]


def _changed(place: int, value: float) -> np.ndarray:
    fock = _FOCK.copy()
    fock[place] = value
    return fock


@pytest.mark.parametrize(
    ("datasets", "said"),
    [
        ({"fock": _changed(100, np.nan)}, "'fock' holds NaN or an element above 10000 Eh"),
        ({"fock": _changed(5, 2e4)}, "'fock' holds NaN or an element above 10000 Eh"),
        ({"fock": _changed(0, -np.inf)}, "'fock' holds NaN or an element above 10000 Eh"),
        ({"fock": _FOCK[:-1]}, r"'fock' is float32 of shape \(2700,\), expected float of shape"),
        ({"fock": _FOCK.astype("i4")}, "'fock' is int32 of shape"),
        ({"fock": _FOCK.reshape(37, 73)}, r"'fock' is float32 of shape \(37, 73\)"),
        ({"fock": np.array([b"x"] * 2701)}, r"'fock' is \|S1 of shape"),
        ({"elements": [-7, 1, 1, 1, 1]}, "no orbitals for .* in OrbitalBasis"),
        ({"elements": [21, 1, 1, 1, 1]}, "no orbitals for Sc"),
        ({"elements": [0, 1, 1, 1, 1]}, "no orbitals for Z=0"),
        ({"elements": [7.0, 1, 1, 1, 1]}, "'elements' is float64"),
        ({"elements": [[7, 1, 1, 1, 1]]}, r"'elements' has shape \(1, 5\)"),
        ({"elements": np.zeros(0, int)}, r"'elements' has shape \(0,\)"),
        ({"elements": [7, 1, 1, 1]}, r"'coords' is float32 of shape \(5, 3\), expected"),
        ({"coords": np.zeros((5, 3))}, "atoms 0 and 1 are 0.0e"),
        ({"coords": np.full((5, 3), np.inf)}, "positions holds NaN or infinity"),
        ({"coords": np.zeros(15)}, r"'coords' is float64 of shape \(15,\)"),
    ],
    ids=str,
)  # fmt: skip
def test_unsound_rows_are_named(path: Path, datasets: dict[str, object], said: str) -> None:
    rows = _edited(path, lambda file: _put(file, AMMONIUM, **datasets))
    with pytest.raises(DataError, match=rf"mini\.h5, group 's1_1_1': .*{said}"):
        rows[rows.ids.index(AMMONIUM)]
    assert rows[rows.ids.index("s4_0_1")].id == "s4_0_1"


@pytest.mark.parametrize("name", ["elements", "coords"])
def test_missing_datasets(path: Path, name: str) -> None:
    rows = _edited(path, lambda file: file.__delitem__(f"{AMMONIUM}/{name}"))
    with pytest.raises(DataError, match=rf"group 's1_1_1': there is no dataset '{name}'"):
        rows[rows.ids.index(AMMONIUM)]


@pytest.mark.parametrize("value", ["zero", 0.5, [0, 1]], ids=str)
def test_attributes_that_are_no_charge(path: Path, value: object) -> None:
    rows = _edited(path, lambda file: file[AMMONIUM].attrs.__setitem__("charge", value))
    with pytest.raises(DataError, match=r"group 's1_1_1': attribute 'charge' is .*whole number"):
        rows[rows.ids.index(AMMONIUM)]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a file; check the path"):
        OmolCshFile(tmp_path)
    with pytest.raises(DataError, match=r"no\.h5 is not there; check the path"):
        OmolCshFile(tmp_path / "no.h5")
    for name, content in {"empty.h5": b"", "text.h5": b"fock" * 99}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}, .*cannot be read as HDF5"):
            OmolCshFile(tmp_path / name)
    with h5py.File(tmp_path / "bare.h5", "w") as file:
        file.create_group("a/fock")
    with pytest.raises(DataError, match=r"bare\.h5 has no group with a dataset 'fock'"):
        OmolCshFile(tmp_path / "bare.h5")
    with pytest.raises(DataError, match="that an installed reader knows"):
        hambench.open_data(tmp_path / "bare.h5")
    (tmp_path / "half.h5").write_bytes(FIXTURE.read_bytes()[:40_000])
    with pytest.raises(DataError, match=r"half\.h5, .*cannot be read as HDF5"):
        OmolCshFile(tmp_path / "half.h5")


# -- mutations -----------------------------------------------------------------------------------

_PIECE = 50


def _metadata() -> np.ndarray:
    """Places of the fixture's bytes that are not the numbers of a dataset."""
    free = np.ones(FIXTURE.stat().st_size, dtype=bool)

    def mark(_: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.id.get_offset() is not None:
            free[item.id.get_offset() :][: item.nbytes] = False

    with h5py.File(FIXTURE) as file:
        file.visititems(mark)
    return np.flatnonzero(free)


def _mutated(seed: int, places: np.ndarray) -> bytes:
    """The fixture with some bytes changed, or cut short, or a part overwritten."""
    rng = np.random.default_rng(seed)
    content = bytearray(FIXTURE.read_bytes())
    kind = seed % 5
    if kind == 0:
        return bytes(content[: rng.integers(len(content))])
    if kind == 1:
        start = int(rng.integers(len(content)))
        content[start : start + 64] = rng.bytes(len(content[start : start + 64]))
        return bytes(content)
    among = np.arange(len(content)) if kind == 2 else places
    for place in rng.choice(among, size=rng.integers(1, 9)):
        content[place] ^= int(rng.integers(1, 256))
    return bytes(content)


def _read_mutated(folder: Path, seeds: range, places: np.ndarray) -> None:
    """Read each mutated file whole; anything but molecules and our errors ends this process."""
    logging.disable(logging.CRITICAL)
    path = folder / f"mutated{seeds[0]}.h5"
    for seed in seeds:
        (folder / f"at{seeds[0]}").write_text(str(seed))
        path.write_bytes(_mutated(seed, places))
        try:
            rows = OmolCshFile(path, progress=False)
        except DataError:
            continue
        finally:
            for kept in folder.glob(f"{path.name}.*"):
                kept.unlink()
        for place in range(len(rows)):
            with contextlib.suppress(DataError):
                assert isinstance(rows[place], Molecule)
        rows.close()


def _read_all_mutated(folder: Path, total: int) -> None:
    context, places = multiprocessing.get_context("spawn"), _metadata()
    for start in range(0, total, _PIECE):
        child = context.Process(
            target=_read_mutated, args=(folder, range(start, start + _PIECE), places)
        )
        child.start()
        child.join(120)
        hung = child.is_alive()
        child.kill()
        child.join()
        seed = (folder / f"at{start}").read_text()
        assert not hung, f"reading mutation {seed} does not end"
        assert child.exitcode == 0, f"reading mutation {seed}: exit code {child.exitcode}"


def test_mutated_files_end_in_an_error_or_a_molecule(tmp_path: Path) -> None:
    _read_all_mutated(tmp_path, 100)


@pytest.mark.slow
def test_a_thousand_mutated_files(tmp_path: Path) -> None:
    _read_all_mutated(tmp_path, 1000)
