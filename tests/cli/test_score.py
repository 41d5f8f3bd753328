"""`hambench score`: the numbers are those of `Scorer`, whoever predicted; mistakes are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from hambench import cli
from hambench.chem.ordering import from_canonical
from hambench.data.splits import clusters
from hambench.registry import load_task
from hambench.scoring import Score, score
from hambench.scoring.energy_table import EnergyRow, write_energies
from hambench.scoring.predictions import write_predictions
from hambench.units import HARTREE_EV

TASK = load_task("water_mini")
MOLECULES = list(TASK.split("test"))
METRICS = ["h_mae", "h_mae_in_cutoff", "h_max"]
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs the command in this process and in the folder of the files."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(["score", *words])
        out, err = capsys.readouterr()
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def predicted(rng: np.random.Generator) -> list[np.ndarray]:
    """Symmetric predictions, one of them failed."""
    noise = (rng.laplace(scale=1e-4, size=m.hamiltonian.shape) for m in MOLECULES)
    found = [m.hamiltonian + (e + e.T) / 2 for m, e in zip(MOLECULES, noise, strict=True)]
    return [np.full_like(found[0], np.nan), *found[1:]]


@pytest.fixture
def theirs(tmp_path: Path, predicted: list[np.ndarray]) -> Path:
    """What another code in ORCA's order wrote of them."""
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.attrs.update(order="orca", unit="Eh", task="water_mini", split="test")
        for molecule, matrix in zip(MOLECULES, predicted, strict=True):
            written = from_canonical(matrix, molecule.numbers, TASK.basis, "orca")
            file[f"hamiltonian/{molecule.id}"] = written
    return tmp_path / "theirs.h5"


def scores(out: str) -> dict[str, Score]:
    found = {name: Score(**content) for name, content in json.loads(out).items()}
    return {k: s._replace(ci95=s.ci95 and tuple(s.ci95)) for k, s in found.items()}


def test_scores_are_those_of_the_matrices(
    call: Call, theirs: Path, predicted: list[np.ndarray]
) -> None:
    said = f"score.metrics=[{','.join(METRICS)}]"
    code, out, err = call("theirs.h5", "task=water_mini", said, "score.cutoff=1.2", "--json")
    assert (code, err) == (0, "")
    groups = clusters([m.id for m in MOLECULES]).values()
    expected = score(predicted, MOLECULES, METRICS, cutoff=1.2, groups=groups)
    found = scores(out)
    assert list(found) == [*METRICS, "failure_rate"]
    assert found["failure_rate"].value == 1 / len(MOLECULES)
    for name, one in expected.items():
        assert found[name].n == one.n
        assert found[name].value == pytest.approx(one.value, rel=1e-12)
        if one.ci95:
            assert found[name].ci95 == pytest.approx(one.ci95, rel=1e-12)


def test_files_of_runs_and_of_others_give_one_table(
    call: Call, theirs: Path, predicted: list[np.ndarray], tmp_path: Path
) -> None:
    data = {"task": TASK.name, "task_version": TASK.version, "fingerprint": TASK.fingerprint}
    with write_predictions(tmp_path / "ours.h5", **data, dtype="float32") as writer:
        for molecule, matrix in zip(MOLECULES, predicted, strict=True):
            writer.add(molecule.id, matrix)
    tables = [call(name, "task=water_mini")[1] for name in ("theirs.h5", "ours.h5")]
    assert tables[0].splitlines()[0] == "theirs.h5 on water_mini v1, test split, 100 molecules"
    assert tables[0].splitlines()[1:] == tables[1].splitlines()[1:]  # but for float32, digits off
    assert [line.split()[0] for line in tables[0].splitlines()[1:]][2:] == [
        *TASK.metrics, "failure_rate",
    ]  # fmt: skip


