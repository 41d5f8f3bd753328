"""E[D] and E_mix of given Hamiltonians, against PySCF and against what they must do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hambench.chem import dft, engine
from hambench.chem.dispersion import chai_head_gordon
from hambench.chem.functional import Functional
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation, random_rotation
from hambench.chem.theory import THEORIES, Theory, named
from hambench.units import DEBYE

pytest.importorskip("pyscf")

HF = Molecule([9, 1], [[0, 0, 0], [0, 0.3, 0.88]], id="hydrogen fluoride")
HI = Molecule([53, 1], [[0.1, 0, 0], [0.5, 0.9, 1.26]], id="hydrogen iodide")
ION = Molecule([8, 1], [[0, 0, 0], [0.2, 0.3, 0.9]], charge=-1, id="hydroxide")
COARSE = {"grid_level": 1, "nlc_grid_level": 0}

LEVELS = {
    **{name: replace(theory, **COARSE) for name, theory in THEORIES.items()},
    "hartree-fock": Theory("hf", "def2-svp", **COARSE),
    "short-ranged exchange": Theory("hse06", "def2-svp", **COARSE),
}
COARSE_PBE = Theory("pbe", "def2-tzvpd", **COARSE)


def tight(theory: Theory) -> Theory:
    """As near to self-consistency as rounding allows: E_mix is first order in what is missing."""
    return replace(theory, conv_tol_grad=1e-9)


@pytest.mark.parametrize("theory", LEVELS.values(), ids=LEVELS)
def test_the_energy_of_any_density_is_pyscf_s(theory: Theory) -> None:
    """Of the minao guess, far from self-consistency, so that every term has its say."""
    state = Functional(HF, theory).at(dft.initial_fock(HF, theory))
    expected = engine.mean_field(HF, theory).energy_tot(np.array(state.density))
    if theory.dispersion:
        expected += chai_head_gordon(HF.numbers, HF.positions)[0]
    assert state.energy == pytest.approx(expected, abs=1e-9)
    assert abs(state.mixed_energy - state.energy) > 1e-3


@pytest.mark.parametrize(
    ("molecule", "theory"),
    [
        *((HF, theory) for theory in LEVELS.values()),
        (HI, Theory("pbe", "def2-tzvpd", fit="def2-universal-jfit", **COARSE)),
        (ION, replace(named("pbe/def2-svp"), **COARSE)),
    ],
    ids=[*LEVELS, "core potential", "anion"],
)
def test_both_energies_are_the_total_energy_at_the_scf_solution(
    molecule: Molecule, theory: Theory
) -> None:
    converged = dft.calculate(molecule, tight(theory), forces=False).molecule
    state = Functional(molecule, theory).at(converged.hamiltonian)
    assert state.energy == pytest.approx(converged.energy, abs=1e-9)
    assert state.mixed_energy == pytest.approx(converged.energy, abs=1e-7)


def test_a_shift_by_the_overlap_moves_the_mixed_energy_alone() -> None:
    theory, c = LEVELS["b3lyp/def2-svp"], 0.3
    functional = Functional(HF, theory)
    fock = dft.initial_fock(HF, theory)
    here = functional.at(fock)
    shifted = functional.at(fock + c * dft.overlap(HF.numbers, HF.positions, theory.basis))
    np.testing.assert_allclose(shifted.density, here.density, atol=1e-11)
    assert shifted.energy == pytest.approx(here.energy, abs=1e-9)
    assert shifted.mixed_energy - here.mixed_energy == pytest.approx(c * 10 / 2, abs=1e-9)


def test_energies_do_not_depend_on_the_orientation(rng: np.random.Generator) -> None:
    """Exactly without a grid, within its noise with one."""
    rotation = random_rotation(rng)
    turned = replace(HF, positions=HF.positions @ rotation.T)
    D = ao_rotation(HF.numbers, OrbitalBasis.load("def2-svp"), rotation)
    pbe = replace(LEVELS["pbe/def2-svp"], grid_level=3)
    for theory, allowed in ((LEVELS["hartree-fock"], 1e-10), (pbe, 1e-5)):
        fock = dft.initial_fock(HF, theory)
        here, there = Functional(HF, theory).at(fock), Functional(turned, theory).at(D @ fock @ D.T)
        assert there.energy == pytest.approx(here.energy, abs=allowed)
        assert there.mixed_energy == pytest.approx(here.mixed_energy, abs=allowed)


def test_only_the_symmetric_part_counts() -> None:
    functional = Functional(HF, LEVELS["hartree-fock"])
    fock = dft.initial_fock(HF, functional.theory)
    bent = fock + np.triu(np.full_like(fock, 1e-3), 1) - np.tril(np.full_like(fock, 1e-3), -1)
    assert functional.at(bent).energy == pytest.approx(functional.at(fock).energy, abs=1e-11)
    assert functional.at(bent).mixed_energy == pytest.approx(functional.at(fock).mixed_energy)


def test_the_threshold_takes_orbitals_away() -> None:
    theory = LEVELS["hartree-fock"]
    fock = dft.initial_fock(HF, theory)
    whole, cut = Functional(HF, theory), Functional(HF, theory, threshold=0.1)
    assert cut.orthogonal.shape[1] < whole.orthogonal.shape[1] == len(fock)
    assert cut.at(fock).energy > whole.at(fock).energy
    diffuse = Functional(HI, Theory("hf", "def2-TZVPD"), threshold=None)
    assert diffuse.orthogonal.shape == (diffuse.basis.nao(HI.numbers),) * 2


@pytest.mark.parametrize("molecule", [HF, ION, HI], ids=lambda molecule: molecule.id)
def test_dipole_is_that_of_pyscf(molecule: Molecule) -> None:
    """Of an ion from the centre of the nuclear charges, wherever the molecule lies."""
    moments = []
    for shift in (0.0, 3.0):
        moved = replace(molecule, positions=molecule.positions + shift)
        state = Functional(moved, COARSE_PBE).at(dft.initial_fock(moved, COARSE_PBE))
        mol = state.functional.field.mol
        expected = state.functional.field.dip_moment(mol, state.density, unit="AU", verbose=0)
        centre = mol.atom_charges() @ mol.atom_coords() / mol.atom_charges().sum()
        expected = DEBYE * (expected - molecule.charge * centre)
        np.testing.assert_allclose(state.dipole, expected, atol=1e-10)
        moments.append(state.dipole)
    np.testing.assert_allclose(*moments, atol=1e-8)
