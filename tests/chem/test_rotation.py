"""Turned molecules: their matrices are those an integral code gives at the turned geometry."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import (
    ao_rotation,
    random_rotation,
    scoring_rotation,
    turned,
    turned_matrix,
)

SVP, TZVPD = OrbitalBasis.load("def2-svp"), OrbitalBasis.load("def2-tzvpd")


@pytest.mark.parametrize(
    ("numbers", "basis"), [([8, 1, 6, 35], SVP), ([53, 8, 79], TZVPD)], ids=["svp", "tzvpd"]
)
def test_shell_by_shell_is_the_whole_matrix(numbers, basis, rng: np.random.Generator) -> None:
    rotation = random_rotation(rng)
    matrix = rng.normal(size=(basis.nao(numbers),) * 2)
    d = ao_rotation(numbers, basis, rotation)
    assert np.abs(d @ d.T - np.eye(len(d))).max() < 1e-13
    found = turned_matrix(matrix, numbers, basis, rotation)
    assert np.abs(found - d @ matrix @ d.T).max() < 1e-12


def test_overlaps_turn_as_pyscf_says(rng: np.random.Generator) -> None:
    pytest.importorskip("pyscf")
    molecule = Molecule([8, 1, 7, 35], rng.normal(size=(4, 3)) * 2, basis="def2-svp")
    overlap = dft.overlap(molecule.numbers, molecule.positions, "def2-svp")
    forces = rng.normal(size=(4, 3))
    rotation = random_rotation(rng)
    whole = Molecule(
        molecule.numbers, molecule.positions, 1, 2, "def2-svp", overlap, overlap, -1.0, forces, "a"
    )
    after = turned(whole, SVP, rotation)
    expected = dft.overlap(after.numbers, after.positions, "def2-svp")
    for matrix in (after.hamiltonian, after.overlap):
        assert np.abs(matrix - expected).max() < 1e-12
    assert np.allclose(after.forces, forces @ rotation.T, atol=1e-15)
    assert (after.charge, after.multiplicity, after.energy, after.id) == (1, 2, -1.0, "a")


def test_random_rotations_are_proper_and_uniform(rng: np.random.Generator) -> None:
    drawn = np.stack([random_rotation(rng) for _ in range(4000)])
    assert np.allclose(drawn @ drawn.mT, np.eye(3), atol=1e-12)
    assert np.allclose(np.linalg.det(drawn), 1)
    assert np.abs(drawn.mean(0)).max() < 0.05  # of a uniform one all means are 0 ...
    assert np.abs((drawn**2).mean(0) - 1 / 3).max() < 0.03  # ... and all mean squares 1/3


def test_the_rotation_of_scoring_is_of_the_id_alone(rng: np.random.Generator) -> None:
    one, other, again = (Molecule([1], rng.normal(size=(1, 3)), id=i) for i in ("a", "b", "a"))
    assert np.array_equal(scoring_rotation(one), scoring_rotation(again))
    assert not np.allclose(scoring_rotation(one), scoring_rotation(other))
