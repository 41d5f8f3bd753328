"""``water_mini``: 500 water molecules at 500 K, PBE/def2-SVP; the embedded task.

Geometries are independent samples of the classical canonical distribution on a polynomial fit of
the potential surface. The fit (105 single points) ships as ``water_surface.json``;
``python -m hambench.tasks.water_mini`` makes it anew.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from itertools import combinations_with_replacement, product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.rotation import random_rotation
from hambench.chem.theory import named
from hambench.data.task import GeneratedTask
from hambench.files import atomic_write
from hambench.units import HARTREE_KELVIN

Array = NDArray[np.float64]

ROWS: Final = 500
TEMPERATURE: Final = 500.0
"""Kelvin."""
SEED: Final = 20240500
SHIFT: Final = 0.5
"""Standard deviation of the random shift of every molecule, Angstrom."""

SURFACE_FILE: Final = Path(__file__).parent / "water_surface.json"
FIT_THEORY: Final = replace(named("pbe/def2-svp"), grid_level=2)
FIT_BONDS: Final = (0.84, 0.90, 0.96, 1.02, 1.09, 1.18)
FIT_ANGLES: Final = (82.0, 93.0, 104.0, 116.0, 129.0)

BOND_RANGE: Final = (0.80, 1.22)
ANGLE_RANGE: Final = (75.0, 136.0)

_MORSE: Final = 1.9  # 1/Angstrom
_BOND: Final = 0.975  # Angstrom, centre of the expansion
_ANGLE: Final = 103.0  # degrees, centre of the expansion
_POWERS: Final = [
    (i, j, k) for i, j, k in product(range(6), range(4), range(6)) if i + 2 * j + k <= 5
]


class WaterMini(GeneratedTask):
    """The task; labels come from `hambench.data.generate`."""

    @property
    def recipe(self) -> dict[str, Any]:
        """Sampler, temperature and seed, for the provenance."""
        return {
            "sampler": "classical canonical, rejection sampling on a fitted surface",
            "temperature_kelvin": TEMPERATURE,
            "seed": SEED,
            "shift_angstrom": SHIFT,
            "surface_theory": FIT_THEORY.to_dict(),
        }

    def geometries(self, n: int | None = None) -> list[Molecule]:
        """The first ``n`` of 500 water molecules (O, H, H; Angstrom), ids ``water-0000`` ..."""
        positions = sample_water(ROWS, TEMPERATURE, np.random.default_rng(SEED))[:n]
        return [
            Molecule(np.array([8, 1, 1]), x, id=f"water-{i:04d}") for i, x in enumerate(positions)
        ]


def sample_water(n: int, temperature: float, rng: np.random.Generator) -> Array:
    """(n, 3, 3) positions (O, H, H; Angstrom, 8 decimals), randomly turned and shifted.

    Args:
        n: number of samples.
        temperature: Kelvin.
        rng: decides everything.
    """
    positions = np.empty((n, 3, 3))
    for place, (r1, r2, angle) in enumerate(sample_internal(n, temperature, rng)):
        turned = water(r1, r2, angle) @ random_rotation(rng).T
        positions[place] = turned + rng.normal(scale=SHIFT, size=3)
    return positions.round(8)


def sample_internal(n: int, temperature: float, rng: np.random.Generator) -> Array:
    """(n, 3) bond lengths (Angstrom) and angle (degrees), canonical at ``temperature`` (K).

    Rejection sampling, uniform in the box of `BOND_RANGE` and `ANGLE_RANGE`, with density
    ``r1^2 r2^2 sin(angle) exp(-V/kT)``.
    """
    kt = temperature / HARTREE_KELVIN
    bound = BOND_RANGE[1] ** 4  # of the density: sin and exp are at most 1, as V >= 0
    accepted: list[Array] = []
    found = 0
    while found < n:
        trial = np.column_stack(
            [rng.uniform(*BOND_RANGE, (20000, 2)), rng.uniform(*ANGLE_RANGE, 20000)]
        )
        r1, r2, angle = trial.T
        density = (
            (r1 * r2) ** 2 * np.sin(np.deg2rad(angle)) * np.exp(-potential(r1, r2, angle) / kt)
        )
        kept = trial[rng.uniform(size=len(trial)) * bound < density]
        accepted.append(kept)
        found += len(kept)
    return np.concatenate(accepted)[:n]


def potential(r1: ArrayLike, r2: ArrayLike, angle: ArrayLike) -> Array:
    """Fitted potential above its minimum (Eh) at bonds (Angstrom) and angle (degrees)."""
    surface = _surface()
    return np.asarray(_terms(r1, r2, angle) @ surface["coefficients"] - surface["minimum"])


def water(r1: float, r2: float, angle: float) -> Array:
    """(3, 3) positions O, H, H in Angstrom: O at the origin, all in the yz plane."""
    half = np.deg2rad(angle) / 2
    y, z = np.sin(half), np.cos(half)
    return np.array([[0.0, 0.0, 0.0], [0.0, r1 * y, r1 * z], [0.0, -r2 * y, r2 * z]])


def fit_points() -> Array:
    """(105, 3) bonds (Angstrom) and angles (degrees) of the single points."""
    bonds = combinations_with_replacement(FIT_BONDS, 2)
    return np.array([(*pair, angle) for pair, angle in product(bonds, FIT_ANGLES)])


def single_point(r1: float, r2: float, angle: float) -> float:
    """Energy (Eh) of one geometry at `FIT_THEORY`; raises as `dft.calculate`."""
    molecule = Molecule(np.array([8, 1, 1]), water(r1, r2, angle))
    energy = dft.calculate(molecule, FIT_THEORY, forces=False).molecule.energy
    return float(np.float64(energy))


def fit_surface(points: Array, energies: Array) -> dict[str, Any]:
    """Least-squares polynomial through single points, ready for `SURFACE_FILE`.

    Args:
        points: (n, 3) bonds (Angstrom) and angles (degrees).
        energies: (n,) Eh.
    """
    above = energies - energies.min()
    weight = 1 / np.sqrt(1 + (above / 0.02) ** 2)
    terms = _terms(*points.T)
    coefficients = np.linalg.lstsq(terms * weight[:, None], above * weight, rcond=None)[0]
    mesh = np.meshgrid(np.linspace(0.9, 1.05, 61), np.linspace(95, 110, 61), indexing="ij")
    bond, angle = (axis.ravel() for axis in mesh)
    residual = (terms @ coefficients - above)[above < 0.03]
    return {
        "powers": _POWERS,
        "coefficients": coefficients.tolist(),
        "minimum": float((_terms(bond, bond, angle) @ coefficients).min()),
        "residual_rms_eh": float(np.sqrt((residual**2).mean())),
    }


def _terms(r1: ArrayLike, r2: ArrayLike, angle: ArrayLike) -> Array:
    """(..., 34) terms ``s^i d2^j t^k`` of the symmetric polynomial."""
    y1, y2 = (1 - np.exp(-_MORSE * (np.asarray(r) - _BOND)) for r in (r1, r2))
    s, d2, t = y1 + y2, (y1 - y2) ** 2, np.deg2rad(np.asarray(angle) - _ANGLE)
    return np.stack([s**i * d2**j * t**k for i, j, k in _POWERS], axis=-1)


@cache
def _surface() -> dict[str, Any]:
    content = json.loads(SURFACE_FILE.read_text("utf-8"))
    return {**content, "coefficients": np.array(content["coefficients"])}


def main() -> None:
    """Compute the single points anew and write `SURFACE_FILE`."""
    points = fit_points()
    energies = np.array([single_point(*p) for p in tqdm(points, desc="surface", unit="point")])
    with atomic_write(SURFACE_FILE) as file:
        json.dump(fit_surface(points, energies), file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
