"""PhiSNet: symmetries, kinds of blocks, options, losses, energies, overfitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

import hambench
from hambench.baselines.phisnet.columns import (
    Columns,
    Tiles,
    block_kinds,
    cancels,
    check_size,
    column_counts,
    on_diagonal,
)
from hambench.baselines.phisnet.embedding import occupations
from hambench.baselines.phisnet.model import PhiSNet
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.graph import build_graph, collate
from hambench.data.padding import padded
from hambench.errors import ConfigError
from hambench.losses import label_errors, mse_plus_mae
from hambench.models import build_energy_model

NABLA = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
SVP = OrbitalBasis.load("def2-svp", [1, 6, 7, 8])
HEAVY = OrbitalBasis.load("def2-tzvpd", [1, 6, 53, 79])
SMALL = {"features": 5, "basis_functions": 6, "modules": 2, "head_blocks": 1}


def randomised(model: PhiSNet, seed: int = 0) -> PhiSNet:
    """All weights moved off their first values, so that every path acts."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return model


def build(basis: OrbitalBasis, **options: object) -> PhiSNet:
    torch.manual_seed(3)
    model = PhiSNet(basis, **{**SMALL, **options})
    return randomised(model.double())


def molecules(
    basis: OrbitalBasis, rng: np.random.Generator, labelled: bool = False
) -> list[Molecule]:
    """A charged molecule and a neutral one of mixed elements, one bond along z."""
    heavy = [53, 79] if basis is HEAVY else [8, 7]
    out = []
    for k, numbers in enumerate([[6, *heavy, 1], [heavy[0], 1, 1]]):
        positions = rng.normal(size=(len(numbers), 3)) * 1.2
        positions[1] = positions[0] + [0, 0, 1.1]
        matrices = rng.normal(size=(2, basis.nao(numbers), basis.nao(numbers)))
        matrices = matrices + matrices.transpose(0, 2, 1)
        out.append(
            Molecule(
                np.array(numbers), positions, charge=k, basis=basis.name, id=str(k),
                hamiltonian=matrices[0] if labelled else None,
                overlap=matrices[1] if labelled else None,
            )
        )  # fmt: skip
    return out


def moved(molecule: Molecule, turn: np.ndarray, shift: Sequence[float] = (0, 0, 0)) -> Molecule:
    positions = molecule.positions @ turn.T + np.array(shift)
    return Molecule(molecule.numbers, positions, molecule.charge, basis=molecule.basis)


def matrices(model: PhiSNet, mols: Sequence[Molecule]) -> list[torch.Tensor]:
    """Hamiltonians, and overlaps behind them."""
    batch = collate(mols, model.graph)
    with torch.no_grad():
        prediction = model(batch)
    found = prediction.raw_matrices()
    if prediction.overlap is not None:
        found += hambench.model.Prediction(batch, model.graph, *prediction.overlap).raw_matrices()
    return found


@pytest.mark.parametrize("basis", [SVP, HEAVY], ids=["svp", "tzvpd"])
def test_rotation_and_translation(basis: OrbitalBasis, rng: np.random.Generator) -> None:
    small = {"features": 3, "modules": 1} if basis is HEAVY else {}
    model, mols = build(basis, overlap=True, **small), molecules(basis, rng)
    turn = Rotation.random(rng=7).as_matrix()
    before = matrices(model, mols)
    after = matrices(model, [moved(m, turn, (3.0, -1.0, 2.0)) for m in mols])
    for molecule, first, second in zip(mols * 2, before, after, strict=True):
        full = torch.from_numpy(ao_rotation(molecule.numbers, basis, turn))
        size = max(1.0, float(first.abs().max()))
        assert first.abs().max() > 0.1
        assert (second - full @ first @ full.T).abs().max() < 1e-10 * size
        assert (first - first.T).abs().max() < 1e-13 * size


def test_mirror_images_are_no_mirror_images(rng: np.random.Generator) -> None:
    """Couplings of odd l1 + l2 + L are in use, as published: only proper rotations hold."""
    model, mols = build(SVP), molecules(SVP, rng)[:1]
    (before,), (after,) = matrices(model, mols), matrices(model, [moved(mols[0], -np.eye(3))])
    shells = [l for z in mols[0].numbers.tolist() for l in SVP.shells[z].l]
    signs = torch.tensor([(-1.0) ** l for l in shells for _ in range(2 * l + 1)])
    assert (after - signs[:, None] * before * signs).abs().max() > 1e-3


def test_order_of_atoms_and_of_the_batch(rng: np.random.Generator) -> None:
    model, mols = build(SVP), molecules(SVP, rng)
    order = np.array([2, 0, 3, 1])
    first = mols[0]
    shuffled = Molecule(first.numbers[order], first.positions[order], basis="def2-svp")
    one, two = matrices(model, mols)
    other, again = matrices(model, [mols[1], shuffled])
    (alone,) = matrices(model, [mols[1]])
    counts = SVP.ao_counts(first.numbers)
    starts = np.cumsum(counts) - counts
    index = np.concatenate([starts[a] + np.arange(counts[a]) for a in order])
    assert (again - one[index][:, index]).abs().max() < 1e-10
    assert (other - two).abs().max() < 1e-10
    assert (alone - two).abs().max() < 1e-10


