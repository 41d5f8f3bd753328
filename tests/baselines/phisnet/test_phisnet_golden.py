"""PhiSNet's public code: its weights give its numbers, every stored intermediate and gradient.

``tests/golden/phisnet_*.npz`` hold weights, inputs, intermediates, outputs and gradients of
rhjvanworkum/phisnet_fork (a fork of the authors' code) in float64 at reduced width: a is water,
b a molecule of six atoms some of whose pairs are beyond the cutoff.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import hambench
from hambench.baselines.phisnet.layers import directed
from hambench.baselines.phisnet.names import Entry, coupling_sign, entries
from hambench.baselines.phisnet.network import Edges
from hambench.chem.blocks import layout
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import collate
from hambench.errors import CheckpointError
from hambench.losses import label_errors, mse_plus_mae
from hambench.models import build_energy_model
from hambench.o3.products import HarmonicProduct, harmonics, triangle_paths
from hambench.units import BOHR

GOLDEN = Path(__file__).parents[2] / "golden"
TOLERANCE = 1e-10


class Case:
    """One golden file, our model with its weights, and its molecule."""

    def __init__(self, name: str, **options: object) -> None:
        self.file = np.load(GOLDEN / f"phisnet_{name}.npz", allow_pickle=False)
        config = json.loads(str(self.file["config"]))
        numbers = self.file["input/Z"]
        self.basis = OrbitalBasis.load("def2-svp", numbers.tolist())
        for z, shells in config["basis"].items():
            assert int(z) not in self.basis.shells or self.basis.shells[int(z)].l == tuple(shells)
        self.settings = {
            "order": config["order"],
            "features": config["num_features"],
            "basis_functions": config["num_basis_functions"],
            "modules": config["num_modules"],
            "cutoff": config["cutoff"] * BOHR,
            "molecule": [SYMBOLS[z] for z in numbers],
            **options,
        }
        self.model = hambench.build_model("phisnet_md17", self.basis, **self.settings).double()
        shapes, offsets = json.loads(str(self.file["param/shapes"])), self.file["param/offsets"]
        flat = torch.from_numpy(self.file["param/flat"])
        self.weights = {
            str(name): flat[start:end].reshape(shape)
            for name, start, end, shape in zip(
                self.file["param/names"], offsets[:-1], offsets[1:], shapes, strict=True
            )
        }
        hambench.load_published(self.model, self.weights)
        self.molecule = Molecule(
            numbers,
            self.file["input/positions_bohr"] * BOHR,
            basis="def2-svp",
            hamiltonian=self.file["target/H"],
            overlap=self.file["target/S"],
        )
        self.batch = collate([self.molecule], self.model.graph)

    def rows(self) -> list[int]:
        """Our edges, pairs i < j and then their reverses, in the order of the file."""
        edges = self.model.trunk.edges(self.batch)
        places = numbered(edges)
        stored = np.stack([self.file["table/idx_i"], self.file["table/idx_j"]], 1)
        return [places[i, j] for i, j in stored.tolist()]

    def check(self, value: Tensor, key: str) -> None:
        expected = torch.from_numpy(self.file[key])
        assert value.shape == expected.shape, key
        assert (value.detach() - expected).abs().max() < TOLERANCE, key


@pytest.fixture(scope="module", params=["a", "b"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


class Kept:
    """First input and output of modules while a block runs."""

    def __init__(self, **modules: nn.Module) -> None:
        self.before: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}
        self.hooks = [
            m.register_forward_hook(lambda _, i, o, n=n: self._keep(n, i[0], o))
            for n, m in modules.items()
        ]

    def _keep(self, name: str, before: Tensor, after: Tensor) -> None:
        self.before[name], self.after[name] = before, after

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()


def numbered(edges: Edges) -> dict[tuple[int, int], int]:
    """Atoms of each edge -> its number."""
    pairs = torch.stack([edges.i, edges.j], 1).tolist()
    return {(i, j): k for k, (i, j) in enumerate(pairs)}


def full(x: Tensor) -> Tensor:
    """Features of all degrees, those that are left out here as zeros."""
    return torch.cat([x, x.new_zeros(len(x), 25 - x.shape[1], x.shape[2])], dim=1)


def test_geometry_and_embedding(case: Case) -> None:
    edges, rows = case.model.trunk.edges(case.batch), case.rows()
    vectors = case.batch.positions[edges.j] - case.batch.positions[edges.i]
    distances = vectors.norm(dim=1)
    case.check((distances / BOHR)[rows], "mid/d_ij")
    case.check((vectors / distances[:, None])[rows], "mid/u_ij")
    case.check(edges.radial.repeat(2, 1)[rows], "mid/rbf")
    case.check(harmonics(edges.frames, torch.float64)[rows, :, 0], "mid/sph")
    case.check(case.model.trunk.embedding(case.batch.numbers), "mid/embedding")


def test_features(case: Case) -> None:
    model, rows = case.model, case.rows()
    trunk, first = model.trunk, model.trunk.blocks[0].interaction
    with Kept(
        own=first.own,
        other=first.other,
        after=first.after.residual,
        block0=trunk.blocks[0].interaction,
        behind0=trunk.blocks[0].behind,
        output0=trunk.blocks[0].output,
        block1=trunk.blocks[1].interaction,
        behind1=trunk.blocks[1].behind,
        output1=trunk.blocks[1].output,
        central=trunk.central,
        neighbour=trunk.neighbour,
        atoms=model.atoms.residual,
        product=model.pairs.product,
        pairs=model.pairs.residual,
        overlap=model.overlap.product,
    ) as kept:
        model(case.batch)
    for name, key in {
        "own": "module0.y_i",
        "other": "module0.y_j",
        "after": "module0.v",
        "block0": "module0.interaction",
        "behind0": "module0.x",
        "output0": "module0.y",
        "block1": "module1.interaction",
        "behind1": "module1.x",
        "output1": "module1.y",
        "central": "f_c",
        "neighbour": "f_n",
        "atoms": "g_ii",
    }.items():
        case.check(full(kept.after[name]), f"mid/{key}")
    case.check(kept.before["after"], "mid/module0.v.in")
    case.check(kept.before["central"], "mid/f")
    case.check(kept.before["atoms"], "mid/g_ii.in")
    case.check(kept.before["pairs"][rows], "mid/g_ij.in")
    case.check(kept.after["pairs"][rows], "mid/g_ij")
    case.check(kept.after["product"][rows], "mid/pairmix_ij")
    case.check(kept.after["overlap"][rows], "mid/overlap_pairmix")


@pytest.mark.parametrize("k", [0, 1])
def test_products_of_messages(case: Case, k: int) -> None:
    """PairMix alone, without the second term that our weights hold too."""
    model, edges = case.model, case.model.trunk.edges(case.batch)
    inner = model.trunk.blocks[k].interaction
    with Kept(other=inner.other) as kept:
        model(case.batch)
    factors = inner.angular1()[inner.degrees][..., None]
    weights = directed(inner.mixing * factors, edges.radial)
    neighbours = kept.after["other"][edges.j]
    paths = triangle_paths(4, left=None if k else 0)
    found = HarmonicProduct(paths)(neighbours, edges.frames, weights)
    case.check(found[case.rows()], f"mid/module{k}.pairmix")


def test_heads(case: Case) -> None:
    """The irreps of every shell pair of every atom pair, in the public code's signs.

    Those that cannot change a matrix are zero here.
    """
    model, basis, blocks = case.model, case.basis, layout(case.basis)
    with Kept(node=model.node_head, edge=model.edge_head, over=model.overlap.head) as kept:
        model(case.batch)
    edges = model.trunk.edges(case.batch)
    rows = model.table(case.batch.numbers, edges)
    over_node, _ = model.overlap(model.trunk.embedding(case.batch.numbers), edges, rows)
    place = numbered(edges)
    starts = {(irrep.a, irrep.b, irrep.l): irrep.start for irrep in blocks.irreps}
    numbers = case.molecule.numbers.tolist()
    for key, node, edge in (
        ("full", kept.after["node"], kept.after["edge"]),
        ("over", over_node, kept.after["over"]),
    ):
        found, used = [], []
        for i, zi in enumerate(numbers):
            for j, zj in enumerate(numbers):
                vector = node[i] if i == j else edge[place[i, j]]
                for a, la in zip(blocks.shell_slots[zi], basis.shells[zi].l, strict=True):
                    for b, lb in zip(blocks.shell_slots[zj], basis.shells[zj].l, strict=True):
                        for l in range(abs(la - lb), la + lb + 1):
                            start = starts[a, b, l]
                            factor = coupling_sign(la, lb, l) / (2 * l + 1) ** 0.5
                            found.append(vector[start : start + 2 * l + 1] * factor)
                            same = i == j and a == b
                            used += [not same or (key == "full" and l % 2 == 0)] * (2 * l + 1)
        values, shown = torch.cat(found), torch.tensor(used)
        expected = torch.from_numpy(case.file[f"head/{key}_irreps"])
        assert values.shape == expected.shape
        assert (values - expected)[shown].abs().max() < TOLERANCE
        assert (values[~shown] == 0).all()


@pytest.mark.parametrize("rounded", [True, False])
def test_matrices(case: Case, rounded: bool) -> None:
    model, prefix = case.model, "out" if rounded else "out_f64buf"
    model.trunk.embedding.rounded = rounded
    try:
        prediction = model(case.batch)
    finally:
        model.trunk.embedding.rounded = True
    case.check(prediction.raw_matrices()[0], f"{prefix}/H")
    overlap = hambench.model.Prediction(case.batch, model.graph, *prediction.overlap)
    case.check(overlap.raw_matrices()[0], f"{prefix}/S")
    assert (overlap.raw_matrices()[0].diagonal() == 1).all()


def test_losses_and_gradients(case: Case) -> None:
    model, file = case.model, case.file
    batch = collate([case.molecule], model.graph)
    batch.positions.requires_grad_()
    model.zero_grad()
    prediction = model(batch)
    for label, key in (("hamiltonian", "H"), ("overlap", "S")):
        loss = mse_plus_mae(label_errors(prediction, batch, label))
        mse, mae = (loss.terms / loss.counts).detach()
        assert float(mse) == pytest.approx(float(file[f"loss/mse_{key}"]), abs=TOLERANCE)
        assert float(mae) == pytest.approx(float(file[f"loss/mae_{key}"]), abs=TOLERANCE)
    total = model.loss(prediction, batch).value()
    assert float(total.detach()) == pytest.approx(float(file["loss/total"]), abs=TOLERANCE)
    total.backward()
    expected = torch.from_numpy(file["grad/positions"])
    assert (batch.positions.grad * BOHR - expected).abs().max() < 1e-10 * expected.abs().max()
    norms = dict(zip(map(str, file["param/names"]), file["grad/param_norms"], strict=True))
    known = {entry.name: entry for entry in entries(model)}
    assert known.keys() == norms.keys()
    largest = np.nanmax(list(norms.values()))
    for name, norm in norms.items():
        found = gradient(known[name])
        wanted = 0.0 if np.isnan(norm) else norm
        assert float(found.norm()) == pytest.approx(wanted, abs=1e-10 * largest), name
        if f"grad/{name}" in file:
            expected = torch.from_numpy(file[f"grad/{name}"])
            assert (found - expected).abs().max() < 1e-10 * expected.abs().max(), name


def gradient(entry: Entry) -> Tensor:
    """Gradient of a published tensor, zero where nothing depends on it."""
    out = torch.zeros(entry.shape, dtype=torch.float64)
    if entry.parameter is None:
        return out
    assert entry.parameter.grad is not None, entry.name
    ours = entry.parameter.grad[entry.index]
    sign = entry.sign[:, None] if isinstance(entry.sign, Tensor) else entry.sign
    used = ... if entry.rows is None else entry.rows
    out[used] = ours.reshape(out[used].shape) * sign
    return out


def test_energies_of_the_nabla_variant(case: Case) -> None:
    keys = ("features", "basis_functions", "modules", "cutoff")
    settings = {key: case.settings[key] for key in keys}
    model = build_energy_model("phisnet_nabla2dft", case.basis, settings, {}).double()
    more = {k[12:]: torch.from_numpy(case.file[k]) for k in case.file if k.startswith("nabla_p")}
    more = {k.removeprefix("/"): v for k, v in more.items()}
    hambench.load_published(model, {**case.weights, **more})
    case.check(model.energy(case.batch), "nabla_out/energy")


def test_weights_come_back(case: Case) -> None:
    """One to one: what is loaded stands in the model, the unused ones as well."""
    spare = case.model.unused.by_name()
    for entry in entries(case.model):
        theirs = case.weights[entry.name]
        if entry.parameter is not None:
            assert torch.equal(entry.parameter[entry.index], entry.ours(theirs)), entry.name
        if entry.unused is not None:
            assert torch.equal(spare[entry.name], entry.rest(theirs)), entry.name
    assert not spare["output_over_ii.linear.0.weight"].requires_grad


def test_constants_of_the_public_code_are_no_weights() -> None:
    case = Case("a")
    tables = {k.removeprefix("buffer/"): v for k, v in case.file.items() if k.startswith("buffer/")}
    tables = {k: torch.from_numpy(np.asarray(v)) for k, v in tables.items()}
    hambench.load_published(case.model, {**case.weights, **tables})


def test_wrong_checkpoints_are_named() -> None:
    case = Case("a")
    lacking = {k: v for k, v in case.weights.items() if k != "mix_ij.coeff_1_1_1.weight"}
    with pytest.raises(CheckpointError, match=r"lacks 'mix_ij.coeff_1_1_1.weight'; build"):
        hambench.load_published(case.model, lacking)
    with pytest.raises(CheckpointError, match=r"'new.weight' has no place"):
        hambench.load_published(case.model, {**case.weights, "new.weight": torch.zeros(1)})
    moved = {**case.weights, "output_over_ii.linear.3.weight": torch.ones(26, 8)}
    with pytest.raises(CheckpointError, match=r"'output_over_ii.linear.3.weight' is not zero"):
        hambench.load_published(case.model, moved)
    bare = Case.__new__(Case)
    with pytest.raises(CheckpointError, match="unused_weights=true"):
        bare.__init__("a", unused_weights=False)
    with pytest.raises(CheckpointError, match=r"shape \(87, 8\), expected \(87, 4\)"):
        bare.__init__("a", features=4)
    large = hambench.build_model("phisnet_md17", case.basis, **{**case.settings, "order": 6})
    with pytest.raises(CheckpointError, match=r"order 6.* known up to 4"):
        hambench.load_published(large, case.weights)
