"""HELM: parameter counts, symmetry of the network, reductions, label scaling, overfitting."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.graph import build_graph, collate, pair_labels
from hambench.data.padding import padded
from hambench.errors import ConfigError, DataError
from hambench.helm import Helm, HelmEnergy
from hambench.helm.scaling import label_statistics
from hambench.learn.weights import cast
from hambench.model import Model

MD17 = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
NABLA = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
OMOL = OrbitalBasis.load("def2-tzvpd")
NO_REDUCTION = {"reduce_node": False, "reduce_node_intra": False, "reduce_edge": False}
SMALL = {"channels": 16, "layers": 2, "gaussians": 16}


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda: Helm(MD17, pair_gates="own"), 34_104_970),
        (lambda: Helm(NABLA, reduce_edge=False), 34_145_233),
        (lambda: Helm(OMOL, reduce_edge=False), 84_881_717),
        (lambda: Helm(OMOL, node_scalars="element", **NO_REDUCTION), 84_772_978),
        (lambda: Helm(MD17).backbone, 34_011_904),
        (lambda: Helm(MD17, pair_gates="own").head, 93_066),
        (lambda: Helm(MD17, reduce_edge=False).head, 93_720),
        (lambda: Helm(NABLA, reduce_edge=False).head, 133_329),
        (lambda: Helm(OMOL, reduce_edge=False).head, 279_093),
        (lambda: HelmEnergy(MD17).backbone, 17_126_656),
        (lambda: HelmEnergy(MD17).head, 5_430_017),
        (lambda: HelmEnergy(OMOL).head, 13_757_185),
    ],
)
def test_published_parameter_counts(make: Callable[[], torch.nn.Module], count: int) -> None:
    with torch.device("meta"):  # counts need no memory
        module = make()
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == count


def molecules(
    basis: OrbitalBasis, rng: np.random.Generator, labelled: bool = True
) -> list[Molecule]:
    """A charged and a neutral molecule of mixed elements, one bond exactly along z."""
    heavy = [53, 79] if basis is OMOL else [8, 7]
    out = []
    for k, numbers in enumerate([[6, *heavy, 1], [heavy[0], 1, 1]]):
        positions = rng.normal(size=(len(numbers), 3)) * 1.2
        positions[1] = positions[0] + [0, 0, 1.1]
        matrix = rng.normal(size=(basis.nao(numbers),) * 2)
        out.append(
            Molecule(
                np.array(numbers),
                positions,
                charge=k,
                basis=basis.name,
                id=str(k),
                hamiltonian=matrix + matrix.T if labelled else None,
            )
        )
    return out


def turned(molecule: Molecule, turn: np.ndarray) -> Molecule:
    return Molecule(
        molecule.numbers, molecule.positions @ turn.T, molecule.charge, basis=molecule.basis
    )


OPTIONS = {
    "all reductions": {},
    "all reductions, own gates": {"pair_gates": "own"},
    "node reductions": {"reduce_edge": False},
    "edge reduction alone": {"reduce_node": False, "reduce_node_intra": False},
    "no reduction, uncoupled": {**NO_REDUCTION, "loss_space": "uncoupled"},
    "standardized": {"label_scaling": "standardize", "node_scalars": "element"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("basis", [MD17, OMOL], ids=["svp", "tzvpd"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-4)])
def test_rotation(basis, options, dtype, tolerance, rng) -> None:
    """model(R x) = D(R) model(x) D(R)^T on raw matrices."""
    torch.manual_seed(1)
    model = Helm(basis, **SMALL, **options).to(dtype)
    if options.get("label_scaling") == "standardize":
        model.prepare(molecules(basis, rng))
    mols, turn = molecules(basis, rng, labelled=False), Rotation.random(rng=7).as_matrix()
    with torch.no_grad():
        before = model(collate(mols, model.graph)).raw_matrices()
        after = model(collate([turned(m, turn) for m in mols], model.graph)).raw_matrices()
    for molecule, first, second in zip(mols, before, after, strict=True):
        full = torch.from_numpy(ao_rotation(molecule.numbers, basis, turn))
        assert first.abs().max() > 0.1
        assert (second - full @ first @ full.T).abs().max() < tolerance


def test_order_of_atoms_and_of_the_batch(rng: np.random.Generator) -> None:
    model = Helm(MD17, **SMALL).double()
    mols = molecules(MD17, rng, labelled=False)
    order = np.array([2, 0, 3, 1])
    first = mols[0]
    shuffled = Molecule(
        first.numbers[order], first.positions[order], first.charge, basis="def2-svp"
    )
    with torch.no_grad():
        one, two = model(collate(mols, model.graph)).matrices()
        other, again = model(collate([mols[1], shuffled], model.graph)).matrices()
        alone = model(collate([mols[1]], model.graph)).matrices()[0]
    counts = MD17.ao_counts(first.numbers)
    starts = np.cumsum(counts) - counts
    index = np.concatenate([starts[a] + np.arange(counts[a]) for a in order])
    assert (again - one[index][:, index]).abs().max() < 1e-12
    assert (other - two).abs().max() < 1e-12
    assert (alone - two).abs().max() < 1e-12


@pytest.mark.parametrize("basis", [MD17, OMOL], ids=["svp", "tzvpd"])
def test_reductions_make_matrices_symmetric(basis: OrbitalBasis, rng: np.random.Generator) -> None:
    mols = molecules(basis, rng, labelled=False)
    exact, free = Helm(basis, **SMALL), Helm(basis, **SMALL, **NO_REDUCTION)
    with torch.no_grad():
        raw = exact.double()(collate(mols, exact.graph)).raw_matrices()
        loose = free.double()(collate(mols, free.graph)).raw_matrices()
    for a, b in zip(raw, loose, strict=True):
        assert (a - a.T).abs().max() < 1e-13
        assert (b - b.T).abs().max() > 1e-3


@pytest.mark.parametrize(("gates", "vanish"), [("even", False), ("own", True)])
def test_pairs_of_equivalent_atoms(gates: str, vanish: bool) -> None:
    """Where a turn exchanges two atoms, s-p elements survive only with gates that exchange keeps.

    The public code's vanish exactly, so that H cannot be continuous there and right nearby.
    """
    water = Molecule([8, 1, 1], [[0, 0, 0.12], [0, 0.76, -0.47], [0, -0.76, -0.47]])
    hydrogen = Molecule([1, 1], [[0, 0, 0], [0.3, 0.2, 0.6]])
    model = Helm(MD17, **SMALL, pair_gates=gates).double()
    with torch.no_grad():
        pairs = [h[-10:-5, -5:] for h in model(collate([water, hydrogen], model.graph)).matrices()]
    for pair in pairs:  # shells s, s, p; the part odd under exchange
        odd = (pair - pair.T)[:2, 2:]
        assert (odd.abs().max() < 1e-13) if vanish else (odd.abs().max() > 0.01)


def test_single_atom_and_pair_beyond_the_cutoff(rng: np.random.Generator) -> None:
    model = Helm(MD17, **SMALL, cutoff=3.0).double()
    far = Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 5.0]]), basis="def2-svp")
    atom = Molecule(np.array([8]), np.zeros((1, 3)), basis="def2-svp")
    with torch.no_grad():
        matrix, alone = model(collate([far, atom], model.graph)).matrices()
    assert matrix[:14, 14:].abs().max() == 0
    assert alone.abs().max() > 0
    assert torch.allclose(matrix[:14, :14], alone, atol=1e-14)


def test_label_statistics_against_numpy(rng: np.random.Generator) -> None:
    mols = molecules(MD17, rng) + molecules(MD17, rng)
    mean, std = label_statistics(mols, MD17)
    ones = []  # the 1s-2s element of every H, coupled: w(0,0,0) = 1
    for molecule in mols:
        counts = MD17.ao_counts(molecule.numbers)
        for start, z in zip(np.cumsum(counts) - counts, molecule.numbers, strict=True):
            if z == 1:
                ones.append(molecule.hamiltonian[start, start + 1])
    place = 1  # slot pair (0, 1)
    assert float(mean[1, place]) == pytest.approx(np.mean(ones), abs=1e-13)
    assert float(std[1, place]) == pytest.approx(np.std(ones), abs=1e-13)
    assert float(std[9].min()) == 1  # fluorine did not occur
    with pytest.raises(DataError, match="'0' has no Hamiltonian"):
        label_statistics(molecules(MD17, rng, labelled=False), MD17)


@pytest.mark.parametrize("scaling", ["none", "shift", "standardize"])
@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
def test_scaled_labels_come_back(scaling: str, space: str, rng: np.random.Generator) -> None:
    """Fed the labels as if they were the network's output, a prediction is the label matrix."""
    from hambench.model import Prediction

    mols = molecules(MD17, rng)
    model = Helm(MD17, **SMALL, label_scaling=scaling, loss_space=space).double()
    model.prepare(mols)
    batch = collate(mols, model.graph)
    rows = {}
    on_site = batch.node_places, batch.node_values
    for kind, n, (places, values) in (
        ("node", len(batch.numbers), on_site),
        ("edge", batch.num_edges, pair_labels(batch)),
    ):
        flat = torch.zeros(n * model.graph.layout.size, dtype=torch.float64)
        rows[kind] = flat.index_copy(0, places, values).view(n, -1)
    perfect = Prediction(batch, model.graph, **rows)
    assert float(model.loss(perfect, batch).value()) == 0
    for matrix, molecule in zip(perfect.matrices(), mols, strict=True):
        assert np.abs(matrix.numpy() - molecule.hamiltonian).max() < 1e-12


