"""The spectral metrics on real matrices, against SciPy, and against what they must do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
from spectrum_oracle import spectral_metrics

from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, DataError
from hambench.scoring import METRICS, Score, Scorer, format_score, score, scorer
from hambench.scoring.spectra import SpectralErrors

pytest.importorskip("pyscf")

SPECTRAL = [n for n, m in METRICS.items() if m.needs_spectrum and not m.alarm]
ERRORS = [n for n in SPECTRAL if METRICS[n].direction == "lower"]
LIKENESSES = [n for n in SPECTRAL if METRICS[n].direction == "higher"]
BASIS = OrbitalBasis.load("def2-svp")
IODIDE = Molecule(
    [53, 1], [[0.1, 0, 0], [0.5, 0.9, 1.26]], basis="def2-tzvpd", id="hydrogen iodide"
)


@pytest.fixture
def lifted(molecules: list[Molecule], rng: np.random.Generator) -> list[Molecule]:
    """The molecules with labels that have no degenerate levels, as those of HCl are."""
    return [off(m, rng) for m in molecules]


def off(molecule: Molecule, rng: np.random.Generator, size: float = 1e-2) -> Molecule:
    """A molecule, its Hamiltonian some symmetric noise away."""
    noise = rng.normal(scale=size, size=molecule.hamiltonian.shape)
    return replace(molecule, hamiltonian=molecule.hamiltonian + noise + noise.T)


def oracle(
    predictions: Sequence[np.ndarray], molecules: Sequence[Molecule], electrons: Sequence[int]
) -> dict[str, float]:
    rows = [
        spectral_metrics(p, m.hamiltonian, m.overlap, n)
        for p, m, n in zip(predictions, molecules, electrons, strict=True)
    ]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def values(
    predictions: Sequence[np.ndarray], molecules: Sequence[Molecule], **settings: object
) -> dict[str, float]:
    own = Scorer(SPECTRAL, **settings)
    for p, m in zip(predictions, molecules, strict=True):
        own.add(p, m)
    return {name: found.value for name, found in own.scores(resamples=10).items()}


def guessed(molecule: Molecule, theory: Theory) -> Molecule:
    """A molecule with the Fock matrix of an initial guess, which is real enough, and no overlap."""
    return replace(molecule, hamiltonian=dft.initial_fock(molecule, theory))


def with_levels(molecule: Molecule, order: Sequence[int]) -> np.ndarray:
    """The label with the levels of its orbitals exchanged: level i goes to orbital order[i]."""
    e, c = scipy.linalg.eigh(molecule.hamiltonian, molecule.overlap)
    moved = e.copy()
    moved[list(order)] = e[sorted(order)]
    sc = molecule.overlap @ c
    return sc @ np.diag(moved) @ sc.T


def test_metrics_equal_their_definitions(lifted: list[Molecule], rng: np.random.Generator) -> None:
    predictions = [off(m, rng, 1e-4).hamiltonian for m in lifted]
    found = score(predictions, lifted, SPECTRAL)
    expected = oracle(predictions, lifted, [10, 10, 18])
    assert list(found) == SPECTRAL == list(expected)
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-6), name
        assert found[name].n == 3
    assert {n for n in SPECTRAL if found[n].unit == "Eh"} == set(SPECTRAL[:5])
    assert 1e-6 < found["eps_occ"].value < 1e-3


def test_levels_are_those_of_pyscf(molecules: list[Molecule]) -> None:
    """Of the label by itself: a prediction without levels has these as errors."""
    water = molecules[0]
    field = engine.mean_field(water, Theory("hf", "def2-svp"))
    field.kernel()
    found = values([np.zeros((24, 24))], [water])
    assert found["homo"] == pytest.approx(-field.mo_energy[4], abs=1e-7)
    assert found["lumo"] == pytest.approx(field.mo_energy[5], abs=1e-7)
    assert found["gap"] == pytest.approx(field.mo_energy[5] - field.mo_energy[4], abs=1e-7)
    assert found["eps_occ"] == pytest.approx(-field.mo_energy[:5].mean(), abs=1e-7)


def test_the_label_has_no_error(molecules: list[Molecule]) -> None:
    found = values([m.hamiltonian for m in molecules], molecules)
    assert all(found[name] < 1e-10 for name in ERRORS)
    assert all(found[name] == pytest.approx(1, abs=1e-12) for name in LIKENESSES)


@pytest.mark.parametrize("c", [3e-3, -0.2])
def test_shift_by_the_overlap(molecules: list[Molecule], c: float) -> None:
    """c S shifts every level by c and moves no orbital; ammonia here is not quite degenerate."""
    found = values([m.hamiltonian + c * m.overlap for m in molecules], molecules)
    for name in ("eps_occ", "homo", "lumo", "eps_all"):
        assert found[name] == pytest.approx(abs(c), abs=1e-10), name
    assert found["gap"] < 1e-10
    assert found["density_error"] < 1e-10
    assert found["p_occ"] == pytest.approx(1, abs=1e-12)
    water = values([molecules[0].hamiltonian + c * molecules[0].overlap], molecules[:1])
    assert all(water[name] == pytest.approx(1, abs=1e-10) for name in LIKENESSES)


def test_order_and_signs_of_orbitals_do_not_matter(
    lifted: list[Molecule], noisy: list[np.ndarray], rng: np.random.Generator
) -> None:
    """Orbitals shuffled and flipped in label, overlap and prediction."""
    shuffled, predictions = [], []
    for m, p in zip(lifted, noisy, strict=True):
        places, sign = rng.permutation(len(p)), rng.choice([-1, 1], size=len(p))
        turn = lambda a, i=places, s=sign: np.outer(s, s) * a[np.ix_(i, i)]  # noqa: E731
        shuffled.append(replace(m, hamiltonian=turn(m.hamiltonian), overlap=turn(m.overlap)))
        predictions.append(turn(p))
    before, after = values(noisy, lifted), values(predictions, shuffled)
    for name in SPECTRAL:
        assert after[name] == pytest.approx(before[name], rel=1e-7), name


def test_orbitals_that_change_places(molecules: list[Molecule]) -> None:
    """Two occupied ones: psi falls, what is occupied stays. Homo and lumo: so does that."""
    water = molecules[0]
    within = values([with_levels(water, [4, 3])], [water])
    assert within["psi_s"] == pytest.approx(1 - 2 / 5, abs=1e-10)
    assert within["psi"] < 0.8
    assert within["p_occ"] == pytest.approx(1, abs=1e-12)
    assert max(within[n] for n in ERRORS) < 1e-10
    intruder = values([with_levels(water, [5, 4])], [water])
    assert intruder["p_occ"] == pytest.approx(1 - 1 / 5, abs=1e-12)
    assert intruder["density_error"] == pytest.approx(np.sqrt(8) / 10, abs=1e-12)
    assert max(intruder[n] for n in ERRORS if n != "density_error") < 1e-10


def test_degenerate_orbitals(rng: np.random.Generator) -> None:
    """Of N2, pi orbitals: any mixture of the two is right, so psi is not to be trusted."""
    nitrogen = Molecule([7, 7], [[0, 0, 0], [0, 0, 1.1]], basis="def2-svp", id="N2")
    nitrogen = guessed(nitrogen, Theory("hf", "def2-svp"))
    noise = rng.normal(scale=1e-9, size=(28, 28))
    predicted = nitrogen.hamiltonian + noise + noise.T
    found = values([predicted], [nitrogen])
    assert found["p_occ"] == pytest.approx(1, abs=1e-12)
    assert found["density_error"] < 1e-7
    assert found["eps_occ"] < 1e-7
    assert found["psi_s"] < 1 - 1e-3


@pytest.mark.parametrize(("charge", "electrons"), [(0, 10), (2, 8), (-2, 12), (1, 9)])
def test_occupied_are_half_the_electrons(
    molecules: list[Molecule], noisy: list[np.ndarray], charge: int, electrons: int
) -> None:
    ion = replace(molecules[0], charge=charge)
    found = values(noisy[:1], [ion])
    expected = oracle(noisy[:1], [ion], [electrons])
    for name in SPECTRAL:
        assert found[name] == pytest.approx(expected[name], rel=1e-6), name


def test_core_potentials_and_computed_overlaps(rng: np.random.Generator) -> None:
    """HI in def2-TZVPD: 26 electrons outside the core of iodine; the molecule has no overlap."""
    label = off(guessed(IODIDE, Theory("hf", "def2-tzvpd")), rng)
    predicted = off(label, rng, 1e-4).hamiltonian
    mol = engine.mole(IODIDE.numbers, IODIDE.positions, "def2-tzvpd", 0)
    assert mol.nelectron == 26
    overlap = engine.canonical(mol.intor("int1e_ovlp"), IODIDE.numbers, "def2-tzvpd")
    found = values([predicted], [label])
    expected = oracle([predicted], [replace(label, overlap=overlap)], [26])
    for name in SPECTRAL:
        assert found[name] == pytest.approx(expected[name], rel=1e-6), name


def test_what_the_threshold_leaves_out_is_counted(
    molecules: list[Molecule], noisy: list[np.ndarray]
) -> None:
    """By a coarse threshold; label and prediction are solved in the space that is kept."""
    own = guessed(replace(IODIDE, id=""), Theory("hf", "def2-tzvpd"))
    overlap = dft.overlap(own.numbers, own.positions, "def2-tzvpd")
    scorer_ = Scorer(SPECTRAL, threshold=0.1)
    predicted = own.hamiltonian + 1e-3 * np.diag(np.arange(len(overlap)) % 3)
    scorer_.add(predicted, own)
    scorer_.add(own.hamiltonian, replace(own, id="label"))
    found = scorer_.scores(resamples=10)
    s, u = scipy.linalg.eigh(overlap)
    dropped = int((s < 0.1).sum())
    assert dropped > 3
    assert found["s_dropped"].value == dropped
    x = u[:, s >= 0.1] / np.sqrt(s[s >= 0.1])
    e, ep = (scipy.linalg.eigvalsh(x.T @ h @ x) for h in (own.hamiltonian, predicted))
    assert found["eps_all"].value == pytest.approx(np.abs(ep - e).mean() / 2, rel=1e-8)
    assert found["gap"].value == pytest.approx(abs((ep - e)[13] - (ep - e)[12]) / 2, rel=1e-8)
    assert scorer_.settings["eps_occ"] == {"threshold": 0.1}
    default = Scorer(["h_mae", "psi"], basis=OrbitalBasis.load("def2-tzvpd"), cutoff=3.0)
    assert default.settings["psi"] == default.settings["s_dropped"] == {"threshold": 1e-5}
    assert default.settings["h_mae"] == {}
    assert "s_dropped" not in score(noisy, molecules, SPECTRAL)
    assert score(noisy, molecules)["s_dropped"].value == 0


def test_together_as_alone(molecules: list[Molecule], noisy: list[np.ndarray], monkeypatch) -> None:
    """Molecules of one size are solved at once, whatever their charges, and none waits for long."""
    many = [replace(m, charge=q, id=f"{m.id}{q}{k}")
            for k in range(3) for m in molecules for q in (0, 2)]  # fmt: skip
    predictions = [p * (1 + 1e-4 * k) for k in range(3) for p in noisy for _ in (0, 2)]
    sizes = []
    solve = scorer.solve_together
    monkeypatch.setattr(
        scorer, "solve_together", lambda c, device: sizes.append(len(c)) or solve(c, device)
    )
    together = Scorer(SPECTRAL)
    for p, m in zip(predictions, many, strict=True):
        together.add(p, m)
    whole = together.table()
    assert sizes == [3] * 6
    monkeypatch.setattr(scorer, "_WAITING", 2.5 * 4 * 29**2 * 8)
    sizes.clear()
    few = Scorer(SPECTRAL)
    for p, m in zip(predictions, many, strict=True):
        few.add(p, m)
        assert few._bytes <= scorer._WAITING
    parts = few.table()
    assert sum(sizes) == 18
    assert len(sizes) > 6
    for name in SPECTRAL:
        np.testing.assert_allclose(parts[name], whole[name], rtol=1e-9, atol=1e-13)
        for k in (0, 7, 17):
            alone = values([predictions[k]], [many[k]])[name]
            assert whole[name][k] == pytest.approx(alone, rel=1e-9, abs=1e-13)


def test_troubles_are_counted_by_kind(
    molecules: list[Molecule], noisy: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    water, prediction = molecules[0], noisy[0]
    dependent = np.array(water.overlap)
    dependent[1], dependent[:, 1] = dependent[0], dependent[:, 0]
    solve = np.linalg.eigh

    def eigh(stack: np.ndarray):
        if (np.abs(stack) > 1e6).any():
            raise np.linalg.LinAlgError("Eigenvalues did not converge")
        return solve(stack)

    monkeypatch.setattr(np.linalg, "eigh", eigh)
    rows = {
        "sound": (prediction, water),
        "not finite": (np.full((24, 24), np.nan), replace(water, id="not finite")),
        "singular": (prediction, replace(water, id="singular", overlap=dependent)),
        "too many": (prediction, replace(water, id="too many", charge=-40)),
        "unsolved": (prediction * 1e9, replace(water, id="unsolved")),
    }
    found = score(*zip(*rows.values(), strict=True), ["h_mae", "eps_occ", "p_occ"])
    rates = ["failure_rate", "overlap_failure_rate", "orbital_failure_rate", "eigen_failure_rate"]
    assert list(found) == ["h_mae", "eps_occ", "p_occ", *rates]
    assert found["failure_rate"] == Score(0.2, "1", found["failure_rate"].ci95, 5)
    assert all((found[r].value, found[r].n) == (0.25, 4) for r in rates[1:])
    assert (found["h_mae"].n, found["eps_occ"].n) == (4, 1)
    alone = values([prediction], [water])
    assert found["eps_occ"].value == pytest.approx(alone["eps_occ"], rel=1e-10)
    nothing = score([prediction], [rows["singular"][1]], ["h_mae", "eps_occ"])
    assert list(nothing) == ["h_mae", "overlap_failure_rate"]
    negative = replace(water, overlap=water.overlap - 0.5 * np.eye(24))
    assert score([prediction], [negative], ["gap"])["overlap_failure_rate"].value == 1


def test_where_there_is_no_lumo_or_no_electron() -> None:
    helium = Molecule([2], np.zeros((1, 3)), basis="sto-3g", hamiltonian=[[-0.9]], id="He")
    found = score([[[-0.8]]], [helium], theory=None)
    assert {"lumo", "gap"}.isdisjoint(found)
    assert found["homo"].value == pytest.approx(0.1)
    bare = score([[[-0.8]]], [replace(helium, charge=2)])
    assert {"homo", "psi", "p_occ", "density_error", "eps_occ", "gap"}.isdisjoint(bare)
    assert bare["lumo"].value == pytest.approx(0.1)
    assert bare["eps_all"].value == pytest.approx(0.1)
    with pytest.raises(DataError, match="lumo has no entry in any of the 1 molecules"):
        score([[[-0.8]]], [helium], ["lumo"])
    with pytest.raises(DataError, match=r"'He': a charge of 3 leaves He -1 electrons"):
        score([[[-0.8]]], [replace(helium, charge=3)])


def test_an_overlap_that_cannot_be_had_is_said(
    molecules: list[Molecule], noisy: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = replace(molecules[0], overlap=None)
    expected = values(noisy[:1], molecules[:1])
    assert values(noisy[:1], [bare])["eps_occ"] == pytest.approx(expected["eps_occ"], rel=1e-8)
    monkeypatch.setitem(__import__("sys").modules, "pyscf", None)
    with pytest.raises(ConfigError, match=r"'water' has no overlap, which .*hambench\[pyscf\]"):
        score(noisy[:1], [bare], ["eps_occ"])
    assert score(noisy[:1], molecules[:1], ["eps_occ"])["eps_occ"].n == 1
    with pytest.raises(DataError, match="'water': overlap holds NaN"):
        score(noisy[:1], [replace(bare, overlap=np.full((24, 24), np.nan))], ["h_mae"])
    with pytest.raises(ConfigError, match="threshold of overlaps is 0"):
        Scorer(["psi"], threshold=0.0)


def test_likenesses_are_shown_in_1e_2() -> None:
    assert (
        format_score(Score(0.99934, "1", (0.9991, 0.9995), 9), "psi") == "99.934 [99.910, 99.950] %"
    )
    assert format_score(Score(0.25, "1", None, 9), "density_error") == "0.2500"
    assert SpectralErrors._fields[:9] == (
        "eps_occ", "homo", "lumo", "gap", "eps_all", "psi", "psi_s", "p_occ", "density_error",
    )  # fmt: skip


def test_relative_error(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    expected = [
        np.linalg.norm(p - m.hamiltonian) / np.linalg.norm(m.hamiltonian)
        for p, m in zip(noisy, molecules, strict=True)
    ]
    found = score(noisy, molecules, ["h_relative"])["h_relative"]
    assert (found.value, found.unit) == (pytest.approx(np.mean(expected), rel=1e-12), "1")
