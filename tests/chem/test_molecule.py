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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"multiplicity": 0}, "multiplicity is 0, expected a whole number from 1 on"),
        ({"multiplicity": 1.5}, "multiplicity is 1.5"),
        ({"charge": 0.5}, "charge is 0.5, expected a whole number"),
        ({"positions": None}, "it has no positions"),
        ({"positions": [[0, 0, 0], [1]]}, "the rows of positions differ in length"),
        ({"hamiltonian": np.eye(2) * 1j}, "hamiltonian are complex128, expected real numbers"),
        ({"numbers": ["H", "Xx"]}, "there is no element Xx"),
        ({"numbers": [1, float("nan")]}, "atomic numbers are whole"),
        ({"numbers": [1, 8.5]}, "atomic numbers are whole"),
    ],
)
def test_values_that_make_no_molecule_are_named(changes: dict, said: str) -> None:
    with pytest.raises(DataError, match=said):
        Molecule(**{"numbers": [1, 8], "positions": np.eye(2, 3), "id": "m"} | changes)


def test_symbols_are_atomic_numbers() -> None:
    assert Molecule(["O", "H", "H"], np.eye(3)).numbers.tolist() == [8, 1, 1]


def test_arrays_become_float64_and_numbers_int64() -> None:
    molecule = Molecule([8.0, 1.0], np.eye(2, 3, dtype=np.float32), forces=np.ones((2, 3), int))
    assert molecule.numbers.dtype == np.int64
    assert molecule.positions.dtype == molecule.forces.dtype == np.float64


def test_names_for_messages() -> None:
    assert [formula(z) for z in ([8, 1, 1], [6, 1, 9], [1, 1])] == ["H2O", "CHF", "H2"]
    assert [symbol(z) for z in (1, 86, 0, 87)] == ["H", "Rn", "Z=0", "Z=87"]
