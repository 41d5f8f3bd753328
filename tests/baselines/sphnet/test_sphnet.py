"""SPHNet: parameter counts, symmetries with the defects of the public code shown, any molecule."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from sphnet_cases import HEAVY, PUBLISHED, SMALL, SVP, TZVP, molecules, randomised
from torch import nn

import hambench
from hambench.baselines.sphnet.model import SPHNet, SPHNetEnergy
from hambench.baselines.sphnet.sparsity import PairGate, dropped, path_coefficients
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.graph import build_graph, collate
from hambench.data.padding import padded
from hambench.errors import ConfigError
from hambench.losses import label_errors
from hambench.o3.products import triangle_paths


def count(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def dead(model: SPHNet, part: str) -> int:
    """Numbers of the unused weights whose published name has ``part`` in it."""
    shapes = {n: s for n, s in model.dead.items() if part in n}
    return sum(torch.Size(s).numel() for s in shapes.values())


@pytest.mark.parametrize(
    ("basis", "sparse", "total"),
    [(SVP, True, 18_076_502), (SVP, False, 18_075_733), (TZVP, True, 37_461_592)],
)
def test_published_parameter_counts(basis: OrbitalBasis, sparse: bool, total: int) -> None:
    with torch.device("meta"):
        model = SPHNet(basis, **PUBLISHED, sparse=sparse, unused_weights=True)
        lean = SPHNet(basis, sparse=sparse)
    assert model.count_parameters() == total
    unused = count(model.unused)
    assert sum(torch.Size(s).numel() for s in model.dead.values()) == unused
    assert lean.count_parameters() == total - unused
    assert lean.unused is None


def test_count_after_the_paths_are_fixed() -> None:
    """The public code replaces both atoms' weights by those of 20 paths of 65, at 0.7."""
    with torch.device("meta"):
        model = SPHNet(SVP, **PUBLISHED, unused_weights=True)
    left_out = 2 * dropped(65, 0.7) * 128
    assert model.count_parameters() - left_out == 18_064_982


@pytest.mark.parametrize(("basis", "column"), [(SVP, 0), (TZVP, 1)])
def test_published_counts_module_by_module(basis: OrbitalBasis, column: int) -> None:
    with torch.device("meta"):
        model = SPHNet(basis, unused_weights=True)
    stage, head = model.backbone.vectorial, model.head
    init = (stage.element, stage.neighbour, stage.near_basis, stage.neighbour_filter)
    node_init = sum(map(count, (*init, stage.combine, stage.edge)))
    tables = {
        "radial basis": (count(model.backbone.basis), (1, 1)),
        "first convolution": (
            count(model.backbone.first) + dead(model, "Spherical_interaction.0"),
            (198_528, 247_936),
        ),
        "second convolution": (
            count(model.backbone.second) + dead(model, "Spherical_interaction.1"),
            (1_437_313, 2_855_553),
        ),
        "pair gate of it": (count(model.backbone.second.select) + 1, (769, 1_025)),
        "node init": (node_init, (71_652, 71_652)),
        "scalar split": (count(stage.scalars) + dead(model, "mlp_node_fea"), (33_024, 33_024)),
        "vector split": (dead(model, "mlp_node_vec_fea"), (32_768, 32_768)),
        "unused edge init": (dead(model, ".edge_fea_init"), (6_628, 6_628)),
        "bipartite init": (count(stage.group_basis) + count(stage.group_edge), (6_628, 6_628)),
        "output norms": (count(stage.short_norm) + count(stage.long_norm), (512, 512)),
        "output": (count(stage.output), (32_896, 32_896)),
        "unused energy net": (dead(model, "out_energy"), (33_025, 33_025)),
        "head's radial basis": (count(head.basis), (1, 1)),
    }
    for k in range(4):
        short = count(stage.short[k]) + dead(model, f"visnet_att0.{k}")
        long = count(stage.long[k]) + dead(model, f"longshortinteract_models.{k}")
        tables[f"short {k}"], tables[f"long {k}"] = (short, (263_808,) * 2), (long, (214_912,) * 2)
    for k in range(2):
        pair = count(head.pair[k]) + dead(model, f"node_pair_layer.{k}")
        atom = count(head.atom[k]) + dead(model, f"gnn_node_layer.{k}")
        tables[f"pair {k}"] = pair, (4_126_851, 9_479_007)
        tables[f"atom {k}"] = atom, (2_740_994, 5_256_670)
    for name in ("atom_expansion", "pair_expansion"):
        expansion = getattr(head, name)
        tables[f"{name} weights"] = count(expansion.weights), (247_680, 1_325_088)
        tables[f"{name} biases"] = count(expansion.biases), (18_318, 23_607)
        tables[f"{name} bottleneck"] = count(expansion.bottleneck), (20_480, 28_672)
    for name, (found, expected) in tables.items():
        assert found == expected[column], name
    parts = sum(found for name, (found, _) in tables.items() if name != "pair gate of it")
    assert parts == model.count_parameters()


