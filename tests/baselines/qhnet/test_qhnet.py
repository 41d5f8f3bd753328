"""QHNet: parameter counts, symmetry, the oracle path by path, blow-ups, energies, overfitting."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from qhnet_oracle import PathByPath
from scipy.spatial.transform import Rotation
from torch import nn

import hambench
from hambench.baselines import QHNet
from hambench.baselines.qhnet.model import QHNetEnergy
from hambench.baselines.qhnet.published import renamed
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.rotation import ao_rotation
from hambench.data.graph import build_graph, collate
from hambench.data.padding import padded
from hambench.errors import CheckpointError, ConfigError
from hambench.learn.recipe import Recipe
from hambench.registry import RECIPES

SVP = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
NABLA = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
OMOL = OrbitalBasis.load("def2-tzvpd")
SMALL = {"channels": 6, "bottleneck": 4, "layers": 3, "start_layer": 0}


def size(module: nn.Module | None) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters())


def built(preset: str, basis: OrbitalBasis) -> QHNet:
    with torch.device("meta"):  # counts need no memory
        model = hambench.build_model(preset, basis)
    assert isinstance(model, QHNet)
    return model


@pytest.mark.parametrize(
    ("preset", "basis", "count", "unused"),
    [
        ("qhnet", SVP, 20_165_276, 0),
        ("qhnet_md17", SVP, 20_415_673, 250_397),
        ("qhnet_md17", OrbitalBasis.load("def2-svp", [1, 8]), 20_415_673, 250_397),
        ("qhnet_qh9", SVP, 20_415_673, 250_396),
        ("qhnet_nabla2dft", NABLA, 21_891_529, 16_740),
    ],
)
def test_published_parameter_counts(
    preset: str, basis: OrbitalBasis, count: int, unused: int
) -> None:
    model = built(preset, basis)
    assert model.count_parameters() == count
    assert size(getattr(model, "unused", None)) == unused
    assert hasattr(model, "unused") == (unused > 0)


def module_sizes(model: QHNet) -> dict[str, int]:
    """Parameters by module of the public code, those without use included."""
    found = {
        "embedding": size(model.embedding),
        "alpha": size(model.radial),
        "conv 0": size(model.first),
        "fc_ii": size(model.on_site.weights),
        "fc_ij": size(model.pair.weights),
        "fc_ii_bias": size(model.on_site.biases),
        "fc_ij_bias": size(model.pair.biases),
        "output_ii": size(model.on_site.reduce),
        "output_ij": size(model.pair.reduce),
        "expansions": 0,
    }
    for name, layers in (
        ("conv", model.convolutions),
        ("self", model.self_layers),
        ("pair", model.pair_layers),
    ):
        for k, layer in enumerate(layers, start=name == "conv"):
            found[f"{name} {k}"] = size(layer)
    for name, tensor in model.unused.by_name().items():
        place = {"expand_ii": "expansions", "expand_ij": "expansions"}.get(
            name.split(".")[0], "alpha" if "_alpha" in name else "conv 0"
        )
        if name.startswith("e3_gnn_node_pair_layer"):
            place = f"pair {name.split('.')[1]}"
        found[place] += tensor.numel()
    return found


@pytest.mark.parametrize("preset", ["qhnet_md17", "qhnet_qh9", "qhnet_nabla2dft"])
def test_parameters_module_by_module(preset: str) -> None:
    nabla = preset.endswith("nabla2dft")
    found = module_sizes(built(preset, NABLA if nabla else SVP))
    expected = {
        "embedding": 10_624 if nabla else 1_280,
        "alpha": 1,
        "conv 0": 132_224 if nabla else 197_760,
        **{f"conv {k}": 1_436_288 if nabla else 1_435_776 for k in range(1, 5)},
        **{f"self {k}": 2_715_904 for k in range(2)},
        **{f"pair {k}": 4_127_872 if nabla else 4_216_192 for k in range(2)},
        "expansions": 2 * (8_370 if nabla else 1_806),
        "fc_ii": 1_089_792 if nabla else 247_680,
        "fc_ij": 1_106_176 if nabla else 264_064,
        "fc_ii_bias": 22_962 if nabla else 18_318,
        "fc_ij_bias": 39_346 if nabla else 34_702,
        "output_ii": 20_480,
        "output_ij": 20_480,
    }
    assert found == expected


def test_parts_of_the_modules() -> None:
    """The finer lines of the public code's table."""
    model = built("qhnet_md17", SVP)
    first, second, pair = model.first, model.convolutions[0], model.pair_layers[0]
    assert [size(m) for m in (first.radial_weights, first.scalar_weights, first.output)] == [
        20_992, 28_672, 82_048,
    ]  # fmt: skip
    parts = (second.radial_weights, second.scalar_weights, second.output, second.gate)
    assert [size(m) for m in parts] == [172_544, 196_608, 82_048, 820_480]
    assert [size(m) for m in (pair.radial_weights, pair.scalar_weights)] == [1_067_008, 1_171_712]
    assert model.self_layers[0].weights.numel() == 8_320
    assert {name: tensor.numel() for name, tensor in model.unused.by_name().items()} == {
        "expand_ii.hamiltonian.weights": 1_806,
        "expand_ij.hamiltonian.weights": 1_806,
        "distance_expansion._alpha": 1,
        "e3_gnn_layer.0.conv.norm_gate.fc.0.weight": 16_384,
        "e3_gnn_layer.0.conv.norm_gate.fc.0.bias": 128,
        "e3_gnn_layer.0.conv.norm_gate.fc.2.weight": 16_384,
        "e3_gnn_layer.0.conv.norm_gate.fc.2.bias": 128,
        "e3_gnn_layer.0.conv.linear_node.weight": 16_384,
        "e3_gnn_layer.0.conv.linear_node.bias": 128,
        "e3_gnn_layer.0.conv.linear_node_pre.weight": 16_384,
        "e3_gnn_layer.0.conv.linear_node_pre.bias": 128,
        **{
            f"e3_gnn_node_pair_layer.{k}.{name}": count
            for k in range(2)
            for name, count in (
                ("tp_node_pair_2.weight", 8_320),
                ("linear_node_pair_2.weight", 81_920),
                ("linear_node_pair_2.bias", 128),
            )
        },
    }


