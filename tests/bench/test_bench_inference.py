"""`hambench bench inference`: real molecules, the cycle of PySCF, numbers of both."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hambench import cli
from hambench.bench.glycine import glycine
from hambench.bench.inference import InferenceBench, measure, predict, threads_of_all
from hambench.bench.powerlaw import extrapolate
from hambench.bench.timing import interleaved
from hambench.chem import engine
from hambench.chem.bonds import bonded, environments
from hambench.chem.cycle import FirstCycle
from hambench.chem.molecule import Molecule, formula
from hambench.chem.theory import Theory, named
from hambench.data.graph import collate
from hambench.errors import ConfigError
from hambench.models import build_model

COARSE = replace(named("pbe/def2-svp"), grid_level=0)


@pytest.mark.parametrize("residues", [1, 2, 5, 21])
def test_glycines_have_the_bonds_of_glycine(residues: int) -> None:
    molecule = glycine(7 * residues + 3)
    near = bonded(molecule.numbers, molecule.positions)
    assert near.sum() == 2 * (len(molecule) - 1)  # no rings, and no atoms too near
    expected = {"C(C,O,O)": 1, "H(O)": 1, "N(C,H,H)": 1, "O(C,H)": 1, "O(C)": residues}
    expected |= {"H(C)": 2 * residues, "C(C,H,H,N)": residues, "H(N)": residues + 1}
    if residues > 1:
        expected |= {"C(C,N,O)": residues - 1, "N(C,C,H)": residues - 1}
    found = environments(molecule.numbers, molecule.positions)
    assert {kind: found.count(kind) for kind in set(found)} == expected
    apart = np.linalg.norm(molecule.positions[:, None] - molecule.positions, axis=-1)
    assert apart[~near & ~np.eye(len(molecule), dtype=bool)].min() > 1.6


def test_glycines_are_alpha_helices() -> None:
    """A turn takes 3.6 residues and 5.4 Angstrom; hydrogens point at oxygens four before."""
    molecule = glycine(150)
    nitrogens = molecule.positions[molecule.numbers == 7]
    rise = np.linalg.norm(nitrogens[18] - nitrogens[0]) / 18
    assert 1.4 < rise < 1.6
    oxygens, hydrogens = (molecule.positions[molecule.numbers == z] for z in (8, 1))
    apart = np.linalg.norm(oxygens[:, None] - hydrogens, axis=-1)
    assert ((apart > 1.8) & (apart < 2.2)).sum() >= 15


def test_there_are_glycines_of_some_sizes_alone() -> None:
    assert formula(glycine(10).numbers) == "C2H5NO2"
    with pytest.raises(
        ConfigError, match="of glycine has 40 atoms; 7 a residue and 3 at the ends make 38"
    ):
        glycine(40)
    with pytest.raises(ConfigError, match="make 10 or 17"):
        glycine(3)


@pytest.fixture(scope="module")
def water() -> Molecule:
    positions = np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    return Molecule(np.array([8, 1, 1]), positions)


@pytest.mark.parametrize(
    "theory",
    [
        COARSE,
        replace(COARSE, fit=None),
        Theory("wb97m-v", "def2-tzvpd", grid_level=0, nlc_grid_level=0),
        Theory("wb97m-v", "def2-svp", "def2-universal-jkfit", grid_level=0, nlc_grid_level=0),
    ],
    ids=lambda theory: f"{theory.xc}-{theory.basis}-{theory.fit}",
)
def test_the_cycle_is_the_first_of_pyscf(water: Molecule, theory: Theory) -> None:
    cycle = FirstCycle(water, theory)
    field = engine.mean_field(water, replace(theory, max_cycles=1))
    expected = field.kernel(field.get_init_guess(field.mol, "minao"))
    assert not field.converged
    assert cycle.run() == pytest.approx(expected, abs=1e-8)
    assert cycle.run() == pytest.approx(expected, abs=1e-8)  # as often as wanted
    assert (cycle.orbitals, cycle.points) == (field.mol.nao, len(field.grids.weights))


def test_guesses_of_the_cycle(water: Molecule) -> None:
    assert FirstCycle(water, COARSE, "1e").run() > FirstCycle(water, COARSE).run() + 0.1
    with pytest.raises(ConfigError, match=r"unknown initial guess 'mina'.*minao"):
        FirstCycle(water, COARSE, "mina")


def test_power_laws() -> None:
    sizes = [10, 17, 24, 31]
    exact = extrapolate(sizes, [2e-3 * n**1.5 for n in sizes], 150)
    assert exact.exponent == pytest.approx(1.5)
    assert exact.value == pytest.approx(2e-3 * 150**1.5)
    assert exact.high - exact.low < 1e-6 * exact.value
    with pytest.raises(ConfigError, match="needs 3 different sizes, there are 2"):
        extrapolate([10, 17, 17], [1, 2, 2], 150)


def test_prediction_intervals_hold_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([10, 17, 24, 31, 38, 150])
    trials, held, exponents = 400, 0, 0
    for _ in range(trials):
        seconds = 1e-3 * sizes**2.0 * np.exp(rng.normal(scale=0.2, size=6))
        found = extrapolate(sizes[:5].tolist(), seconds[:5].tolist(), 150)
        held += found.low < seconds[5] < found.high
        exponents += abs(found.exponent - 2) < found.exponent_error
    assert 0.92 < held / trials < 0.98
    assert 0.92 < exponents / trials < 0.98


def test_a_warm_first_round_is_timed() -> None:
    calls: list[str] = []
    times = interleaved({n: lambda _, n=n: calls.append(n) for n in "ab"}, 2, warm=True)
    assert calls == ["a", "b"] * 2
    assert times["a"].low <= times["a"].median <= times["a"].high


@pytest.fixture(scope="module")
def measured() -> InferenceBench:
    return measure("helm_small", [10], COARSE, repeats=2)


def test_both_are_measured(measured: InferenceBench) -> None:
    (size,) = measured.sizes
    assert (size.atoms, size.orbitals, size.edges) == (10, 95, 90)
    assert size.points > 1000
    assert size.ratio == size.cycle.median / size.predicting.median
    assert min(size.cycle.low, size.predicting.low) > 0
    assert measured.theory["grid_level"] == 0
    assert measured.beyond is None


def test_a_model_that_needs_the_theory_gets_that_of_the_scf() -> None:
    found = measure("minao", [10], COARSE, repeats=1)
    assert found.sizes[0].predicting.median > 0


def test_what_is_predicted_is_the_whole_matrix() -> None:
    molecule = glycine(10)
    network = build_model("helm_small", engine.orbital_basis("def2-svp", molecule.numbers)[0])
    found = predict(network, molecule)
    batch = collate([molecule], replace(network.graph, labels=()))
    (expected,) = network.eval()(batch).matrices()
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected.detach().numpy(), rtol=0, atol=1e-5)


def test_threads_are_those_of_everything() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    before = torch.get_num_threads()
    with threads_of_all(1):
        assert torch.get_num_threads() == 1
        assert {one["num_threads"] for one in threadpoolctl.threadpool_info()} == {1}
    assert torch.get_num_threads() == before


def test_what_cannot_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="sphnet_small predicts what is beyond an initial guess"):
        measure("sphnet_small", [10], COARSE)
    with pytest.raises(ConfigError, match="needs 3 different numbers of atoms at least, got 10,17"):
        measure("helm_small", [10, 17], COARSE, beyond=150)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    with pytest.raises(ConfigError, match=r"threadpoolctl.*'hambench\[yardsticks\]'"):
        measure("helm_small", [10], COARSE)


def test_the_command(
    measured: InferenceBench,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Of the sizes beyond the first one with times of a power law, to spare the SCF."""
    asked = []

    def scaled(model: str, atoms: list[int], theory: Theory, **options) -> InferenceBench:
        from hambench.bench.inference import _beyond

        asked.append((model, theory, options))
        (first,) = measured.sizes
        factors = [(n / 10) ** 2 for n in atoms]
        sizes = [
            replace(first, atoms=n, cycle=replace(first.cycle, median=f * first.cycle.median))
            for n, f in zip(atoms, factors, strict=True)
        ]
        return replace(measured, sizes=sizes, beyond=_beyond(sizes, options["beyond"]))

    monkeypatch.setattr("hambench.bench.inference.measure", scaled)
    words = ["bench", "inference", "model=helm_small", "theory=pbe/def2-svp", "fit=none", "grid=0"]
    for more in ([], ["--json", f"--out={tmp_path}"]):
        with pytest.raises(SystemExit) as left:
            cli.main([*words, "atoms=10,17,24", "beyond=150", *more])
        assert not left.value.code
        out = capsys.readouterr().out
        if more:
            document = json.loads(out)
            assert document["measured"] == "inference"
            assert document["provenance"]["libraries"]["torch"] == torch.__version__
            (found,) = document["results"]
            cycle = found["beyond"]["cycle"]
            assert cycle["exponent"] == pytest.approx(2)
            assert cycle["value"] == pytest.approx(225 * found["sizes"][0]["cycle"]["median"])
        else:
            assert "150, extrapolated" in out
            assert "the cycle as atoms^2.00 +- 0.00" in out
    page = (tmp_path / "bench.md").read_text()
    assert "| 150, extrapolated | - |" in page
    assert "the cycle as atoms^2.00 +- 0.00" in page
    assert (tmp_path / "bench.svg").read_text().startswith("<?xml")
    assert [theory for _, theory, _ in asked] == [replace(COARSE, fit=None)] * 2


def test_the_command_alone(capsys: pytest.CaptureFixture) -> None:
    words = ["model=helm_small", "theory=pbe/def2-svp", "atoms=10", "grid=0", "repeats=1"]
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "inference", *words, "device=cpu"])
    assert not left.value.code
    out = capsys.readouterr().out
    assert "\n10     95        90     " in out
    assert "pbe/def2-svp, grid level 0, density fitting (def2-universal-jfit)" in out


def test_a_basis_to_fit_with_that_there_is_not(water: Molecule) -> None:
    with pytest.raises(ConfigError, match="no basis 'nope' for H to fit densities with"):
        engine.mean_field(water, replace(named("pbe/def2-svp"), fit="nope"))
