"""The minao floor: the guess Fock matrix at the labels' level of theory, and no label used."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hambench.baselines import Minao
from hambench.chem.dft import initial_fock
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data.graph import collate
from hambench.errors import ConfigError, RegistryError
from hambench.scoring import score

BASIS = OrbitalBasis.load("def2-svp", [1, 8, 16])
THEORY = {"xc": "hf", "basis": "def2-svp"}


def predict(model: Minao, molecules: list[Molecule]) -> list[np.ndarray]:
    return [h.numpy() for h in model(collate(molecules, model.graph)).matrices()]


def test_is_the_guess_of_each_molecule(molecules: list[Molecule]) -> None:
    model = Minao(BASIS, theory=THEORY)
    some = [molecules[0], molecules[3]]
    for m, found in zip(some, predict(model, some), strict=True):
        assert np.abs(found - initial_fock(m, Theory("hf", "def2-svp"))).max() < 1e-12
    assert model.count_parameters() == 0
    assert not model.state_dict()


def test_no_label_is_used(molecules: list[Molecule]) -> None:
    model = Minao(BASIS, theory=THEORY)
    water = molecules[0]
    bare = replace(water, hamiltonian=None, overlap=None, energy=None)
    (one,), (other,) = predict(model, [water]), predict(model, [bare])
    assert np.abs(one - other).max() < 1e-12  # sums of threads are rounded in any order
    error = score([one], [water])["h_mae"].value
    assert 1e-4 < error < 0.1 * np.abs(water.hamiltonian).mean()


def test_charge_counts(molecules: list[Molecule]) -> None:
    """The charge of the molecule reaches the guess: an ion is no open shell."""
    model = Minao(BASIS, theory=THEORY)
    hydroxide = Molecule([8, 1], np.array([[0, 0, 0], [0, 0, 0.96]]), charge=-1, basis="def2-svp")
    (found,) = predict(model, [hydroxide])
    assert np.abs(found - initial_fock(hydroxide, Theory("hf", "def2-svp"))).max() < 1e-12
    with pytest.raises(ConfigError, match="no closed shell"):
        predict(model, [replace(hydroxide, charge=0)])


def test_theories_by_name_and_by_settings() -> None:
    by_name = Minao(BASIS, theory="pbe/def2-svp").theory
    assert by_name == Theory("pbe", "def2-svp", fit="def2-universal-jfit")
    assert Minao(BASIS, theory=by_name.to_dict()).theory == by_name
    with pytest.raises(RegistryError, match="unknown theory 'pbe/def2-sv'"):
        Minao(BASIS, theory="pbe/def2-sv")
    with pytest.raises(ConfigError, match="basis def2-tzvpd, expected def2-svp"):
        Minao(BASIS, theory="wb97m-v/def2-tzvpd")
    said = r"'model\.hyperparameters\.theory=([\w/-]+)', in Python theory=task\.theory"
    with pytest.raises(ConfigError, match=said) as missing:
        Minao(BASIS, theory="${task.theory}")
    (example,) = re.findall(said, str(missing.value))
    assert Minao(BASIS, theory=example).theory.basis == BASIS.name
    with pytest.raises(ConfigError, match="unknown setting 'functional'"):
        Minao(BASIS, theory={"functional": "pbe"})
