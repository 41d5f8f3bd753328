"""The energies that predicted Hamiltonians imply, on a real row and against their laws."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from hambench.chem.dft import calculate
from hambench.chem.functional import energy_of
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data.workers import pool
from hambench.errors import ConfigError, DataError
from hambench.registry import load_task
from hambench.scoring import METRICS, Scorer, score

pytest.importorskip("pyscf")

TOTAL = [name for name, metric in METRICS.items() if metric.sample and metric.energy]
HARTREE_FOCK = Theory("hf", "def2-svp")


@pytest.fixture(scope="module")
def row() -> Molecule:
    """A molecule of the test set of water_mini."""
    return load_task("water_mini").split("test")[0]


@pytest.fixture(scope="module")
def level() -> Theory:
    """The level of theory of water_mini."""
    return load_task("water_mini").level


def noise(molecule: Molecule, rng: np.random.Generator) -> np.ndarray:
    """Symmetric Laplace noise, its mean absolute value 1."""
    e = rng.laplace(size=molecule.hamiltonian.shape)
    e = e + e.T
    return e / np.abs(e).mean()


def test_a_real_row_at_its_own_level(
    row: Molecule, level: Theory, rng: np.random.Generator
) -> None:
    predicted = row.hamiltonian + 1e-4 * noise(row, rng)
    found = score([row.hamiltonian, predicted], [row, replace(row, id="off")], TOTAL, theory=level)
    assert list(found) == TOTAL
    assert all((s.unit, s.n) == ("Eh", 2) for s in found.values())
    gap = abs(energy_of(predicted, row, level) - energy_of(row.hamiltonian, row, level))
    assert 1e-7 < gap < 1e-5
    assert found["e_dft_mae"].value == pytest.approx(gap / 2, rel=1e-6)
    assert found["e_dft_mae_per_atom"].value == pytest.approx(gap / 6, rel=1e-6)
    assert found["e_dft_mae_floor"].value < 1e-10
    assert found["e_dft_mae_file"].value == pytest.approx(gap / 2, abs=1e-10)
    assert found["e_mix_mae"].value > 20 * gap


def test_the_label_has_no_error_whatever_the_grid(row: Molecule, level: Theory) -> None:
    coarse = replace(level, grid_level=2)
    found = score([row.hamiltonian], [row], TOTAL, theory=coarse)
    zero = ("e_dft_mae", "e_dft_mae_per_atom", "e_mix_mae")
    assert all(found[name].value == 0 for name in zero)
    assert 1e-8 < found["e_dft_mae_floor"].value == found["e_dft_mae_file"].value < 1e-3


def test_shift_by_the_overlap(molecules: list[Molecule]) -> None:
    """c S moves no orbital: E[D] stays, E_mix shifts by c N / 2 for N = 10, 10 and 18 electrons."""
    c = -3e-3
    shifted = [m.hamiltonian + c * m.overlap for m in molecules]
    found = score(shifted, molecules, ["e_dft_mae", "e_mix_mae"], theory=HARTREE_FOCK)
    assert found["e_dft_mae"].value < 1e-10
    assert found["e_mix_mae"].value == pytest.approx(abs(c) * np.mean([5, 5, 9]), rel=1e-9)


@pytest.mark.parametrize("xc", ["pbe", "b3lyp"])
def test_second_and_first_order(
    row: Molecule, level: Theory, xc: str, rng: np.random.Generator
) -> None:
    theory = replace(level, xc=xc, fit=None, grid_level=0)
    row = calculate(row, theory, forces=False).molecule
    sizes = np.array([1e-6, 1e-5, 1e-4])
    directions = [noise(row, rng) for _ in range(3)]
    errors = []
    for size in sizes:
        many = [replace(row, id=str(k)) for k in range(len(directions))]
        predictions = [row.hamiltonian + size * e for e in directions]
        found = score(predictions, many, ["h_mae", "e_dft_mae", "e_mix_mae"], theory=theory)
        assert found["h_mae"].value == pytest.approx(size)
        errors.append([found["e_dft_mae"].value, found["e_mix_mae"].value])
    slopes = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    np.testing.assert_allclose(slopes, [2, 1], atol=0.05)


def test_processes_give_the_same(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    broken = [*noisy, np.full((24, 24), np.nan)]
    many = [*molecules, replace(molecules[0], id="broken", energy=None)]
    tables = []
    with pool(2) as executor:
        for where in (None, executor):
            scorer = Scorer(["h_mae", *TOTAL], theory=HARTREE_FOCK, executor=where, ahead=2)
            for prediction, molecule in zip(broken, many, strict=True):
                scorer.add(prediction, molecule)
            found = scorer.scores()
            assert found["e_dft_mae"].n == 3
            assert found["failure_rate"].value == pytest.approx(1 / 4)
            tables.append(scorer.table())
    for name, column in tables[0].items():
        if name in ("id", "group"):
            assert column.tolist() == tables[1][name].tolist()
        else:
            np.testing.assert_allclose(tables[1][name], column, rtol=1e-5, atol=1e-12)


def test_the_default_takes_what_can_be_computed(
    molecules: list[Molecule], noisy: list[np.ndarray]
) -> None:
    assert not set(TOTAL) & set(score(noisy[:1], molecules[:1]))
    everything = set(score(noisy[:1], molecules[:1], theory=HARTREE_FOCK))
    assert set(TOTAL) | {"dipole_mae"} < everything
    assert not any(METRICS[name].sample == "scf" for name in everything)
    nameless = replace(molecules[0], energy=None)
    found = score(noisy[:1], [nameless], theory=HARTREE_FOCK)
    assert set(TOTAL) - set(found) == {"e_dft_mae_file", "e_dft_mae_floor"}
    both = [nameless, molecules[1]]
    found = score(noisy[:2], both, ["e_dft_mae", "e_dft_mae_file"], theory=HARTREE_FOCK)
    assert (found["e_dft_mae"].n, found["e_dft_mae_file"].n) == (2, 1)
    with pytest.raises(DataError, match="e_dft_mae_file has no entry in any of the 1 molecules"):
        score(noisy[:1], [nameless], ["e_dft_mae_file"], theory=HARTREE_FOCK)


def test_mistakes_are_named(
    molecules: list[Molecule], noisy: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"e_dft_mae and e_mix_mae need the level of theory .*"):
        Scorer(["h_mae", "e_dft_mae", "e_mix_mae"])
    other = Theory("pbe", "sto-3g")
    with pytest.raises(ConfigError, match="'water' is in def2-svp, the level of theory in sto-3g"):
        score(noisy[:1], molecules[:1], ["e_dft_mae"], theory=other)
    radical = replace(molecules[0], charge=1)
    with pytest.raises(ConfigError, match=r"'water': 9 electrons .* no closed shell"):
        score(noisy[:1], [radical], ["e_dft_mae"], theory=HARTREE_FOCK)
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(ConfigError, match=r"hambench\[pyscf\]"):
        Scorer(["e_dft_mae"], theory=HARTREE_FOCK)
    basis = OrbitalBasis.load("def2-svp")
    assert score(noisy[:1], molecules[:1], ["h_mae"], basis=basis, theory=HARTREE_FOCK)
