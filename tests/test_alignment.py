"""The alignment loss: its value, derivatives and invariances, and the labels it needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from hambench import experiment
from hambench.chem import dft, engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.compose import compose
from hambench.data.graph import Batch, GraphSpec, Normalisation, build_graph, collate, pair_labels
from hambench.data.loader import Loader
from hambench.data.orbital_labels import DEGENERATE, orbital_labels
from hambench.data.padding import padded
from hambench.data.store import Store, write_store
from hambench.errors import ConfigError, DataError
from hambench.losses import alignment, error_matrices
from hambench.model import Prediction

BASIS = OrbitalBasis.load("def2-svp", [1, 8, 9])
OPTIONS = {"occupied": 1.0, "virtual": 0.25, "off_diagonal": 0.5}


def spd(rng: np.random.Generator, n: int) -> np.ndarray:
    """An overlap: ones on the diagonal, little beside."""
    matrix = rng.normal(scale=0.1 / np.sqrt(n), size=(n, n))
    return np.eye(n) + (matrix + matrix.T) * (1 - np.eye(n))


def molecule(numbers: list[int], charge: int, rng: np.random.Generator, name: str) -> Molecule:
    n = BASIS.nao(numbers)
    matrix = rng.normal(size=(n, n))
    positions = np.arange(len(numbers))[:, None] * np.array([0.9, 0.1, 0.2])
    return Molecule(
        np.array(numbers), positions, charge, basis="def2-svp", id=name,
        hamiltonian=matrix + matrix.T, overlap=spd(rng, n),
    )  # fmt: skip


@pytest.fixture
def molecules(rng: np.random.Generator) -> list[Molecule]:
    """Water, hydroxide, a fluoride ion, hydrogen, in this order of sizes."""
    made = ([8, 1, 1], 0), ([8, 1], -1), ([9], -1), ([1, 1], 0)
    return [molecule(z, charge, rng, str(k)) for k, (z, charge) in enumerate(made)]


def disturbed(mols: Sequence[Molecule], rng: np.random.Generator, size: float) -> list[Molecule]:
    out = []
    for m in mols:
        assert m.hamiltonian is not None
        change = rng.normal(scale=size, size=m.hamiltonian.shape)
        out.append(replace(m, hamiltonian=m.hamiltonian + change + change.T))
    return out


def spec_of(**settings: object) -> GraphSpec:
    given = {"space": "uncoupled", "labels": ("hamiltonian", "orbitals"), **settings}
    return GraphSpec(BASIS, **given)  # type: ignore[arg-type]


def predicted(mols: Sequence[Molecule], batch: Batch, spec: GraphSpec) -> Prediction:
    """Their Hamiltonians as the prediction for a batch, and nonsense in empty and padded places."""
    source = collate(mols, replace(spec, labels=("hamiltonian",)))
    size = spec.layout.size
    node, edge = (
        torch.full((n * size,), 7.0, dtype=spec.dtype) for n in (batch.num_nodes, batch.num_edges)
    )
    node[source.node_places] = source.node_values
    places, values = pair_labels(source)
    edge[places] = values
    return Prediction(batch, spec, node.view(-1, size), edge.view(-1, size))


def by_hand(mols: Sequence[Molecule], predictions: Sequence[Molecule]) -> float:
    """The definition, molecule by molecule, of levels that are all different."""
    losses = []
    for m, p in zip(mols, predictions, strict=True):
        assert m.hamiltonian is not None
        _, c = scipy.linalg.eigh(m.hamiltonian, m.overlap)
        a = c.T @ (p.hamiltonian - m.hamiltonian) @ c
        n, occupied = len(a), BASIS.electrons(m.numbers, m.charge) // 2
        diagonal = np.diag(a) ** 2
        weights = np.where(np.arange(n) < occupied + 1, 1.0, 0.25)
        off = (np.sum(a**2) - diagonal.sum()) / (n * (n - 1))
        losses.append((weights * diagonal).sum() / n + 0.5 * off)
    return float(np.mean(losses))


def scaling() -> Normalisation:
    shape = (10, GraphSpec(BASIS).layout.size)
    mean, std = (torch.rand(2, *shape, dtype=torch.float64) + 0.5).unbind()
    return Normalisation(mean, std)


@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
@pytest.mark.parametrize("scaled", [False, True])
def test_it_is_the_formula(molecules: list[Molecule], rng: np.random.Generator, space, scaled):
    """Of molecules of many sizes at once, padded or not, whatever the form of the labels."""
    spec = spec_of(space=space, normalisation=scaling() if scaled else None)
    others = disturbed(molecules, rng, 1e-2)
    graphs = [build_graph(m, spec) for m in molecules]
    for batch in (collate(molecules, spec), padded(graphs, spec, 30)):
        loss = alignment(predicted(others, batch, spec), batch, **OPTIONS)
        assert float(loss.counts) == 4
        assert float(loss.value()) == pytest.approx(by_hand(molecules, others), rel=1e-11)
        at_labels = alignment(predicted(molecules, batch, spec), batch, **OPTIONS)
        assert float(at_labels.value()) < 1e-25
        errors = error_matrices(predicted(others, batch, spec), batch, width=50)
        for found, m, p in zip(errors[:4], molecules, others, strict=True):
            n = len(m.hamiltonian)
            assert np.abs(found[:n, :n].numpy() - (p.hamiltonian - m.hamiltonian)).max() < 1e-13
            assert not found[n:].any()
            assert not found[:, n:].any()


def test_float32_labels(molecules: list[Molecule], rng: np.random.Generator):
    spec, others = spec_of(dtype=torch.float32), disturbed(molecules, rng, 1e-2)
    batch = collate(molecules, spec)
    assert batch.orbitals.dtype == torch.float32
    loss = alignment(predicted(others, batch, spec), batch, **OPTIONS).value()
    assert float(loss) == pytest.approx(by_hand(molecules, others), rel=1e-4)


@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
def test_derivatives(rng: np.random.Generator, space: str):
    """Against finite differences, with respect to all block vectors."""
    mols = [molecule([8, 1], -1, rng, "a"), molecule([1, 1], 0, rng, "b")]
    spec = spec_of(space=space, normalisation=scaling())
    batch = collate(mols, spec)
    start = predicted(disturbed(mols, rng, 0.1), batch, spec)
    assert start.node is not None
    assert start.edge is not None

    def value(node: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        return alignment(Prediction(batch, spec, node, edge), batch, **OPTIONS).value()

    vectors = [start.node.clone().requires_grad_(), start.edge.clone().requires_grad_()]
    assert torch.autograd.gradcheck(value, vectors, atol=1e-7, fast_mode=True)
    gradients = torch.autograd.grad(value(*vectors), vectors)
    for vector, gradient in zip(vectors, gradients, strict=True):
        rows, places = np.unravel_index(rng.choice(vector.numel(), 12, replace=False), vector.shape)
        for row, place in zip(rows, places, strict=True):
            ends = []
            for step in (1e-4, -1e-4):
                with torch.no_grad():
                    vector[row, place] += step
                    ends.append(float(value(*vectors)))
                    vector[row, place] -= step
            slope = (ends[0] - ends[1]) / 2e-4
            assert slope == pytest.approx(float(gradient[row, place]), rel=1e-6, abs=1e-9)


def test_it_is_the_error_of_the_levels_to_first_order(
    molecules: list[Molecule], rng: np.random.Generator
):
    spec, water = spec_of(), molecules[:1]
    batch = collate(water, spec)
    errors = []
    for size in (1e-4, 1e-5):
        (other,) = disturbed(water, np.random.default_rng(3), size)
        levels = [scipy.linalg.eigvalsh(m.hamiltonian, m.overlap) for m in (other, water[0])]
        expected = np.mean((levels[0] - levels[1]) ** 2)
        loss = alignment(predicted([other], batch, spec), batch, occupied=1.0, virtual=1.0)
        errors.append(abs(float(loss.value()) / expected - 1))
    assert errors[1] < 1e-3
    assert errors[1] < 0.3 * errors[0]


def degenerate(rng: np.random.Generator) -> tuple[Molecule, list[slice]]:
    """A water whose levels 1 to 3, and 5 to 6 (with the lowest empty one), are equal."""
    water = molecule([8, 1, 1], 0, rng, "water")
    assert water.overlap is not None
    levels = np.sort(rng.normal(size=24))
    sets = [slice(1, 4), slice(5, 7)]
    for part in sets:
        levels[part] = levels[part][0]
    orbitals = scipy.linalg.eigh(water.hamiltonian, water.overlap)[1]
    to = water.overlap @ orbitals
    return replace(water, hamiltonian=(to * levels) @ to.T), sets


def test_the_choice_of_orbitals_does_not_matter(rng: np.random.Generator):
    water, sets = degenerate(rng)
    spec = spec_of()
    batch, others = collate([water], spec), disturbed([water], rng, 1e-2)
    assert batch.orbital_sets[0, 1:7].tolist() == [1, 1, 1, 2, 3, 3]
    assert batch.low_sets.tolist() == [4]  # five occupied levels, and 5 and 6 as one set
    prediction = predicted(others, batch, spec)
    before = float(alignment(prediction, batch, **OPTIONS).value())
    batch.orbitals[:, :, ::3] *= -1
    assert float(alignment(prediction, batch, **OPTIONS).value()) == pytest.approx(before, 1e-13)
    for part in sets:
        turn = np.linalg.qr(rng.normal(size=(part.stop - part.start,) * 2))[0]
        batch.orbitals[0, :, part] = batch.orbitals[0, :, part] @ torch.from_numpy(turn)
    assert float(alignment(prediction, batch, **OPTIONS).value()) == pytest.approx(before, 1e-12)


def test_the_order_of_atoms_and_molecules_does_not_matter(
    molecules: list[Molecule], rng: np.random.Generator
):
    others = disturbed(molecules, rng, 1e-2)

    def loss(mols: Sequence[Molecule], guesses: Sequence[Molecule]) -> float:
        batch = collate(mols, spec := spec_of(space="coupled"))
        return float(alignment(predicted(guesses, batch, spec), batch, **OPTIONS).value())

    before = loss(molecules, others)
    assert loss(molecules[::-1], others[::-1]) == pytest.approx(before, rel=1e-13)
    atoms = [2, 0, 1]
    aos = np.concatenate([np.arange(14, 19) + 5, np.arange(14), np.arange(14, 19)])
    turned = []
    for m in (molecules[0], others[0]):
        assert m.hamiltonian is not None
        assert m.overlap is not None
        turned.append(
            replace(
                m, numbers=m.numbers[atoms], positions=m.positions[atoms],
                hamiltonian=m.hamiltonian[np.ix_(aos, aos)], overlap=m.overlap[np.ix_(aos, aos)],
            )
        )  # fmt: skip
    again = loss([turned[0], *molecules[1:]], [turned[1], *others[1:]])
    assert again == pytest.approx(before, rel=1e-12)


def test_pairs_beyond_the_cutoff_are_left_out(molecules: list[Molecule], rng: np.random.Generator):
    spec = spec_of(cutoff=1.0)  # of water, one hydrogen
    batch = collate(molecules[:1], spec)
    assert float(alignment(predicted(molecules[:1], batch, spec), batch).value()) < 1e-25
    (other,) = disturbed(molecules[:1], rng, 1e-2)
    found = error_matrices(predicted([other], batch, spec), batch, 24)[0]
    assert not found[:14, 19:].any()
    assert found[:14, 14:19].all()


def test_orbitals_are_left_out_of_a_near_singular_overlap(
    molecules: list[Molecule], rng: np.random.Generator
):
    water = molecules[0]
    assert water.overlap is not None
    values, vectors = np.linalg.eigh(water.overlap)
    values[:2] = 1e-9
    twin = replace(water, overlap=(vectors * values) @ vectors.T)
    assert twin.hamiltonian is not None
    assert twin.overlap is not None
    labels = orbital_labels(twin, twin.hamiltonian, BASIS)
    assert labels.sets.tolist() == [*range(22), -1, -1]
    assert not labels.coefficients[:, 22:].any()
    c = labels.coefficients[:, :22]
    assert np.abs(c.T @ twin.overlap @ c - np.eye(22)).max() < 1e-10
    batch, (other,) = collate([twin], spec := spec_of()), disturbed([water], rng, 1e-2)
    a = c.T @ (other.hamiltonian - twin.hamiltonian) @ c
    loss = alignment(predicted([other], batch, spec), batch, occupied=1.0, virtual=1.0)
    assert float(loss.value()) == pytest.approx((np.diag(a) ** 2).mean(), rel=1e-10)


def test_near_levels_are_a_set(molecules: list[Molecule]):
    """Neighbours closer than the threshold; electrons in a core potential do not count."""
    atom = replace(molecules[2], overlap=np.eye(14))
    levels = np.arange(14.0)
    levels[6:9] = 5 + DEGENERATE * np.array([0.9, 1.8, 3.0])
    labels = orbital_labels(atom, np.diag(levels), BASIS)
    assert labels.sets.tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 6, 7, 8, 9, 10, 11]
    assert labels.low_sets == 6  # fluoride: five occupied orbitals, and the sixth level
    heavy = OrbitalBasis.load("def2-tzvpd", [53])
    n = heavy.nao([53])
    iodide = Molecule([53], np.zeros((1, 3)), -1, basis="def2-tzvpd", overlap=np.eye(n))
    assert orbital_labels(iodide, np.diag(np.arange(float(n))), heavy).low_sets == 14


def test_an_initial_guess_makes_no_difference(molecules: list[Molecule], rng: np.random.Generator):
    """Orbitals are those of the whole label, errors those of what is left of it."""
    part = [rng.normal(size=len(np.triu_indices(len(m.hamiltonian))[0])) for m in molecules]

    class Known:
        def packed(self, m: Molecule) -> np.ndarray:
            return part[int(m.id)]

    others, values = disturbed(molecules, rng, 1e-2), []
    for guess in (None, Known()):
        batch = collate(molecules, spec := spec_of(guess=guess))
        values.append(float(alignment(predicted(others, batch, spec), batch, **OPTIONS).value()))
    assert values[1] == pytest.approx(values[0], rel=1e-11)


def test_open_shells_and_missing_overlaps_are_named(
    molecules: list[Molecule], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    water, hydroxide, *_ = molecules
    for radical in (replace(hydroxide, charge=0), replace(water, multiplicity=3)):
        with pytest.raises(DataError, match="no closed shell, whose orbitals the alignment loss"):
            collate([radical], spec_of())
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path))
    bare = replace(water, overlap=None)
    with monkeypatch.context() as patched:
        patched.setattr(engine, "is_installed", lambda: False)

        def refuse(*args: object) -> None:
            raise ConfigError("this needs PySCF")

        patched.setattr(dft, "overlap", refuse)
        with pytest.raises(ConfigError, match="has no overlap in its file, which the alignment"):
            collate([bare], spec_of())
    overlap = dft.overlap(water.numbers, water.positions, "def2-svp")
    found, given = (collate([m], spec_of()) for m in (bare, replace(water, overlap=overlap)))
    torch.testing.assert_close(found.orbitals.abs(), given.orbitals.abs(), rtol=0, atol=1e-9)


def test_batches_of_a_file_carry_orbitals(molecules: list[Molecule], tmp_path: Path):
    write_store(tmp_path / "store.h5", molecules, basis=BASIS)
    rows = Store(tmp_path / "store.h5")
    (loaded,) = Loader(rows, spec_of(), batch_size=4, shuffle=False).once()
    whole = collate(molecules, spec_of())
    assert loaded.batch.orbitals.shape == (4, 24, 24)
    torch.testing.assert_close(loaded.batch.orbitals.abs(), whole.orbitals.abs())
    assert torch.equal(loaded.batch.orbital_sets, whole.orbital_sets)
    assert torch.equal(loaded.batch.low_sets, whole.low_sets)
    plain = collate(molecules, spec := replace(spec_of(), labels=("hamiltonian",)))
    assert "orbitals" not in plain
    with pytest.raises(DataError, match="the batch holds no orbitals of its labels"):
        alignment(predicted(molecules, plain, spec), plain)


@pytest.mark.slow
@pytest.mark.usefixtures("toy")
def test_a_cell_with_it(tmp_path: Path):
    """A plug-in that knows nothing of it, on a task; going on where it stopped."""
    words = ["task=water_mini", "model=toy", "device=cpu", "recipe.alignment.weight=2"]
    words += ["max_steps=4", "recipe.validate_every=2", "recipe.batch_size=8"]
    words += ["score.metrics=[h_mae]"]
    one = experiment.run(compose([*words, f"root={tmp_path}"]), progress=False)
    plain = experiment.run(compose([*words[:3], *words[4:], f"root={tmp_path}"]), progress=False)
    assert one.folder != plain.folder
    assert one.result.recipe["alignment"]["weight"] == 2
    assert "alignment" not in plain.result.recipe
    last = []
    for outcome in (one, plain):
        log = (outcome.folder / "log.jsonl").read_text().splitlines()
        last.append(next(row["val_loss"] for row in map(json.loads, log) if "val_loss" in row))
    assert last[0] > last[1]
    energies = compose(["task=organic_mini_energy", "model=helm_small", words[3]])
    with pytest.raises(ConfigError, match="energies are to be learned"):
        experiment.run(energies, progress=False)