def test_atoms_alone_and_far_away(rng: np.random.Generator) -> None:
    """Pairs beyond the cutoff have blocks, which depend on neighbours and nothing else."""
    model = build(SVP, cutoff=3.0, overlap=True)
    atom = Molecule([8], np.zeros((1, 3)), basis="def2-svp")
    far = Molecule([8, 1], np.array([[0, 0, 0], [0, 0, 5.0]]), basis="def2-svp")
    further = Molecule([8, 1], np.array([[0, 0, 0], [0, 9.0, 5.0]]), basis="def2-svp")
    alone, one, other, *overlaps = matrices(model, [atom, far, further])
    assert alone.abs().max() > 0
    assert (one[:14, :14] - alone).abs().max() < 1e-12
    assert one[:14, 14:].abs().max() > 1e-3
    assert (one - other).abs().max() < 1e-12
    assert len(matrices(model, [atom])[0]) == 14
    assert all((s.diagonal() == 1).all() for s in overlaps)


def test_padding_changes_no_gradient(rng: np.random.Generator) -> None:
    model, mols = build(SVP, overlap=True), molecules(SVP, rng, labelled=True)
    plain = collate(mols, model.graph)
    filled = padded([build_graph(m, model.graph) for m in mols], model.graph, 40)
    assert filled.num_edges == 40 > plain.num_edges
    losses, gradients = [], []
    for batch in (plain, filled):
        model.zero_grad(set_to_none=True)
        losses.append(model.loss(model(batch), batch).value())
        losses[-1].backward()
        gradients.append([p.grad for p in model.parameters()])
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=1e-12)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_every_parameter_learns(rng: np.random.Generator) -> None:
    """With all kinds of pairs in the batch, nothing of the recommended model is without effect."""
    basis = OrbitalBasis.load("def2-svp", [1, 8])
    model = build(basis, overlap=True)
    numbers = [8, 8, 1, 1]
    values = rng.normal(size=(2, 38, 38))
    values = values + values.transpose(0, 2, 1)
    one = Molecule(
        numbers, rng.normal(size=(4, 3)), basis="def2-svp", hamiltonian=values[0], overlap=values[1]
    )
    batch = collate([one], model.graph)
    model.loss(model(batch), batch).value().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        rows = parameter.grad.reshape(len(parameter.grad) if parameter.ndim else 1, -1)
        if "table" in name:  # rows of elements that are not there
            rows = rows[[1, 8]]
        assert (rows.abs().max(1).values > 0).all(), name


def test_kinds_of_pairs() -> None:
    water = OrbitalBasis.load("def2-svp", [1, 8])
    kinds = block_kinds(water, ["O", "H", "H"])
    assert kinds.atoms == ((8, 8), (1, 1))
    assert kinds.pairs == ((8, 1), (1, 8), (1, 1))
    assert kinds.lone == (8,)
    assert block_kinds(water, None).lone == ()
    # columns of the public code, by degree
    assert column_counts(water, kinds.atoms) == [19, 26, 16, 5, 1]
    assert column_counts(water, kinds.pairs) == [21, 25, 11, 2, 0]
    eight = block_kinds(NABLA, None)
    assert column_counts(NABLA, eight.atoms) == [163, 258, 188, 67, 15]
    assert column_counts(NABLA, eight.pairs) == [1171, 1810, 1270, 423, 81]
    pairs = Columns(water, kinds.pairs, 4)
    assert pairs.counts == [21, 25, 11, 2]
    atoms = Columns(water, kinds.atoms, 4, cancels)  # p, p', d of O, p of H with themselves
    assert atoms.counts == [19, 26 - 4, 16, 5 - 1, 1]
    scalars = Columns(water, kinds.atoms, 0, on_diagonal)  # but six shells of O, three of H
    assert scalars.counts == [19 - 9]
    for columns in (pairs, atoms, scalars):
        assert len(set(columns.places)) == len(columns.places) == sum(columns.counts)


@pytest.mark.parametrize("words", [["O", "H", "H", "C"], ["O"], ["O", "X"], []])
def test_molecules_of_other_elements_are_refused(words: list[str]) -> None:
    with pytest.raises(ConfigError, match="expected atoms of exactly the elements H, O"):
        block_kinds(OrbitalBasis.load("def2-svp", [1, 8]), words)


def test_a_pair_without_a_block_is_refused_before_training(rng: np.random.Generator) -> None:
    basis = OrbitalBasis.load("def2-svp", [1, 8])
    model = hambench.build_model("phisnet_md17", basis, **SMALL)
    peroxide = Molecule([8, 8, 1, 1], rng.normal(size=(4, 3)), basis="def2-svp", id="hooh")
    said = "'hooh' has 2 atoms of O, the model was built without the pair O-O"
    with pytest.raises(ConfigError, match=said):
        model.prepare([peroxide])
    with pytest.raises(ConfigError, match=said):
        collate([peroxide], model.graph)
    assert hambench.build_model("phisnet", basis, **SMALL).graph.lone == ()


