"""Errors of dipole moments, against PySCF's and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from hambench.chem.dft import calculate
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory
from hambench.scoring import format_score, score

pytest.importorskip("pyscf")

DIPOLES = ["dipole_mae", "dipole_vector_mae"]
LEVEL = Theory("hf", "def2-svp", conv_tol=1e-10, conv_tol_grad=1e-6)
HI = Molecule([53, 1], [[0.1, 0, 0], [0.5, 0.9, 1.26]], id="hydrogen iodide")
ION = Molecule([8, 1], [[1, 2, 3], [1.2, 2.3, 3.9]], charge=-1, id="hydroxide")


def by_hand(molecule: Molecule, hamiltonian: np.ndarray) -> np.ndarray:
    """(3,) Debye by PySCF's own function; of an ion from the centre of the nuclear charges."""
    from pyscf import gto, scf

    names = {1: "H", 7: "N", 8: "O", 17: "Cl", 53: "I"}
    places = molecule.positions
    ecp = {"I": "def2-svp"} if 53 in molecule.numbers else {}
    if molecule.charge:
        charges = molecule.numbers.astype(float)
        places = places - charges @ places / charges.sum()
    atoms = [(names[z], x) for z, x in zip(molecule.numbers, places, strict=True)]
    mol = gto.M(atom=atoms, basis="def2-svp", ecp=ecp, charge=molecule.charge, verbose=0)
    basis = OrbitalBasis.load("def2-svp", molecule.numbers.tolist())
    matrix = from_canonical(hamiltonian, molecule.numbers, basis, "pyscf")
    occupied = scipy.linalg.eigh(matrix, mol.intor("int1e_ovlp"))[1][:, : mol.nelectron // 2]
    return scf.hf.dip_moment(mol, 2 * occupied @ occupied.T, unit="Debye", verbose=0)


def test_errors_are_those_of_pyscf_s_moments(
    molecules: list[Molecule], noisy: list[np.ndarray], rng: np.random.Generator
) -> None:
    more = [calculate(one, LEVEL, forces=False).molecule for one in (HI, ION)]
    for one in more:
        noise = rng.laplace(scale=1e-3, size=one.hamiltonian.shape)
        noisy = [*noisy, one.hamiltonian + noise + noise.T]
    rows = [*molecules, *more]
    found = score(noisy, rows, DIPOLES, theory=LEVEL)
    predicted = [by_hand(m, h) for m, h in zip(rows, noisy, strict=True)]
    labels = [by_hand(m, m.hamiltonian) for m in rows]
    pairs = list(zip(predicted, labels, strict=True))
    lengths = [abs(np.linalg.norm(p) - np.linalg.norm(q)) for p, q in pairs]
    vectors = [np.linalg.norm(p - q) for p, q in pairs]
    # PySCF's Debye differs in the sixth digit
    assert found["dipole_mae"].value == pytest.approx(np.mean(lengths), rel=1e-4)
    assert found["dipole_vector_mae"].value == pytest.approx(np.mean(vectors), rel=1e-4)
    assert found["dipole_vector_mae"].value > found["dipole_mae"].value > 1e-6
    assert all((one.unit, one.n) == ("D", 5) for one in found.values())
    assert format_score(found["dipole_mae"], "dipole_mae").endswith(" D")


def test_the_label_has_no_error(molecules: list[Molecule]) -> None:
    found = score([m.hamiltonian for m in molecules], molecules, DIPOLES, theory=LEVEL)
    assert max(one.value for one in found.values()) < 1e-10


def test_a_shift_by_the_overlap_moves_no_charge(molecules: list[Molecule]) -> None:
    shifted = [m.hamiltonian + 0.1 * m.overlap for m in molecules]
    found = score(shifted, molecules, DIPOLES, theory=LEVEL)
    assert max(one.value for one in found.values()) < 1e-8