def randomised(model: QHNet) -> QHNet:
    """All parameters drawn anew, so that no bias is zero and pairs have features of all degrees."""
    torch.manual_seed(1)
    heads = ("on_site.", "pair.")
    pairs = {
        "node.weight": 50.0 if model.basis is OMOL else 8.0,
        "radial_weights.weights.1": 4.0,
        "output.weight": 4.0,
        "gate.network.2.weight": 2.0,
    }
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.1 if name.endswith("bias") else 1.0)
            torch_linear = "network" in name or "scalar_weights." in name or name.startswith(heads)
            if parameter.ndim == 2 and torch_linear:
                parameter.mul_(parameter.shape[1] ** -0.5)
            if name.startswith("pair_layers."):
                parameter.mul_(pairs.get(name.split(".", 2)[2], 1.0))
    return model.double()


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
                numbers, positions, charge=k, basis=basis.name, id=str(k),
                hamiltonian=matrix + matrix.T if labelled else None,
            )
        )  # fmt: skip
    return out


def turned(molecule: Molecule, turn: np.ndarray) -> Molecule:
    return dataclasses.replace(molecule, positions=molecule.positions @ turn.T, hamiltonian=None)


def matrices(model: QHNet, mols: list[Molecule]) -> list[torch.Tensor]:
    with torch.no_grad():
        return model(collate(mols, model.graph)).raw_matrices()


@pytest.mark.parametrize("second", ["source", "target"])
@pytest.mark.parametrize("basis", [SVP, OMOL], ids=["svp", "tzvpd"])
def test_rotation(basis: OrbitalBasis, second: str, rng: np.random.Generator) -> None:
    """model(R x) = D(R) model(x) D(R)^T on full matrices."""
    options = SMALL | ({"channels": 3, "bottleneck": 2, "layers": 2} if basis is OMOL else {})
    model = randomised(QHNet(basis, **options, second_scalars=second))
    mols = molecules(basis, rng)
    before = matrices(model, mols)
    for turn in Rotation.random(2, rng=7).as_matrix():
        after = matrices(model, [turned(m, turn) for m in mols])
        for molecule, first, second_ in zip(mols, before, after, strict=True):
            full = torch.from_numpy(ao_rotation(molecule.numbers, basis, turn))
            assert first.abs().max() > 0.1
            assert (second_ - full @ first @ full.T).abs().max() < 1e-10
            assert (first - first.T).abs().max() < 1e-14


