"""The public codes' numbers: intermediates, Hamiltonians, losses and gradients of stored cases.

``tests/golden/qhnet_*.npz`` hold inputs and numbers of divelab/AIRS (variants F, W, Q: two
molecules of H C N O) and AIRI-Institute/nablaDFT (N: also S Cl Br, one pair beyond the reach) in
float64 at 16 channels. Weights follow a rule; the table at the end is of full width.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hambench
from hambench.baselines import QHNet
from hambench.baselines.qhnet.published import renamed
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import collate
from hambench.losses import label_errors, mse_plus_mae
from hambench.o3.products import harmonics
from hambench.units import BOHR

GOLDEN = Path(__file__).parents[2] / "golden"
TOLERANCE = 1e-10
BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
NABLA = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
VARIANTS = {
    "F": {"loss": "molecule"},
    "W": {"loss": "molecule", "second_scalars": "target"},
    "Q": {
        "loss": "molecule", "second_scalars": "target", "learn_alpha": True, "alpha": 0.5,
        "alpha_unit": "angstrom", "cutoff": 15.0,
    },
    "N": {
        "loss": "rmse_mae", "second_scalars": "target", "learn_alpha": True, "alpha": 0.5,
        "cutoff": 12 * BOHR, "radial_functions": 32, "embedding_rows": 83,
    },
}  # fmt: skip


def filling(shape: tuple[int, ...], number: int, spread: float) -> Tensor:
    """Numbers of standard deviation ``spread`` by the files' rule, for the tensor of a number."""
    k = np.arange(math.prod(shape), dtype=np.uint64)
    x = (k * 2654435761 + number * 40503) % 2**32
    x ^= x >> np.uint64(16)
    x = (x * 73244475) % 2**32
    x ^= x >> np.uint64(16)
    values = spread * math.sqrt(12) * (x / 2.0**32 - 0.5)
    return torch.from_numpy(values).reshape(shape)


class Case:
    """One variant of a file: our model with its weights, and its batch."""

    def __init__(self, variant: str) -> None:
        self.variant, nabla = variant, variant == "N"
        self.file = np.load(GOLDEN / f"qhnet_{'nabla' if nabla else 'batch'}.npz")
        self.prefix = "" if nabla else f"{variant}/"
        basis = NABLA if nabla else BASIS
        self.model = QHNet(basis, channels=int(self.file["meta/C"]), **VARIANTS[variant]).double()
        self.names = [str(name) for name in self.file["param/names"]]
        weights = {}
        for t, name in enumerate(self.names):
            shape = tuple(map(int, str(self.file["param/shapes"][t]).split(",")))
            number = t + 1000 * int(self.file["meta/seed"])
            weights[name] = filling(shape, number, float(self.file["param/A"][t]))
            assert np.allclose(
                weights[name].flatten()[:3], self.file["param/first3"][t], atol=1e-15
            )
            assert float(weights[name].sum()) == pytest.approx(self.file["param/sum"][t], abs=1e-12)
        if self.model.radial.raw is not None:
            raw = self.file["in/alpha_raw" if nabla else "in/Q_alpha_raw"]
            weights["distance_expansion._alpha"] = torch.tensor(float(raw), dtype=torch.float64)
        hambench.load_published(self.model, weights)
        unit = 1.0 if variant == "Q" else BOHR
        cuts = np.cumsum(self.file["in/n_atoms"])[:-1]
        atoms = (np.split(self.file[f"in/{key}"], cuts) for key in ("Z", "positions"))
        self.molecules = [
            Molecule(z, unit * x, basis="def2-svp", hamiltonian=self.file[f"in/target_H_{k}"])
            for k, (z, x) in enumerate(zip(*atoms, strict=True))
        ]
        self.batch = collate(self.molecules, self.model.graph)

    def __contains__(self, key: str) -> bool:
        return self.prefix + key in self.file

    def expected(self, key: str) -> np.ndarray:
        return self.file[self.prefix + key]

    def check(self, value: Tensor, key: str) -> None:
        """Compare, if the file has this key."""
        if key not in self:
            return
        expected = self.expected(key)
        assert value.shape == expected.shape, key
        assert np.abs(value.detach().numpy() - expected).max() < TOLERANCE, key


def flat(x: Tensor) -> Tensor:
    """Features (rows, S, C) as e3nn has them: l ascending, then channels, m fastest."""
    lmax = math.isqrt(x.shape[1]) - 1
    parts = x.split([2 * l + 1 for l in range(lmax + 1)], dim=1)
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)