@pytest.mark.parametrize(
    ("paths", "total", "expected"),
    [
        (triangle_paths(4), 65, [0.1575, 0.2318, 0.2944, 0.3676, 0.4725]),
        (triangle_paths(6), 175, [0.1039, 0.1477, 0.1803, 0.2125, 0.2487, 0.2936, 0.3557]),
        (triangle_paths(4, left=0), 5, [0.6687, 1.5244, 2.2361, 2.8779, 3.4749]),
        (triangle_paths(4, natural=True), 42, [0.1757, 0.3166, 0.4154, 0.5346, 0.6804]),
    ],
)
def test_coefficients_of_paths(paths: list[Any], total: int, expected: list[float]) -> None:
    assert len(paths) == total
    found = dict(zip([p.l3 for p in paths], path_coefficients(paths), strict=True))
    assert [found[l] for l in range(len(expected))] == pytest.approx(expected, abs=6e-5)


# ---- symmetries


def matrices(model: SPHNet, mols: list[Molecule]) -> list[torch.Tensor]:
    with torch.no_grad():
        return model(collate(mols, model.graph)).matrices()


def turned(molecule: Molecule, turn: np.ndarray, shift: float = 0.0) -> Molecule:
    return Molecule(
        molecule.numbers, molecule.positions @ turn.T + shift, molecule.charge, basis=molecule.basis
    )


def reordered(molecule: Molecule, order: np.ndarray) -> Molecule:
    return Molecule(molecule.numbers[order], molecule.positions[order], molecule.charge)


def rotation_error(model: SPHNet, mols: list[Molecule]) -> float:
    """Largest |H(R x) - D H(x) D^T| over the largest |H|, of a turn and a shift."""
    turn = Rotation.random(rng=7).as_matrix()
    before = matrices(model, mols)
    after = matrices(model, [turned(m, turn, 3.0) for m in mols])
    errors = []
    for molecule, first, second in zip(mols, before, after, strict=True):
        full = torch.from_numpy(ao_rotation(molecule.numbers, model.basis, turn))
        errors.append(float((second - full @ first @ full.T).abs().max() / first.abs().max()))
    return max(errors)


def permutation_error(model: SPHNet, molecule: Molecule, order: np.ndarray) -> float:
    (one,), (other,) = matrices(model, [molecule]), matrices(model, [reordered(molecule, order)])
    counts = model.basis.ao_counts(molecule.numbers)
    starts = np.cumsum(counts) - counts
    index = np.concatenate([starts[a] + np.arange(counts[a]) for a in order])
    return float((other - one[index][:, index]).abs().max() / one.abs().max())


def batch_error(model: SPHNet, mols: list[Molecule]) -> float:
    together = matrices(model, mols)
    alone = [matrices(model, [m])[0] for m in mols]
    return max(
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(together, alone, strict=True)
    )


ORDER = np.array([3, 0, 5, 1, 4, 2])


@pytest.mark.parametrize(
    ("basis", "fixed"),
    [(SVP, False), (SVP, True), (TZVP, False), (HEAVY, False)],
    ids=["svp", "svp, fixed paths", "tzvp", "heavy, tzvpd"],
)
def test_symmetries(basis: OrbitalBasis, fixed: bool) -> None:
    """Of the recommended settings, all weights random, those of the norms too."""
    size = {} if basis is SVP else {"channels": 8, "sparsity": 0.9}
    model = randomised(basis, **size).eval()
    if fixed:
        model.freeze()
    mols = molecules(basis, (6, 4) if basis is SVP else (6, 2))
    assert rotation_error(model, mols) < 1e-10
    assert permutation_error(model, mols[0], ORDER) < 1e-10
    assert batch_error(model, mols) < 1e-10
    one, two = matrices(model, mols)
    swapped = matrices(model, mols[::-1])
    assert (swapped[1] - one).abs().max() < 1e-10 * one.abs().max()
    assert (swapped[0] - two).abs().max() < 1e-10 * two.abs().max()


