"""PySCF behind one door: numbers, units, orders and errors, on real calculations."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from hambench.chem import dft, functional
from hambench.chem.dispersion import chai_head_gordon
from hambench.chem.molecule import Molecule
from hambench.chem.noise import convergence_noise, orientation_noise, random_rotation
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical, to_canonical
from hambench.chem.rotation import ao_rotation
from hambench.chem.theory import THEORIES, Theory, named
from hambench.errors import ConfigError, RegistryError

pytest.importorskip("pyscf")

WATER = Molecule([8, 1, 1], [[0, 0, 0], [0, 0.757, 0.587], [0, -0.757, 0.587]], id="water")
HF = Molecule([9, 1], [[0, 0, 0], [0, 0.3, 0.88]], id="hydrogen fluoride")
HI = Molecule([53, 1], [[0.1, 0, 0], [0.5, 0.9, 1.26]], id="hydrogen iodide")
PBE = named("pbe/def2-svp")
CHEAP = Theory("pbe", "sto-3g", grid_level=1)
HARTREE_FOCK = Theory("hf", "def2-svp", grid_level=0, conv_tol_grad=1e-9)


@pytest.fixture(scope="module")
def water() -> dft.DFTResult:
    """Water at the reference settings: exact integrals, grid level 3."""
    return dft.calculate(WATER, replace(PBE, fit=None, grid_level=3))


def test_reference_numbers(water: dft.DFTResult) -> None:
    assert water.molecule.energy == pytest.approx(-76.2720144727, abs=2e-9)
    expected = [-18.734744, -0.891418, -0.460340, -0.304950, -0.228479, 0.029818, 0.107484]
    np.testing.assert_allclose(water.mo_energy[:7], expected, atol=1e-6)
    np.testing.assert_allclose(water.dipole, [0, 0, 1.936995], atol=1e-6)
    oxygen = [-18.722506, -3.097087, -1.198237, -0.091284, -0.056367, -0.006554, -0.085987]
    oxygen += [-0.007183, 0.108563, 2.503832, 2.366822, 2.495471, 2.532669, 2.463526]
    hydrogen = [-0.367708, -0.398233, 0.855516, 1.008030, 1.219000]
    diagonal = np.diag(water.molecule.hamiltonian)
    np.testing.assert_allclose(diagonal, [*oxygen, *hydrogen, *hydrogen], atol=1e-6)


def test_reference_overlap_in_canonical_order() -> None:
    overlap = dft.overlap(WATER.numbers, WATER.positions, "def2-svp")
    np.testing.assert_allclose(overlap[3:6, 14], [0.222345, 0.172413, 0], atol=1e-6)
    np.testing.assert_allclose(overlap[3:6, 15], [0.083703, 0.064906, 0], atol=1e-6)
    d_shell = [0, 0.190758, 0.014386, 0, -0.123001]
    np.testing.assert_allclose(overlap[9:14, 14], d_shell, atol=1e-6)


def test_energy_of_converged_hamiltonian_is_the_energy(water: dft.DFTResult) -> None:
    theory = replace(PBE, fit=None, grid_level=3)
    hamiltonian = water.molecule.hamiltonian
    energy = functional.energy_of(hamiltonian, WATER, theory)
    assert energy == pytest.approx(water.molecule.energy, abs=1e-9)
    assert functional.energy_of(hamiltonian + 0.1 * np.eye(24), WATER, theory) > energy + 1e-6


def test_initial_guesses_are_near_the_hamiltonian(water: dft.DFTResult) -> None:
    theory = replace(PBE, fit=None, grid_level=3)
    for guess in ("minao", "atom"):
        error = np.abs(dft.initial_fock(WATER, theory, guess) - water.molecule.hamiltonian).mean()
        assert 1e-4 < error < 0.05
    with pytest.raises(ConfigError, match=r"'minoa'.*Did you mean 'minao'"):
        dft.initial_fock(WATER, theory, "minoa")


@pytest.mark.parametrize(
    "theory",
    [
        replace(named("wb97x-d/def2-svp"), grid_level=2),
        pytest.param(
            replace(named("wb97m-v/def2-tzvpd"), grid_level=1, nlc_grid_level=0),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["wb97x-d", "wb97m-v"],
)
def test_forces_are_minus_the_slope_of_the_energy(theory: Theory) -> None:
    result = dft.calculate(HF, theory)
    step, energies = 2e-3, []
    for sign in (1, -1):
        moved = HF.positions.copy()
        moved[1, 2] += sign * step
        energies.append(dft.calculate(replace(HF, positions=moved), theory, forces=False))
    slope = (energies[0].molecule.energy - energies[1].molecule.energy) / (2 * step)
    assert result.molecule.forces[1, 2] == pytest.approx(-slope, abs=1e-5)


def test_dispersion_adds_to_energy_and_forces_only() -> None:
    theory = replace(named("wb97x-d/def2-svp"), grid_level=1)
    result = dft.calculate(HF, theory)
    without = dft.calculate(HF, replace(theory, dispersion=False))
    np.testing.assert_allclose(
        result.molecule.hamiltonian, without.molecule.hamiltonian, atol=1e-12
    )
    energy, forces = chai_head_gordon(HF.numbers, HF.positions)
    assert result.molecule.energy - without.molecule.energy == pytest.approx(energy, abs=1e-11)
    difference = result.molecule.forces - without.molecule.forces
    np.testing.assert_allclose(difference, forces, atol=1e-10)


def test_wb97mv_contains_the_self_consistent_vv10_part() -> None:
    theory = replace(named("wb97m-v/def2-tzvpd"), grid_level=0, nlc_grid_level=0)
    result = dft.calculate(HF, theory, forces=False)
    hamiltonian = result.molecule.hamiltonian
    assert functional.energy_of(hamiltonian, HF, theory) == pytest.approx(
        result.molecule.energy, abs=1e-8
    )
    assert hamiltonian.shape == (49, 49)
    assert result.molecule.energy == pytest.approx(-100.46, abs=0.03)
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    basis = OrbitalBasis.load("def2-tzvpd", [1, 9])
    mol = gto.M(atom=list(zip("FH", HF.positions, strict=True)), basis="def2-tzvpd", verbose=0)
    field = pyscf_dft.RKS(mol, xc="wb97m-v")
    field.grids.level = 0
    field.nlc = 0
    density = from_canonical(result.density, HF.numbers, basis, "pyscf")
    without = to_canonical(field.get_fock(dm=density), HF.numbers, basis, "pyscf")
    difference = np.abs(hamiltonian - without)
    assert 1e-3 < difference.max() < 5e-3
    assert difference.mean() > 1e-4


def test_b3lyp_has_two_meanings() -> None:
    hydrogen = Molecule([1, 1], [[0, 0, 0], [0, 0, 0.74]])
    energies = [
        dft.calculate(hydrogen, replace(named(name), grid_level=2), forces=False)
        for name in ("b3lyp/def2-svp", "b3lyp5/def2-svp")
    ]
    gap = energies[1].molecule.energy - energies[0].molecule.energy
    assert 1e-4 < abs(gap) < 1e-2


@pytest.mark.parametrize(
    ("numbers", "basis"),
    [([6, 8, 7, 16, 1, 35], "def2-svp"), ([79, 53, 6, 4, 1], "def2-tzvpd")],
)
def test_overlap_and_core_hamiltonian_turn_with_the_molecule(
    numbers: list[int], basis: str, rng: np.random.Generator
) -> None:
    positions = 1.6 * np.arange(len(numbers))[:, None] * np.eye(3)[2]
    positions = positions + rng.uniform(-0.8, 0.8, positions.shape)
    rotation = random_rotation(rng)
    D = ao_rotation(numbers, OrbitalBasis.load(basis), rotation)
    for matrix in (dft.overlap, dft.core_hamiltonian):
        here = matrix(numbers, positions, basis)
        there = matrix(numbers, positions @ rotation.T, basis)
        assert np.abs(here - there).max() > 0.1
        np.testing.assert_allclose(there, D @ here @ D.T, atol=1e-9)


@pytest.mark.parametrize(
    ("molecule", "basis"),
    [(WATER, "def2-svp"), (HI, "def2-tzvpd")],
    ids=["water", "hydrogen iodide (f shells, core potential)"],
)
def test_hartree_fock_labels_turn_with_the_molecule(
    molecule: Molecule, basis: str, rng: np.random.Generator
) -> None:
    theory = replace(HARTREE_FOCK, basis=basis)
    rotation = random_rotation(rng)
    turned = replace(molecule, positions=molecule.positions @ rotation.T)
    here = dft.calculate(molecule, theory, forces=False).molecule
    there = dft.calculate(turned, theory, forces=False).molecule
    D = ao_rotation(molecule.numbers, OrbitalBasis.load(basis), rotation)
    assert np.abs(here.hamiltonian - there.hamiltonian).max() > 0.1
    np.testing.assert_allclose(there.hamiltonian, D @ here.hamiltonian @ D.T, atol=1e-9)


def test_dft_labels_turn_within_their_grid_noise(rng: np.random.Generator) -> None:
    noise = orientation_noise(WATER, replace(PBE, grid_level=3), rng, rotations=1)
    assert 1e-10 < noise.h_mean < noise.h_max < 3e-6


def test_scf_noise_is_below_1e_8() -> None:
    assert convergence_noise(WATER, replace(PBE, grid_level=3)).h_max < 1e-8


@pytest.mark.parametrize("name", ["sto-3g", "6-31G**", "cc-pVDZ", "def2-TZVP"])
def test_any_basis_by_name(name: str) -> None:
    basis = OrbitalBasis.load(name, [1, 8])
    overlap = dft.overlap(WATER.numbers, WATER.positions, name)
    assert overlap.shape == (basis.nao(WATER.numbers),) * 2
    np.testing.assert_allclose(np.diag(overlap), 1, atol=1e-6)
    assert list(basis.shells[8].l) == sorted(basis.shells[8].l)


@pytest.mark.parametrize("name", ["def2-svp", "def2-tzvpd"])
def test_shipped_tables_are_pyscf_s(name: str) -> None:
    shipped = OrbitalBasis.load(name)
    found = dft.basis_shells(name, shipped.elements)
    assert found == {z: (shells.l, shells.core) for z, shells in shipped.shells.items()}


def test_core_potential_removes_electrons(water: dft.DFTResult) -> None:
    theory = Theory("pbe", "def2-tzvpd", fit="def2-universal-jfit", grid_level=1)
    result = dft.calculate(HI, theory, forces=False)
    assert np.sum(result.density * result.molecule.overlap) == pytest.approx(26, abs=1e-8)
    assert np.sum(water.density * water.molecule.overlap) == pytest.approx(10, abs=1e-8)


def test_failed_scf_is_an_error_not_a_label() -> None:
    with pytest.raises(dft.SCFError, match=r"'water'.*did not converge in 3 cycles"):
        dft.calculate(WATER, replace(CHEAP, max_cycles=1))
    with pytest.raises(dft.SCFError, match=r"'water': the orbital energies of H are off"):
        dft.calculate(WATER, replace(PBE, grid_level=1, conv_tol=1e-4, conv_tol_grad=1e-1))


def test_hard_start_converges_by_the_second_attempt(water: dft.DFTResult) -> None:
    theory = replace(PBE, fit=None, grid_level=3, max_cycles=7)
    result = dft.calculate(WATER, theory, forces=False)
    assert result.cycles > 7
    assert result.molecule.energy == pytest.approx(water.molecule.energy, abs=1e-9)
    np.testing.assert_allclose(
        result.molecule.hamiltonian, water.molecule.hamiltonian, atol=1e-8
    )  # no level shift is left in it


def test_wrong_input_is_named() -> None:
    with pytest.raises(RegistryError, match=r"'pbe/def2-sv'.*Did you mean 'pbe/def2-svp'"):
        named("pbe/def2-sv")
    with pytest.raises(ConfigError, match=r"'grid_levle'.*Did you mean 'grid_level'"):
        Theory.from_dict({"xc": "pbe", "basis": "def2-svp", "grid_levle": 3})
    with pytest.raises(ConfigError, match=r"9 electrons .* no closed shell"):
        dft.calculate(replace(WATER, charge=1), CHEAP)
    with pytest.raises(ConfigError, match=r"finite and of shape \(7, 7\).*got shape \(3, 3\)"):
        functional.energy_of(np.eye(3), WATER, CHEAP)
    with pytest.raises(RegistryError, match="unknown basis set 'def2-svq'"):
        OrbitalBasis.load("def2-svq", [1])
    with pytest.raises(ConfigError, match="'6-31g' has no orbitals for Au"):
        OrbitalBasis.load("6-31g", [79])
    with pytest.raises(ConfigError, match="too few for 10 electrons"):
        functional.energy_of(np.eye(7), WATER, CHEAP, threshold=5.0)


def test_theory_survives_json() -> None:
    for theory in THEORIES.values():
        assert Theory.from_dict(theory.to_dict()) == theory


def test_missing_pyscf_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyscf", None)
    with pytest.raises(ConfigError, match=r"hambench\[pyscf\]"):
        dft.calculate(WATER, PBE)


@pytest.mark.parametrize(
    ("numbers", "length", "basis"), [([7, 7], 2.3, "def2-svp"), ([6, 8], 1.9, "sto-3g")]
)
def test_small_gaps_converge(numbers: list[int], length: float, basis: str) -> None:
    """Where a diagonalisation without damping would lead away from the solution again."""
    theory = Theory("pbe", basis, grid_level=3)
    stretched = Molecule(numbers, [[0, 0, 0], [0, 0, length]])
    result = dft.calculate(stretched, theory, forces=False)
    assert result.cycles < 40
    again = functional.energy_of(result.molecule.hamiltonian, stretched, theory)
    assert again == pytest.approx(result.molecule.energy, abs=1e-10)


def test_a_broken_bond_is_no_ground_state() -> None:
    theory = Theory("pbe", "sto-3g", grid_level=0)

    def hydrogen(length: float) -> Molecule:
        return Molecule([1, 1], [[0, 0, 0], [0, 0, length]])

    dft.calculate(hydrogen(0.74), theory, ground_state=True)
    dft.calculate(hydrogen(2.0), theory)
    with pytest.raises(dft.ExcitedStateError, match="an open shell has a lower energy"):
        dft.calculate(hydrogen(2.0), theory, ground_state=True)
    with pytest.raises(dft.ExcitedStateError, match=r"orbitals is 0\.002 Eh, less than 0\.02"):
        dft.calculate(hydrogen(4.0), theory, ground_state=True)
    helium = Molecule([2], [[0, 0, 0]])  # no empty orbital
    dft.calculate(helium, theory, ground_state=True)
