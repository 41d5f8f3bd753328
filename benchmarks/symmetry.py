"""How far models are from the symmetries of a Hamiltonian, in float64 and with random weights.

Largest error of H over its largest element: of a molecule that is turned, whose atoms are listed
in another order, or that shares a batch with others in another order. Example:

    python benchmarks/symmetry.py helm_small qhnet_small
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import hambench
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import turned_matrix
from hambench.data.graph import collate
from hambench.model import Model

MODELS = ("helm_small", "qhnet_small", "phisnet_small", "sphnet_small", "schnorb_small")
SEEDS = 3
MOVED = 0.02
"""By how much of normal noise weights differ from those a model begins with."""

CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
RING = np.exp(1j * np.pi / 3 * np.arange(6))
RING = np.stack([RING.real, RING.imag, np.zeros(6)], axis=1)
AXES = np.vstack([np.eye(3), -np.eye(3)])
LINE = np.array([[0, 0, 0], [0, 0, 1], [0, 0, -1]])


def drawn(numbers: Sequence[int], charge: int = 0) -> Molecule:
    """Atoms at random, no two closer than 1.1 Angstrom, about 1.6 apart."""
    rng, positions = np.random.default_rng(0), np.zeros((0, 3))
    while len(positions) < len(numbers):
        new = rng.uniform(-1, 1, 3) * 0.8 * len(numbers) ** (1 / 3)
        if not len(positions) or np.linalg.norm(positions - new, axis=1).min() > 1.1:
            positions = np.vstack([positions, new])
    return Molecule(np.array(numbers), positions, charge)


LIGHT = [1, 6, 7, 8, 9, 16, 35]
HEAVY = [1, 8, 53, 79]
CASES: dict[str, tuple[str, list[int], list[Molecule]]] = {
    "atoms, diatomics": (
        "def2-svp",
        LIGHT,
        [
            Molecule([8], np.zeros((1, 3))),
            Molecule([1, 1], [[0, 0, 0], [0.4, 0.5, 0.2]]),
            Molecule([6, 8], [[0, 0, 0], [0, 0, 1.13]]),
            Molecule([6, 8], [[0, 0, 0], [0, 0, 8.5]]),
        ],
    ),
    "symmetric molecules": (
        "def2-svp",
        LIGHT,
        [
            Molecule([6, 8, 8], 1.16 * LINE),
            Molecule([8, 1, 1], [[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.59]]),
            Molecule([6, 1, 1, 1, 1], np.vstack([np.zeros(3), 0.63 * CORNERS])),
            Molecule([7, 1, 1, 1, 1], np.vstack([np.zeros(3), 0.59 * CORNERS]), charge=1),
            Molecule([6] * 6 + [1] * 6, np.vstack([1.39 * RING, 2.48 * RING])),
            Molecule([16] + [9] * 6, np.vstack([np.zeros(3), 1.56 * AXES])),
        ],
    ),
    "12 and 40 atoms": (
        "def2-svp",
        LIGHT,
        [drawn([6, 6, 8, 1, 7, 16, 1, 1, 1, 35, 9, 1]), drawn([6, 6, 7, 8, 1, 1, 1, 1] * 5)],
    ),
    "HI, AuH, Au+, water (def2-TZVPD)": (
        "def2-tzvpd",
        HEAVY,
        [
            Molecule([1, 53], [[0, 0, 0], [0, 0.3, 1.6]]),
            Molecule([79, 1], [[0, 0, 0], [0, 0.3, 1.5]]),
            Molecule([79], np.zeros((1, 3)), charge=1),
            Molecule([8, 1, 1], [[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.6]]),
        ],
    ),
}


def main() -> None:
    """Print a row per model and case, the worst of a few seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=MODELS)
    print("| model | molecules | turned | atoms reordered | batch |\n|---|---|---|---|---|")
    for name in parser.parse_args().models:
        for case, (basis, elements, molecules) in CASES.items():
            known = OrbitalBasis.load(basis, elements)
            worst = np.max([errors(built(name, known, s), molecules) for s in range(SEEDS)], axis=0)
            print(f"| `{name}` | {case} | {' | '.join(f'{error:.1e}' for error in worst)} |")


def built(name: str, basis: OrbitalBasis, seed: int) -> Model:
    """A model without initial guess whose weights are random, all of them."""
    torch.manual_seed(seed)
    options = {"initial_guess": "none"} if name.startswith("sphnet") else {}
    model = hambench.build_model(name, basis, **options).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(MOVED * torch.randn_like(parameter))
    return model


def errors(model: Model, molecules: Sequence[Molecule]) -> tuple[float, float, float]:
    """Of turned molecules, of other orders of atoms, of a batch in the other order."""
    turn = Rotation.random(rng=1).as_matrix()
    alone = [predicted(model, [molecule])[0] for molecule in molecules]
    together = predicted(model, molecules[::-1])[::-1]
    turned, reordered = [], []
    for molecule, first in zip(molecules, alone, strict=True):
        (second,) = predicted(model, [replace(molecule, positions=molecule.positions @ turn.T)])
        expected = turned_matrix(first, molecule.numbers, model.basis, turn)
        turned.append(distance(second, expected))
        order = np.random.default_rng(2).permutation(len(molecule))
        other = replace(
            molecule, numbers=molecule.numbers[order], positions=molecule.positions[order]
        )
        counts = model.basis.ao_counts(molecule.numbers)
        first_of = np.cumsum(counts) - counts
        places = np.concatenate([first_of[a] + np.arange(counts[a]) for a in order])
        reordered.append(distance(predicted(model, [other])[0], first[np.ix_(places, places)]))
    batch = [distance(a, b) for a, b in zip(together, alone, strict=True)]
    return max(turned), max(reordered), max(batch)


def predicted(model: Model, molecules: Sequence[Molecule]) -> list[NDArray[np.float64]]:
    """(nao, nao) matrices."""
    with torch.no_grad():
        return [m.numpy() for m in model(collate(list(molecules), model.graph)).matrices()]


def distance(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Largest difference over the largest element."""
    return float(np.abs(one - other).max() / np.abs(other).max())


if __name__ == "__main__":
    main()
