"""Cycles and Fock builds of SCFs from given starts, against PySCF driven by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg

from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical
from hambench.chem.scf import GUESSES, Acceleration, scf_from, settings
from hambench.chem.theory import Theory
from hambench.errors import ConfigError

pytest.importorskip("pyscf")

WATER = Molecule([8, 1, 1], [[0, 0, 0], [0, 0.757, 0.587], [0, -0.757, 0.587]], id="water")
HYDROXIDE = Molecule([8, 1], [[0, 0, 0], [0.2, 0.3, 0.9]], charge=-1, id="hydroxide")
HI = Molecule([53, 1], [[0.1, 0, 0], [0.5, 0.9, 1.26]], id="hydrogen iodide")
LOOSE = {"grid_level": 1, "conv_tol": 1e-9, "conv_tol_grad": 1e-5}
PBE = Theory("pbe", "def2-svp", fit="def2-universal-jfit", **LOOSE)


@pytest.fixture(params=[WATER, HYDROXIDE, HI], ids=lambda molecule: molecule.id, scope="module")
def row(request: pytest.FixtureRequest) -> Molecule:
    """A molecule, an ion, and one with a core potential; with a converged label."""
    tight = replace(PBE, conv_tol=1e-11, conv_tol_grad=1e-8)
    return dft.calculate(request.param, tight, forces=False).molecule


def noisy(molecule: Molecule, size: float) -> np.ndarray:
    """Its Hamiltonian with symmetric noise of a mean absolute value."""
    noise = np.random.default_rng(7).laplace(size=molecule.hamiltonian.shape)
    noise += noise.T
    return molecule.hamiltonian + size * noise / np.abs(noise).mean()


def by_hand(molecule: Molecule, guess: str | np.ndarray) -> tuple:
    """Cycles, Coulomb matrices, mean|F - H| and energy of PySCF, set up without `engine`."""
    from pyscf import dft as pyscf_dft
    from pyscf import gto

    symbols = {1: "H", 8: "O", 53: "I"}
    atoms = [(symbols[z], x) for z, x in zip(molecule.numbers, molecule.positions, strict=True)]
    core = {"I": "def2-svp"} if 53 in molecule.numbers else {}
    mol = gto.M(atom=atoms, basis="def2-svp", ecp=core, charge=molecule.charge, verbose=0)
    field = pyscf_dft.RKS(mol, xc="pbe").density_fit(auxbasis="def2-universal-jfit")
    field.grids.level, field.conv_tol, field.conv_tol_grad = 1, 1e-9, 1e-5
    field.conv_check = False
    basis = OrbitalBasis.load("def2-svp", molecule.numbers.tolist())
    label = from_canonical(molecule.hamiltonian, molecule.numbers, basis, "pyscf")
    if isinstance(guess, str):
        start = field.get_init_guess(mol, guess)
    else:
        matrix = from_canonical(guess, molecule.numbers, basis, "pyscf")
        orbitals = scipy.linalg.eigh(matrix, mol.intor("int1e_ovlp"))[1]
        occupied = orbitals[:, : mol.nelectron // 2]
        start = 2 * occupied @ occupied.T
    errors = [np.abs(field.get_fock(dm=start) - label).mean()]
    field.callback = lambda env: errors.append(np.abs(env["fock"] - label).mean())
    coulomb, calls = field.get_j, []
    field.get_j = lambda *words, **named: calls.append(1) or coulomb(*words, **named)
    field.kernel(start)
    assert field.converged
    return field.cycles, len(calls), errors, field.e_tot


@pytest.mark.parametrize("guess", ["minao", "noise"])
def test_cycles_builds_and_errors_are_pyscf_s(row: Molecule, guess: str) -> None:
    start = noisy(row, 3e-4) if guess == "noise" else guess
    run = scf_from(start, row, PBE, row.hamiltonian)
    cycles, builds, errors, energy = by_hand(row, start)
    assert run.converged
    assert (run.cycles, run.builds) == (cycles, builds) == (cycles, cycles + 1)
    np.testing.assert_allclose(run.errors, errors, atol=2e-8)
    assert run.energy == pytest.approx(energy, abs=1e-8)
    assert run.energy == pytest.approx(row.energy, abs=1e-7)


def test_the_nearer_the_start_the_fewer_the_cycles(row: Molecule) -> None:
    runs = [scf_from(noisy(row, size), row, PBE) for size in (0, 1e-4, 1e-2)]
    assert all(run.converged and run.errors is None for run in runs)
    assert runs[0].cycles <= 2 < runs[1].cycles < runs[2].cycles


def test_named_guesses(row: Molecule) -> None:
    both = Acceleration(row.hamiltonian, row.hamiltonian, row, PBE)
    runs = {guess: both.reference(guess) for guess in GUESSES}
    assert both.reference("minao") is runs["minao"]
    assert all(run.converged and run.errors[-1] < 1e-5 < run.errors[0] for run in runs.values())
    assert both.predicted.cycles <= 2 < runs["minao"].cycles <= runs["1e"].cycles
    with pytest.raises(ConfigError, match=r"'minoa'.*Did you mean 'minao'"):
        scf_from("minoa", row, PBE)


def test_giving_up_is_no_convergence() -> None:
    run = scf_from(np.eye(24), WATER, replace(PBE, max_cycles=3))
    assert not run.converged
    assert (run.cycles, run.builds) == (3, 4)


def test_settings_are_those_of_the_engine() -> None:
    from pyscf.scf.diis import CDIIS

    field = engine.mean_field(WATER, PBE)
    said = settings(PBE)
    assert issubclass(field.DIIS, CDIIS)
    assert said["diis"] == "CDIIS"
    assert said["diis_space"] == field.diis_space == 8
    assert (said["conv_tol"], said["conv_tol_grad"]) == (field.conv_tol, field.conv_tol_grad)
    assert (said["max_cycles"], said["grid_level"]) == (field.max_cycle, field.grids.level)
    assert said["fit"] == field.with_df.auxbasis
