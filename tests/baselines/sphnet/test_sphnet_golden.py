"""The public code's weights give the public code's numbers: every stored intermediate and output.

``tests/golden/sphnet_*.npz`` hold weights (rounded to float16), inputs, intermediates, outputs and
gradients of microsoft/SPHNet (main, November 2025) in float64 at 16 channels. a: all paths and
pairs, norm as published; b: the norm corrected in memory; c: fixed paths and pair gates, corrected
norm. Keys ``exact/`` are of the same code with exact unit vectors.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import hambench
from hambench.baselines.sphnet.model import SPHNet
from hambench.baselines.sphnet.published import renamed
from hambench.baselines.sphnet.sparsity import PairGate, path_coefficients, segment_quantiles
from hambench.baselines.sphnet.unused import BACKBONE, HEAD
from hambench.baselines.sphnet.vectorial import Groups, offset_norm
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import to_canonical
from hambench.data.graph import collate
from hambench.errors import CheckpointError

GOLDEN = Path(__file__).parents[2] / "golden"
BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8])
TOLERANCE = 1e-10


class Case:
    """One golden file, our model with its weights, and its batch."""

    def __init__(self, name: str, **options: str | bool) -> None:
        self.name = name
        self.file = np.load(GOLDEN / f"sphnet_{name}.npz", allow_pickle=False)
        published = {
            "norm_layout": "published" if name == "a" else "corrected",
            "unit_vectors": "published",
            "vector_lengths": "published",
            "pair_order": "published",
            "gate_form": "hard",
            "gate_scope": "batch",
            "loss_blocks": "published",
            "unused_weights": True,
        }
        width = int(self.file["meta/C"])
        options = {**published, "sparse": name == "c", **options}
        self.model = SPHNet(BASIS, channels=width, **options).double()
        self.weights = {
            key[6:]: torch.from_numpy(self.file[key].astype(np.float64))
            for key in self.file.files
            if key.startswith("param/")
        }
        hambench.load_published(self.model, self.weights)
        if name == "c":
            self.model.freeze()
        numbers, x, of = (self.file[f"in/{k}"] for k in ("Z", "positions_angstrom", "batch"))
        self.molecules = [
            Molecule(
                numbers[of == k],
                x[of == k],
                basis="def2-svp",
                hamiltonian=to_canonical(
                    self.file[f"in/target_H_{k}"], numbers[of == k], BASIS, "pyscf"
                ),
            )
            for k in range(2)
        ]
        self.batch = collate(self.molecules, self.model.graph)
        # its groups are given; everything else follows from the positions
        self.batch.group_index = torch.from_numpy(self.file["in/group_labels"])
        self.batch.group_pairs = torch.from_numpy(self.file["in/interaction_graph"])
        ends = self.batch.edge_index
        short = ends[:, self.batch.near_index]
        self.short = places(short, self.file["in/edge_index_short"])
        self.far = places(ends[:, self.batch.nearest_index], self.file["in/edge_index_sph"][::-1])
        self.pairs = ends[:, self.batch.pair_index[1]]
        assert np.array_equal(self.pairs.numpy(), self.file["in/pair_index"])

    def check(self, value: Tensor, key: str) -> None:
        expected = torch.from_numpy(self.file[key])
        if expected.ndim == 2 and expected.shape[1] == 25 * (value.shape[-1]) and value.ndim == 3:
            expected = by_degree(expected)
        assert value.shape == expected.shape, key
        assert (value.detach() - expected).abs().max() < TOLERANCE, key


def by_degree(flat: Tensor) -> Tensor:
    """(rows, 25 C) of e3nn, channels outer in every degree, as (rows, 25, C)."""
    channels = flat.shape[1] // 25
    parts = flat.split([channels * (2 * l + 1) for l in range(5)], dim=1)
    return torch.cat([p.unflatten(1, (channels, -1)).transpose(1, 2) for p in parts], dim=1)


def places(ours: Tensor, theirs: np.ndarray) -> list[int]:
    """Our row of every edge of the file."""
    where = {tuple(edge): k for k, edge in enumerate(ours.T.tolist())}
    assert len(where) == theirs.shape[1]
    return [where[tuple(edge)] for edge in theirs.T.tolist()]


@pytest.fixture(scope="module", params=["a", "b", "c"])
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_first_stage(case: Case) -> None:
    stage, batch = case.model.backbone.vectorial, case.batch
    near, far = stage.near(batch), stage.far(batch)
    case.check(near.unit[case.short], "mid/vec.d_short")
    case.check(near.basis[case.short], "mid/vec.rbf_short")
    vectors = batch.positions[near.source] - batch.positions[near.target]
    case.check(vectors.norm(dim=1)[case.short], "mid/vec.r_short")
    case.check(far.unit, "mid/vec.u_bipartite")
    groups, charges = Groups(batch.group_index, torch.float64), batch.numbers.double()[:, None]
    centres = groups.mean(charges * batch.positions) / groups.mean(charges).clamp(min=1e-6)
    vectors = batch.positions[far.target] - centres[far.source]
    case.check(offset_norm(vectors), "mid/vec.dist_bipartite")
    case.check(stage.embedded(batch, near), "mid/vec.e")
    s, f = stage.initial(batch, near)
    case.check(f[case.short], "mid/vec.f0")
    g = stage.group_edge(far.basis)
    case.check(g, "mid/vec.g_bipartite")
    v = s.new_zeros(len(s), 3, s.shape[1])
    for k, layer in enumerate(stage.short, start=1):
        ds, dv, df = layer(s, v, f, near)
        case.check(ds, f"mid/vec.short{k}.ds")
        case.check(dv, f"mid/vec.short{k}.dV")
        if df is not None:
            case.check(df[case.short], f"mid/vec.short{k}.df")
        elif k == 1:  # which we leave out because it is zero; that of layer 4 is not used
            assert np.abs(case.file["mid/vec.short1.df"]).max() == 0
        s, v, f = s + ds, v + dv, f if df is None else f + df
    for k, layer in enumerate(stage.long, start=1):
        ds, dv = layer(s, v, g, groups, far)
        case.check(ds, f"mid/vec.long{k}.ds")
        if dv is not None:
            case.check(dv, f"mid/vec.long{k}.dV")
        s, v = s + ds, v if dv is None else v + dv
    case.check(stage(batch), "mid/vec.h")


def test_convolutions(case: Case) -> None:
    backbone, batch = case.model.backbone, case.batch
    h, x1, x2 = backbone(batch)
    edges = backbone.edges(batch)
    case.check(edges.basis[case.far], "mid/sph.rbf")
    first, second = backbone.first, backbone.second
    two = case.far[:2]
    case.check(first.radial(edges.basis)[two], "mid/sph.w_rbf1_first2edges")
    both = torch.cat([h[edges.receiver], h[edges.sender]], dim=1)
    case.check(first.scalars(both)[two], "mid/sph.w_s01_first2edges")
    messages = first.messages(h, edges)
    case.check(messages, "mid/sph.norm_in1")
    case.check(first.norm(messages), "mid/sph.norm_out1")
    case.check(x1, "mid/sph.x1")
    scalars, basis = second.edge_scalars(x1, edges), edges.basis
    if second.select is not None:
        kept = check_gate(case, "conv2", second.select, scalars, batch.batch[edges.receiver])
        order = [k for k in case.far if k in kept.rows.tolist()]
        two = [kept.rows.tolist().index(k) for k in order]
        scalars, basis = kept.gates * scalars[kept.rows], basis[kept.rows]
        case.check(scalars[two], "mid/gate.conv2.s0_scaled")
        two = two[:2]
    case.check(second.radial(basis)[two], "mid/sph.w_rbf2_first2edges")
    case.check(second.scalars(scalars)[two], "mid/sph.w_s02_first2edges")
    messages = second.messages(x1, second.linear(second.gate(x1)), edges, batch)
    case.check(messages, "mid/sph.norm_in2")
    case.check(second.norm(messages), "mid/sph.norm_out2")
    case.check(x2, "mid/sph.x2")


def check_gate(case: Case, name: str, gate: PairGate, scalars: Tensor, owner: Tensor):
    """Scores, quantile, gates and rows of a gate; returns what it keeps."""
    block = "Spherical_interaction.1.conv" if name == "conv2" else "e3_gnn_node_pair_layer.1"
    prefix = f"{BACKBONE if name == 'conv2' else HEAD}{block}.pair_select_layer."
    bias = case.model.unused.by_name()[f"{prefix}bias"]
    order = case.far if name == "conv2" else list(range(len(scalars)))
    scores = gate.linear(scalars)[:, 0]
    case.check((scores + bias)[order], f"mid/gate.{name}.score")
    above, quantiles = segment_quantiles(scores, torch.zeros_like(owner), 1, gate.sparsity)
    case.check((quantiles + bias)[0], f"mid/gate.{name}.quantile")
    case.check((scores - quantiles).sigmoid()[order], f"mid/gate.{name}.g")
    expected = case.file[f"mid/gate.{name}.keep"]
    assert np.array_equal(above[order].numpy(), expected)
    kept = gate(scalars, owner, 2, 2)
    assert len(kept.rows) == expected.sum()  # none is filled up
    assert set(kept.rows.tolist()) == set(above.nonzero()[:, 0].tolist())
    return kept


def test_head(case: Case) -> None:
    model, batch, head = case.model, case.batch, case.model.head
    h, x1, x2 = model.backbone(batch)
    choice = model.choice()
    ends = batch.positions[case.pairs]
    basis = head.basis((ends[0] - ends[1]).norm(dim=-1))
    case.check(basis, "mid/pair.rbf")
    node = edge = torch.zeros(())
    for k, x in enumerate((x1, x2), start=1):
        atom, pair = head.atom[k - 1], head.pair[k - 1]
        t = atom.multiplied(x, choice)
        case.check(t + x if k == 2 else t, f"mid/pair.t_ii_block{k}")
        node = node + atom(x, choice, residual=k == 2)
        case.check(node, f"mid/pair.F_ii_block{k}")
        t, kept = pair.multiplied(x, case.pairs, basis, batch, choice)
        case.check(t[:4], f"mid/pair.t_ij_block{k}_first4")
        if kept is not None:
            scalars = pair.pair_scalars(x, case.pairs)
            check_gate(case, "pair2", pair.select, scalars, batch.batch[case.pairs[0]])
    first = head.pair[0](x1, case.pairs, basis, batch, choice)[0]
    case.check(first, "mid/pair.F_ij_block1")
    edge = head.pair_features((x1, x2), case.pairs, batch, choice)
    case.check(edge, "mid/pair.F_ij_block2")
    case.check(head.atom_expansion.bottleneck(node), "mid/exp.bottleneck_ii")
    case.check(head.pair_expansion.bottleneck(edge)[:4], "mid/exp.bottleneck_ij_first4")
    both = h[case.pairs[0]] + h[case.pairs[1]]
    case.check(head.atom_expansion.weights(h)[:2], "mid/exp.theta_ii_first2")
    case.check(head.atom_expansion.biases(h), "mid/exp.beta_ii")
    case.check(head.pair_expansion.weights(both)[:2], "mid/exp.theta_ij_first2")
    case.check(head.pair_expansion.biases(both), "mid/exp.beta_ij")


def test_outputs_and_losses(case: Case) -> None:
    model, batch, file = case.model, case.batch, case.file
    square = model.graph.layout.square
    prediction = model(batch)
    case.check(prediction.node[:, square], "out/diag_blocks")
    case.check(prediction.edge[batch.pair_index[1]][:, square], "out/nondiag_blocks")
    for k, found in enumerate(prediction.matrices()):
        numbers = case.molecules[k].numbers
        expected = to_canonical(file[f"out/H_{k}"], numbers, BASIS, "pyscf")
        assert np.abs(found.detach().numpy() - expected).max() < TOLERANCE
    loss = model.loss(prediction, batch)
    mse, mae = (loss.terms / loss.counts).tolist()
    for found, key in ((mse, "mse"), (mae, "mae"), (float(loss.value().detach()), "maemse")):
        assert found == pytest.approx(float(file[f"out/loss_{key}"]), abs=TOLERANCE)


def test_exact_unit_vectors(case: Case) -> None:
    exact = Case(case.name, unit_vectors="exact")
    model, batch = exact.model, exact.batch
    h, x1, x2 = model.backbone(batch)
    exact.check(h, "exact/h")
    exact.check(x1, "exact/x1")
    exact.check(x2, "exact/x2")
    prediction, square = model(batch), model.graph.layout.square
    exact.check(prediction.node[:, square], "exact/diag_blocks")
    exact.check(prediction.edge[batch.pair_index[1]][:, square], "exact/nondiag_blocks")
    for k, found in enumerate(prediction.matrices()):
        numbers = exact.molecules[k].numbers
        expected = to_canonical(exact.file[f"exact/H_{k}"], numbers, BASIS, "pyscf")
        assert np.abs(found.detach().numpy() - expected).max() < TOLERANCE
    loss = float(model.loss(prediction, batch).value().detach())
    assert loss == pytest.approx(float(exact.file["exact/loss_maemse"]), abs=TOLERANCE)


def test_gradients(case: Case) -> None:
    model, file = case.model, case.file
    model.zero_grad()
    model.loss(model(case.batch), case.batch).value().backward()
    own, dead = dict(model.named_parameters()), model.unused.by_name()
    compared = set()
    for name, norm, total in zip(
        map(str, file["grad/names"]), file["grad/l2_norm"], file["grad/sum"], strict=True
    ):
        if name in dead and "tp_fix" not in name:  # zero there, or its rounding
            assert dead[name].grad is None
            assert norm < 1e-15
            continue
        ours = renamed(name)
        gradient = own[ours].grad
        if "tp_fix" in name and case.name == "c":  # the columns the public code keeps
            gradient = gradient[model.get_submodule(ours.rpartition(".")[0]).product.mask]
        assert float(gradient.norm()) == pytest.approx(float(norm), rel=1e-10, abs=1e-15), name
        assert float(gradient.sum()) == pytest.approx(float(total), rel=1e-9, abs=1e-12), name
        compared.add(ours)
    rest = {n for n in own if not n.startswith("unused.")} - compared
    assert all("importance" in name for name in rest)
    assert bool(rest) == (case.name == "c")


def test_products_of_the_fixed_phase() -> None:
    case = Case("c")
    for block in range(2):
        for ours, theirs in (("atom", "diag"), ("pair", "nondiag")):
            product = getattr(case.model.head, ours)[block].product
            prefix = f"tpgate.{theirs}{block + 1}."
            assert [list(p) for p in product.paths] == case.file[f"{prefix}path_l1l2l3"].tolist()
            assert np.array_equal(product.mask.numpy(), case.file[f"{prefix}mask"])
            dense = torch.tensor(path_coefficients(product.paths), dtype=torch.float64)
            case.check(dense, f"{prefix}c_dense")
            case.check(product.coefficients, f"{prefix}chat")


def test_unused_weights_are_those_of_the_file(case: Case) -> None:
    file, dead = case.file, case.model.unused.by_name()
    listed = set(map(str, file["dead_names"])) | set(map(str, file["zero_grad_names"]))
    if case.name == "c":  # biases whose scalars no kept path reads; live in other masks
        listed = {n for n in listed if "linear_node_" not in n or BACKBONE in n}
        listed |= {n for n in case.weights if n.endswith("pair_select_layer.bias")}
    assert listed == {n for n in dead if not n.endswith(":rest")}
    half = f"{BACKBONE}Vectorial_interaction.mlp_node_fea.weight"
    assert torch.equal(dead[f"{half}:rest"], case.weights[half][16:])


def test_wrong_checkpoints_are_named() -> None:
    case = Case("b")
    missing = dict(case.weights)
    del missing[f"{HEAD}output_ii.weight"]
    with pytest.raises(CheckpointError, match=r"lacks 'head.atom_expansion.bottleneck.weight'"):
        hambench.load_published(case.model, missing)
    with pytest.raises(CheckpointError, match=r"'hami_model.unknown' has no place"):
        hambench.load_published(case.model, {**case.weights, f"{HEAD}unknown": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="the checkpoint's layers and sparsity"):
        hambench.load_published(SPHNet(BASIS, channels=16), case.weights)
    with pytest.raises(CheckpointError, match=r"holds .* numbers, this model"):
        hambench.load_published(SPHNet(BASIS, channels=8, sparse=False), case.weights)
    small = SPHNet(BASIS, channels=16, sparse=False)  # without a place for unused weights
    hambench.load_published(small, case.weights)
