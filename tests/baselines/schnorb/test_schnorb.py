"""SchNOrb: counts, an oracle, symmetries, any basis, labels, energies, learning."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from schnorb_oracle import Oracle, leaves
from scipy.spatial.transform import Rotation

import hambench
from hambench.baselines.schnorb.energy import SchNOrbEnergy
from hambench.baselines.schnorb.model import SchNOrb
from hambench.baselines.schnorb.pairs import Group, Pairs, pairs_of
from hambench.baselines.schnorb.published import published_tensors
from hambench.baselines.schnorb.size import LARGEST, count_parameters
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation, turned
from hambench.data.graph import GraphSpec, build_graph, collate
from hambench.data.padding import padded
from hambench.errors import ConfigError, DataError
from hambench.learn.validation import metric_name, molecule_errors
from hambench.learn.weights import cast
from hambench.model import Prediction

MD17 = OrbitalBasis.load("def2-svp", [1, 6, 7, 8])
NABLA = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
LIGHT_NABLA = NABLA.restrict([1, 6, 7, 8, 9, 16, 17])
OMOL = OrbitalBasis.load("def2-tzvpd")
SMALL: dict[str, Any] = {"width": 8, "factors": 6, "directions": 2, "layers": 2, "gaussians": 12}
ALL: dict[str, Any] = {**SMALL, "overlap": True, "energies": True, "loss": "mse"}


def shaken(model: SchNOrb) -> SchNOrb:
    """The model in float64, nothing of it zero."""
    generator = torch.Generator().manual_seed(3)
    model = model.double()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter += 0.1 * noise
        model.representation.embedding.weight[0] = 0
        model.energy_mean.fill_(-0.3)
        model.energy_std.fill_(1.7)
    return model


def molecules(basis: OrbitalBasis, rng: np.random.Generator) -> list[Molecule]:
    """A cation, a water-like one, a diatomic and an atom, with all labels."""
    heavy = {"def2-tzvpd": [53, 79]}.get(basis.name, [8, 7])
    found = []
    for k, numbers in enumerate([[6, *heavy, 1, 1], [heavy[0], 1, 1], [1, 6], [8]]):
        positions = rng.normal(size=(len(numbers), 3)) * 1.2 + np.arange(len(numbers))[:, None]
        h, s = rng.normal(size=(2, basis.nao(numbers), basis.nao(numbers)))
        found.append(
            Molecule(
                numbers, positions, charge=int(k == 0), basis=basis.name, id=str(k),
                hamiltonian=h + h.T, overlap=s + s.T, energy=-3.0 * len(numbers) - k,
            )
        )  # fmt: skip
    return found


def matrices(model: SchNOrb, batch: Any) -> tuple[list, list]:
    """H and S of a batch."""
    prediction = model(batch)
    spec = GraphSpec(model.basis, space="uncoupled")
    assert prediction.overlap is not None
    return prediction.matrices(), Prediction(batch, spec, *prediction.overlap).matrices()


# -- size ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "basis", "total", "parts"),
    [
        ("schnorb_md17", MD17, 93_350_297, (100_000, 11_760_196, 5_880, 126)),
        ("schnorb_md17", MD17.restrict([1, 8]), 93_350_297, (100_000, 11_760_196, 5_880, 126)),
        ("schnorb_nabla2dft", NABLA, 242_361_817, (36_000, 61_441_024, 36_864, 1152)),
        ("schnorb_nabla2dft", LIGHT_NABLA, 116_332_861, (36_000, 19_440_324, 11_664, 324)),
    ],
    ids=["md17", "water", "nabla2dft", "without Br"],
)
def test_published_parameter_counts(preset, basis, total, parts) -> None:
    with torch.device("meta"):
        model = hambench.build_model(preset, basis)

    def count(*modules: Any) -> int:
        return sum(p.numel() for m in modules for p in m.parameters())

    embedding, readout, on_site, table = parts
    body = model.representation
    assert body.embedding.weight.numel() == embedding
    assert [count(layer) for layer in body.interactions] == [4_054_000] * 3
    blocks = [count(*pair) for pair in zip(body.blocks, model.factors, strict=True)]
    assert blocks == [9_060_000] + [9_060_144] * 4
    assert count(body, model.factors) == 57_462_576 + embedding
    assert count(body.blocks[0].state.filter) == 1_052_000
    assert count(model.factors[0].pair) == count(model.factors[0].environment) == 2_002_000
    assert model.readout.pair_weight.numel() + model.readout.pair_bias.numel() == 2 * readout
    assert model.readout.atom_weight.numel() + model.readout.atom_bias.numel() == readout
    assert model.overlap_on_site.numel() == on_site
    assert model.diagonal.numel() == model.overlap_diagonal.numel() == table
    assert count(model.energies) == 501_001
    assert model.count_parameters() == total


@pytest.mark.parametrize(
    "options",
    [ALL, SMALL, {**SMALL, "directions": 0, "lmax": 3}, {**ALL, "elements": 40, "lmax": 0}],
    ids=["all", "H", "axes", "one block"],
)
def test_parameters_are_counted_before_they_are_made(options) -> None:
    model = SchNOrb(NABLA, **options)
    energy, overlap = options.get("energies", False), options.get("overlap", False)
    parts = count_parameters(
        NABLA, width=8, factors=6, directions=options["directions"], layers=2,
        blocks=2 * options.get("lmax", 2) + 1, gaussians=12, rows=options.get("elements", 36),
        overlap_rows=36 if overlap else 0, energy=energy,
    )  # fmt: skip
    assert sum(parts.values()) == model.count_parameters()


def test_what_cannot_scale_is_refused_with_its_size() -> None:
    with pytest.raises(ConfigError, match=rf"473,278,612 parameters.* 59\^2 .*{LARGEST:,}"):
        SchNOrb(OMOL)
    with pytest.raises(ConfigError, match=r"would have [\d,]+ parameters"):  # before its tables
        hambench.build_model("schnorb_nabla2dft", OMOL)
    with pytest.raises(ConfigError, match=r"needs 9 rows .* elements is 8"):
        SchNOrb(MD17, **SMALL, elements=8)


# -- the same equations, written plainly ---------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [ALL, SMALL, {**ALL, "mean_messages": True, "cutoff": 2.5}, {**SMALL, "directions": 0}],
    ids=["all", "H", "means, short cutoff", "axes"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_oracle(options: dict[str, Any], dtype: torch.dtype, rng: np.random.Generator) -> None:
    """Values, and gradients of all parameters and positions."""
    model = shaken(SchNOrb(MD17, **options)).to(dtype)
    tolerance = 1e-10 if dtype == torch.float64 else 2e-4
    weights = leaves(published_tensors(model, lambda p: p))
    oracle = Oracle(
        weights, model.orbitals, 12, options.get("cutoff", 10.0),
        options.get("mean_messages", False), -0.3, 1.7,
    )  # fmt: skip
    mols = [
        dataclasses.replace(m, positions=rng.normal(size=(4, 3)) * 1.5)
        for m in [
            Molecule([6, 1, 1, 8], np.zeros((4, 3))),
            Molecule([1, 7, 8, 1], np.zeros((4, 3))),
        ]
    ]
    batch = collate(mols, model.graph)
    batch.positions.requires_grad_()
    prediction = model(batch)
    found = {"H": prediction.matrices()}
    if prediction.overlap is not None:
        found["S"] = matrices(model, batch)[1]
        found["E"] = list(prediction.energies)
    numbers = batch.numbers.view(2, 4)
    positions = batch.positions.detach().view(2, 4, 3).clone().requires_grad_()
    expected: dict[str, Any] = oracle(numbers, positions)
    expected = {
        k: list(v.double()) if k == "E" else oracle.cut(v.double(), numbers)
        for k, v in expected.items()
    }
    assert found.keys() == expected.keys()
    weigh = np.random.default_rng(0)
    totals = [0.0, 0.0]
    for key in found:
        for one, other in zip(found[key], expected[key], strict=True):
            assert (one - other).abs().max() < tolerance, key
            probe = torch.from_numpy(np.asarray(weigh.normal(size=one.shape)))
            totals[0], totals[1] = (
                totals[0] + (probe * one).sum(),
                totals[1] + (probe * other).sum(),
            )
    for total in totals:
        total.backward()
    for name, gradient in published_tensors(model, lambda p: p.grad).items():
        truth = weights[name].grad
        error = (gradient.reshape(truth.shape) - truth).abs().max()
        assert error < tolerance * max(1.0, float(truth.abs().max())), name
    truth = positions.grad.view(-1, 3)
    assert (batch.positions.grad - truth).abs().max() < tolerance * max(
        1.0, float(truth.abs().max())
    )


def test_groups_change_nothing(rng: np.random.Generator) -> None:
    """Of a device where sizes are not asked for, all pairs are one group."""
    model = shaken(SchNOrb(NABLA, **ALL))
    batch = collate(molecules(NABLA, rng), model.graph)
    pairs = pairs_of(batch, model.orbitals, 32)
    assert [(g.rows, g.columns) for g in pairs.groups] == [(5, 5), (14, 5), (14, 14)]
    there, _ = batch.pair_index
    whole = Pairs(
        *batch.edge_index[:, there], batch.pair_index, pairs.share, (Group(0, len(there), 32, 32),)
    )
    results = []
    for one in (pairs, whole):
        model.zero_grad()
        batch.positions.requires_grad_().grad = None
        model._geometry = lambda batch, one=one: model.radial.geometry(batch, one)
        prediction = model(batch)
        model.loss(prediction, batch).value().backward()
        gradients = [p.grad for p in model.parameters()]
        results.append([prediction.node, prediction.edge, batch.positions.grad, *gradients])
    for left, right in zip(*results, strict=True):
        assert (left - right).abs().max() <= 1e-12 * max(1, float(right.detach().abs().max()))


def test_parts_change_nothing(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = shaken(SchNOrb(MD17, **SMALL))
    batch = collate(molecules(MD17, rng), model.graph)
    results = []
    for numbers in (2**23, 3 * 2 * 16):
        monkeypatch.setattr("hambench.baselines.schnorb.orbitals._NUMBERS", numbers)
        model.zero_grad()
        model.loss(model(batch), batch).value().backward()
        results.append([p.grad.clone() for p in model.parameters()])
    for left, right in zip(*results, strict=True):
        assert (left - right).abs().max() <= 1e-12 * max(1, float(right.detach().abs().max()))


def test_the_gradient_is_the_slope(rng: np.random.Generator) -> None:
    model = shaken(SchNOrb(MD17, **SMALL))
    batch = collate(molecules(MD17, rng)[1:3], model.graph)
    names = [n for n, _ in model.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in model.parameters()]
    probe = torch.from_numpy(rng.normal(size=24**2))

    def total(*given: torch.Tensor) -> torch.Tensor:
        weights = dict(zip(names, given, strict=True))
        prediction = torch.func.functional_call(model, weights, (batch,))
        return prediction.matrices()[0].reshape(-1) @ probe

    assert torch.autograd.gradcheck(total, values, fast_mode=True, atol=1e-6)


# -- symmetries, bases, batches ------------------------------------------------------------------


def test_it_is_not_equivariant_but_its_energies_are_invariant(rng: np.random.Generator) -> None:
    assert not SchNOrb.equivariant
    model = shaken(SchNOrb(MD17, **ALL))
    molecule, turn = molecules(MD17, rng)[0], Rotation.random(rng=7).as_matrix()
    with torch.no_grad():
        before, after = (
            model(collate([m], model.graph)) for m in (molecule, turned(molecule, MD17, turn))
        )
    assert (before.energies - after.energies).abs().max() < 1e-12
    d = torch.from_numpy(ao_rotation(molecule.numbers, MD17, turn))
    (h,), (again,) = before.matrices(), after.matrices()
    assert (again - d @ h @ d.T).abs().mean() > 1e-3


@pytest.mark.parametrize("basis", [MD17, NABLA, OMOL], ids=["svp", "nabla", "tzvpd"])
def test_atoms_batches_and_places(basis: OrbitalBasis, rng: np.random.Generator) -> None:
    """Order of atoms and of the batch, molecules alone, translation; symmetric matrices."""
    model = shaken(SchNOrb(basis, **ALL))
    mols = molecules(basis, rng)
    order = rng.permutation(len(mols[0]))
    first = Molecule(mols[0].numbers[order], mols[0].positions[order] + 3.0, basis=basis.name)
    bare = [dataclasses.replace(m, hamiltonian=None, overlap=None, energy=None) for m in mols]
    counts = basis.ao_counts(mols[0].numbers)
    starts = np.cumsum(counts) - counts
    index = np.concatenate([starts[a] + np.arange(counts[a]) for a in order])
    with torch.no_grad():
        together = matrices(model, collate(bare, model.graph))
        other = matrices(model, collate([*bare[:0:-1], first], model.graph))
        for one, again in zip(together, other, strict=True):
            shuffled = one[0][index][:, index]
            assert (again[-1] - shuffled).abs().max() < 1e-11
            for k, m in enumerate(bare[1:], 1):
                (alone,) = matrices(model, collate([m], model.graph))[one is together[1]]
                assert (one[k] - alone).abs().max() < 1e-11
                assert (again[-1 - k] - alone).abs().max() < 1e-11
            assert all(torch.equal(m, m.T) for m in one)


def test_an_atom_has_its_diagonal_alone() -> None:
    model = shaken(SchNOrb(MD17, **SMALL))
    model.diagonal_mean.copy_(torch.randn(model.diagonal_mean.shape))
    (matrix,) = model(collate([Molecule([8], np.zeros((1, 3)))], model.graph)).matrices()
    expected = torch.diag(model.diagonal[8].detach() + model.diagonal_mean[8])
    assert (matrix - expected).abs().max() < 1e-14


def test_padding_changes_no_gradient(rng: np.random.Generator) -> None:
    model = shaken(SchNOrb(MD17, **{**ALL, "padded_loss": True}))
    mols = molecules(MD17, rng)
    plain = collate(mols, model.graph)
    filled = padded([build_graph(m, model.graph) for m in mols], model.graph, 40)
    assert filled.num_edges == 40 > plain.num_edges
    results = []
    for batch in (plain, filled):
        model.zero_grad()
        loss = model.loss(model(batch), batch).value()
        loss.backward()
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for left, right in zip(*results, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("options", [ALL, SMALL], ids=["all", "H"])
def test_every_parameter_learns(options: dict[str, Any], rng: np.random.Generator) -> None:
    model = shaken(SchNOrb(MD17, **options))
    batch = collate(molecules(MD17, rng), model.graph)
    model.loss(model(batch), batch).value().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


# -- labels --------------------------------------------------------------------------------------


def test_statistics_of_the_training_set(rng: np.random.Generator) -> None:
    model = SchNOrb(MD17, **ALL)
    cast(model, torch.float32)
    mols = molecules(MD17, rng)
    model.prepare(mols)
    ones = []
    for molecule in mols:
        counts = MD17.ao_counts(molecule.numbers)
        for start, z in zip(np.cumsum(counts) - counts, molecule.numbers, strict=True):
            if z == 1:
                ones.append(molecule.hamiltonian.diagonal()[start : start + 5])
    assert model.diagonal_mean.dtype == torch.float64
    assert np.allclose(model.diagonal_mean[1, :5], np.mean(ones, axis=0), atol=1e-14)
    each = [m.energy / len(m) for m in mols]
    assert float(model.energy_mean) == pytest.approx(np.mean(each), abs=1e-14)
    assert float(model.energy_std) == pytest.approx(np.std(each), abs=1e-14)
    batch = collate(mols, model.graph)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        found = model(batch)
    nothing = found.matrices()
    for matrix, molecule in zip(nothing, mols, strict=True):  # what is left are the means
        expected = np.concatenate(
            [
                model.diagonal_mean[z, :n]
                for z, n in zip(molecule.numbers, MD17.ao_counts(molecule.numbers), strict=True)
            ]
        )
        assert np.abs(matrix.numpy() - np.diag(expected)).max() < 1e-12
    assert found.energies.dtype == torch.float64


def test_the_loss_is_of_full_matrices(rng: np.random.Generator) -> None:
    mols = molecules(MD17, rng)
    for loss, padded_loss in (("mse", False), ("mse", True), ("rmse_plus_mse", False)):
        model = shaken(SchNOrb(MD17, **{**ALL, "loss": loss, "padded_loss": padded_loss}))
        model.prepare(mols)
        batch = collate(mols, model.graph)
        prediction = model(batch)
        total = (prediction.energies - torch.tensor([m.energy for m in mols])).square().mean()
        sizes = [len(m.hamiltonian) for m in mols]
        entries = len(mols) * max(sizes) ** 2 if padded_loss else sum(n**2 for n in sizes)
        for found, name in zip(matrices(model, batch), ("hamiltonian", "overlap"), strict=True):
            labels = [torch.from_numpy(getattr(m, name)) for m in mols]
            errors = [a - b for a, b in zip(found, labels, strict=True)]
            total = total + sum(e.square().sum() for e in errors) / entries
        expected = total if loss == "mse" else total.sqrt() + total
        found = model.loss(prediction, batch).value()
        assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


def test_it_is_validated_on_hamiltonians(rng: np.random.Generator) -> None:
    model = shaken(SchNOrb(MD17, **ALL))
    mols = molecules(MD17, rng)
    batch = collate(mols, model.graph)
    labels = [torch.from_numpy(m.hamiltonian) for m in mols]
    batch.reference = torch.cat([h.reshape(-1) for h in labels])
    with torch.no_grad():
        prediction = model(batch)
    expected = [
        float((h - label).abs().mean())
        for h, label in zip(prediction.matrices(), labels, strict=True)
    ]
    assert molecule_errors(prediction, batch).tolist() == pytest.approx(expected, rel=1e-12)
    assert metric_name(model) == "h_mae"


@pytest.mark.parametrize(("label", "option"), [("energy", "energies"), ("overlap", "overlap")])
def test_missing_labels_are_named_with_the_option(
    label: str, option: str, rng: np.random.Generator
) -> None:
    mols = [dataclasses.replace(m, **{label: None}) for m in molecules(MD17, rng)]
    said = f"'0' has no {label}, .* set model.hyperparameters.{option}=false"
    with pytest.raises(DataError, match=said):
        SchNOrb(MD17, **ALL).prepare(mols)
    SchNOrb(MD17, **{**ALL, option: False}).prepare(mols)
    model = SchNOrb(MD17, **ALL)
    batch = collate(mols, model.graph)
    with pytest.raises(DataError, match=r"holds no overlap|no energies.*energies=false"):
        model.loss(model(batch), batch)
    with pytest.raises(ConfigError, match="predicts no energies"):
        SchNOrb(MD17, **SMALL).energy(batch)


# -- energies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [ALL, SMALL], ids=["all", "H"])
def test_energies_stand_on_the_representation(
    options: dict[str, Any], rng: np.random.Generator
) -> None:
    mols = molecules(MD17, rng)
    model = shaken(SchNOrb(MD17, **options))
    defaults = hambench.build_model("schnorb_small", MD17).hyperparameters
    defaults = {**defaults, "mean_messages": False, **options}
    staged = SchNOrb.for_energies(MD17, defaults, {"head": "network"})
    assert isinstance(staged, SchNOrbEnergy)
    staged.double()
    staged.adopt(model.state_dict(), "there")
    batch = collate(mols, staged.graph)
    assert not staged.graph.rotate
    assert torch.equal(staged.embeddings(batch), model.embeddings(batch))
    assert staged.embeddings(batch).shape == (len(batch.numbers), staged.embedding_size)
    staged.loss(staged(batch), batch).value().backward()
    assert all(p.grad is not None for p in staged.parameters())


def test_energies_of_a_published_preset_have_forces(rng: np.random.Generator) -> None:
    model = shaken(SchNOrb(MD17, **ALL))
    molecule = molecules(MD17, rng)[1]
    forces = model.energy_and_forces(collate([molecule], model.graph))[1]
    step = 1e-5
    for atom, axis in ((0, 0), (2, 1)):
        ends = []
        for sign in (1, -1):
            positions = molecule.positions.copy()
            positions[atom, axis] += sign * step
            moved = dataclasses.replace(molecule, positions=positions)
            ends.append(float(model.energy(collate([moved], model.graph)).detach()))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert float(forces[atom, axis]) == pytest.approx(-slope, abs=1e-8)
