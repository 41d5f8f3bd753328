"""Labelled small molecules for the floor models: Hartree-Fock, which knows no grid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hambench.chem.dft import Theory, calculate
from hambench.chem.molecule import Molecule

Label = Callable[[list[int], np.ndarray, str], Molecule]


@pytest.fixture(scope="session")
def label() -> Label:
    """``label(numbers, positions, id)``: the molecule with its RHF/def2-SVP Hamiltonian."""

    def compute(numbers: list[int], positions: np.ndarray, name: str) -> Molecule:
        bare = Molecule(numbers, positions, basis="def2-svp", id=name)
        return calculate(bare, Theory("hf", "def2-svp"), forces=False).molecule

    return compute


@pytest.fixture(scope="session")
def molecules(label: Label) -> list[Molecule]:
    """Three waters and two hydrogen sulphides with its atoms in another order, all distorted."""
    rng = np.random.default_rng(5)
    oxygen = np.array([[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    shapes = [([8, 1, 1], oxygen)] * 3 + [([1, 16, 1], 1.35 * oxygen[[1, 0, 2]])] * 2
    return [
        label(z, x + rng.normal(scale=0.05, size=(3, 3)), str(k)) for k, (z, x) in enumerate(shapes)
    ]