_CORNERS = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
_RING = np.stack([np.cos(np.arange(6) * np.pi / 3), np.sin(np.arange(6) * np.pi / 3), np.zeros(6)])
SYMMETRIC = {
    "methane": ([6, 1, 1, 1, 1], np.vstack([[[0, 0, 0]], 0.63 * _CORNERS]), 0),
    "ammonium": ([7, 1, 1, 1, 1], np.vstack([[[0, 0, 0]], 0.59 * _CORNERS]), 1),
    "carbon dioxide": ([6, 8, 8], np.array([[0, 0, 0], [0, 0, 1.16], [0, 0, -1.16]]), 0),
    "hydrogen": ([1, 1], np.array([[0, 0, 0], [0.3, 0.4, 0.6]]), 0),
    "water": ([8, 1, 1], np.array([[0, 0, 0], [0.76, 0, 0.59], [-0.76, 0, 0.59]]), 0),
    "benzene": ([6] * 6 + [1] * 6, np.vstack([1.39 * _RING.T, 2.48 * _RING.T]), 0),
}


def symmetric_molecules() -> list[Molecule]:
    return [Molecule(z, x, charge, basis=SVP.name) for z, x, charge in SYMMETRIC.values()]


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("sparse", [False, True])
def test_symmetric_molecules(trained: bool, sparse: bool) -> None:
    """Equal scores of pairs, and vectors that cancel, break nothing."""
    model = randomised(sparse=sparse).eval()
    if not trained:
        torch.manual_seed(5)
        model = SPHNet(SVP, **SMALL, sparse=sparse).double().eval()
    mols = symmetric_molecules()
    assert rotation_error(model, mols) < 1e-10
    for molecule in mols:
        assert permutation_error(model, molecule, np.arange(len(molecule))[::-1]) < 1e-10
    assert batch_error(model, mols) < 1e-10


@pytest.mark.parametrize("changed", [{"gate_form": "hard"}, {"vector_lengths": "published"}])
def test_published_gates_and_lengths_break_symmetric_molecules(changed: dict[str, str]) -> None:
    worst = 0.0
    for seed in range(3):
        model = randomised(seed=seed, **changed).eval()
        assert rotation_error(model, molecules()) < 1e-10
        worst = max(worst, *(rotation_error(model, [m]) for m in symmetric_molecules()))
    assert worst > 1e-4


def test_predictions_do_not_jump_beside_symmetric_molecules() -> None:
    """Through a methane of equal bonds, where scores of its pairs change places."""
    z, x, _ = SYMMETRIC["methane"]
    sides = [np.array([1, 1, f, 1, 1])[:, None] for f in (1 - 1e-8, 1 + 1e-8)]
    methanes = [Molecule(z, x * side, basis=SVP.name) for side in sides]
    jumps: dict[str, list[float]] = {"fading": [], "hard": []}
    for form, found in jumps.items():
        for seed in range(4):
            one, other = matrices(randomised(seed=seed, gate_form=form).eval(), methanes)
            found.append(float((one - other).abs().max() / one.abs().max()))
    assert max(jumps["fading"]) < 1e-4
    assert max(jumps["hard"]) > 1e-3


def test_only_proper_rotations() -> None:
    model = randomised().eval()
    mols = molecules()
    mirror = matrices(model, [turned(m, -np.eye(3)) for m in mols])
    for molecule, first, second in zip(mols, matrices(model, mols), mirror, strict=True):
        l = np.concatenate([np.repeat(s, 2 * np.array(s) + 1) for s in shells(molecule)])
        sign = torch.from_numpy((-1.0) ** l)
        change = (second - sign[:, None] * first * sign).abs().max() / first.abs().max()
        assert change > 1e-4


def shells(molecule: Molecule) -> list[tuple[int, ...]]:
    return [SVP.shells[int(z)].l for z in molecule.numbers]


def test_published_order_of_pairs_depends_on_the_order_of_atoms() -> None:
    model = randomised(pair_order="published").eval()
    mol = molecules()[0]
    assert permutation_error(model, mol, ORDER) > 1e-4
    assert rotation_error(model, [mol]) < 1e-10


def test_published_gates_depend_on_the_batch() -> None:
    model = randomised(gate_scope="batch").eval()
    mols = molecules()
    assert batch_error(model, mols) > 1e-4
    assert permutation_error(model, mols[0], ORDER) < 1e-10


def test_published_norm_breaks_rotations() -> None:
    model = randomised(norm_layout="published").eval()
    mols = molecules()
    assert rotation_error(model, mols) > 1e-4
    with torch.no_grad():  # as long as its scales are equal, it does not
        for norm in (model.backbone.first.norm, model.backbone.second.norm):
            norm.scale.fill_(1.3)
    assert rotation_error(model, mols) < 1e-10


def test_published_unit_vectors_break_rotations_a_little() -> None:
    model = randomised(unit_vectors="published").eval()
    assert 1e-9 < rotation_error(model, molecules()) < 1e-4