def square(case: Case, vectors: Tensor) -> Tensor:
    """Matrix-element vectors as (rows, K, K) blocks."""
    return vectors[:, case.model.graph.layout.square]


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_edges(case: Case) -> None:
    model, batch = case.model, case.batch
    assert np.array_equal(batch.edge_index, case.file["in/edge_index_full"])
    near = batch.edge_index[:, batch.near_index]
    assert np.array_equal(near, case.file["in/edge_index_conv"])
    edges = model.edges(batch)
    case.check(edges.radial, "mid/rbf_conv")
    case.check(harmonics(edges.frames, torch.float64)[:, :, 0], "mid/sh_conv")
    i, j = batch.positions[batch.edge_index]
    distances = (i - j).norm(dim=1)
    case.check(model.radial(distances), "mid/rbf_full")
    unit = 1.0 if case.variant == "Q" else BOHR
    case.check(distances[batch.near_index] / unit, "mid/r_conv")


def test_weights_of_messages(case: Case) -> None:
    from hambench.baselines.qhnet.layers import pair_scalars

    model, edges, species = case.model, case.model.edges(case.batch), case.model.species(case.batch)
    layer = model.convolutions[0]
    scalars = pair_scalars(layer.inner(model.first(species, edges)), edges, layer.second)
    case.check(model.first.radial_weights(edges.radial)[:2], "mid/conv0.w_rbf_first2")
    case.check(layer.radial_weights(edges.radial)[:2], "mid/conv1.w_rbf_first2")
    case.check(scalars[:2], "mid/conv1.s0_first2")
    case.check(layer.scalar_weights(scalars)[:2], "mid/conv1.w_s0_first2")


def test_features(case: Case) -> None:
    model, edges, species = case.model, case.model.edges(case.batch), case.model.species(case.batch)
    features = model.atom_features(species, edges)
    for k, x in enumerate(features):
        case.check(flat(x), f"mid/conv{k}.out")
    near, pairs = case.batch.near_index, torch.zeros(case.batch.num_edges, 25, 16).double()
    on_site = 0.0
    for k, x in enumerate(features[3:]):
        one, two = model.self_layers[k], model.pair_layers[k]
        case.check(flat(one.multiplied(x)), f"mid/self{k}.tp_plus_input")
        on_site = on_site + one(x)
        case.check(flat(on_site), f"mid/self{k}.fii")
        product = torch.zeros_like(pairs).index_copy(0, near, two.multiplied(x, edges))
        case.check(flat(product), f"mid/pair{k}.tp")
        pairs = pairs + two.beyond().expand_as(pairs).index_copy(0, near, two(x, edges))
        case.check(flat(pairs), f"mid/pair{k}.fij")
    case.check(flat(model.on_site.reduce(on_site)), "mid/out_ii")
    case.check(flat(model.pair.reduce(pairs)), "mid/out_ij")
    assert torch.equal(model.embeddings(case.batch), on_site)


def test_blocks(case: Case) -> None:
    model, species, blocks = case.model, case.model.species(case.batch), case.model.graph.layout
    ends = case.batch.edge_index
    case.check(species.of_atoms(model.on_site.weights)[:2], "mid/A_ii_first2")
    case.check(species.of_atoms(model.on_site.biases), "mid/B_ii")
    case.check(species.of_pairs(model.pair.weights, *ends)[:2], "mid/A_ij_first2")
    case.check(species.of_pairs(model.pair.biases, *ends), "mid/B_ij")
    raw = {}
    for name in ("on_site", "pair"):
        getattr(model, name).register_forward_hook(
            lambda _module, _inputs, out, name=name: raw.update({name: out})
        )
    prediction = model(case.batch)
    case.check(square(case, blocks.uncouple(raw["on_site"])), "mid/raw_diag")
    case.check(square(case, blocks.uncouple(raw["pair"])), "mid/raw_offdiag")
    case.check(square(case, prediction.node), "out/diag_blocks")
    case.check(square(case, prediction.edge), "out/offdiag_blocks")
    for k, matrix in enumerate(prediction.raw_matrices()):
        case.check(matrix, f"out/H_{k}")
        assert (matrix - matrix.T).abs().max() < 1e-15
        alone = model(collate([case.molecules[k]], model.graph)).raw_matrices()[0]
        case.check(alone, f"out/H_{k}")


