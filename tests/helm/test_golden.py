"""The public code's weights give the public code's numbers: every stored intermediate and output.

``tests/golden/helm_*.npz`` hold weights, inputs, intermediates and gradients of manasakani/maloq in
float64 at reduced width (a-d: main branch 2026; e: paper-time commit fe1ca57), gamma = 0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import to_canonical
from hambench.data.graph import collate, pair_labels
from hambench.errors import CheckpointError
from hambench.helm import Helm, HelmEnergy
from hambench.helm.published import load_published, renamed
from hambench.o3.so2 import gate_m
from hambench.o3.wigner import wigner_blocks

GOLDEN = Path(__file__).parents[1] / "golden"
HAMILTONIAN = ["a", "b", "c", "e"]
TOLERANCE = 1e-11


class Case:
    """One golden file, our model with its weights, and its molecules."""

    def __init__(self, name: str) -> None:
        self.file = np.load(GOLDEN / f"helm_{name}.npz", allow_pickle=False)
        config = {k[4:]: self.file[k] for k in self.file.files if k.startswith("cfg/")}
        svp = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
        self.basis = OrbitalBasis.load("def2-tzvpd") if name == "c" else svp
        paper = config["generation"] == "paper"
        options = {
            "channels": int(config["C"]),
            "layers": int(config["num_layers"]),
            "gaussians": int(config["num_gaussians"]),
            "cutoff": 2 * float(config["rcut_orbitals"]),
            "node_scalars": "element" if paper else "element_charge_spin",
        }
        if name == "d":
            self.model = HelmEnergy(self.basis, **options).double()
        else:
            reductions = {
                k: bool(config[k]) for k in ("reduce_node", "reduce_node_intra", "reduce_edge")
            }
            self.model = Helm(
                self.basis, **options, **reductions, pair_gates="own", label_scaling="none",
                loss_mask="padded" if paper else "unpadded",
            ).double()  # fmt: skip
        self.weights = {
            k[4:]: torch.from_numpy(self.file[k]) for k in self.file.files if k.startswith("par/")
        }
        load_published(self.model, self.weights)
        self.molecules = [self.molecule(k) for k in range(2)]
        self.batch = collate(self.molecules, self.model.graph)
        ours = {tuple(e): n for n, e in enumerate(self.batch.edge_index.T.tolist())}
        self.edges = [ours[tuple(e)] for e in self.file["in/edge_index"].T.tolist()]

    def molecule(self, k: int) -> Molecule:
        here = self.file["in/batch"] == k
        numbers, file = self.file["in/Z"][here], self.file
        hamiltonian = energy = None
        if f"tgt/H{k}" in file:
            hamiltonian = to_canonical(file[f"tgt/H{k}"], numbers, self.basis, "listed")
        if "tgt/energy" in file:
            energy = float(file["tgt/energy"][k])
        return Molecule(
            numbers, file["in/pos"][here], int(file["in/charge"][k]), int(file["in/spin"][k]),
            self.basis.name, hamiltonian=hamiltonian, energy=energy,
        )  # fmt: skip

    def check(self, value: torch.Tensor, key: str) -> None:
        expected = torch.from_numpy(self.file[key])
        assert value.shape == expected.shape, key
        assert (value.detach() - expected).abs().max() < TOLERANCE, key


@pytest.fixture(scope="module", params=["a", "b", "c", "d", "e"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module", params=HAMILTONIAN)
def matrix_case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_embeddings(case: Case) -> None:
    backbone, batch = case.model.backbone, case.batch
    geometry = backbone.geometry(batch)
    case.check(geometry.invariants[case.edges], "ck/x_edge")
    wigner = wigner_blocks(geometry.frames.packed[case.edges[:3]], backbone.lmax)
    case.check(
        torch.stack([torch.block_diag(*(b[e] for b in wigner)) for e in range(3)]), "ck/wigner"
    )
    x, z = backbone.initial(batch, geometry)
    case.check(x, "ck/node_init")
    if "ck/edge_init" in case.file:
        case.check(z[case.edges], "ck/edge_init")
    for k, block in enumerate(backbone.node_blocks):
        x = block(x, geometry)
        case.check(x, f"ck/node_block{k}")
        if backbone.edge_blocks:
            z = backbone.edge_blocks[k](z, x, geometry)
            case.check(z[case.edges], f"ck/edge_block{k}")
    case.check(backbone.norm(x), "ck/node_emb")
    assert torch.equal(backbone.norm(x), case.model.embeddings(batch))


def test_first_node_block(case: Case) -> None:
    backbone, two = case.model.backbone, case.edges[:2]
    geometry = backbone.geometry(case.batch)
    x, _ = backbone.initial(case.batch, geometry)
    block = backbone.node_blocks[0]
    normed = block.norm1(x)
    case.check(normed, "ck/nb0/norm1")
    weights = block.edgewise.conv1.weights(geometry.invariants)
    framed = geometry.frames.pairs(normed, torch.ones_like(weights))
    case.check(m_major(framed)[two], "ck/nb0/conv1_in")
    case.check(weights.flatten(1)[two], "ck/nb0/rho")
    hidden, gates = block.edgewise.conv1(geometry.frames.pairs(normed, weights))
    case.check(m_major(hidden)[two], "ck/nb0/conv1")
    case.check(gates[two], "ck/nb0/conv1_gates")
    active = gate_m(hidden, gates)
    case.check(m_major(active)[two], "ck/nb0/act")
    case.check(m_major(block.edgewise.conv2(active)[0])[two], "ck/nb0/conv2")
    summed = geometry.frames.at_atoms(block.edgewise(normed, geometry))
    case.check(summed, "ck/nb0/edgewise")
    case.check(block.norm2(x + summed), "ck/nb0/norm2")
    case.check(block.feedforward(block.norm2(x + summed)), "ck/nb0/ffn")


def m_major(parts: list[torch.Tensor]) -> torch.Tensor:
    """Features per |m| as the public code has them: (E, S, C), all +m rows, then all -m rows."""
    return torch.cat([signed for part in parts for signed in part], 1)


def test_hamiltonians(matrix_case: Case) -> None:
    case = matrix_case
    with torch.no_grad():
        prediction = case.model(case.batch)
    case.check(prediction.node, "out/node_irreps")
    case.check(prediction.edge[case.edges], "out/edge_irreps")
    for k, (raw, final) in enumerate(
        zip(prediction.raw_matrices(), prediction.matrices(), strict=True)
    ):
        molecule = case.molecules[k]
        listed = to_canonical(case.file[f"out/H_raw{k}"], molecule.numbers, case.basis, "listed")
        assert (raw - torch.from_numpy(listed)).abs().max() < TOLERANCE
        error = (final - torch.from_numpy(molecule.hamiltonian)).abs().mean()
        assert float(error) == pytest.approx(float(case.file[f"out/H_err{k}"]), abs=1e-12)


def test_labels(matrix_case: Case) -> None:
    case, batch = matrix_case, matrix_case.batch
    size = case.model.graph.layout.size
    on_site = batch.node_places, batch.node_values
    for rows, kind, order, (places, values) in (
        (len(batch.numbers), "node", slice(None), on_site),
        (batch.num_edges, "edge", case.edges, pair_labels(batch)),
    ):
        dense = torch.zeros(rows * size, dtype=torch.float64).index_copy(0, places, values)
        case.check(dense.view(rows, size)[order], f"tgt/{kind}_irreps")
        mask = torch.zeros(rows * size, dtype=torch.bool).index_fill(0, places, True)
        assert torch.equal(
            mask.view(rows, size)[order], torch.from_numpy(case.file[f"tgt/{kind}_mask"])
        )


@pytest.mark.parametrize("space", ["coupled", "uncoupled"])
@pytest.mark.parametrize("mask", ["padded", "masked"])
def test_losses(matrix_case: Case, space: str, mask: str) -> None:
    model = matrix_case.model
    before = model.loss_space, model.padded
    model.loss_space, model.padded = space, mask == "padded"
    try:
        batch = collate(matrix_case.molecules, model.graph)
        loss = model.loss(model(batch), batch).value()
    finally:
        model.loss_space, model.padded = before
    assert float(loss.detach()) == pytest.approx(
        float(matrix_case.file[f"out/loss_{space}_{mask}"]), abs=1e-12
    )


def test_energies() -> None:
    case = Case("d")
    case.check(case.model.energy(case.batch), "out/energy")
    loss = case.model.loss(case.model(case.batch), case.batch).value()
    assert float(loss.detach()) == pytest.approx(float(case.file["out/loss"]), abs=1e-12)


def test_gradients(case: Case) -> None:
    model, file = case.model, case.file
    model.zero_grad()
    model.loss(model(case.batch), case.batch).value().backward()
    own = dict(model.named_parameters())
    assert len(file["grad/names"]) == len(own)
    for name, norm, dot in zip(
        file["grad/names"], file["grad/norm"], file["grad/dot"], strict=True
    ):
        parameter = own[renamed(str(name).removeprefix("par/"))]
        grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert float(grad.norm()) == pytest.approx(float(norm), rel=1e-11, abs=1e-12), name
        found = float((grad * parameter).sum().detach())
        assert found == pytest.approx(float(dot), rel=1e-10, abs=1e-11), name


def test_wrong_checkpoints_are_named() -> None:
    case = Case("a")
    missing = dict(case.weights)
    del missing["backbone.norm.affine_weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'backbone.norm.scale'"):
        load_published(case.model, missing)
    with pytest.raises(CheckpointError, match=r"'head.unknown' has no place"):
        load_published(case.model, {**case.weights, "head.unknown": torch.zeros(1)})
    wide = Helm(case.basis, channels=16, layers=2, gaussians=8, reduce_edge=False)
    with pytest.raises(CheckpointError, match="build the model with the checkpoint's width"):
        load_published(wide, case.weights)