@pytest.mark.parametrize("make", [Helm, HelmEnergy])
@pytest.mark.parametrize("mask", ["padded", "masked"])
def test_padding_changes_no_gradient(
    make: Callable[..., Model], mask: str, rng: np.random.Generator
) -> None:
    options = {"loss_mask": mask} if make is Helm else {}
    model = make(MD17, **SMALL, **options).double()
    mols = [dataclasses.replace(m, energy=-40.0 - k) for k, m in enumerate(molecules(MD17, rng))]
    plain = collate(mols, model.graph)
    filled = padded([build_graph(m, model.graph) for m in mols], model.graph, 40)
    assert filled.num_edges == 40 > plain.num_edges
    losses, gradients = [], []
    for batch in (plain, filled):
        model.zero_grad(set_to_none=True)
        losses.append(model.loss(model(batch), batch).value())
        losses[-1].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=1e-12)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_every_parameter_learns(rng: np.random.Generator) -> None:
    mols = molecules(MD17, rng)
    for model in (
        Helm(MD17, **SMALL),
        Helm(MD17, **SMALL, **NO_REDUCTION),
        Helm(MD17, **SMALL, pair_gates="own"),
    ):
        model.double()
        batch = collate(mols, model.graph)
        model.loss(model(batch), batch).value().backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="reduce_node_intra needs reduce_node"):
        Helm(MD17, **SMALL, reduce_node=False)
    with pytest.raises(ConfigError, match="expected element or element_charge_spin"):
        Helm(MD17, **SMALL, node_scalars="spin")


