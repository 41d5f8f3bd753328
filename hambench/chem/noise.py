"""How exact labels are: the noise of integration grid and SCF, measured on a molecule.

An integration grid is fixed in the laboratory frame, so that even converged labels are not exactly
equivariant; no equivariant model can be better than this orientation noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hambench.chem.dft import Theory, calculate
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation


@dataclass(frozen=True)
class Noise:
    """Largest and mean absolute difference of H (Eh), and largest difference of E (Eh)."""

    h_max: float
    h_mean: float
    energy: float


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """(3, 3) proper rotation, uniform over SO(3) (from a random unit quaternion)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def orientation_noise(
    molecule: Molecule, theory: Theory, rng: np.random.Generator, rotations: int = 2
) -> Noise:
    """Labels of the molecule turned at random and its H turned back, against those as it stands.

    Raises SCFError and ConfigError as `hambench.chem.dft.calculate` does.
    """
    here = calculate(molecule, theory, forces=False).molecule
    basis = OrbitalBasis.load(theory.basis, molecule.numbers.tolist())
    differences = []
    for _ in range(rotations):
        rotation = random_rotation(rng)
        turned = replace(molecule, positions=molecule.positions @ rotation.T)
        there = calculate(turned, theory, forces=False).molecule
        D = ao_rotation(molecule.numbers, basis, rotation)
        differences.append(
            _difference(here, replace(there, hamiltonian=D.T @ there.hamiltonian @ D))
        )
    return worst(differences)


def convergence_noise(molecule: Molecule, theory: Theory, tighter: float = 0.1) -> Noise:
    """Labels against those with an orbital-gradient criterion ``tighter`` times as large.

    Raises SCFError and ConfigError as `hambench.chem.dft.calculate` does.
    """
    tight = replace(
        theory, conv_tol_grad=theory.conv_tol_grad * tighter, max_cycles=4 * theory.max_cycles
    )
    usual, better = (calculate(molecule, t, forces=False).molecule for t in (theory, tight))
    return _difference(usual, better)


def worst(noises: list[Noise]) -> Noise:
    """Largest maxima and the average of the means."""
    return Noise(
        max(n.h_max for n in noises),
        float(np.mean([n.h_mean for n in noises])),
        max(n.energy for n in noises),
    )


def _difference(a: Molecule, b: Molecule) -> Noise:
    difference = np.abs(np.subtract(a.hamiltonian, b.hamiltonian))
    return Noise(
        float(difference.max()),
        float(difference.mean()),
        abs(float(np.subtract(a.energy, b.energy))),
    )
