"""Starting densities for PySCF, and which of its molecules are refused."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hambench
from hambench.chem import dft
from hambench.chem.engine import mean_field
from hambench.chem.mole import from_mole
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, DataError, HambenchError, RunError
from hambench.inference.hamiltonians import load_hamiltonian_model
from hambench.model import Model

gto = pytest.importorskip("pyscf.gto")
HF = Theory("hf", "def2-svp")
ROOT = Path(__file__).resolve().parents[2]
ATOMS = [("O", (0, 0, 0.1173)), ("H", (0, 0.79, -0.4692)), ("H", (0.1, -0.72, -0.5))]


def water(**options: Any) -> Any:
    return gto.M(**{"atom": ATOMS, "basis": "def2-svp", "verbose": 0, **options})


@pytest.fixture(scope="module")
def model(minao: Path) -> Model:
    return load_hamiltonian_model(minao, "cpu").model


def test_the_density_of_a_run(minao: Path, model: Model):
    """Of one diagonalisation of the predicted Fock matrix, the same however it is asked for."""
    from pyscf import scf

    mol = water()
    density = hambench.scf_guess(minao, mol)
    molecule = Molecule([8, 1, 1], np.array([x for _, x in ATOMS]))
    field = mean_field(molecule, HF)
    levels, orbitals = scf.hf.eig(field.get_fock(dm=field.get_init_guess()), field.get_ovlp())
    wanted = field.make_rdm1(orbitals, field.get_occ(levels, orbitals))
    assert np.abs(density - wanted).max() < 1e-7
    assert np.sum(density * mol.intor("int1e_ovlp")) == pytest.approx(10, abs=1e-10)
    assert np.abs(density - hambench.scf_guess(model, molecule)).max() < 1e-7
    in_bohr = water(atom=[(s, np.array(x) / 0.529177210903) for s, x in ATOMS], unit="Bohr")
    assert np.abs(density - hambench.scf_guess(model, in_bohr)).max() < 1e-7


def test_atoms_in_any_order(model: Model):
    density = hambench.scf_guess(model, water())
    turned = hambench.scf_guess(model, water(atom=[ATOMS[2], ATOMS[0], ATOMS[1]]))
    order = np.concatenate([np.arange(14, 19) + 5, np.arange(14), np.arange(14, 19)])
    assert np.abs(turned - density[np.ix_(order, order)]).max() < 1e-7


def test_an_exact_model_leaves_an_scf_nothing_to_do(model: Model, monkeypatch: pytest.MonkeyPatch):
    theory = replace(HF, conv_tol=1e-10, conv_tol_grad=1e-6)
    molecule = Molecule([8, 1, 1], np.array([x for _, x in ATOMS]))
    label = dft.calculate(molecule, theory, forces=False)
    exact = iter([(0, label.molecule.hamiltonian)])
    monkeypatch.setattr("hambench.inference.guess.hamiltonians", lambda *_, **__: exact)
    density = hambench.scf_guess(model, water())
    field = mean_field(molecule, theory)
    field.kernel(density)
    assert field.converged
    assert field.cycles <= 2
    field = mean_field(molecule, theory)
    field.kernel()
    assert field.cycles >= 6


def ghost() -> Any:
    return water(atom=[*ATOMS, ("ghost-H", (0, 0, 2))])


def cell() -> Any:
    from pyscf.pbc import gto as periodic

    return periodic.M(atom=ATOMS, a=5 * np.eye(3), basis="def2-svp", verbose=0)


WRONG: dict[str, tuple[Callable[[], Any], type[HambenchError], str]] = {
    "cartesian": (lambda: water(cart=True), ConfigError, "cart=False"),
    "basis": (lambda: water(basis="sto-3g"), ConfigError, "sto-3g, the model .* def2-svp"),
    "mixed basis": (
        lambda: water(basis={"O": "def2-svp", "H": "6-31g**"}), ConfigError, "of its own, the",
    ),
    "spin": (lambda: water(spin=2), ConfigError, "multiplicity 3 .* no closed shell"),
    "charge": (lambda: water(charge=1, spin=1), ConfigError, "charge 1 and multiplicity 2"),
    "ghost": (ghost, ConfigError, r"atom 3 of mol \(GHOST-H\) is a ghost"),
    "core potential": (lambda: water(ecp={"O": "bfd"}), ConfigError, "2 electrons of O .* model 0"),
    "cell": (cell, ConfigError, "periodic cell"),
    "unbuilt": (gto.Mole, ConfigError, r"call mol\.build\(\)"),
    "field": (lambda: water().RKS(), ConfigError, "is a RKS, .*; give its mol"),
    "text": (lambda: "O 0 0 0", ConfigError, "mol is a str"),
    "element": (lambda: gto.M(atom="H 0 0 0; F 0 0 0.92", verbose=0), ConfigError, "holds F, "),
    "unit": (lambda: water(unit="Bohr"), DataError, "apart; check the geometry"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_molecules_that_do_not_fit(model: Model, case: str):
    make, kind, said = WRONG[case]
    with pytest.raises(kind, match=said) as caught:
        hambench.scf_guess(model, make())
    assert "\n" not in str(caught.value)


def test_core_potentials_have_to_be_those_of_the_basis():
    basis = OrbitalBasis.load("def2-tzvpd", [1, 53])
    atoms = {"atom": "H 0 0 0; I 0 0 1.6", "basis": "def2-tzvpd", "verbose": 0}
    molecule = from_mole(gto.M(**atoms, ecp="def2-tzvpd"), basis)
    assert molecule.numbers.tolist() == [1, 53]
    assert np.abs(molecule.positions - [[0, 0, 0], [0, 0, 1.6]]).max() < 1e-9
    with pytest.raises(
        ConfigError, match=r"0 electrons of I .* model 28; build it with ecp='def2-"
    ):
        from_mole(gto.M(**atoms), basis)


def test_models_that_give_no_guess(broken: Path, minao: Path):
    with pytest.raises(ConfigError, match="model is 3, expected a run directory"):
        hambench.scf_guess(3, water())
    with pytest.raises(DataError, match="no run directory"):
        hambench.scf_guess("nowhere", water())
    with pytest.raises(RunError, match="holds NaN or infinity"):
        hambench.scf_guess(broken, water())


def test_the_example(minao: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys, "argv", ["scf_guess.py", str(minao)])
    runpy.run_path(str(ROOT / "examples" / "scf_guess.py"), run_name="__main__")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["minao:", "model:"]
    assert all(int(line[1]) > 1 and line[-1] == "True" for line in lines)
    assert float(lines[0][3]) == pytest.approx(float(lines[1][3]), abs=1e-8)
