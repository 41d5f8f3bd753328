"""The matrix metrics on real Hamiltonians, against their definitions written out."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, DataError, RegistryError, RunError
from hambench.scoring import METRICS, Score, Scorer, find_metric, format_score, score

H_METRICS = [n for n, m in METRICS.items() if n.startswith("h_") and not m.needs_turned]
BASIS = OrbitalBasis.load("def2-svp")


def written_out(
    predictions: list[np.ndarray], molecules: list[Molecule], cutoff: float
) -> dict[str, float]:
    """The metrics once more, element by element, from their formulas alone."""
    rows = []
    for p, m in zip(predictions, molecules, strict=True):
        owner = np.repeat(
            np.arange(len(m)),
            [sum(2 * l + 1 for l in BASIS.shells[z].l) for z in m.numbers.tolist()],
        )
        same = owner[:, None] == owner[None, :]
        apart = m.positions[owner][:, None] - m.positions[owner][None, :]
        near = np.sqrt((apart**2).sum(-1)) < cutoff
        e = np.abs(p - m.hamiltonian)
        rows.append([e.mean(), e[same].mean(), e[~same].mean(), e[near].mean(), (e**2).mean()])
    mean, diagonal, off, near, square = np.array(rows).mean(0)
    pooled = np.concatenate(
        [np.abs(p - m.hamiltonian).ravel() for p, m in zip(predictions, molecules, strict=True)]
    )
    return {
        "h_mae": mean,
        "h_mae_elem": pooled.mean(),
        "h_mae_diag": diagonal,
        "h_mae_offdiag": off,
        "h_mae_in_cutoff": near,
        "h_rmse": math.sqrt(square),
        "h_max": pooled.max(),
    }


def test_metrics_equal_their_formulas(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    found = score(noisy, molecules, cutoff=1.1)
    expected = written_out(noisy, molecules, 1.1)
    costly = {name for name, m in METRICS.items() if m.needs_theory or m.needs_turned}
    plain = [n for n, m in METRICS.items() if m.of != "energy" and n not in costly]
    assert list(found) == plain
    for name, value in expected.items():
        assert found[name].value == pytest.approx(value, rel=1e-12), name
        assert (found[name].unit, found[name].n) == ("Eh", 3)
    assert found["h_mae_in_cutoff"].value != pytest.approx(found["h_mae"].value, rel=1e-3)
    everywhere = score(noisy, molecules)
    assert everywhere["h_mae_in_cutoff"].value == everywhere["h_mae"].value


def test_two_sizes_by_hand(molecules: list[Molecule]) -> None:
    """Water (24 orbitals) off by 1, HCl (23) by 3 everywhere: 2 per molecule, else per element."""
    water, _, chloride = molecules
    found = score([water.hamiltonian + 1.0, chloride.hamiltonian - 3.0], [water, chloride])
    assert found["h_mae"].value == pytest.approx(2.0, rel=1e-13)
    assert found["h_mae_elem"].value == pytest.approx((24**2 + 3 * 23**2) / (24**2 + 23**2))
    assert found["h_rmse"].value == pytest.approx(math.sqrt((1 + 9) / 2))
    assert found["h_max"].value == pytest.approx(3.0)


def test_the_label_has_no_error(molecules: list[Molecule]) -> None:
    found = score([m.hamiltonian for m in molecules], molecules)
    assert all(found[name].value == 0 for name in (*H_METRICS, "failure_rate"))


def test_shift_by_overlap(molecules: list[Molecule]) -> None:
    c = -3e-4
    found = score([m.hamiltonian + c * m.overlap for m in molecules], molecules, ["h_mae"])
    expected = abs(c) * np.mean([np.abs(m.overlap).mean() for m in molecules])
    assert found["h_mae"].value == pytest.approx(expected, rel=1e-10)


def test_order_and_signs_of_orbitals_do_not_matter(
    molecules: list[Molecule], noisy: list[np.ndarray], rng: np.random.Generator
) -> None:
    """Orbitals shuffled and flipped within each atom, in label and prediction alike."""
    shuffled, predictions = [], []
    for m, p in zip(molecules, noisy, strict=True):
        counts = BASIS.ao_counts(m.numbers)
        starts = np.cumsum(counts) - counts
        places = np.concatenate(
            [s + rng.permutation(n) for s, n in zip(starts, counts, strict=True)]
        )
        sign = rng.choice([-1, 1], size=len(places))
        turn = lambda a, i=places, s=sign: np.outer(s, s) * a[np.ix_(i, i)]  # noqa: E731
        shuffled.append(replace(m, hamiltonian=turn(m.hamiltonian)))
        predictions.append(turn(p))
    before, after = score(noisy, molecules, cutoff=1.1), score(predictions, shuffled, cutoff=1.1)
    for name in H_METRICS:
        assert after[name].value == pytest.approx(before[name].value, rel=1e-13), name


def test_block_identity(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    """Per molecule all = (n_d diag + n_o offdiag) / (n_d + n_o)."""
    scorer = Scorer()
    for p, m in zip(noisy, molecules, strict=True):
        scorer.add(p, m)
    table = scorer.table()
    n_d = np.array([(BASIS.ao_counts(m.numbers) ** 2).sum() for m in molecules])
    n_o = np.array([BASIS.nao(m.numbers) ** 2 for m in molecules]) - n_d
    whole = (n_d * table["h_mae_diag"] + n_o * table["h_mae_offdiag"]) / (n_d + n_o)
    assert np.abs(whole / table["h_mae"] - 1).max() < 1e-12
    assert table["id"].tolist() == [m.id for m in molecules]


def test_float64_whatever_comes_in(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    tensors = [torch.tensor(p, requires_grad=True) for p in noisy]
    assert score(tensors, molecules) == score(noisy, molecules)
    single = [p.astype(np.float32) for p in noisy]
    widened = score([p.astype(np.float64) for p in single], molecules)
    assert score(single, molecules) == widened != score(noisy, molecules)


def test_asymmetry_is_seen(molecules: list[Molecule]) -> None:
    """Nothing is made symmetric here: an error in one triangle counts once."""
    water = molecules[0]
    bent = water.hamiltonian.copy()
    bent[0, 5] += 1.0
    assert score([bent], [water])["h_mae_elem"].value == pytest.approx(1 / 24**2)


def test_failures_are_counted_and_shown(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    broken = [noisy[0], np.full_like(noisy[1], np.nan), noisy[2]]
    found = score(broken, molecules, ["h_mae", "h_max"])
    rest = score([noisy[0], noisy[2]], [molecules[0], molecules[2]], ["h_mae", "h_max"])
    assert list(found) == ["h_mae", "h_max", "failure_rate"]
    assert found["failure_rate"].value == pytest.approx(1 / 3)
    assert found["failure_rate"].n == 3
    assert [found[n].n for n in ("h_mae", "h_max")] == [2, 2]
    assert found["h_mae"].value == pytest.approx(rest["h_mae"].value)
    assert found["h_max"].value == rest["h_max"].value
    huge = [noisy[0], noisy[1] * 1e300, noisy[2]]
    assert score(huge, molecules, ["h_rmse"])["failure_rate"].value == pytest.approx(1 / 3)
    with pytest.raises(RunError, match="all 1 predictions"):
        score([broken[1]], [molecules[1]])


def test_single_atoms_have_no_pairs() -> None:
    atom = Molecule([2], np.zeros((1, 3)), basis="def2-svp", hamiltonian=np.eye(5), id="He")
    pair = Molecule(
        [1, 1],
        np.array([[0, 0, 0], [0, 0, 0.7]]),
        basis="def2-svp",
        hamiltonian=np.eye(10),
        id="H2",
    )
    found = score([np.eye(5) + 1, np.eye(10) + 2], [atom, pair])
    assert (found["h_mae_offdiag"].value, found["h_mae_offdiag"].n) == (2, 1)
    assert found["h_mae_diag"].value == pytest.approx(1.5)
    with pytest.raises(DataError, match="h_mae_offdiag has no entry in any of the 1 molecules"):
        score([np.eye(5)], [atom], ["h_mae_offdiag"])


def test_mistakes_are_named(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    water = molecules[0]
    with pytest.raises(RegistryError, match=r"no metric 'h_mae_diagonal'\. Did you mean"):
        score(noisy, molecules, ["h_mae_diagonal"])
    with pytest.raises(DataError, match=r"'water'.*\(23, 23\), expected \(24, 24\) for H2O"):
        score([noisy[2]], [water])
    with pytest.raises(DataError, match=r"'water'.*complex128"):
        score([noisy[0] + 0j], [water])
    with pytest.raises(DataError, match="'water' has no Hamiltonian"):
        score([noisy[0]], [replace(water, hamiltonian=None)])
    with pytest.raises(DataError, match="'water' names no orbital basis"):
        score([noisy[0]], [replace(water, basis=None)])
    with pytest.raises(DataError, match="'water': hamiltonian holds NaN"):
        score([noisy[0]], [replace(water, hamiltonian=np.full((24, 24), np.nan))])
    with pytest.raises(DataError, match="'water' is scored twice"):
        score([noisy[0]] * 2, [water] * 2)
    with pytest.raises(DataError, match="only 2 predictions were given"):
        score(noisy[:2], molecules)
    with pytest.raises(DataError, match="only 1 molecules were given"):
        score(noisy[:2], molecules[:1])
    with pytest.raises(DataError, match="nothing to score"):
        score([], [])
    with pytest.raises(ConfigError, match="cutoff of scoring is -1"):
        score(noisy, molecules, cutoff=-1)
    with pytest.raises(ConfigError, match="no metric was asked for"):
        score(noisy, molecules, [])
    assert score([noisy[0]], [replace(water, basis=None)], basis=BASIS)["h_mae"].n == 1


def test_a_lone_molecule_and_a_lone_metric(
    molecules: list[Molecule], noisy: list[np.ndarray]
) -> None:
    with pytest.raises(ConfigError, match=r"score takes lists: score\(\[matrix\], \[molecule\]\)"):
        score(noisy[0], molecules[0])
    assert score(noisy, molecules, "h_mae") == score(noisy, molecules, ["h_mae"])


def test_streams(molecules: list[Molecule], noisy: list[np.ndarray]) -> None:
    assert score(iter(noisy), iter(molecules)) == score(noisy, molecules)


def test_listing_needs_no_torch() -> None:
    code = "import sys, hambench.scoring as s; print(len(s.METRICS), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(METRICS)), "False"]
    for name, metric in METRICS.items():
        assert find_metric(name) is metric
        assert "\n" not in metric.description
        higher = name in ("psi", "psi_s", "p_occ", "scf_error_level_ratio") or "convergence" in name
        assert (metric.direction == "higher") == higher


def test_formatting_shows_what_the_interval_supports() -> None:
    assert format_score(Score(123.456e-6, "Eh", (121.1e-6, 125.8e-6), 9)) == (
        "123.5 [121.1, 125.8] uEh"
    )
    assert format_score(Score(5.2e-2, "Eh", (2e-2, 8e-2), 9)) == "52000 [20000, 80000] uEh"
    assert format_score(Score(4.876e-5, "Eh", None, 9)) == "48.76 uEh"
    huge = Score(5.2e30, "Eh", (2e30, 8e30), 9)
    assert format_score(huge) == "5.200e+36 [2.000e+36, 8.000e+36] uEh"
    assert format_score(Score(1.2345e-13, "1", (1e-13, 2e-13), 9)) == "1.2e-13 [1.0e-13, 2.0e-13]"
    assert format_score(Score(0.0, "1", (0.0, 0.0), 9)) == "0.000 [0.000, 0.000]"
