"""Geometries of MD17's molecules that the project samples itself."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.molecule import formula
from hambench.tasks.md17_geometries import geometries, recipe

ORDER = {
    "water": "OHH",
    "ethanol": "CCOHHHHHH",
    "malondialdehyde": "CCCOOHHHH",
    "uracil": "CCNCNCOOHHHH",
}


@pytest.mark.parametrize("molecule", ORDER)
def test_atoms_ids_and_prefix(molecule: str) -> None:
    few, more = geometries(molecule, 3), geometries(molecule, 12)
    assert [m.id for m in few] == ["1", "2", "3"]
    for one, other in zip(few, more, strict=False):
        assert "".join(formula([z]) for z in one.numbers) == ORDER[molecule]
        np.testing.assert_array_equal(one.positions, other.positions)
    assert recipe(molecule)["temperature_kelvin"] == 500.0


def test_water_is_that_of_water_mini_with_another_seed() -> None:
    bonds = np.array([np.linalg.norm(m.positions[1] - m.positions[0]) for m in geometries("water")])
    assert len(bonds) == 4999
    assert bonds.mean() == pytest.approx(0.980, abs=0.002)  # measured on the fitted surface
    assert bonds.std() == pytest.approx(0.031, abs=0.002)