def test_a_wrong_order_is_warned_of(
    call: Call, theirs: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with h5py.File(theirs, "a") as file:
        file.attrs["order"] = "pyscf"
    code, out, _ = call("theirs.h5", "task=water_mini")
    assert code == 0
    assert "h_mae" in out
    said = caplog.messages[-1]
    assert said.startswith("warning: theirs.h5 says that its matrices are in pyscf order and Eh;")
    assert "in orca or psi4 order they would be" in said


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "which task?"),
        (["task=watermini"], 2, "Did you mean 'water_mini'?"),
        (["task=water_mini", "scor.split=test"], 2, "unknown key 'scor'"),
        (["task=water_mini", "score.splt=test"], 2, "Did you mean 'score.split'?"),
        (["task=water_mini", "score.metrics=h_mae"], 2, "expected a list, e.g. [h_mae,h_max]"),
        (["task=water_mini", "score.metrics=h_mae,psi"], 2, "write a list as [a,b]"),
        (["task=water_mini", "score.metrics=[h_mxa]"], 2, "Did you mean 'h_max'?"),
        (["task=water_mini", "score.metrics=[energy_mae]"], 2, "not of what models of task"),
        (["task=water_mini", "score.metrics=[h_rotation_mae]"], 2, "predictions for turned"),
        (["task=water_mini", "score.split=tset"], 2, "Did you mean 'test'?"),
        (["task=water_mini", "score.split=train"], 4, "of split 'test', not 'train'; score it"),
        (["task=water_mini", "score=1", "score.split=test"], 2, "sets a part of 'score'"),
        (["task=organic_mini_energy", "data=none.h5"], 3, "none.h5"),
    ],
)
def test_mistakes_are_one_sentence(
    call: Call, theirs: Path, words: list[str], code: int, said: str
) -> None:
    found, out, err = call("theirs.h5", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        (lambda f: f.attrs.update(task="md17_water"), 4, "of task 'md17_water', not 'water_mini'"),
        (lambda f: f.attrs.update(fingerprint="ab" * 32), 4, "fingerprint abababababab, the data"),
        (lambda f: f.attrs.update(order="orcs"), 3, "unknown order 'orcs'"),
        (lambda f: f.__delitem__(f"hamiltonian/{MOLECULES[5].id}"), 4, MOLECULES[5].id),
        (
            lambda f: f.move(f"hamiltonian/{MOLECULES[5].id}", "hamiltonian/neon"),
            4,
            "lacks 1 of 100 molecules",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused(
    call: Call, theirs: Path, change: Callable[[h5py.File], None], code: int, said: str
) -> None:
    with h5py.File(theirs, "a") as file:
        change(file)
    found, out, err = call("theirs.h5", "task=water_mini")
    assert (found, out) == (code, "")
    assert said in err


def test_the_split_that_fits_is_named(call: Call, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "theirs.h5", "w") as file:
        file.attrs["order"] = "canonical"
        for molecule in TASK.split("validation"):
            file[f"hamiltonian/{molecule.id}"] = molecule.hamiltonian
    code, _, err = call("theirs.h5", "task=water_mini")
    assert code == 4
    assert "has the molecules of split 'validation', not of 'test'; add score.split=val" in err
    code, out, err = call("theirs.h5", "task=water_mini", "score.split=validation", "--json")
    assert (code, err) == (0, "")
    assert max(one.value for one in scores(out).values() if one.unit == "Eh") < 1e-12
    assert scores(out)["psi"].value == pytest.approx(1)


ENERGIES = Path(__file__).parent.parent / "fixtures" / "organic_mini_24.h5"
ON = ("task=organic_mini_energy", f"data={ENERGIES}", "--json")


def test_energies_of_a_table(
    call: Call, tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture
) -> None:
    rows = load_task("organic_mini_energy", ENERGIES).split("test")
    off = rng.normal(scale=1e-3, size=len(rows))
    off[0] = np.nan
    predicted = {m.id: m.energy + e for m, e in zip(rows, off, strict=True)}
    shuffled = sorted(predicted, key=lambda name: name[::-1])
    lines = ["id,energy", *(f"{name},{predicted[name]:.17g}" for name in shuffled)]
    (tmp_path / "theirs.csv").write_text("\n".join(lines))
    code, out, err = call("theirs.csv", *ON)
    assert (code, err) == (0, "")
    found = scores(out)
    assert found["energy_mae"].value == pytest.approx(np.abs(off[1:]).mean(), rel=1e-9)
    assert found["energy_mae"].n == len(rows) - 1
    assert found["failure_rate"].value == 1 / len(rows)

    for unit, column in ((1.0, "energy_ev"), (HARTREE_EV, "energy")):
        values = (f"{name},{value * unit:.17g}" for name, value in predicted.items())
        (tmp_path / "unit.csv").write_text("\n".join([f"id,{column}", *values]))
        assert call("unit.csv", *ON)[0] == 0
        other = {"energy": "energy_ev", "energy_ev": "energy"}[column]
        assert f"under the column '{other}'" in caplog.messages[-1]

    kept = [EnergyRow("test", m.id, "g", len(m), m.energy, float(predicted[m.id])) for m in rows]
    write_energies(tmp_path / "energies.csv", kept)
    assert scores(call("energies.csv", *ON)[1]) == found


def test_tables_that_do_not_fit(call: Call, theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs.csv").write_text("id,energy\nneon,-128.9\n")
    np.savez(tmp_path / "ours.npz", format="hambench-hamiltonians", order="canonical")
    with h5py.File(tmp_path / "ours.h5", "w") as file:
        file["format"] = "hambench-hamiltonians"
    for words, code, said in (
        ((".", "task=water_mini"), 3, "is a folder; give a file of predictions"),
        (("ours.npz", "task=water_mini"), 3, "is a file of hamiltonians, which cannot be scored"),
        (("ours.h5", "task=water_mini"), 3, "is a file of hamiltonians, which cannot be scored"),
        (("theirs.csv", *ON), 4, "lacks"),
        (("theirs.h5", *ON), 2, "asks for energies; give a table of them"),
        (("none.csv", *ON), 3, "none.csv does not exist"),
        (("theirs.csv", "task=water_mini"), 2, "asks for Hamiltonians, theirs.csv is a table"),
    ):
        found, out, err = call(*words)
        assert (found, out) == (code, "")
        assert said in err
