"""Geometries for the labels of MD17's molecules where the published files are not at hand.

Not the published geometries, which are frames of trajectories, but samples of the classical
canonical distribution at 500 K: of water on a fitted surface (`hambench.tasks.water_mini`), of the
others in the harmonic approximation (`hambench.chem.harmonic` says what that misses). Numbers on
them are those of a data set of its own.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from hambench.chem.molecule import Molecule
from hambench.tasks import normal_modes, water_mini

ROWS: Final = {"water": 4999, "ethanol": 30_000, "malondialdehyde": 26_978, "uracil": 30_000}
"""As many as the published files have."""
TEMPERATURE: Final = 500.0
"""Kelvin."""
SEED: Final = 20240517


def geometries(molecule: str, n: int | None = None) -> list[Molecule]:
    """The first ``n`` (None: all `ROWS`) geometries, ids "1", "2" ... as in the published files."""
    count = ROWS[molecule] if n is None else min(n, ROWS[molecule])
    if molecule == "water":
        rng = np.random.default_rng(SEED)
        positions = water_mini.sample_water(ROWS["water"], TEMPERATURE, rng)[:count]
        return [
            Molecule(np.array([8, 1, 1]), x, id=str(i)) for i, x in enumerate(positions, start=1)
        ]
    return normal_modes.sample(molecule, count, TEMPERATURE, SEED)


def recipe(molecule: str) -> dict[str, Any]:
    """How they are made, JSON-able, for the provenance."""
    about = {"temperature_kelvin": TEMPERATURE, "seed": SEED}
    if molecule == "water":
        return {
            "sampler": "classical canonical, rejection sampling on a fitted surface",
            "shift_angstrom": water_mini.SHIFT,
            "surface_theory": water_mini.FIT_THEORY.to_dict(),
            **about,
        }
    return {
        "sampler": "classical canonical, harmonic about the minima, along internal coordinates",
        "force_constants_theory": normal_modes.THEORY.to_dict(),
        **about,
    }