@pytest.mark.parametrize("change", [{"charge": -11}, {"multiplicity": 11}])
def test_charges_without_an_embedding_are_named(change: dict, rng: np.random.Generator) -> None:
    far = dataclasses.replace(molecules(MD17, rng)[0], id="ion", **change)
    name = next(iter(change))
    with pytest.raises(
        ConfigError, match=f"'ion' has a {name} of -?11, the model takes at most 10"
    ):
        collate([far], Helm(MD17, **SMALL).graph)
    blind = Helm(MD17, **SMALL, node_scalars="element")
    assert blind(collate([far], blind.graph)).node.isfinite().all()


def energetic(basis: OrbitalBasis, rng: np.random.Generator) -> list[Molecule]:
    mols = molecules(basis, rng, labelled=False)
    return [dataclasses.replace(m, energy=-75.0 * k - 40.0) for k, m in enumerate(mols)]


@pytest.mark.parametrize(("head", "count"), [("convolution", 5_430_017), ("linear", 128)])
def test_energy_heads(head: str, count: int) -> None:
    with torch.device("meta"):
        model = HelmEnergy(MD17, head=head)
    assert sum(p.numel() for p in model.head.parameters()) == count


@pytest.mark.parametrize("head", ["convolution", "linear"])
def test_energies_do_not_turn_and_add_up(head: str, rng: np.random.Generator) -> None:
    model = HelmEnergy(MD17, **SMALL, head=head).double()
    mols = energetic(MD17, rng)
    model.prepare(mols)
    first = model(collate(mols, model.graph)).energies.detach()
    for turn in Rotation.random(3, rng=1).as_matrix():
        again = model(collate([turned(m, turn) for m in mols], model.graph)).energies
        torch.testing.assert_close(again, first, rtol=0, atol=1e-10)
    # the two molecules as one, further apart than the cutoff; both neutral, as charges mix
    a, b = (dataclasses.replace(m, charge=0) for m in mols)
    apart = model(collate([a, b], model.graph)).energies.sum()
    positions = np.concatenate([a.positions, b.positions + np.array([0, 0, 40.0])])
    both = Molecule(np.concatenate([a.numbers, b.numbers]), positions)
    together = model(collate([both], model.graph)).energies[0]
    assert float((together - apart).detach().abs()) < 1e-10