def test_losses(case: Case) -> None:
    model, parts = case.model, {"": [], "diag_": [], "offdiag_": []}
    for k, molecule in enumerate(case.molecules):
        batch = collate([molecule], model.graph)
        both = label_errors(model(batch), batch)
        case.check(mse_plus_mae(both).value(), f"out/loss_md17_mol{k}")
        node, edge = (errors.values for errors in both)
        for name, errors in (("", torch.cat([node, edge])), ("diag_", node), ("offdiag_", edge)):
            parts[name].append(errors.abs().mean())
    for name, values in parts.items():
        case.check(torch.stack(values).mean(), f"out/loss_qh9_{name}mae")
    loss = model.loss(model(case.batch), case.batch).value()
    case.check(loss, "out/loss_nabla" if case.variant == "N" else "out/loss_qh9")


def test_gradients(case: Case) -> None:
    model = case.model
    model.zero_grad()
    model.loss(model(case.batch), case.batch).value().backward()
    own = dict(model.named_parameters())
    sums = zip(case.expected("grad/l2_norm"), case.expected("grad/sum"), strict=True)
    for name, (norm, total) in zip(case.names, sums, strict=True):
        grad = own[renamed(name)].grad
        assert float(grad.norm()) == pytest.approx(norm, rel=TOLERANCE), name
        bound = TOLERANCE * norm * math.sqrt(grad.numel())
        assert float(grad.sum()) == pytest.approx(total, abs=bound), name
    if "grad/alpha" in case:
        slope = float(model.radial.raw.grad)
        assert slope == pytest.approx(float(case.expected("grad/alpha")), rel=TOLERANCE)
    assert len(own) == len(case.names) + (model.radial.raw is not None)


PLACES = [
    (0, 0), (0, 1), (0, 3), (3, 4), (2, 9), (9, 13), (0, 14), (4, 16), (13, 23), (14, 19), (18, 23),
]  # fmt: skip
FULL_WIDTH = {  # trace, Frobenius norm, sum, then the entries at PLACES
    "F": [
        -0.007864868880, 0.531104790127, -1.286733631574,
        -2.7846371553e-02, -4.1628897898e-02, -8.1861942739e-06, 2.4736255155e-07,
        1.4648442889e-05, -2.5124504496e-05, 1.3721370421e-01, 9.9303137932e-10,
        1.2291608222e-09, 1.6329595590e-01, -6.0516012538e-02,
    ],
    "W": [
        -0.009733966859, 0.530361550959, -1.284993271926,
        -3.0550428485e-02, -4.1938178738e-02, -9.3544734258e-06, 4.7960933479e-06,
        1.7509323796e-05, 4.4355991561e-05, 1.3721427923e-01, -1.9050050649e-11,
        9.9002727212e-10, 1.6329586043e-01, -6.0516070243e-02,
    ],
    "Q": [
        -0.056916058837, 0.529962853382, -1.345777802859,
        -3.2516709685e-02, -4.3123092366e-02, 1.1702245587e-05, -2.6366902895e-06,
        5.9486317924e-05, -8.5049621954e-05, 1.3720989159e-01, -8.8071661492e-10,
        -1.5837790573e-10, 1.6329358701e-01, -6.0512639544e-02,
    ],
}  # fmt: skip


@pytest.mark.parametrize("variant", FULL_WIDTH)
def test_full_width(variant: str) -> None:
    """Water, with all of the 128 channels, against numbers of the public code."""
    file = np.load(GOLDEN / "qhnet_batch.npz")
    model = QHNet(BASIS, **VARIANTS[variant]).double()
    own = dict(model.named_parameters())
    weights = {}
    for t, name in enumerate(map(str, file["param/names"])):
        parameter = own[renamed(name)]
        shape = tuple(parameter.shape)
        if name.endswith("bias"):
            spread = 0.1
        elif name.endswith("layer1.weight"):
            spread = 0.3
        else:  # torch's own linear maps by their inputs
            linear = ".fc." in name or name.startswith("fc_")
            spread = shape[1] ** -0.5 if linear else 1.0
        weights[name] = filling(shape, t, spread)
    if model.radial.raw is not None:
        weights["distance_expansion._alpha"] = torch.tensor(float(file["in/Q_alpha_raw"]))
    hambench.load_published(model, weights)
    unit = 1.0 if variant == "Q" else BOHR
    positions = np.array([[0, 0, 0.2], [0.1, 1.43, -0.9], [-0.2, -1.40, -0.95]])
    water = Molecule([8, 1, 1], unit * positions, basis="def2-svp")
    with torch.no_grad():
        matrix = model(collate([water], model.graph)).raw_matrices()[0]
    found = [matrix.trace(), matrix.norm(), matrix.sum(), *(matrix[place] for place in PLACES)]
    assert np.allclose(found, FULL_WIDTH[variant], rtol=1e-10, atol=1e-12)