def test_mirror_images_differ(rng: np.random.Generator) -> None:
    """Equivariant to proper rotations alone, as published: products have odd paths."""
    model, mols = randomised(QHNet(SVP, **SMALL)), molecules(SVP, rng)
    before, after = matrices(model, mols), matrices(model, [turned(m, -np.eye(3)) for m in mols])
    parity = [(-1) ** l for z in mols[0].numbers for l in SVP.shells[int(z)].l
              for _ in range(2 * l + 1)]  # fmt: skip
    sign = torch.tensor(np.outer(parity, parity))
    assert (after[0] - sign * before[0]).abs().max() > 1e-4


def test_order_of_atoms_and_of_the_batch(rng: np.random.Generator) -> None:
    model = randomised(QHNet(SVP, **SMALL))
    mols = molecules(SVP, rng, labelled=False)
    order, first = np.array([2, 0, 3, 1]), mols[0]
    shuffled = dataclasses.replace(
        first, numbers=first.numbers[order], positions=first.positions[order]
    )
    moved = dataclasses.replace(mols[1], positions=mols[1].positions + np.array([3.0, -1, 2]))
    one, two = matrices(model, mols)
    other, again = matrices(model, [moved, shuffled])
    (alone,) = matrices(model, mols[1:])
    counts = SVP.ao_counts(first.numbers)
    starts = np.cumsum(counts) - counts
    index = np.concatenate([starts[a] + np.arange(counts[a]) for a in order])
    assert (again - one[index][:, index]).abs().max() < 1e-12
    assert (other - two).abs().max() < 1e-12
    assert (alone - two).abs().max() < 1e-12
    many = matrices(model, mols * 5)  # more atoms and pairs than elements: tables serve
    for k, matrix in enumerate(many):
        assert (matrix - (one, two)[k % 2]).abs().max() < 1e-12


def test_single_atom_and_distant_pairs() -> None:
    """Beyond the cutoff, blocks are constants of the two elements, and atoms are alone."""
    model = randomised(QHNet(SVP, **SMALL, cutoff=3.0))
    atom = Molecule([8], np.zeros((1, 3)), basis="def2-svp")
    far = [
        Molecule([8, 1], [[0, 0, 0], place], basis="def2-svp") for place in ([0, 0, 5], [4, 3, 9])
    ]
    near = Molecule([8, 1], [[0, 0, 0], [0.6, 0, 0.7]], basis="def2-svp")
    alone, one, other, bound = matrices(model, [atom, *far, near])
    assert (one[:14, :14] - alone).abs().max() < 1e-13
    assert (one - other).abs().max() < 1e-13
    assert (bound - one).abs().max() > 1e-3
    block = one[:14, 14:]
    assert block[:3, :2].abs().min() > 1e-6
    assert block[:3, 2:].abs().max() == 0  # s with p: no direction
    p = block[3:6, 2:]
    assert (p - p[0, 0] * torch.eye(3).double()).abs().max() < 1e-15
    for molecules_ in ([atom], [far[0]]):  # no pair within reach at all
        assert matrices(model, molecules_)[0].isfinite().all()


