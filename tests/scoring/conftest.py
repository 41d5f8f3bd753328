"""Real matrices to score: Hartree-Fock of three small molecules of different size."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.dft import Theory, calculate
from hambench.chem.molecule import Molecule

GEOMETRIES = {
    "water": ([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]]),
    "ammonia": (
        [7, 1, 1, 1],
        [[0, 0, 0.1], [0, 0.94, -0.27], [0.81, -0.47, -0.27], [-0.81, -0.47, -0.27]],
    ),
    "hydrogen chloride": ([1, 17], [[0, 0, 0], [0.2, 0.3, 1.22]]),
}


@pytest.fixture(scope="session")
def molecules() -> list[Molecule]:
    """Water, ammonia and HCl with Hamiltonian and overlap, RHF/def2-SVP."""
    theory = Theory("hf", "def2-svp")
    return [
        calculate(
            Molecule(z, np.array(x, dtype=float), basis="def2-svp", id=name), theory, forces=False
        ).molecule
        for name, (z, x) in GEOMETRIES.items()
    ]


@pytest.fixture
def noisy(molecules: list[Molecule], rng: np.random.Generator) -> list[np.ndarray]:
    """Symmetric predictions some 1e-4 Eh off the labels of `molecules`."""
    noise = (rng.laplace(scale=1e-4, size=m.hamiltonian.shape) for m in molecules)
    return [m.hamiltonian + (e + e.T) / 2 for m, e in zip(molecules, noise, strict=True)]
