"""`Molecule`: what it refuses, in words."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.molecule import Molecule, formula, symbol
from hambench.errors import DataError


@pytest.mark.parametrize(
    ("numbers", "positions", "said"),
    [
        ([1.5], np.zeros((1, 3)), r"'m': atomic numbers are whole, got \[1.5\]"),
        ([0], np.zeros((1, 3)), r"must be 1 to 86 and at least one, got \[0\]"),
        ([-1], np.zeros((1, 3)), r"got \[-1\]"),
        ([87], np.zeros((1, 3)), r"got \[87\]"),
        ([], np.zeros((0, 3)), r"got \[\]"),
        ([8, 1], np.zeros((3, 3)), r"positions have shape \(3, 3\), expected \(2, 3\) for .* HO"),
    ],
)
def test_what_is_no_molecule_is_named(numbers: list, positions: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Molecule(numbers, positions, id="m")


def test_arrays_become_float64_and_numbers_int64() -> None:
    molecule = Molecule([8.0, 1.0], np.eye(2, 3, dtype=np.float32), forces=np.ones((2, 3), int))
    assert molecule.numbers.dtype == np.int64
    assert molecule.positions.dtype == molecule.forces.dtype == np.float64


def test_names_for_messages() -> None:
    assert [formula(z) for z in ([8, 1, 1], [6, 1, 9], [1, 1])] == ["H2O", "CHF", "H2"]
    assert [symbol(z) for z in (1, 86, 0, 87)] == ["H", "Rn", "Z=0", "Z=87"]
