"""Metrics of SCFs that start from predictions: their formulas, samples, and what does not end."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory
from hambench.data.workers import pool
from hambench.scoring import METRICS, Scorer, format_score, score
from hambench.scoring.sampling import Sample

pytest.importorskip("pyscf")

SCF = [name for name, metric in METRICS.items() if metric.sample == "scf"]
TIMES = ["scf_time_ratio", "scf_total_time_ratio"]
HARTREE_FOCK = Theory("hf", "def2-svp", conv_tol=1e-9, conv_tol_grad=1e-5)


def by_hand(molecule: Molecule, start: str | np.ndarray) -> tuple[int, list[float]]:
    """Cycles of an RHF of PySCF's own, and mean|F - H| from the start on."""
    from pyscf import gto, scf

    names = {1: "H", 7: "N", 8: "O", 17: "Cl"}
    atoms = [(names[z], x) for z, x in zip(molecule.numbers, molecule.positions, strict=True)]
    mol = gto.M(atom=atoms, basis="def2-svp", charge=molecule.charge, verbose=0)
    field = scf.RHF(mol)
    field.conv_tol, field.conv_tol_grad, field.conv_check = 1e-9, 1e-5, False
    basis = OrbitalBasis.load("def2-svp", molecule.numbers.tolist())
    label = from_canonical(molecule.hamiltonian, molecule.numbers, basis, "pyscf")
    if isinstance(start, str):
        density = field.get_init_guess(mol, start)
    else:
        matrix = from_canonical(start, molecule.numbers, basis, "pyscf")
        occupied = scipy.linalg.eigh(matrix, field.get_ovlp())[1][:, : mol.nelectron // 2]
        density = 2 * occupied @ occupied.T
    errors = [np.abs(field.get_fock(dm=density) - label).mean()]
    field.callback = lambda env: errors.append(np.abs(env["fock"] - label).mean())
    field.kernel(density)
    assert field.converged
    return field.cycles, errors


def test_ratios_equal_their_formulas(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    found = score(noisy, molecules, SCF, theory=HARTREE_FOCK)
    assert list(found) == [name for name in SCF if name != "scf_total_time_ratio"]
    cycles = {}
    for guess in ("minao", "atom", "1e"):
        runs = [by_hand(molecule, guess) for molecule in molecules]
        cycles[guess] = np.array([count for count, _ in runs])
        if guess == "minao":
            courses = [errors for _, errors in runs]
    own = np.array([by_hand(m, h)[0] for m, h in zip(molecules, noisy, strict=True)])
    reached = []
    for course, h, molecule in zip(courses, noisy, molecules, strict=True):
        error = np.abs(h - molecule.hamiltonian).mean()
        reached.append(next(k for k, one in enumerate(course) if one < error))
    expected = {
        "scf_iter_ratio": own / cycles["minao"],
        "scf_iter_ratio_atom": own / cycles["atom"],
        "scf_iter_ratio_1e": own / cycles["1e"],
        "scf_build_ratio": (own + 1) / (cycles["minao"] + 1),
        "scf_optimal_ratio": 1 / cycles["minao"],
        "scf_error_level_ratio": np.array(reached) / cycles["minao"],
    }
    for name, ratios in expected.items():
        assert found[name].value == pytest.approx(ratios.mean(), rel=1e-12), name
        assert found[name].std == pytest.approx(ratios.std(), rel=1e-9, abs=1e-12), name
        assert (found[name].unit, found[name].n) == ("1", 3)
    assert found["scf_optimal_ratio"].value < found["scf_iter_ratio"].value < 1
    assert 0 < found["scf_error_level_ratio"].value < 1
    for guess in ("", "_minao", "_atom", "_1e"):
        rate = found[f"scf_convergence_rate{guess}"]
        assert (rate.value, rate.std, rate.n) == (1.0, None, 3)
    assert found["scf_time_ratio"].value > 0
    assert "(std " in format_score(found["scf_iter_ratio"], "scf_iter_ratio")


def test_the_label_converges_at_once(molecules: list[Molecule]) -> None:
    labels = [molecule.hamiltonian for molecule in molecules]
    asked = ["scf_iter_ratio", "scf_optimal_ratio", "scf_error_level_ratio"]
    found = score(labels, molecules, asked, theory=HARTREE_FOCK)
    ratio, optimal = found["scf_iter_ratio"].value, found["scf_optimal_ratio"].value
    assert optimal <= ratio <= 2 * optimal + 1e-12
    assert found["scf_error_level_ratio"].value == 1  # no cycle is nearer
    assert found["scf_convergence_rate"].value == 1  # joined unasked


def test_a_guess_no_better_than_minao_is_at_level_zero(molecules: list[Molecule]) -> None:
    far = molecules[0].hamiltonian + np.eye(24)
    found = score([far], molecules[:1], ["scf_error_level_ratio"], theory=HARTREE_FOCK)
    assert found["scf_error_level_ratio"].value == 0


def test_what_does_not_converge_is_counted(molecules: list[Molecule]) -> None:
    """With so few cycles that the label ends and another start does not."""
    labels = [molecule.hamiltonian for molecule in molecules]
    few = replace(HARTREE_FOCK, max_cycles=3)
    asked = ["scf_iter_ratio", "scf_convergence_rate_minao"]
    found = score([labels[0], np.eye(len(labels[1]))], molecules[:2], asked, theory=few)
    assert list(found) == ["scf_convergence_rate_minao", "scf_convergence_rate"]
    assert (found["scf_convergence_rate"].value, found["scf_convergence_rate"].n) == (0.5, 2)
    assert found["scf_convergence_rate_minao"].value == 0
    enough = replace(HARTREE_FOCK, max_cycles=by_hand(molecules[1], "minao")[0])
    far = -labels[1]  # empty orbitals filled
    found = score([labels[0], far], molecules[:2], ["scf_iter_ratio"], theory=enough)
    assert found["scf_iter_ratio"].n == 1 < found["scf_convergence_rate"].n
    assert found["scf_iter_ratio"].value < 0.5
    assert found["scf_convergence_rate"].value == 0.5


def test_inference_is_a_part_of_the_total_time(
    molecules: list[Molecule], noisy: list[np.ndarray]
) -> None:
    scorer = Scorer(TIMES, theory=HARTREE_FOCK, inference_s=1e6)
    scorer.add(noisy[0], molecules[0])
    found = scorer.scores()
    assert list(found) == [*TIMES, "scf_convergence_rate"]
    assert found["scf_total_time_ratio"].value > 1e3 * found["scf_time_ratio"].value


def test_samples(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    """Metrics of a kind on some of the molecules, here and in processes, failures apart."""
    asked = ["h_mae", "e_dft_mae", "dipole_mae", "scf_iter_ratio"]
    chosen = {"scf": {"ammonia", "broken"}, "energy": {"water", "ammonia", "elsewhere"}}
    samples = {kind: Sample(frozenset(ids), {"n": len(ids)}) for kind, ids in chosen.items()}
    many = [*molecules, replace(molecules[1], id="broken")]
    predicted = [*noisy, np.full_like(noisy[1], np.nan)]
    tables = []
    with pool(2) as executor:
        for where in (None, executor):
            scorer = Scorer(asked, theory=HARTREE_FOCK, executor=where, samples=samples)
            for prediction, molecule in zip(predicted, many, strict=True):
                scorer.add(prediction, molecule)
            found = scorer.scores()
            tables.append(scorer.table())
            assert {name: one.n for name, one in found.items()} == {
                "h_mae": 3, "e_dft_mae": 2, "dipole_mae": 2, "scf_iter_ratio": 1,
                "scf_convergence_rate": 1, "failure_rate": 4,
            }  # fmt: skip
    for name in asked:
        np.testing.assert_allclose(tables[1][name], tables[0][name], rtol=1e-6)
    whole = score(noisy, molecules, asked, theory=HARTREE_FOCK)
    parts = score(noisy[1:2], molecules[1:2], asked, theory=HARTREE_FOCK)
    assert found["h_mae"] == whole["h_mae"]
    assert found["scf_iter_ratio"].value == parts["scf_iter_ratio"].value != 1
