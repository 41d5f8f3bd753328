"""Bonds and environments from geometries: against ASE, RDKit and molecules known by heart."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest
from ase.build import molecule as ase_molecule
from ase.data import covalent_radii
from rdkit import Chem

from hambench.chem import bonds
from hambench.chem.bonds import bonded, environments
from hambench.registry import load_task
from hambench.tasks.organic_mini import GEOMETRIES


def test_radii_are_those_of_ase():
    np.testing.assert_array_equal(bonds._RADII[1:], covalent_radii[1:87])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CH3CH2OH", "C(C,H,H,O) C(C,H,H,H) O(C,H) H(O) H(C) H(C) H(C) H(C) H(C)"),
        ("C2H2", "C(C,H) C(C,H) H(C) H(C)"),
        ("CO2", "C(O,O) O(C) O(C)"),
        ("CH3SH", "C(H,H,H,S) S(C,H) H(S) H(C) H(C) H(C)"),
        ("C6H6", "C(C,C,H) " * 6 + "H(C) " * 6),
        ("CH3Cl", "C(Cl,H,H,H) Cl(C) H(C) H(C) H(C)"),
    ],
)
def test_environments_of_known_molecules(name: str, expected: str):
    atoms = ase_molecule(name)
    assert Counter(environments(atoms.numbers, atoms.positions)) == Counter(expected.split())


def test_an_atom_by_itself_has_an_environment():
    assert environments([10], np.zeros((1, 3))) == ["Ne()"]


def test_displaced_organic_molecules_have_the_bonds_of_their_smiles():
    """All 480 shipped geometries, displaced by 0.05 Angstrom per coordinate."""
    texts = re.findall(r'smiles="?([^" ]+)', GEOMETRIES.read_text("utf-8"))
    geometries = load_task("organic_mini").geometries()
    for smiles, molecule in zip(texts, geometries, strict=True):
        atoms = Chem.AddHs(Chem.MolFromSmiles(smiles)).GetAtoms()
        expected = Counter(
            f"{atom.GetSymbol()}({','.join(sorted(n.GetSymbol() for n in atom.GetNeighbors()))})"
            for atom in atoms
        )
        assert Counter(environments(molecule.numbers, molecule.positions)) == expected, molecule.id


def test_environments_of_water_follow_rotation_and_order(rng: np.random.Generator):
    task = load_task("water_mini")
    for molecule in task.split("test"):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        order = rng.permutation(3)
        names = environments(molecule.numbers[order], molecule.positions[order] @ turn.T)
        whole = environments(molecule.numbers, molecule.positions)
        assert names == [whole[k] for k in order]
        near = bonded(molecule.numbers, molecule.positions)
        assert (near == near.T).all()
        assert near.sum(axis=1).tolist() == [{8: 2, 1: 1}[z] for z in molecule.numbers]
