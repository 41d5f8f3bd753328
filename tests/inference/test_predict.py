"""Predictions for files of molecules: numbers, files, what is refused, what cannot be had."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.linalg

from hambench import cli, rundir
from hambench.chem import dft
from hambench.chem.engine import mean_field
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory, named
from hambench.data.store import Store, write_store
from hambench.data.xyz import read_frames
from hambench.domain import beyond, domain_of
from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.inference.hamiltonians import hamiltonians, load_hamiltonian_model
from hambench.inference.molecules import Listed, read_molecules
from hambench.inference.predict import predict
from hambench.inference.properties import examine
from hambench.registry import load_task
from hambench.results import Domain

pytest.importorskip("pyscf")
PBE, HF = named("pbe/def2-svp"), Theory("hf", "def2-svp")


def quietly(run: Path, molecules: Path, **options: object):
    return predict(run, molecules, device="cpu", progress=False, **options)


def test_a_converged_hamiltonian_gives_the_numbers_of_its_scf():
    ion = Molecule([8, 1], np.array([[0, 0, 0], [0.3, 0.4, 0.8]]), charge=-1)
    wanted = dft.calculate(ion, HF, forces=False)
    found, orbitals = examine(ion, wanted.molecule.hamiltonian, HF, True)
    assert np.abs(found.levels - wanted.mo_energy).max() < 1e-7
    assert found.energy == pytest.approx(wanted.molecule.energy, abs=1e-9)
    assert np.abs(orbitals.overlap - wanted.molecule.overlap).max() < 1e-12
    assert found.pairs == 5
    assert found.gap == found.lumo - found.homo == found.levels[5] - found.levels[4]
    centre = ion.numbers @ ion.positions / ion.numbers.sum()
    shifted = replace(ion, positions=ion.positions - centre)
    neutral = dft.calculate(shifted, HF, forces=False).dipole
    assert np.abs(found.dipole - neutral).max() < 1e-5


def test_the_numbers_of_a_prediction_are_those_of_pyscf(minao: Path, many: Path, one: Path):
    """Against a few lines of PySCF: eigenvalues, energy_tot and dip_moment of one density.

    The predictions are Hartree-Fock matrices, their energies those of the task's functional.
    """
    report = quietly(minao, many, energy=False)
    assert [row.properties.energy for row in report.rows] == [None] * 3
    assert [row.molecule.id for row in report.rows] == ["many_0", "dimer", "hydroxide"]
    for row in [*report.rows[::2], *quietly(minao, one).rows]:
        field = mean_field(row.molecule, HF)
        fock = field.get_fock(dm=field.get_init_guess(key="minao"))
        field.mo_energy, vectors = scipy.linalg.eigh(fock, field.get_ovlp())
        density = 2 * vectors[:, :5] @ vectors[:, :5].T
        assert np.abs(row.properties.levels - field.mo_energy).max() < 1e-8
        if row.properties.energy is not None:
            energy = mean_field(row.molecule, PBE).energy_tot(density)
            assert row.properties.energy == pytest.approx(energy, abs=1e-8)
        if row.molecule.charge == 0:
            dipole = field.dip_moment(dm=density, verbose=0)
            assert np.abs(row.properties.dipole - dipole).max() < 1e-5
    assert [row.beyond for row in report.rows] == [
        [], ["6 atoms, in training at most 3"], ["charge -1, in training 0"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["h.npz", "h.h5"])
@pytest.mark.parametrize("order", [None, "pyscf"])
def test_files_of_matrices(minao: Path, many: Path, name: str, order: str | None):
    out = many.parent / name
    assert quietly(minao, many, out=out, order=order, energy=False).files == [out]
    file = np.load(out) if name == "h.npz" else h5py.File(out)

    def text(key: str) -> list[str]:
        found = file[key] if name == "h.npz" else file[key].asstr()[()]
        return np.asarray(found).reshape(-1).tolist()

    with file:
        assert text("format") == ["hambench-hamiltonians"]
        assert (text("basis"), text("order")) == (["def2-svp"], [order or "canonical"])
        assert text("id") == ["many_0", "dimer", "hydroxide"]
        assert file["version"][()] == 1
        assert file["charge"][:].tolist() == [0, 0, -1]
        assert file["multiplicity"][:].tolist() == [1, 1, 1]
        assert file["failed"][:].tolist() == [False, False, False]
        about = json.loads(text("about")[0])
        assert about["theory"] == load_task("water_mini").theory
        assert about["units"]["hamiltonian"] == "Eh"
        for place, (molecule, _) in enumerate(read_frames(many)):
            assert np.array_equal(file[f"{place}/numbers"][:], molecule.numbers)
            assert np.array_equal(file[f"{place}/positions"][:], molecule.positions)
            overlap, fock = file[f"{place}/overlap"][:], file[f"{place}/hamiltonian"][:]
            if order == "pyscf":
                field = mean_field(molecule, HF)
                wanted = field.get_ovlp(), field.get_fock(dm=field.get_init_guess())
            else:
                numbers, positions = molecule.numbers, molecule.positions
                wanted = (
                    dft.overlap(numbers, positions, "def2-svp"),
                    dft.initial_fock(molecule, HF),
                )
            assert np.abs(overlap - wanted[0]).max() < 1e-12
            assert np.abs(fock - wanted[1]).max() < 1e-8
    assert [path.name for path in sorted(many.parent.iterdir())] == sorted([name, "many.xyz"])


def test_a_molden_file_reads_back_as_the_orbitals(minao: Path, one: Path):
    from pyscf.tools import molden

    out, beside = one.parent / "o.molden", one.parent / "beside.any"
    report = quietly(minao, one, out=out, molden=beside, energy=False)
    assert report.files == [out, beside]
    assert out.read_bytes() == beside.read_bytes()
    mole, levels, coefficients, occupations, *_ = molden.load(str(out))
    (molecule, _), *_ = read_frames(one)
    field = mean_field(molecule, HF)
    overlap = mole.intor("int1e_ovlp")
    assert np.abs(overlap - field.get_ovlp()).max() < 1e-7
    assert np.abs(coefficients.T @ overlap @ coefficients - np.eye(24)).max() < 1e-7
    assert np.abs(levels - report.rows[0].properties.levels).max() < 1e-8
    assert occupations.tolist() == [2.0] * 5 + [0.0] * 19
    fock = overlap @ coefficients * levels @ coefficients.T @ overlap
    assert np.abs(fock - field.get_fock(dm=field.get_init_guess())).max() < 1e-6


def test_the_table_as_csv(minao: Path, many: Path):
    out = many.parent / "table.csv"
    report = quietly(minao, many, out=out, energy=False)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["id"] for row in rows] == ["many_0", "dimer", "hydroxide"]
    for row, found in zip(rows, report.rows, strict=True):
        assert float(row["gap_Eh"]) == found.properties.gap
        assert float(row["dipole_D"]) == found.properties.moment
        assert row["energy_Eh"] == ""
    assert rows[2]["beyond_training"] == "charge -1, in training 0"


CHEAP = "model.hyperparameters.theory={xc:hf,basis:def2-svp}"  # needs no grid
MODELS = {
    "helm": ["model=helm_small", "model.hyperparameters.channels=4"],
    "beyond a guess": ["model=sphnet_small", CHEAP],
}


@pytest.mark.parametrize("words", MODELS.values(), ids=MODELS)
def test_one_by_one_and_in_batches(
    words: list[str],
    many: Path,
    tmp_path: Path,
    finished: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path / "data"))
    run = finished(tmp_path / "run", "precision=float64", *words)
    model = load_hamiltonian_model(run, "cpu").model
    rows = read_molecules(many)[:2]  # sphnet has no words for two atoms alone
    alone = dict(hamiltonians(model, rows, batch_size=1))
    together = dict(hamiltonians(model, rows, batch_size=2))
    by_edges = dict(hamiltonians(model, rows, max_edges=1000))
    assert alone.keys() == together.keys() == by_edges.keys() == {0, 1}
    for place, matrix in alone.items():
        assert matrix.dtype == np.float64
        assert np.array_equal(matrix, matrix.T)
        assert np.abs(matrix - together[place]).max() < 1e-10
        assert np.abs(matrix - by_edges[place]).max() < 1e-10
    single = load_hamiltonian_model(run, "cpu", "float32").model
    rough = dict(hamiltonians(single, rows, batch_size=2))
    differences = [np.abs(rough[place] - matrix).max() for place, matrix in alone.items()]
    assert all(0 < difference < 1e-3 for difference in differences)


def test_molecules_come_back_in_the_order_of_the_file(
    many: Path, tmp_path: Path, finished: Callable[..., Path]
):
    """Batches of up to so many edges begin with the fullest."""
    words = ["model=minao", CHEAP, "recipe.batch_size=null", "recipe.max_edges=30"]
    run = finished(tmp_path / "run", *words)
    path = tmp_path / "turned.xyz"
    lines = many.read_text().splitlines()
    path.write_text("\n".join(lines[13:] + lines[5:13] + lines[:5]) + "\n")
    report = quietly(run, path, energy=False, out=tmp_path / "h.npz")
    assert [row.molecule.id for row in report.rows] == ["hydroxide", "dimer", "turned_2"]
    with np.load(tmp_path / "h.npz") as file:
        assert [len(file[f"{place}/numbers"]) for place in range(3)] == [2, 6, 3]


def test_several_processes_give_the_same(minao: Path, many: Path, monkeypatch: pytest.MonkeyPatch):
    here = quietly(minao, many, energy=False)
    monkeypatch.setattr("hambench.data.workers._WORTH", 0.0)
    monkeypatch.setattr("hambench.inference.predict.cores", lambda: 2)
    there = quietly(minao, many, energy=False)
    for one, other in zip(here.rows, there.rows, strict=True):
        assert one.molecule.id == other.molecule.id
        assert np.abs(one.properties.levels - other.properties.levels).max() < 1e-9


def test_charges_of_the_option_count(minao: Path, one: Path):
    report = quietly(minao, one, charge=-2, energy=False)
    assert report.rows[0].molecule.charge == -2
    assert report.rows[0].properties.pairs == 6


def test_data_files_are_read_without_labels(minao: Path, tmp_path: Path):
    task = load_task("water_mini")
    store = Store(task.path)
    write_store(tmp_path / "few.h5", store[:2], basis=store.basis, theory=store.theory)
    report = quietly(minao, tmp_path / "few.h5", energy=False)
    assert [row.molecule.id for row in report.rows] == list(store.ids[:2])
    assert all(row.molecule.hamiltonian is None for row in report.rows)


def test_without_pyscf_there_is_what_the_file_has_overlaps_for(
    helm: Path, one: Path, monkeypatch: pytest.MonkeyPatch
):
    store = Store(load_task("water_mini").path)
    data = one.parent / "few.h5"
    write_store(data, store[:2], basis=store.basis, theory=store.theory)
    monkeypatch.setitem(sys.modules, "pyscf", None)
    report = quietly(helm, data)
    model = load_hamiltonian_model(helm, "cpu").model
    for place, matrix in hamiltonians(model, store[:2], batch_size=2):
        levels = scipy.linalg.eigh(matrix, store[place].overlap, eigvals_only=True)
        found = report.rows[place].properties
        assert np.abs(found.levels - levels).max() < 1e-6
        assert (found.dipole, found.energy) == (None, None)
    assert report.remark.startswith("no dipole moments, no energies E[D]: they need PySCF")
    out = one.parent / "h.npz"
    report = quietly(helm, one, out=out)
    assert report.rows[0].properties.levels is None
    assert report.remark.startswith("no orbital energies, no dipole moments, no energies")
    with np.load(out) as file:
        assert "0/hamiltonian" in file
        assert "0/overlap" not in file
    with pytest.raises(ConfigError, match=r"hambench\[pyscf\]"):
        quietly(helm, one, molden=one.parent / "o.molden")


def test_failed_predictions_are_marked(broken: Path, many: Path):
    out = many.parent / "h.npz"
    report = quietly(broken, many, out=out)
    assert [row.failed for row in report.rows] == [True] * 3
    assert [row.properties.gap for row in report.rows] == [None] * 3
    with np.load(out) as file:
        assert file["failed"].tolist() == [True] * 3
        assert not np.isfinite(file["0/hamiltonian"]).any()
    single = many.parent / "single.xyz"
    single.write_text("".join(many.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(RunError, match="single_0' holds NaN or infinity: there are no orbitals"):
        quietly(broken, single, out=many.parent / "o.molden")
    assert not (many.parent / "o.molden").exists()


def test_the_training_set_of_an_older_run_is_read(
    one: Path, tmp_path: Path, finished: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    run = finished(tmp_path / "older", "model=minao", CHEAP, domain=None)
    found = quietly(run, one, energy=False).domain
    assert found is not None
    assert (found.elements, found.charges, found.atoms) == (("H", "O"), (0,), 3)
    oxygen = found.nearest["O-H"]
    assert 0.8 < oxygen[0] < oxygen[1] < 1.1
    assert found.nearest["H-O"] == pytest.approx((oxygen[0], found.nearest["H-O"][1]))
    monkeypatch.setattr("hambench.data.task.Task.split", _missing)
    report = quietly(run, one, energy=False)
    assert (report.domain, report.rows[0].beyond) == (None, None)


def _missing(*words: object) -> None:
    raise DataError("not here")


def test_what_lies_beyond_a_training_set():
    rows = load_task("organic_mini").geometries(3)
    domain = Domain(elements=("H", "C"), charges=(-1, 0), atoms=5)
    chloride = Molecule([17, 6, 1, 1, 17, 1], np.arange(18.0).reshape(6, 3), charge=1)
    assert beyond(domain, chloride) == [
        "Cl never seen in training (2 of 6 atoms)", "charge +1, in training -1, 0",
        "6 atoms, in training at most 5",
    ]  # fmt: skip
    assert beyond(domain, Molecule([6, 1], np.eye(3)[:2], charge=-1)) == []
    found = domain_of(Listed([*rows, chloride]))
    assert found.charges == (0, 1)
    assert found.atoms == max(6, *(len(m) for m in rows))
    assert {"Cl", "C", "H"} <= set(found.elements)


def test_bonds_of_another_length_than_in_training_are_told():
    water = load_task("water_mini").geometries(1)[0]
    found = domain_of(Listed([water, Molecule([8], np.zeros((1, 3)))]))
    bonds = np.linalg.norm(water.positions[1:] - water.positions[0], axis=1)
    assert found.nearest["O-H"] == pytest.approx((bonds.min(), bonds.min()))
    assert found.nearest["H-O"] == pytest.approx((bonds.min(), bonds.max()))
    assert beyond(found, water) == beyond(found, Molecule([8], np.zeros((1, 3)))) == []
    in_bohr = beyond(found, Molecule(water.numbers, water.positions / 0.529177))
    assert in_bohr == [
        f"{pair[0]} {1.889727 * high:.2f} Angstrom from its nearest atom {pair[2]}, in training "
        f"{low:.2f} to {high:.2f}"
        for pair, (low, high) in found.nearest.items()
    ]
    hydroxide = Molecule([8, 1], [[0, 0, 0], [0, 0, bonds.min() - 0.05]])
    assert beyond(found, hydroxide) == []
    short = beyond(found, Molecule([8, 1], [[0, 0, 0], [0, 0, bonds.min() - 0.2]]))
    assert [line.split(", ")[0] for line in short] == [
        f"{pair} {bonds.min() - 0.2:.2f} Angstrom from its nearest atom {other}"
        for pair, other in ("HO", "OH")
    ]
    hydrogen = Molecule([1, 1], [[0, 0, 0], [0, 0, bonds.min()]])
    assert beyond(found, hydrogen) == ["H nearest to H, never so in training"]
    older = found.model_copy(update={"nearest": {}})
    assert beyond(older, hydrogen) == []


WRONG: dict[str, tuple[dict[str, object], str, type[HambenchError], str]] = {
    "ending": ({"out": "h.txt"}, "", ConfigError, r"ends in '\.txt', expected one of \.npz"),
    "no folder": ({"out": "no/h.npz"}, "", ConfigError, "there is no folder .*no; make it first"),
    "a folder": ({"out": "folder.npz"}, "", ConfigError, "is a folder; name a file in it"),
    "input": ({"molden": "m.xyz"}, "", ConfigError, "would replace the molecules"),
    "of a run": ({"out": "run/predictions.h5"}, "", ConfigError, "would replace a file of a run"),
    "of others": ({"out": "theirs.npz"}, "", ConfigError, "was not written by `hambench predict`"),
    "twice": ({"out": "o.molden", "molden": "o.molden"}, "", ConfigError, "are both"),
    "order": ({"order": "pyscf", "out": "t.csv"}, "", ConfigError, "'pyscf' is of matrices"),
    "open shell": ({"charge": 1}, "", ConfigError, "charge 1 .* 9 electrons .* no closed shell"),
    "triplet": ({}, "multiplicity=3", ConfigError, "multiplicity 3 .* no closed shell"),
    "element": ({}, "O->Cl", ConfigError, "holds Cl, the model knows H O alone"),
    "bohr": ({}, "close", DataError, r"two atoms 0\.\d\d Angstrom apart"),
    "text": ({}, "text", DataError, "line 1: the number of atoms"),
    "device": ({"device": "cuda:99"}, "", ConfigError, "cuda:99 is not there"),
    "molden of many": ({"molden": "o.molden"}, "many", ConfigError, "one molecule, .* has 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_one_sentence_and_leaves_no_file(
    helm: Path, one: Path, many: Path, tmp_path: Path, case: str
):
    options, change, kind, said = WRONG[case]
    text = (many if change == "many" else one).read_text()
    text = {
        "": text,
        "multiplicity=3": text.replace("a comment and no id", "multiplicity=3"),
        "O->Cl": text.replace("O ", "Cl "),
        "close": text.replace("0.7572", "0.2"),
        "text": "no molecule",
    }.get(change, text)
    folder = tmp_path / "here"
    for name in ("folder.npz", "run"):
        (folder / name).mkdir(parents=True)
    for name in ("run/config.yaml", "run/predictions.h5", "theirs.npz"):
        (folder / name).write_text("of others")
    source = folder / "m.xyz"
    source.write_text(text)
    given = {k: folder / v if k in ("out", "molden") else v for k, v in options.items()}
    before = sorted(folder.rglob("*"))
    with pytest.raises(kind, match=said) as caught:
        predict(helm, source, **{"device": "cpu", "progress": False, **given})
    assert "\n" not in str(caught.value)
    assert sorted(folder.rglob("*")) == before


def test_runs_that_cannot_predict(
    helm: Path, one: Path, tmp_path: Path, finished: Callable[..., Path]
):
    with pytest.raises(DataError, match="no run directory"):
        quietly(tmp_path / "nowhere", one)
    weights = helm / rundir.CHECKPOINTS / "best.safetensors"
    moved = tmp_path / "best.safetensors"
    moved.write_bytes(weights.read_bytes())
    with pytest.raises(DataError, match=r"is not the checkpoints/best\.safetensors of a run"):
        quietly(moved, one)
    assert len(quietly(weights, one, energy=False).rows) == 1
    unfinished = finished(tmp_path / "unfinished", "model=minao")
    (unfinished / "result.json").unlink()
    with pytest.raises(DataError, match="is not finished; finish it"):
        quietly(unfinished, one)
    words = ["task=organic_mini_energy", "model=element_reference", "strategy=direct"]
    energies = finished(tmp_path / "energies", *words)
    with pytest.raises(ConfigError, match=r"predicts energies, here Hamiltonians are wanted"):
        quietly(energies, one)
    with pytest.raises(DataError, match=r"there is no file .*none\.xyz"):
        quietly(helm, tmp_path / "none.xyz")
    with pytest.raises(DataError, match=r"or geometries in a file called \.xyz or \.extxyz"):
        quietly(helm, helm / "result.json")


def test_matrices_of_another_basis_are_refused(minao: Path, tmp_path: Path):
    from hambench.chem.orbitals import OrbitalBasis

    water = next(iter(Store(load_task("water_mini").path)))
    basis = OrbitalBasis.load("def2-tzvpd", [1, 8])
    other = replace(water, basis=basis.name, hamiltonian=None, overlap=None, id="other")
    write_store(tmp_path / "other.h5", [other], basis=basis)
    with pytest.raises(ConfigError, match="matrices in def2-tzvpd, the model predicts in def2-svp"):
        quietly(minao, tmp_path / "other.h5")


def command(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", *map(str, words), "device=cpu"])
    return int(left.value.code or 0), *capsys.readouterr()


def test_the_command_shows_one_molecule(minao: Path, one: Path, capsys: pytest.CaptureFixture):
    code, out, _ = command(capsys, minao, one, "--charge", "-2")
    assert code == 0
    (row,) = quietly(minao, one, charge=-2, energy=False).rows
    assert "one_0: H2O, charge -2, 12 electrons in 6 orbitals" in out
    assert f"HOMO     {row.properties.homo:11.6f}" in out
    assert f"gap     {row.properties.gap:.6f} Eh" in out
    assert f"dipole  {row.properties.moment:.4f} D" in out
    assert "), from the centre of the nuclear charges\n" in out
    assert re.search(r"E\[D\]    -7\d\.\d{8} Eh\n", out)
    assert "warning: beyond training: charge -2, in training 0" in out
    assert out.count("HOMO") == out.count("LUMO") == 5


def test_degenerate_orbitals_are_warned_of(minao: Path, tmp_path: Path, capsys):
    """Four electrons in three p orbitals: no closed shell."""
    (tmp_path / "atom.xyz").write_text("1\n\nO 0 0 0\n")
    out = command(capsys, minao, tmp_path / "atom.xyz", "--no-energy")[1]
    assert "warning: 1 of 1 molecules have no gap" in out


def test_the_command_shows_many(minao: Path, many: Path, capsys: pytest.CaptureFixture):
    code, table, _ = command(capsys, minao, many, "--no-energy")
    assert code == 0
    assert "1 of 3" not in table
    assert "warning: 2 of 3 molecules lie beyond the training set" in table
    assert len([line for line in table.splitlines() if line.startswith(("many_0", "dimer"))]) == 2
    code, text, _ = command(capsys, minao, many, "--no-energy", "--json")
    found = json.loads(text)
    assert code == 0
    assert found["units"]["levels"] == "Eh"
    assert [len(row["levels"]) for row in found["molecules"]] == [24, 48, 19]
    assert found["molecules"][2]["charge"] == -1


def test_the_command_says_what_is_wrong(minao: Path, one: Path, capsys: pytest.CaptureFixture):
    code, out, err = command(capsys, minao, one, "--out", one.parent / "h.doc")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