def test_references_are_kept_in_full(rng: np.random.Generator) -> None:
    mols = energetic(MD17, rng)
    model = HelmEnergy(MD17, **SMALL)
    cast(model, torch.float32)
    model.prepare(mols)
    fitted = model.references[torch.from_numpy(mols[1].numbers)].sum()
    assert float(fitted) == pytest.approx(mols[1].energy, abs=1e-10)
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    predicted = model(collate(mols, model.graph)).energies.detach()
    assert predicted.dtype == torch.float64
    assert [float(e) for e in predicted] == pytest.approx([m.energy for m in mols], abs=1e-10)
    with pytest.raises(DataError, match="'0' has no energy to fit atomic references to"):
        model.prepare(molecules(MD17, rng))


@pytest.mark.parametrize("tilt", [0.0, 1e-12, 1e-9, 1e-7, 1e-5])
@pytest.mark.parametrize("head", ["convolution", "linear"])
def test_forces_are_the_slope_of_the_energy(
    head: str, tilt: float, rng: np.random.Generator
) -> None:
    """Also of bonds along z, where the angles of the frame have no derivative, and next to it."""
    model = HelmEnergy(MD17, **SMALL, head=head).double()
    positions = np.array([[0, 0, 0], [tilt, 0, 1.1], [0, -tilt, -1.3], [0.9, 0.4, 0.3]])
    batch = collate([Molecule([6, 8, 7, 1], positions)], model.graph)
    forces = model.energy_and_forces(batch)[1]
    steps = torch.zeros(12, 4, 3, dtype=torch.float64)
    steps.view(12, 12).fill_diagonal_(2e-5)
    places = batch.positions + torch.cat([steps, -steps])
    moved = [Molecule([6, 8, 7, 1], x.numpy()) for x in places]
    with torch.no_grad():
        energies = model(collate(moved, model.graph)).energies
    slope = (energies[12:] - energies[:12]).view(4, 3) / 4e-5
    assert float(slope.abs().max()) > 1e-3
    torch.testing.assert_close(forces, slope, rtol=0, atol=1e-8)


def test_forces_turn_with_the_molecule(rng: np.random.Generator) -> None:
    model, mols = HelmEnergy(MD17, **SMALL).double(), molecules(MD17, rng, labelled=False)
    forces = model.energy_and_forces(collate(mols, model.graph))[1]
    turn = Rotation.random(rng=2).as_matrix()
    again = model.energy_and_forces(collate([turned(m, turn) for m in mols], model.graph))[1]
    torch.testing.assert_close(again, forces @ torch.from_numpy(turn.T), rtol=0, atol=1e-10)
