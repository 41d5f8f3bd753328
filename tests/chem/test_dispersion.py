"""The Chai-Head-Gordon dispersion: size and slope."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.dispersion import chai_head_gordon
from hambench.errors import ConfigError

ACETYL_FLUORIDE = (
    [6, 6, 8, 9, 1, 1, 1],
    np.array(
        [
            [-1.35, -0.40, 0.00], [0.00, 0.18, 0.00], [0.36, 1.31, 0.00], [0.96, -0.78, 0.00],
            [-2.11, 0.38, 0.00], [-1.47, -1.03, 0.88], [-1.47, -1.03, -0.88],
        ]
    ),
)  # fmt: skip


def test_size_for_acetyl_fluoride() -> None:
    energy, _ = chai_head_gordon(*ACETYL_FLUORIDE)
    assert energy == pytest.approx(-1.3e-3, rel=0.1)


def test_forces_are_minus_the_slope() -> None:
    numbers, positions = ACETYL_FLUORIDE
    _, forces = chai_head_gordon(numbers, positions)
    step = 1e-5
    for atom, axis in np.ndindex(positions.shape):
        shift = np.zeros_like(positions)
        shift[atom, axis] = step
        up, down = (chai_head_gordon(numbers, positions + s * shift)[0] for s in (1, -1))
        assert forces[atom, axis] == pytest.approx(-(up - down) / (2 * step), abs=1e-10)
    np.testing.assert_allclose(forces.sum(axis=0), 0, atol=1e-15)


def test_element_without_parameters_is_named() -> None:
    with pytest.raises(ConfigError, match="parameters for Au"):
        chai_head_gordon([79, 1], [[0, 0, 0], [0, 0, 1.5]])
