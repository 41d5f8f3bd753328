"""Harmonic sampling: covariance, curvilinear moves, mirror images, what depends on the seed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hambench.chem import harmonic
from hambench.chem.harmonic import Well
from hambench.tasks import normal_modes
from hambench.units import HARTREE_KELVIN

MOLECULES = sorted(
    {name.partition("_")[0] for name in json.loads(normal_modes.MODES_FILE.read_text())["minima"]}
)


@pytest.fixture(scope="module")
def ethanol() -> tuple[Well, ...]:
    return normal_modes.wells("ethanol")


def test_small_moves_have_the_covariance_of_the_force_constants(ethanol: tuple[Well, ...]) -> None:
    well = ethanol[0]
    temperature = 5.0  # so low that it does not matter that the moves are curved
    positions = harmonic.sample([well], 4000, temperature, seed=1)
    energy = []
    for x in positions:
        moved = _aligned(x, well.positions) - well.positions
        energy.append(moved.ravel() @ well.force_constants @ moved.ravel() / 2)
    degrees = 3 * len(well.numbers) - 6
    expected = degrees / 2 * temperature / HARTREE_KELVIN
    assert np.mean(energy) == pytest.approx(expected, rel=0.02)  # equipartition
    assert np.var(energy) == pytest.approx(
        degrees / 2 * (temperature / HARTREE_KELVIN) ** 2, rel=0.15
    )


def test_torsions_do_not_stretch_bonds(ethanol: tuple[Well, ...]) -> None:
    well = ethanol[0]
    values, directions = well.stiffness
    softest = directions[:, 0].reshape(1, -1, 3)
    move = softest / np.abs(softest).max()  # an atom moves 1 Angstrom along a straight line
    curved = harmonic.along_internals(well, move)[0]
    pairs = [(0, 1), (0, 2), (0, 3), (1, 5), (1, 6), (2, 8)]
    usual = np.array([np.linalg.norm(well.positions[i] - well.positions[j]) for i, j in pairs])
    bonds = np.array([np.linalg.norm(curved[i] - curved[j]) for i, j in pairs])
    straight = well.positions + move[0]
    stretched = np.array([np.linalg.norm(straight[i] - straight[j]) for i, j in pairs])
    assert np.abs(bonds - usual).max() < 0.02
    assert np.abs(stretched - usual).max() > 0.2
    assert values[0] < 0.05 * values[-1]


def test_samples_depend_on_seed_and_place_alone(ethanol: tuple[Well, ...]) -> None:
    many = harmonic.sample(ethanol, 30, 500.0, seed=2)
    np.testing.assert_array_equal(harmonic.sample(ethanol, 7, 500.0, seed=2), many[:7])
    assert np.abs(harmonic.sample(ethanol, 30, 500.0, seed=3) - many).max() > 0.1
    assert many.tolist() == many.round(8).tolist()


def test_the_wells_of_ethanol_are_all_visited(ethanol: tuple[Well, ...]) -> None:
    trans, gauche = (well.log_weight(500.0) for well in ethanol)
    share = 1 / (1 + np.exp(gauche - trans))
    torsions = np.array(
        [_torsion(x[[1, 0, 2, 8]]) for x in harmonic.sample(ethanol, 600, 500.0, 4)]
    )
    far = np.abs(torsions) > 120
    assert far.mean() == pytest.approx(share, abs=0.1)
    plus, minus = (torsions[~far] > 0).sum(), (torsions[~far] < 0).sum()
    assert plus == pytest.approx(minus, rel=0.3)


def test_mirror_images_keep_the_labels_of_the_atoms(ethanol: tuple[Well, ...]) -> None:
    """Nothing but bond breaking exchanges the two hydrogen atoms of CH2 or two of CH3."""
    for x in harmonic.sample(ethanol, 200, 500.0, seed=5):
        assert np.linalg.det(x[[1, 2, 3]] - x[0]) < 0
        assert np.linalg.det(x[[5, 6, 7]] - x[1]) < 0


@pytest.mark.parametrize("molecule", MOLECULES)
def test_shipped_minima_are_minima(molecule: str) -> None:
    for well in normal_modes.wells(molecule):
        values, _ = well.stiffness
        assert 0.003 < values[0] < values[-1] < 6
        rigid = np.tile(np.eye(3), len(well.numbers))
        assert np.abs(rigid @ well.force_constants).max() < 2e-3


def test_a_saddle_is_refused(ethanol: tuple[Well, ...]) -> None:
    well = ethanol[0]
    saddle = Well(well.numbers, well.positions, well.energy, -well.force_constants)
    with pytest.raises(ValueError, match="this is no minimum"):
        harmonic.sample([saddle], 1, 500.0, seed=0)


def test_no_atoms_clash_at_a_thousand_kelvin(ethanol: tuple[Well, ...]) -> None:
    positions = harmonic.sample(ethanol, 200, 1000.0, seed=6)
    i, j = np.triu_indices(9, 1)
    assert np.linalg.norm(positions[:, i] - positions[:, j], axis=-1).min() > 0.7 * 0.96


def _aligned(x: np.ndarray, to: np.ndarray) -> np.ndarray:
    """Positions turned and shifted onto others (Kabsch)."""
    middle = to.mean(axis=0)
    u, _, vt = np.linalg.svd((x - x.mean(axis=0)).T @ (to - middle))
    turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ vt))]) @ vt
    return (x - x.mean(axis=0)) @ turn + middle


def _torsion(x: np.ndarray) -> float:
    """Degrees."""
    axis = x[2] - x[1]
    m, k = np.cross(x[0] - x[1], axis), np.cross(x[3] - x[2], axis)
    return float(np.degrees(np.arctan2(np.cross(m, k) @ axis / np.linalg.norm(axis), m @ k)))
