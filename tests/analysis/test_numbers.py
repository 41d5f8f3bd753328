"""Numbers of embeddings whose answer is known; environments and their frequencies are real ones."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hambench.analysis import libraries
from hambench.analysis.atoms import Atoms, draw
from hambench.analysis.numbers import FOLDS, examine, standardised
from hambench.errors import ConfigError
from hambench.registry import load_task

Array = np.ndarray


@pytest.fixture(scope="module")
def atoms() -> Atoms:
    """Of the first 40 molecules of organic_mini, 4 conformers each."""
    molecules = load_task("organic_mini").geometries(160)
    return Atoms.of(molecules, [m.id.rpartition("-")[0] for m in molecules])


def signal(names: Array, rng: np.random.Generator, size: int = 16) -> Array:
    """(n, D) a random vector for every name."""
    _, place = np.unique(names, return_inverse=True)
    return rng.normal(size=(place.max() + 1, size))[place]


def noise(atoms: Atoms, rng: np.random.Generator, size: int = 16) -> Array:
    return rng.normal(size=(len(atoms), size))


def test_atoms_are_what_the_molecules_are():
    molecules = load_task("organic_mini").geometries(8)
    atoms = Atoms.of(molecules, [m.id.rpartition("-")[0] for m in molecules])
    assert len(atoms) == sum(map(len, molecules))
    assert len(np.unique(atoms.group)) == 2
    for place in range(len(atoms)):
        molecule = molecules[atoms.molecule[place]]
        assert atoms.number[place] == molecule.numbers[atoms.index[place]]
        assert (atoms.group[place] == atoms.group[0]) == molecule.id.startswith("0-")
    part = atoms[np.array([0, 5])]
    assert part.environment.tolist() == [atoms.environment[0], atoms.environment[5]]


def test_vectors_that_say_the_environment_are_told_and_noise_is_not(
    atoms: Atoms, rng: np.random.Generator
):
    told = examine(signal(atoms.environment, rng) + 0.1 * noise(atoms, rng), atoms, None, 0)
    assert told.environment_accuracy.value > 0.99
    assert told.silhouette_environment.value > 0.7
    blind = examine(noise(atoms, rng), atoms, None, 0)
    assert blind.environment_majority == told.environment_majority
    assert blind.environment_accuracy.value <= blind.environment_majority.value
    assert abs(blind.silhouette_environment.value) < 0.05
    assert told.on_site_r2 is blind.on_site_r2 is None


def test_vectors_that_say_the_element_alone_tell_no_environment(
    atoms: Atoms, rng: np.random.Generator
):
    """What an untrained network can do: the picture is beautiful, and there is nothing in it."""
    found = examine(signal(atoms.number, rng) + 0.01 * noise(atoms, rng), atoms, None, 0)
    assert found.silhouette_element.value > 0.9
    assert found.environment_accuracy.value <= found.environment_majority.value + 0.01
    assert abs(found.silhouette_environment.value) < 0.05


def test_molecules_that_are_known_by_heart_do_not_help(atoms: Atoms, rng: np.random.Generator):
    """Every conformer of a molecule has the very same vectors, other molecules have other ones."""
    names = np.array([f"{g} {e}" for g, e in zip(atoms.group, atoms.environment, strict=True)])
    vectors = signal(names, rng, size=200)
    found = examine(vectors, atoms, None, 0)
    leaking = LogisticRegression(max_iter=5000).fit(vectors, atoms.environment)
    assert leaking.score(vectors, atoms.environment) == 1
    low, _ = found.environment_majority.ci95
    assert found.environment_accuracy.value < found.environment_majority.value + 0.02
    assert low < found.environment_majority.value


def test_the_majority_is_that_of_each_element(atoms: Atoms, rng: np.random.Generator):
    """Counted by hand: the environments of at least five molecules, the largest class of each."""
    found = examine(noise(atoms, rng), atoms, None, 0)
    groups: dict[str, set[int]] = {}
    counts: dict[int, dict[str, int]] = {}
    for name, group in zip(atoms.environment.tolist(), atoms.group.tolist(), strict=True):
        groups.setdefault(name, set()).add(group)
    for name, number in zip(atoms.environment.tolist(), atoms.number.tolist(), strict=True):
        if len(groups[name]) >= FOLDS:
            counts.setdefault(number, {}).setdefault(name, 0)
            counts[number][name] += 1
    asked = [kinds for kinds in counts.values() if len(kinds) > 1]
    total = sum(sum(kinds.values()) for kinds in asked)
    assert found.environment_atoms == total
    assert 0 < total < len(atoms)
    expected = sum(max(kinds.values()) for kinds in asked) / total
    # less only where the most frequent of the other molecules is another one
    assert expected - 0.15 < found.environment_majority.value <= expected


def test_on_site_energies_are_explained_within_elements(atoms: Atoms, rng: np.random.Generator):
    vectors = noise(atoms, rng)
    shift = 10.0 * atoms.number  # between elements, which counts for nothing
    line = vectors @ rng.normal(size=vectors.shape[1])
    error = line.std() * rng.normal(size=len(atoms))
    exact = examine(vectors, atoms, shift + line, 0).on_site_r2
    half = examine(vectors, atoms, shift + line + error, 0).on_site_r2
    blind = examine(vectors, atoms, shift + error, 0).on_site_r2
    assert exact.value > 0.999
    assert half.value == pytest.approx(0.5, abs=0.07)
    assert half.ci95[0] < half.value < half.ci95[1]
    assert -0.1 < blind.value < 0.02
    assert examine(vectors, atoms, shift, 0).on_site_r2 is None  # nothing varies


def test_numbers_do_not_depend_on_scale_shift_or_rotation_of_the_channels(
    atoms: Atoms, rng: np.random.Generator
):
    vectors = 0.3 * signal(atoms.environment, rng) + noise(atoms, rng)
    scaled = vectors * rng.uniform(0.1, 10, size=16) + rng.normal(size=16)
    one, other = (examine(v, atoms, vectors[:, 0], 3) for v in (vectors, scaled))
    for a, b in zip(one[:5], other[:5], strict=True):
        assert a.value == pytest.approx(b.value, abs=2e-3)
    assert one == examine(vectors, atoms, vectors[:, 0], 3)
    assert one != examine(vectors, atoms, vectors[:, 0], 4)
    scaled = standardised(np.column_stack([vectors, np.full(len(vectors), 7.0)]))
    np.testing.assert_allclose(scaled[:, :-1].std(axis=0), 1)
    assert (scaled[:, -1] == 0).all()


def test_one_molecule_has_no_environments_to_tell_apart(rng: np.random.Generator):
    molecules = load_task("water_mini").split("test")
    atoms = Atoms.of(molecules, molecules.ids)
    vectors = signal(atoms.environment, rng) + 0.1 * noise(atoms, rng)
    found = examine(vectors, atoms, vectors[:, 0], 0)
    assert found.silhouette_element.n == 100
    assert found.silhouette_element.value > 0.5
    assert found.silhouette_environment is found.environment_accuracy is None
    assert found.environment_atoms == 0
    assert found.on_site_r2.value > 0.9
    alone = examine(vectors[:1], atoms[np.arange(1)], vectors[:1, 0], 0)
    assert alone[:5] == (None,) * 5


def test_a_draw_is_sorted_seeded_and_without_repetition():
    drawn = draw(1000, 100, 5)
    assert (np.diff(drawn) > 0).all()
    assert (len(drawn), drawn.max() < 1000) == (100, True)
    assert draw(1000, 100, 5).tolist() == drawn.tolist() != draw(1000, 100, 6).tolist()
    assert draw(7, 100, 5).tolist() == list(range(7))


@pytest.mark.parametrize("missing", libraries.LIBRARIES)
def test_a_missing_library_is_named_with_its_command(missing: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigError, match=r"pip install 'hambench\[embeddings\]'") as error:
        libraries.check_libraries()
    assert libraries.LIBRARIES[missing] in str(error.value)
