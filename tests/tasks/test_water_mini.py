"""The embedded task: its file, its splits, its physics, and that it can be made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.data.store import Store
from hambench.errors import RegistryError
from hambench.tasks import Provider, water_mini
from hambench.tasks.water_mini import (
    SEED,
    TEMPERATURE,
    WaterMini,
    fit_points,
    fit_surface,
    potential,
    sample_internal,
    single_point,
    water,
)
from hambench.units import HARTREE_KELVIN

FINGERPRINT = "139e875b97a7b8e3d44a581c999044fe735d5e240303ec956c7afb4fea8c25b3"


@pytest.fixture(scope="module")
def task() -> WaterMini:
    """The task as the provider makes it from its YAML file."""
    description = Path(water_mini.__file__).parent / "task" / "water_mini.yaml"
    task = Provider().task(yaml.safe_load(description.read_text("utf-8")))
    assert isinstance(task, WaterMini)
    return task


def test_file_ships_with_the_package(task: WaterMini) -> None:
    assert task.path == Path(water_mini.__file__).parent / "water_mini.h5"
    assert task.path.stat().st_size < 4e6
    assert isinstance(Provider().open(task.path), Store)


def test_splits_are_the_seeded_permutation(task: WaterMini) -> None:
    order = np.random.RandomState(42).permutation(500)
    parts = {"train": order[:300], "validation": order[300:400], "test": order[400:]}
    assert task.splits == {
        name: tuple(f"water-{i:04d}" for i in part) for name, part in parts.items()
    }
    for name, part in parts.items():
        assert len(task.split(name)) == len(part)


def test_fingerprint_is_that_of_the_shipped_labels(task: WaterMini) -> None:
    assert task.fingerprint == FINGERPRINT


def test_stored_positions_are_those_of_the_sampler(task: WaterMini) -> None:
    for stored, made in zip(task.rows, task.geometries(), strict=True):
        assert stored.id == made.id
        np.testing.assert_array_equal(stored.positions, made.positions)
        np.testing.assert_array_equal(stored.numbers, [8, 1, 1])
    few = task.geometries(3)
    assert [m.id for m in few] == ["water-0000", "water-0001", "water-0002"]
    np.testing.assert_array_equal(few[2].positions, task.rows[2].positions)


@pytest.mark.parametrize("row", [0, 217, 499])
def test_rows_can_be_made_again(task: WaterMini, row: int) -> None:
    pytest.importorskip("pyscf")
    stored = task.rows[row]
    bare = Molecule(stored.numbers, stored.positions)
    made = dft.calculate(bare, task.level).molecule
    assert stored.energy == pytest.approx(made.energy, abs=1e-8)
    for name in ("hamiltonian", "overlap", "forces"):
        np.testing.assert_allclose(getattr(stored, name), getattr(made, name), rtol=0, atol=1e-8)


def test_provenance(task: WaterMini) -> None:
    store = task.rows
    assert isinstance(store, Store)
    assert store.theory == task.level.to_dict()
    provenance = store.provenance
    assert provenance["left_out"] == {}
    assert provenance["recipe"] == task.recipe
    assert provenance["convergence_noise_eh"]["h_max"] < 1e-8
    assert 0 < provenance["orientation_noise_eh"]["h_mean"] < 1e-8
    assert provenance["orientation_noise_eh"]["h_max"] < 2e-7


def test_geometries_are_canonical(task: WaterMini) -> None:
    """Mean potential energy 1.5 kT (harmonic modes), spread and mean of the spec at 500 K."""
    r1, r2, angle = sample_internal(4000, TEMPERATURE, np.random.default_rng(SEED + 1)).T
    kt = TEMPERATURE / HARTREE_KELVIN
    assert potential(r1, r2, angle).mean() / kt == pytest.approx(1.53, abs=0.1)
    assert [r1.mean(), r1.std()] == pytest.approx([0.980, 0.031], abs=0.002)
    assert [angle.mean(), angle.std()] == pytest.approx([102.2, 5.9], abs=0.4)
    stored = np.array([molecule.positions for molecule in task.rows])
    bonds = np.linalg.norm(stored[:, 1:] - stored[:, :1], axis=-1)
    assert [bonds.mean(), bonds.std()] == pytest.approx([0.980, 0.031], abs=0.004)
    directions = (stored[:, 1] - stored[:, 0]) / bonds[:, :1]
    np.testing.assert_allclose(directions.T @ directions / 500, np.eye(3) / 3, atol=0.06)


def test_surface_is_that_of_the_energies(task: WaterMini) -> None:
    """Stored level-5 energies follow the level-2 fit: 3.6e-6 Eh rms, kT is 1.6e-3 Eh."""
    rows = [task.rows[i] for i in range(0, 500, 10)]
    internal = np.array([_internal(molecule.positions) for molecule in rows])
    difference = np.array([molecule.energy for molecule in rows]) - potential(*internal.T)
    assert difference.std() < 1e-5
    np.testing.assert_allclose(_internal(water(0.9, 1.1, 95.0)), [0.9, 1.1, 95.0])


def test_fit_of_known_energies() -> None:
    """The shipped coefficients come back from the energies of their own surface."""
    points = fit_points()
    assert points.shape == (105, 3)
    values = potential(*points.T)
    fitted: dict[str, Any] = fit_surface(points, values)
    shipped = water_mini._surface()
    np.testing.assert_allclose(fitted["minimum"] + values.min(), 0, atol=1e-9)
    np.testing.assert_allclose(fitted["coefficients"][1:], shipped["coefficients"][1:], atol=1e-8)


def test_single_points_lie_on_the_surface() -> None:
    pytest.importorskip("pyscf")
    points = np.array([[0.96, 0.96, 104.0], [0.96, 1.02, 93.0]])
    energies = [single_point(*point) for point in points]
    assert energies[1] - energies[0] == pytest.approx(np.diff(potential(*points.T))[0], abs=1e-5)


@pytest.mark.slow
def test_surface_can_be_made_again() -> None:
    pytest.importorskip("pyscf")
    points = fit_points()
    again = fit_surface(points, np.array([single_point(*point) for point in points]))
    np.testing.assert_allclose(
        again["coefficients"], water_mini._surface()["coefficients"], atol=1e-7
    )


def test_unknown_family_is_named(task: WaterMini) -> None:
    content = {**task.spec.model_dump(), "family": "water_maxi"}
    with pytest.raises(RegistryError, match=r"no family 'water_maxi'\. Did you mean 'water_mini'"):
        Provider().task(content)


def test_foreign_files_are_left_to_others(tmp_path: Path) -> None:
    (tmp_path / "x.xyz").write_text("3\n")
    assert Provider().open(tmp_path / "x.xyz") is None


def _internal(positions: np.ndarray) -> np.ndarray:
    """Bonds (Angstrom) and angle (degrees) of O, H, H."""
    first, second = positions[1] - positions[0], positions[2] - positions[0]
    r1, r2 = np.linalg.norm(first), np.linalg.norm(second)
    return np.array([r1, r2, np.rad2deg(np.arccos(first @ second / (r1 * r2)))])