def test_heads_too_large_are_refused() -> None:
    """The elements of OMol_CSH: before anything is allocated, with what they would need."""
    basis = OrbitalBasis.load("def2-tzvpd")
    said = (
        "60 elements in def2-tzvpd need a head of 193,355,136 parameters, more than "
        "largest_head=100,000,000"
    )
    with pytest.raises(ConfigError, match=said):
        hambench.build_model("phisnet", basis)
    check_size(basis, block_kinds(basis, None), 6, 64, 100_000_000)


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="order=1 is below the largest l of def2-svp, 2"):
        PhiSNet(SVP, order=1)
    with pytest.raises(ConfigError, match="unused_weights=true too"):
        PhiSNet(SVP, energy_layer=True)
    assert PhiSNet(SVP, **SMALL).size.lmax == 4
    assert PhiSNet(HEAVY, **SMALL).size.lmax == 6


@pytest.mark.parametrize(
    ("kinds", "count"),
    [([0] * 7, 1), ([2, 0, 2, 1, 0, 2], 4), ([], 3), (list(range(130)) * 2, 130)],
)
@pytest.mark.parametrize("largest", [1, 4, 64])
def test_tiles(kinds: list[int], count: int, largest: int) -> None:
    given = torch.tensor(kinds, dtype=torch.long)
    tiles = Tiles.of(given, count, largest)
    places = tiles.places.tolist()
    assert len(set(places)) == len(kinds)
    assert all(p < tiles.size * len(tiles.kinds) for p in places)
    assert torch.equal(tiles.kinds[tiles.places // tiles.size], given)


def test_configurations() -> None:
    assert all(sum(occupations(z).values()) == z for z in range(87))
    assert occupations(24) | {"3d": 5, "4s": 1} == occupations(24)


def test_losses(rng: np.random.Generator) -> None:
    """MSE + MAE of each matrix over all its elements, with weights; the guard repeats S."""
    mols = molecules(SVP, rng, labelled=True)
    guarded = {"hamiltonian_weight": 0.9, "loss_guard": 0.1}
    for options, (h, s) in (({}, (1.0, 1.0)), (guarded, (0.9, 1.1))):
        model = build(SVP, overlap=True, **options)
        batch = collate(mols, model.graph)
        prediction = model(batch)
        both = prediction.raw_matrices()
        over = hambench.model.Prediction(batch, model.graph, *prediction.overlap).raw_matrices()
        expected = 0.0
        for weight, matrices_, name in ((h, both, "hamiltonian"), (s, over, "overlap")):
            errors = [
                (f - torch.from_numpy(getattr(m, name))).reshape(-1)
                for f, m in zip(matrices_, mols, strict=True)
            ]
            flat = torch.cat(errors)
            expected = expected + weight * (flat.square().mean() + flat.abs().mean())
        found = float(model.loss(prediction, batch).value().detach())
        assert found == pytest.approx(float(expected.detach()), rel=1e-12)
    alone = mse_plus_mae(label_errors(prediction, batch), 0.9).value()
    assert float(alone.detach()) < found


@pytest.mark.parametrize("head", ["linear", "network", "pooled"])
def test_energies(head: str, rng: np.random.Generator) -> None:
    """They do not turn, forces are their slope, and a pretrained network can be taken over."""
    whole = randomised(hambench.build_model("phisnet", SVP, **SMALL).double())
    model = build_energy_model("phisnet", SVP, SMALL, {"head": head}).double()
    found = model.adopt(whole.state_dict(), "the test")
    assert all(name.startswith(("head.", "references")) for name in found["fresh"])
    assert not any(name.startswith(("trunk.", "atoms.")) for name in found["left_out"])
    mols = [dataclasses.replace(m, charge=0) for m in molecules(SVP, rng)]
    if head != "pooled":
        batch = collate(mols, model.graph)
        assert torch.allclose(model.embeddings(batch), whole.embeddings(batch), atol=1e-12)
    turn = Rotation.random(rng=2).as_matrix()
    first, forces = model.energy_and_forces(collate(mols, model.graph))
    again, turned = model.energy_and_forces(collate([moved(m, turn) for m in mols], model.graph))
    assert (first - again).abs().max() < 1e-10
    assert (turned - forces @ torch.from_numpy(turn.T)).abs().max() < 1e-9
    assert forces.abs().max() > 1e-6
    step = np.zeros((4, 3))
    step[2, 1] = 1e-5
    sides = [dataclasses.replace(mols[0], positions=mols[0].positions + s) for s in (step, -step)]
    with torch.no_grad():
        plus, minus = model.energy(collate(sides, model.graph))
    assert float(-(plus - minus) / 2e-5) == pytest.approx(float(forces[2, 1]), rel=1e-4, abs=1e-8)
