"""What noise and the overlap threshold do to a molecule of seven atoms, PBE: two long proofs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hambench.chem.dft import calculate
from hambench.chem.functional import Functional
from hambench.chem.levels import orbital_levels, orthogonaliser
from hambench.chem.molecule import Molecule
from hambench.chem.theory import Theory
from hambench.scoring import score
from hambench.units import HARTREE_EV

pytest.importorskip("pyscf")
pytestmark = pytest.mark.slow

NUMBERS = [6, 6, 8, 1, 1, 1, 1]
POSITIONS = [
    [0, 0, 0], [1.33, 0, 0], [2.148, 1.086, 0], [1.597, 1.873, 0], [1.875, -0.944, 0],
    [-0.545, 0.944, 0], [-0.545, -0.944, 0],
]  # fmt: skip


def labelled(basis: str) -> tuple[Molecule, Theory]:
    """Syn vinyl alcohol with its converged labels."""
    theory = Theory("pbe", basis, fit="def2-universal-jfit", grid_level=3)
    bare = Molecule(NUMBERS, np.array(POSITIONS, dtype=float), basis=basis, id="vinyl alcohol")
    return calculate(bare, theory, forces=False).molecule, theory


@pytest.fixture(scope="module")
def small() -> tuple[Molecule, Theory]:
    """In def2-SVP, 62 orbitals."""
    return labelled("def2-svp")


def test_energies_are_of_second_and_of_first_order(
    small: tuple[Molecule, Theory], rng: np.random.Generator
) -> None:
    """Laplace noise of a given h_mae: E[D] errs by its square, E_mix in proportion."""
    row, theory = small
    noise = rng.laplace(size=(3, *row.hamiltonian.shape))
    noise = noise + noise.swapaxes(1, 2)
    noise /= np.abs(noise).mean(axis=(1, 2), keepdims=True)
    sizes, errors = np.array([1e-5, 1e-4]), []
    for size in sizes:
        rows = [replace(row, id=str(k)) for k in range(len(noise))]
        predictions = [row.hamiltonian + size * e for e in noise]
        found = score(predictions, rows, ["h_mae", "e_dft_mae", "e_mix_mae"], theory=theory)
        assert found["h_mae"].value == pytest.approx(size, rel=1e-9)
        errors.append([1e3 * HARTREE_EV * found[n].value for n in ("e_dft_mae", "e_mix_mae")])
    slopes = np.log10(np.divide(errors[1], errors[0]))
    np.testing.assert_allclose(slopes, [2, 1], atol=0.05)
    assert 1 < errors[1][0] < 8  # meV at 1e-4 Eh; of other draws 2.7
    assert 30 < errors[1][1] < 400  # of other draws 118


@pytest.mark.parametrize(
    ("basis", "thresholds"),
    [
        (
            "def2-svp",
            {1e-6: (0, 0, 0, 0, 0), 1e-3: (0, 0, 0, 0, 0), 1e-1: (8, 2.64, 9.32, 11.1, 0)},
        ),
        (
            "def2-tzvpd",
            {
                1e-5: (0, 0, 0, 0, 0),
                1e-3: (9, 0.011, -0.019, 0.034, 0),
                1e-1: (42, 3.69, 14.3, 11.4, 4.4),
            },
        ),
    ],
)
def test_what_the_threshold_costs_the_exact_matrix(
    basis: str, thresholds: dict[float, tuple[int, float, float, float, float]], small
) -> None:
    """Functions left out, and how far E[D], E_mix (eV), occupied levels and gap (mEh) move.

    The values are of another geometry of the molecule: the counts are the same (41 for 42), the
    rest is alike. Not the gaps, -2.3 and 0.15 mEh there: this one is planar, and only in the larger
    basis does a threshold of 0.1 leave out functions of the symmetry of its HOMO and LUMO.
    """
    row, theory = small if basis == "def2-svp" else labelled(basis)
    exact = Functional(row, theory, threshold=1e-12).at(row.hamiltonian)
    levels = orbital_levels(row.hamiltonian, row.overlap, 1e-12)[0][:13]
    for threshold, (dropped, energy, mixed, occupied, gap) in thresholds.items():
        kept = orthogonaliser(row.overlap, threshold).shape[1]
        assert len(row.overlap) - kept == pytest.approx(dropped, rel=0.03)
        state = Functional(row, theory, threshold=threshold).at(row.hamiltonian)
        moved = orbital_levels(row.hamiltonian, row.overlap, threshold)[0][:13]
        shifts = {
            "E[D]": (HARTREE_EV * (state.energy - exact.energy), energy),
            "E_mix": (HARTREE_EV * (state.mixed_energy - exact.mixed_energy), mixed),
            "levels": (1e3 * np.abs(moved - levels)[:12].max(), occupied),
            "gap": (1e3 * float(np.diff(moved - levels)[11]), gap),
        }
        for name, (found, expected) in shifts.items():
            if expected:
                assert 1 / 3 < found / expected < 3, name
            else:
                assert abs(found) < 2e-3, name
