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
from hambench.chem.rotation import ao_rotation, random_rotation


@dataclass(frozen=True)
class Noise:
    """Largest and mean absolute difference of H (Eh), and largest difference of E (Eh)."""

    h_max: float
    h_mean: float
    energy: float


def orientation_noise(
    molecule: Molecule, theory: Theory, rng: np.random.Generator, rotations: int = 2
) -> Noise:
    """Labels of the molecule turned at random and its H turned back, against those as it stands.

    Raises SCFError and ConfigError as `hambench.chem.dft.calculate` does.
    """
    h_here, e_here = _labels(molecule, theory)
    basis = OrbitalBasis.load(theory.basis, molecule.numbers.tolist())
    differences = []
    for _ in range(rotations):
        rotation = random_rotation(rng)
        turned = replace(molecule, positions=molecule.positions @ rotation.T)
        h_there, e_there = _labels(turned, theory)
        D = ao_rotation(molecule.numbers, basis, rotation)
        differences.append(_difference(h_here - D.T @ h_there @ D, e_here - e_there))
    return worst(differences)


def convergence_noise(molecule: Molecule, theory: Theory, tighter: float = 0.1) -> Noise:
    """Labels against those with an orbital-gradient criterion ``tighter`` times as large.

    Raises SCFError and ConfigError as `hambench.chem.dft.calculate` does.
    """
    tight = replace(
        theory, conv_tol_grad=theory.conv_tol_grad * tighter, max_cycles=4 * theory.max_cycles
    )
    (h_usual, e_usual), (h_tight, e_tight) = (_labels(molecule, t) for t in (theory, tight))
    return _difference(h_usual - h_tight, e_usual - e_tight)


def worst(noises: list[Noise]) -> Noise:
    """Largest maxima and the average of the means."""
    return Noise(
        max(n.h_max for n in noises),
        float(np.mean([n.h_mean for n in noises])),
        max(n.energy for n in noises),
    )


def _labels(molecule: Molecule, theory: Theory) -> tuple[NDArray[np.float64], float]:
    labelled = calculate(molecule, theory, forces=False).molecule
    assert labelled.hamiltonian is not None  # as `calculate` promises
    assert labelled.energy is not None
    return labelled.hamiltonian, labelled.energy


def _difference(hamiltonian: NDArray[np.float64], energy: float) -> Noise:
    size = np.abs(hamiltonian)
    return Noise(float(size.max()), float(size.mean()), abs(energy))