def test_the_published_preset_has_all_of_them() -> None:
    model = randomised(**PUBLISHED, unused_weights=True).eval()
    mols = molecules()
    assert rotation_error(model, mols) > 1e-4
    assert permutation_error(model, mols[0], ORDER) > 1e-4
    assert batch_error(model, mols) > 1e-4


def test_published_loss_counts_pairs_once() -> None:
    mols = molecules(labels=True)
    for blocks in ("all", "published"):
        model = randomised(loss_blocks=blocks)
        batch = collate(mols, model.graph)
        prediction = model(batch)
        node, edge = (errors.values for errors in label_errors(prediction, batch))
        forth, back = edge.chunk(2)
        assert (forth.sort().values - back.sort().values).abs().max() < 1e-12
        errors = torch.cat([node, edge if blocks == "all" else forth])
        expected = errors.abs().mean() + errors.square().mean()
        loss = model.loss(prediction, batch).value()
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)
    full = torch.cat([(a - torch.from_numpy(m.hamiltonian)).reshape(-1)
                      for a, m in zip(prediction.raw_matrices(), mols, strict=True)])  # fmt: skip
    everything = torch.cat([node, edge]).sort().values
    assert (full.sort().values - everything).abs().max() < 1e-12


# ---- any molecule


@pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["recommended", "published"])
def test_single_atoms_and_diatomics(options: dict[str, Any]) -> None:
    model = randomised(**options)
    atom = Molecule(np.array([8]), np.zeros((1, 3)), basis="def2-svp")
    pair = Molecule(np.array([8, 1]), np.array([[0, 0, 0], [0, 0, 0.96]]), basis="def2-svp")
    far = dataclasses.replace(pair, positions=np.array([[0, 0, 0], [0, 0, 40.0]]))
    for mols in ([atom], [pair], [atom, pair, far]):
        prediction = model(collate(mols, model.graph))
        assert all(h.isfinite().all() and h.abs().max() > 1e-3 for h in prediction.matrices())
        (prediction.node.sum() + prediction.edge.sum()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        model.zero_grad()
    if not options:
        assert batch_error(model.eval(), [atom, pair, far]) < 1e-10


def test_more_atoms_than_neighbours() -> None:
    model = randomised(neighbours=4).eval()
    mols = molecules(sizes=(9, 7))
    assert model.graph.nearest == (15.0, 4)
    assert rotation_error(model, mols) < 1e-10
    assert permutation_error(model, mols[0], np.roll(np.arange(9), 2)) < 1e-10
    for mol in symmetric_molecules():  # with neighbours that are equally far
        assert permutation_error(model, mol, np.arange(len(mol))[::-1]) < 1e-10
        assert rotation_error(model, [mol]) < 1e-10


@pytest.mark.parametrize("scope", ["molecule", "batch"])
def test_padding_changes_no_gradient(scope: str) -> None:
    model = randomised(gate_scope=scope)
    model.freeze()
    mols = molecules(labels=True)
    plain = collate(mols, model.graph)
    filled = padded([build_graph(m, model.graph) for m in mols], model.graph, 60)
    assert filled.num_edges == 62 > plain.num_edges
    losses, gradients = [], []
    for batch in (plain, filled):
        model.zero_grad()
        losses.append(model.loss(model(batch), batch).value())
        losses[-1].backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=1e-12)
    assert gradients[0].keys() == gradients[1].keys()
    for name, one in gradients[0].items():
        scale = max(1.0, float(one.abs().max()))
        assert (one - gradients[1][name]).abs().max() < 1e-10 * scale, name


@pytest.mark.parametrize("sparse", [True, False])
def test_every_parameter_learns(sparse: bool) -> None:
    """Nothing is left of what the public code carries in vain (`unused`)."""
    model = randomised(sparse=sparse, sparsity=0.3)
    batch = collate(molecules(labels=True), model.graph)
    model.loss(model(batch), batch).value().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-13, name


# ---- gates of pairs


