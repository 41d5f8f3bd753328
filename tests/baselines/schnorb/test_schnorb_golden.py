"""The public code's weights give its numbers: every stored intermediate, output and gradient.

``tests/golden/schnorb_*.npz`` hold weights, inputs and intermediates of
atomistic-machine-learning/SchNOrb in float64, with B = Q = 16, D = 2 and T = 2.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hambench
from hambench.baselines.schnorb.model import SchNOrb
from hambench.baselines.schnorb.orbitals import products
from hambench.baselines.schnorb.published import published_tensors
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import from_canonical, to_canonical
from hambench.data.graph import GraphSpec, collate
from hambench.errors import CheckpointError
from hambench.model import Prediction

GOLDEN = Path(__file__).parents[2] / "golden"
BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8])
TOLERANCE = 1e-10
OPTIONS = {
    "width": 16, "factors": 16, "directions": 2, "layers": 2, "overlap": True, "energies": True,
    "loss": "mse", "rounded_gaussians": True, "elements": 100, "overlap_elements": 30,
}  # fmt: skip


class Case:
    """A golden file, our model with its weights, and what it makes of its molecule."""

    def __init__(self, name: str, **options: object) -> None:
        self.file = file = np.load(GOLDEN / f"schnorb_{name}.npz", allow_pickle=False)
        shapes, starts = json.loads(str(file["param/shapes"])), file["param/offsets"]
        flat = torch.from_numpy(file["param/flat"])
        self.names = [str(n) for n in file["param/names"]]
        self.weights = {
            n: flat[starts[k] : starts[k + 1]].view(shapes[k]) for k, n in enumerate(self.names)
        }
        buffers = {k[7:]: torch.from_numpy(file[k]) for k in file.files if k.startswith("buffer/")}
        self.weights |= buffers
        self.model = SchNOrb(BASIS, **{**OPTIONS, **options}).double()
        hambench.load_published(self.model, self.weights)
        self.numbers = file["input/Z"]
        target = {
            name: to_canonical(file[f"target/{key}"], self.numbers, BASIS, "orca")
            for name, key in (("hamiltonian", "H"), ("overlap", "S"))
        }
        self.molecule = Molecule(
            self.numbers, file["input/positions_angstrom"], basis="def2-svp", id=name,
            energy=float(file["target/E"][0]), **target,
        )  # fmt: skip
        self.batch = collate([self.molecule], self.model.graph)
        self.batch.positions.requires_grad_()

    @cached_property
    def geometry(self):
        return self.model._geometry(self.batch)

    @cached_property
    def states(self) -> tuple[list[Tensor], list[Tensor]]:
        """Features after every layer, the embedding first; and the states of the pairs."""
        body, x = self.model.representation, self.model.representation.embedding(self.batch.numbers)
        seen, states = [x], []
        for layer in body.interactions:
            seen.append(layer(seen[-1], self.geometry, body.mean))
        for block in body.blocks:
            x, h = block(seen[-1], self.geometry, body.mean)
            seen.append(x)
            states.append(h)
        return seen, states

    @cached_property
    def factors(self) -> list:
        layers = zip(self.model.factors, self.states[1], strict=True)
        return [layer(h, self.geometry) for layer, h in layers]

    def neighbours(self, there: Tensor, back: Tensor) -> Tensor:
        """(P, ...) of the pairs and of their reverses -> (A, A-1, ...), ascending neighbours."""
        pairs, atoms = self.geometry.pairs, len(self.numbers)
        full = there.new_zeros(atoms, atoms, *there.shape[1:])
        full[pairs.first, pairs.second] = there
        full[pairs.second, pairs.first] = back
        return torch.stack([full[i, torch.arange(atoms) != i] for i in range(atoms)])

    def check(self, value: Tensor, key: str) -> None:
        expected = torch.from_numpy(self.file[key])
        assert value.shape == expected.shape, key
        assert (value.detach() - expected).abs().max() <= TOLERANCE, key


@pytest.fixture(scope="module", params=["a", "b"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_geometry(case: Case) -> None:
    geometry, pairs = case.geometry, case.geometry.pairs
    vector = case.batch.positions[pairs.second] - case.batch.positions[pairs.first]
    distance, direction = vector.norm(dim=1), geometry.direction
    case.check(case.neighbours(distance, distance), "mid/d_ij")
    case.check(case.neighbours(direction, -direction), "mid/c_ij")
    case.check(case.neighbours(geometry.gaussians, geometry.gaussians), "mid/gauss")
    fade = geometry.envelope[:, 0]
    case.check(case.neighbours(fade, fade), "mid/f_c")


def test_representation(case: Case) -> None:
    seen, states = case.states
    body, layers = case.model.representation, len(case.model.representation.interactions)
    case.check(seen[0], "mid/x_embedding")
    for k, layer in enumerate(body.interactions):
        filters = layer.filter(case.geometry.gaussians)
        case.check(case.neighbours(filters, filters), f"mid/schnet{k}.filter")
        case.check(seen[1 + k], f"mid/schnet{k}.x")
    for k, h in enumerate(states):
        case.check(case.neighbours(h, h), f"mid/block{k}.h")
        case.check(seen[1 + layers + k], f"mid/block{k}.x")
    torch.testing.assert_close(case.model.embeddings(case.batch), seen[-1], rtol=0, atol=1e-13)


@torch.no_grad()
def test_factors_and_their_products(case: Case) -> None:
    factors, pairs = case.factors, case.geometry.pairs
    values, running = products(factors, pairs, slice(None))
    for k, v in enumerate(values):
        case.check(case.neighbours(*v).mT, f"mid/block{k}.V")
    shape = running[-1].shape
    omega = torch.stack([o.expand(shape).mT.flatten(2) for o in running], 2)
    case.check(case.neighbours(*omega), "mid/Omega")
    # all readouts of one pair, whose orbitals stand in the public code's order
    weight = {k: v for k, v in case.weights.items() if k.startswith("output.")}
    z = omega.flatten(2)
    for name, key in (("offsitenet", "H_off"), ("ov_offsitenet", "S_off")):
        read = z @ weight[f"output.{name}.weight"].T + weight[f"output.{name}.bias"]
        case.check(case.neighbours(*read), f"mid/{key}")
    n = case.model.places.orbitals
    atom, pair = case.model.readout(factors, pairs)
    for quantity, key in enumerate(("H_off", "S_off")):
        expected = torch.from_numpy(case.file[f"mid/{key}"]).unflatten(-1, (n, n))
        full = torch.zeros(len(case.numbers), len(case.numbers), n, n, dtype=torch.float64)
        for i, row in enumerate(expected):
            full[i, torch.arange(len(case.numbers)) != i] = row
        symmetric = (full + full.permute(1, 0, 3, 2)) / 2
        expected = symmetric[pairs.first, pairs.second]
        for group in pairs.groups:
            part = slice(group.start, group.stop), slice(group.rows), slice(group.columns)
            found = pair[part[0], quantity][:, part[1], part[2]]
            assert (found - expected[part]).abs().max() <= TOLERANCE, key
    terms = torch.from_numpy(case.file["mid/H_on_terms"]).mean(1).unflatten(-1, (n, n))
    assert (atom - (terms + terms.mT) / 2).abs().max() <= TOLERANCE


@pytest.mark.parametrize(
    ("options", "group"),
    [
        ({}, "out"),
        ({"mean_messages": True}, "out_mean_agg"),
        ({"rounded_gaussians": False}, "out_f64buf"),
    ],
    ids=["published", "means", "float64 buffers"],
)
@pytest.mark.parametrize("name", ["a", "b"])
def test_outputs(name: str, options: dict[str, bool], group: str) -> None:
    case = Case(name, **options)
    with torch.no_grad():
        prediction = case.model(case.batch)
    plain = GraphSpec(BASIS, space="uncoupled")
    overlap = Prediction(case.batch, plain, *prediction.overlap)
    for key, (matrix,) in (("H", prediction.matrices()), ("S", overlap.matrices())):
        listed = from_canonical(matrix.numpy(), case.numbers, BASIS, "orca")
        case.check(torch.from_numpy(listed), f"{group}/{key}")
    case.check(prediction.energies, f"{group}/E")
    energies, forces = case.model.energy_and_forces(case.batch)
    case.check(energies, f"{group}/E")
    case.check(forces, f"{group}/forces")


def test_atom_energies(case: Case) -> None:
    each = case.model.energies(case.states[0][-1])
    each = case.model.energy_std * each + case.model.energy_mean
    case.check(each[:, None], "mid/e_i")


def test_losses(case: Case) -> None:
    loss = case.model.loss(case.model(case.batch), case.batch)
    means = loss.terms / loss.counts
    for value, key in zip(means, ("mse_H", "mse_S", "mse_E"), strict=True):
        case.check(value, f"loss/{key}")
    case.check(loss.value(), "loss/total")
    _, forces = case.model.energy_and_forces(case.batch)
    error = (forces - torch.from_numpy(case.file["target/forces"])).square().mean()
    case.check(error, "loss/mse_forces")
    case.check(means[0] + means[1] + 0.1 * means[2] + 0.9 * error, "loss/total_with_forces")


def test_gradients(case: Case) -> None:
    model, batch = case.model, case.batch
    model.zero_grad()
    batch.positions.grad = None
    model.loss(model(batch), batch).value().backward()
    gradients = published_tensors(model, lambda parameter: parameter.grad)
    assert gradients.keys() == set(case.names)
    norms = dict(zip(case.names, case.file["grad/param_norms"], strict=True))
    largest = max(norms.values())
    for name, gradient in gradients.items():
        assert abs(float(gradient.norm()) - norms[name]) <= 1e-10 * max(largest, 1), name
        assert float(gradient.norm()) == pytest.approx(norms[name], rel=1e-9), name
        if f"grad/{name}" in case.file:
            expected = torch.from_numpy(case.file[f"grad/{name}"])
            error = (gradient.reshape(expected.shape) - expected).abs().max()
            assert error <= 1e-10 * expected.abs().max(), name
    expected = torch.from_numpy(case.file["grad/positions"])
    assert (batch.positions.grad - expected).abs().max() <= 1e-10 * expected.abs().max()


def test_buffers_are_the_public_codes(case: Case) -> None:
    from hambench.baselines.schnorb.pairs import _centres

    centres, width = _centres(case.model.radial, torch.float64, torch.device("cpu"))
    case.check(centres, "buffer/representation.distance_expansion.offsets")
    case.check(width.expand(50), "buffer/representation.distance_expansion.width")


def test_without_a_definition_orbitals_are_orcas(case: Case) -> None:
    before = case.model.places.order.clone()
    weights = {k: v for k, v in case.weights.items() if k != "output.basis_definition"}
    hambench.load_published(case.model, weights)
    assert torch.equal(case.model.places.order, before)


def test_wrong_checkpoints_are_named(case: Case) -> None:
    name = "representation.embedding.weight"
    missing = {k: v for k, v in case.weights.items() if k != name}
    with pytest.raises(CheckpointError, match=f"lacks '{name}'; build"):
        hambench.load_published(case.model, missing)
    with pytest.raises(CheckpointError, match=r"'output\.other' has no place"):
        hambench.load_published(case.model, {**case.weights, "output.other": torch.zeros(1)})
    wide = SchNOrb(BASIS, **{**OPTIONS, "width": 32})
    with pytest.raises(CheckpointError, match="widths and basis"):
        hambench.load_published(wide, case.weights)
    other = case.weights["output.basis_definition"].clone()
    other[8, 0, 3] = 1
    with pytest.raises(CheckpointError, match="other orbitals for Z = 8"):
        hambench.load_published(case.model, {**case.weights, "output.basis_definition": other})
    small = SchNOrb(BASIS, **{**OPTIONS, "overlap": False})
    with pytest.raises(CheckpointError, match=r"'output\.s0\.orbital_energies' has no place"):
        hambench.load_published(small, case.weights)
    again = {f"{k.replace('.filter', '.cfconv.filter')}": v for k, v in case.weights.items()}
    hambench.load_published(case.model, {**again, **case.weights})