VARIANTS = {
    "recommended": (SVP, {}),
    "md17": (SVP, {"second_scalars": "target", "loss": "molecule"}),
    "short": (NABLA, {"cutoff": 1.5, "learn_alpha": True, "alpha": 0.5, "loss": "rmse_mae"}),
    "angstrom": (SVP, {"alpha_unit": "angstrom", "learn_alpha": True, "lmax": 5}),
    "tzvpd": (OMOL, {"channels": 3, "bottleneck": 2, "layers": 2}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_path_by_path(name: str, rng: np.random.Generator) -> None:
    """Values and all gradients are those of the oracle."""
    basis, options = VARIANTS[name]
    model = randomised(QHNet(basis, **{**SMALL, **options}))
    if model.radial.raw is not None:
        nn.init.constant_(model.radial.raw, -0.4)
    batch = collate(molecules(basis, rng), model.graph)
    if name == "short":
        assert 0 < len(batch.near_index) < batch.num_edges
    found = []
    for network in (model, PathByPath(model)):
        model.zero_grad(set_to_none=True)
        prediction = network(batch)
        model.loss(prediction, batch).value().backward()
        gradients = {k: p.grad for k, p in model.named_parameters()}
        found.append((prediction.node.detach(), prediction.edge.detach(), gradients))
    (node, edge, ours), (node_, edge_, theirs) = found
    assert edge_.abs().max() > 0.1
    assert (node - node_).abs().max() < 1e-10
    assert (edge - edge_).abs().max() < 1e-10
    for key, gradient in theirs.items():
        assert gradient is not None, key
        scale = max(1.0, float(gradient.abs().max()))
        assert (ours[key] - gradient).abs().max() < 1e-10 * scale, key


def test_the_oracle_in_single_precision(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model = QHNet(SVP, **SMALL)
    batch = collate(molecules(SVP, rng), model.graph)
    with torch.no_grad():
        one, other = model(batch), PathByPath(model)(batch)
    assert one.edge.dtype == other.edge.dtype == torch.float32
    assert torch.allclose(one.edge, other.edge, atol=1e-6)


@pytest.mark.parametrize("loss", ["matrix", "molecule", "rmse_mae"])
def test_padding_changes_no_gradient(loss: str, rng: np.random.Generator) -> None:
    model = randomised(QHNet(SVP, **SMALL, loss=loss, cutoff=2.0))
    mols = molecules(SVP, rng)
    plain = collate(mols, model.graph)
    filled = padded([build_graph(m, model.graph) for m in mols], model.graph, 40)
    assert filled.num_edges == 42 > plain.num_edges
    losses, gradients = [], []
    for batch in (plain, filled):
        model.zero_grad(set_to_none=True)
        losses.append(model.loss(model(batch), batch).value())
        losses[-1].backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=1e-12)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_every_parameter_learns_but_the_unused(rng: np.random.Generator) -> None:
    model = randomised(QHNet(SVP, **SMALL, learn_alpha=True, unused_weights="airs"))
    batch = collate(molecules(SVP, rng), model.graph)
    model.loss(model(batch), batch).value().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("unused."):
            assert parameter.grad is None
        else:
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name


def test_losses(rng: np.random.Generator) -> None:
    mols = molecules(SVP, rng)
    differences = {}
    for loss in ("matrix", "molecule", "rmse_mae"):
        model = randomised(QHNet(SVP, **SMALL, loss=loss))
        batch = collate(mols, model.graph)
        prediction = model(batch)
        differences[loss] = float(model.loss(prediction, batch).value().detach())
        errors = [
            (h - torch.from_numpy(m.hamiltonian)).detach()
            for h, m in zip(prediction.matrices(), mols, strict=True)
        ]
    flat = torch.cat([e.flatten() for e in errors])
    square, absolute = float(flat.square().mean()), float(flat.abs().mean())
    each = [e.square().mean() + e.abs().mean() for e in errors]
    assert differences["matrix"] == pytest.approx(square + absolute, rel=1e-12)
    assert differences["rmse_mae"] == pytest.approx(math.sqrt(square) + absolute, rel=1e-12)
    assert differences["molecule"] == pytest.approx(float(sum(each)) / 2, rel=1e-12)


def test_initial_blow_ups_are_told(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    model, mols = QHNet(SVP, **SMALL), molecules(SVP, rng)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.remarks() == []
    model.prepare(mols)
    assert model.remarks() == []
    assert 0 < model.largest < 1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.convolutions[-1].output.weight.data.mul_(1e4)
    model.prepare(mols)
    (remark,) = model.remarks()
    assert f"molecule '{model.largest_in}' is {model.largest:.3g} Eh" in remark
    assert "another seed" in remark
    model.self_layers[0].weights.data[0, 0] = math.nan
    model.prepare(mols)
    assert "is not finite" in model.remarks()[0]


def test_wrong_options_are_named() -> None:
    with pytest.raises(ConfigError, match="no layer is left for the blocks: layers is 3"):
        QHNet(SVP, layers=3)
    with pytest.raises(ConfigError, match="embedding_rows is 10, element 35 of the basis needs 36"):
        QHNet(NABLA, embedding_rows=10)
    with pytest.raises(ConfigError, match=r"lmax is 3, blocks of .* have degrees up to 4; set it"):
        QHNet(SVP, lmax=3)


def published(model: QHNet) -> dict[str, torch.Tensor]:
    """A state dict as the public code has it: flat tensors under its names, e3nn's buffers too."""
    own = dict(model.named_parameters())
    lmax, names = model.lmax, [f"e3_gnn_layer.{k}.conv" for k in range(3)]
    theirs = {"node_embedding.weight": own.pop("embedding.weight")}
    candidates = [
        f"{name}.{part}"
        for name in [*names, *(f"e3_gnn_node_{kind}.{k}" for kind in ("layer", "pair_layer")
                               for k in range(len(model.self_layers)))]
        for part in (
            *(f"linear_{x}.{y}" for x in ("out", "node", "node_pre", "node_1", "node_2", "node_3",
                                          "node_pair", "node_pair_n", "node_pair_inner")
              for y in ("weight", "bias")),
            *(f"{x}.layer{y}.weight" for x in ("fc_node", "fc_node_pair", "layer_l0")
              for y in (0, 1)),
            *(f"{x}.{y}.{z}" for x in ("fc", "norm_gate.fc", "norm_gate_1.fc", "norm_gate_2.fc",
                                       "norm_gate_pre.fc") for y in (0, 2)
              for z in ("weight", "bias")),
            "tp.weight",
        )
    ]  # fmt: skip
    candidates += [f"output_{x}.weight" for x in ("ii", "ij")]
    candidates += [
        f"fc_{x}.hamiltonian.{y}.{z}"
        for x in ("ii", "ij", "ii_bias", "ij_bias")
        for y in (0, 2)
        for z in ("weight", "bias")
    ]
    candidates.append("distance_expansion._alpha")
    for name in candidates:
        if (tensor := own.pop(renamed(name), None)) is not None:
            linear = "linear" in name or name.startswith("output") or name.startswith("tp")
            theirs[name] = tensor.flatten() if linear else tensor
    assert [name for name in own if not name.startswith("unused.")] == []
    assert theirs["output_ii.weight"].shape == ((lmax + 1) * 6 * 4,)
    theirs |= model.unused.by_name() if hasattr(model, "unused") else {}
    theirs["distance_expansion.logc"] = torch.zeros(16)
    theirs["output_ii.output_mask"] = torch.ones(100)
    theirs["output_ii.bias"] = torch.zeros(0)
    theirs["e3_gnn_layer.1.conv.tp_node._compiled_main_left_right._w3j_1_1_2"] = torch.ones(3, 3, 5)
    return {name: tensor.detach().clone() for name, tensor in theirs.items()}


@pytest.mark.parametrize("edition", ["airs", "nabladft", None])
def test_published_checkpoints(edition: str | None) -> None:
    options = SMALL | {"unused_weights": edition, "learn_alpha": edition == "nabladft"}
    model = randomised(QHNet(SVP, **options))
    weights = published(model)
    if edition == "airs":
        weights["distance_expansion._alpha"].fill_(math.log(math.expm1(0.5)))
    if edition == "nabladft":
        weights = {f"net.{name}": tensor for name, tensor in weights.items()}
    other = QHNet(SVP, **options).double()
    hambench.load_published(other, weights)
    for (name, one), two in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two) or "tensors" in name, name
    if edition == "airs":
        dead = other.unused.by_name()
        assert all(torch.equal(dead[name], weights[name]) for name in dead)
        bare = QHNet(SVP, **SMALL).double()  # what has no use may be left
        hambench.load_published(bare, weights)
        assert torch.equal(bare.on_site.reduce.weight, model.on_site.reduce.weight)


def test_wrong_checkpoints_are_named() -> None:
    model = QHNet(SVP, **SMALL).double()
    weights = published(model)
    missing = {k: v for k, v in weights.items() if k != "output_ij.weight"}
    with pytest.raises(CheckpointError, match=r"lacks 'pair.reduce.weight'; build"):
        hambench.load_published(model, missing)
    extra = {"e3_gnn_layer.7.conv.linear_out.bias": torch.zeros(6)}
    with pytest.raises(CheckpointError, match=r"'e3_gnn_layer.7.conv.linear_out.bias' .* no place"):
        hambench.load_published(model, weights | extra)
    wide = QHNet(SVP, **(SMALL | {"channels": 8}))
    with pytest.raises(CheckpointError, match="build the model with the checkpoint's width"):
        hambench.load_published(wide, weights)
    with pytest.raises(CheckpointError, match="was trained, and this model's alpha is fixed"):
        hambench.load_published(model, weights | {"distance_expansion._alpha": torch.tensor(0.3)})
    full = QHNet(SVP, **SMALL, unused_weights="airs")
    odd = {"expand_ii.hamiltonian.weights": torch.zeros(3)}
    with pytest.raises(CheckpointError, match=r"'expand_ii.hamiltonian.weights' holds 3 numbers"):
        hambench.load_published(full, weights | odd)


def test_recipes_are_as_published() -> None:
    names = [name for name in RECIPES.presets if name.startswith("qhnet")]
    assert len(names) == 12
    recipes = {n: Recipe.parse(RECIPES.presets[n].content) for n in names}
    water, ethanol = recipes["qhnet_md17"], recipes["qhnet_md17_ethanol"]
    assert (water.batch_size, ethanol.batch_size) == (10, 5)
    assert (water.optimizer.lr, ethanol.optimizer.lr) == (5e-4, 1e-3)
    for recipe in (water, ethanol, recipes["qhnet_qh9"]):
        assert recipe.optimizer.betas == (0.99, 0.999)
        assert recipe.optimizer.weight_decay == 0.01


def energetic(rng: np.random.Generator) -> list[Molecule]:
    mols = molecules(SVP, rng, labelled=False)
    return [dataclasses.replace(m, energy=-75.0 * k - 40.0) for k, m in enumerate(mols)]


def test_energies_stand_on_the_atom_features(rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    pretrained, mols = QHNet(SVP, **SMALL).double(), energetic(rng)
    model = QHNet.for_energies(SVP, SMALL, {"head": "linear"}).double()
    assert isinstance(model, QHNetEnergy)
    told = model.adopt(pretrained.state_dict(), "the run")
    assert {name.split(".")[0] for name in told["left_out"]} == {"pair_layers", "on_site", "pair"}
    batch = collate(mols, model.graph)
    embeddings = pretrained.embeddings(collate(mols, pretrained.graph))
    assert torch.equal(model.embeddings(batch), embeddings)
    model.prepare(mols)
    first = model(batch).energies.detach()
    for turn in Rotation.random(2, rng=1).as_matrix():
        again = model(collate([turned(m, turn) for m in mols], model.graph)).energies
        torch.testing.assert_close(again, first, rtol=0, atol=1e-10)
    model.loss(model(batch), batch).value().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_forces_are_the_slope_of_the_energy() -> None:
    """Also of a bond along z, where the angles of an edge's frame have no derivative."""
    torch.manual_seed(3)
    model = QHNet.for_energies(SVP, SMALL, {}).double()
    positions = np.array([[0, 0, 0], [0, 0, 1.1], [0.9, 0.4, -0.3]])
    batch = collate([Molecule([6, 8, 1], positions)], model.graph)
    forces = model.energy_and_forces(batch)[1]
    steps = torch.zeros(9, 3, 3, dtype=torch.float64)
    steps.view(9, 9).fill_diagonal_(2e-5)
    places = batch.positions + torch.cat([steps, -steps])
    with torch.no_grad():
        energies = model(collate([Molecule([6, 8, 1], x) for x in places.numpy()], model.graph))
    slope = (energies.energies[9:] - energies.energies[:9]).view(3, 3) / 4e-5
    assert slope.abs().max() > 1e-3
    torch.testing.assert_close(forces, slope, rtol=1e-6, atol=1e-8)