def test_gates_keep_what_reaches_the_quantile() -> None:
    """Each molecule by itself, against torch.quantile; rows of none come last and count nothing."""
    torch.manual_seed(0)
    gate = PairGate(3, 0.7, "hard", "molecule").double()
    counts = [0, 1, 2, 6, 12, 11, 0, 31]
    owner = torch.cat([torch.full((n,), k) for k, n in enumerate(counts)])
    scalars = torch.randn(len(owner), 3, dtype=torch.float64)
    kept = gate(scalars, owner, len(counts), len(counts))
    scores = gate.linear(scalars)[:, 0]
    rows, gates = [], []
    for k in range(len(counts)):
        here = (owner == k).nonzero()[:, 0]
        if len(here):
            quantile = torch.quantile(scores[here], 0.7)
            chosen = here[scores[here] >= quantile]
            rows += chosen.tolist()
            gates += (scores[chosen] - quantile).sigmoid().tolist()
            assert len(chosen) == len(here) - dropped(len(here), 0.7)
    assert kept.rows[: len(rows)].tolist() == rows
    assert kept.gates[: len(rows), 0].tolist() == pytest.approx(gates, abs=1e-14)
    assert kept.shares[:, 0].tolist() == [1.0] * len(rows) + [0.0] * (len(kept.rows) - len(rows))
    assert kept.gates[len(rows) :].abs().max() == 0
    assert len(kept.rows) <= 0.3 * len(owner) + 0.7 * len(counts)


def test_equal_scores_keep_their_number() -> None:
    gate = PairGate(2, 0.7, "hard", "molecule").double()
    kept = gate(torch.ones(10, 2, dtype=torch.float64), torch.zeros(10).long(), 1, 1)
    assert kept.rows.tolist() == [7, 8, 9]
    assert kept.gates[:, 0].tolist() == [0.5] * 3


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(65, 0.7, 45), (175, 0.7, 122), (65, 0.3, 20), (1, 0.7, 0), (2, 0.7, 1), (11, 0.7, 7)],
)
def test_how_many_are_dropped(count: int, share: float, expected: int) -> None:
    values = torch.randperm(count).double()
    assert dropped(count, share) == expected
    assert int((values < torch.quantile(values, share) - 1e-9).sum()) == expected


# ---- energies, options


def energetic() -> list[Molecule]:
    return [dataclasses.replace(m, energy=-75.0 * k - 40.0) for k, m in enumerate(molecules())]


def test_energies() -> None:
    torch.manual_seed(0)
    mols = energetic()
    with torch.device("meta"):
        made = SPHNet.for_energies(SVP, vars_of(SPHNet), {"head": "linear"})
    assert isinstance(made, SPHNetEnergy)
    assert {n.partition(".")[0] for n, _ in made.named_parameters()} == {"backbone", "head"}
    model = SPHNetEnergy(SVP, channels=8, short_layers=2, long_layers=2).double()
    model.prepare(mols)
    first = model(collate(mols, model.graph)).energies.detach()
    turn = Rotation.random(rng=1).as_matrix()
    again = model(collate([turned(m, turn) for m in mols], model.graph)).energies.detach()
    torch.testing.assert_close(again, first, rtol=0, atol=1e-10)
    body = randomised(seed=1)
    missing = model.adopt(body.state_dict(), "body")
    assert all(n.startswith(("head.", "references")) for n in missing["fresh"])
    own = model.state_dict()
    assert all(torch.equal(own[n], w) for n, w in body.state_dict().items() if n in own)


def vars_of(model: type[SPHNet]) -> dict[str, Any]:
    """The model's default settings."""
    import inspect

    signature = inspect.signature(model).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


def test_forces_are_the_slope_of_the_energy() -> None:
    torch.manual_seed(0)
    model = SPHNetEnergy(SVP, channels=8, short_layers=2, long_layers=2, sparse=False).double()
    mol = molecules()[1]
    forces = model.energy_and_forces(collate([mol], model.graph))[1]
    steps = torch.zeros(12, 4, 3, dtype=torch.float64)
    steps.view(12, 12).fill_diagonal_(1e-5)
    moved = [
        Molecule(mol.numbers, x.numpy())
        for x in torch.from_numpy(mol.positions) + torch.cat([steps, -steps])
    ]
    with torch.no_grad():
        energies = model(collate(moved, model.graph)).energies
    slope = (energies[12:] - energies[:12]).view(4, 3) / 2e-5
    assert float(slope.abs().max()) > 1e-3
    torch.testing.assert_close(forces, slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 12}, "12 channels for 8 heads; .* such as 16"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SPHNet(SVP, **{**SMALL, **options})


@pytest.mark.parametrize("name", ["sphnet", "sphnet_small", "sphnet_qh9", "sphnet_md17"])
def test_presets(name: str) -> None:
    with torch.device("meta"):
        model = hambench.build_model(name, SVP)
    published = name in ("sphnet_qh9", "sphnet_md17")
    assert (model.unused is not None) == published
    assert all((model.hyperparameters[k] == v) == published for k, v in PUBLISHED.items())
    assert model.count_parameters() == {"sphnet": 17_588_842, "sphnet_small": 327_994}.get(
        name, 18_076_502
    )
