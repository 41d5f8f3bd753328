"""Models of energies: a frozen body, strict adoption, embeddings kept, the envelope."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import collate
from hambench.data.loader import Loader
from hambench.energy_model import EmbeddingEnergy, EnergyModel
from hambench.errors import CheckpointError, ConfigError
from hambench.helm import Helm
from hambench.learn import Recipe, fit
from hambench.learn.frozen import frozen_embeddings
from hambench.learn.statistics import prepare
from hambench.learn.weights import cast
from hambench.model import Model, silent
from hambench.models import build_energy_model

BASIS = OrbitalBasis.load("def2-svp", [1, 6, 7, 8])
SMALL = {"channels": 8, "layers": 1, "gaussians": 8, "cutoff": 4.0}
RECIPE = {
    "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 0.1},
    "schedule": {"name": "cosine", "warmup_steps": 2},
    "batch_size": 3,
    "ema_decay": 0.9,
    "precision": "float64",
    "max_steps": 12,
    "validate_every": 4,
    "checkpoint_every_steps": 3,
}


def molecules(count: int, seed: int = 0) -> list[Molecule]:
    """Chains of C, N, O and H whose energies depend smoothly on their bonds."""
    rng = np.random.default_rng(seed)
    out = []
    for k in range(count):
        numbers = rng.choice([1, 6, 7, 8], size=rng.integers(3, 7))
        positions = np.cumsum(rng.normal(scale=0.8, size=(len(numbers), 3)), axis=0)
        bonds = np.linalg.norm(np.diff(positions, axis=0), axis=1)
        energy = -40.0 * len(numbers) - 5.0 * numbers.sum() + np.exp(-bonds).sum()
        out.append(Molecule(numbers, positions, energy=float(energy), id=f"{k}-0"))
    return out


def pretrained() -> Helm:
    torch.manual_seed(1)
    return Helm(BASIS, **SMALL).double()


def helm(head: str = "convolution", **changes: object) -> EnergyModel:
    torch.manual_seed(2)
    return build_energy_model("helm", BASIS, {**SMALL, **changes}, {"head": head}).double()


def other(head: str = "network") -> EnergyModel:
    """What any model with embeddings gets."""
    torch.manual_seed(2)
    return EmbeddingEnergy(Helm(BASIS, **SMALL), head=head).double()


@pytest.mark.parametrize("make", [helm, other])
def test_the_body_is_adopted_and_nothing_else(make) -> None:
    model, source = make(), pretrained()
    head = {k: v.clone() for k, v in model.state_dict().items() if k.startswith("head.")}
    report = model.adopt(source.state_dict(), "run")
    mols = molecules(3)
    torch.testing.assert_close(
        model.embeddings(collate(mols, model.graph)),
        source.embeddings(collate(mols, source.graph)),
        rtol=0,
        atol=1e-13,
    )
    for name, tensor in head.items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert all(name.startswith(("head.", "references")) for name in report["fresh"])
    if make is helm:
        assert all(name.startswith(model.left_out) for name in report["left_out"])
        assert any(name.startswith("backbone.edge_blocks.") for name in report["left_out"])
    else:
        assert report["left_out"] == []


def test_adoption_is_strict() -> None:
    model, weights = helm(), dict(pretrained().state_dict())
    lacking = {k: v for k, v in weights.items() if k != "backbone.norm.scale"}
    with pytest.raises(CheckpointError, match=r"run lacks backbone\.norm\.scale \(1 in all\)"):
        model.adopt(lacking, "run")
    with pytest.raises(CheckpointError, match=r"beyond what energies need, backbone\.more"):
        model.adopt({**weights, "backbone.more": torch.ones(1)}, "run")
    wider = Helm(BASIS, **{**SMALL, "channels": 16}).state_dict()
    with pytest.raises(CheckpointError, match="has another size of backbone"):
        model.adopt(wider, "run")


@pytest.mark.parametrize("make", [helm, other])
def test_frozen_is_frozen(make, tmp_path) -> None:
    """After steps with weight decay, clipping and averaging every bit of the body is the same."""
    model = make()
    model.adopt(pretrained().state_dict(), "run")
    model.freeze()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert model.count_parameters() == sum(p.numel() for p in model.head.parameters())
    model.train()
    assert not any(m.training for n, m in model.named_modules() if n and not n.startswith("head"))
    fit(model, molecules(9), molecules(4, 1), Recipe.parse(RECIPE), tmp_path, seed=0,
        device="cpu", progress=False)  # fmt: skip
    after = model.state_dict()
    for name, tensor in before.items():
        if not name.startswith(("head.", "references")):
            assert torch.equal(after[name], tensor), name
    moved = [n for n in before if n.startswith("head.") and not torch.equal(after[n], before[n])]
    assert moved


@pytest.mark.parametrize(
    ("make", "head"), [(helm, "convolution"), (helm, "linear"), (other, "network")]
)
def test_kept_embeddings_give_the_same_steps(make, head, tmp_path, monkeypatch) -> None:
    def trained(folder) -> EnergyModel:
        model = make(head)
        model.freeze()
        fit(model, molecules(9), molecules(4, 1), Recipe.parse(RECIPE), folder, seed=0,
            device="cpu", progress=False)  # fmt: skip
        return model

    kept = trained(tmp_path / "kept")
    monkeypatch.setattr("hambench.learn.loop.frozen_embeddings", lambda *_: None)
    computed = trained(tmp_path / "computed")
    for name, tensor in kept.state_dict().items():
        torch.testing.assert_close(computed.state_dict()[name], tensor, rtol=0, atol=1e-9)
    batch = collate(molecules(3, 5), kept.graph)
    torch.testing.assert_close(kept.energy(batch), computed.energy(batch), rtol=0, atol=1e-10)


def test_embeddings_are_kept_while_there_is_room_and_of_frozen_bodies_alone() -> None:
    model, mols = helm(), molecules(3)
    cpu = torch.device("cpu")
    assert frozen_embeddings(model, mols, cpu) is None
    model.freeze()
    kept = frozen_embeddings(model, mols, cpu)
    assert kept is not None
    assert [len(x) for x in kept] == [len(m) for m in mols]
    assert frozen_embeddings(model, mols, cpu, room=1000) is None
    loader = Loader(mols, model.graph, batch_size=3, shuffle=False, embeddings=kept)
    (loaded,) = loader.once()
    together = model.embeddings(collate(mols, model.graph))
    torch.testing.assert_close(loaded.batch.embeddings, together, rtol=0, atol=1e-12)


def test_padding_leaves_energies_and_kept_embeddings_alone() -> None:
    model, mols = helm(), molecules(3)
    model.prepare(mols)
    model.freeze()
    kept = frozen_embeddings(model, mols, torch.device("cpu"))
    whole = collate(mols, model.graph)
    loader = Loader(mols, model.graph, batch_size=3, shuffle=False, embeddings=kept, pad=True)
    (loaded,) = loader.once()
    assert len(loaded.batch.nao) > len(mols)
    prediction = model(loaded.batch)
    torch.testing.assert_close(
        torch.stack(prediction.outputs()), model(whole).energies, rtol=0, atol=1e-10
    )
    loss, plain = (model.loss(model(b), b).value() for b in (loaded.batch, whole))
    torch.testing.assert_close(loss, plain, rtol=0, atol=1e-10)


def test_forces_reach_through_a_frozen_body() -> None:
    model, mols = helm(), molecules(2)
    before = model.energy_and_forces(collate(mols, model.graph))
    model.freeze()
    after = model.energy_and_forces(collate(mols, model.graph))
    assert float(before[1].abs().max()) > 1e-4
    for one, two in zip(before, after, strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("head", ["convolution", "linear"])
def test_the_envelope_removes_the_jump_at_the_cutoff(head: str) -> None:
    def energies(model: EnergyModel, shift: float) -> float:
        positions = np.array([[0, 0, 0], [0, 1.1, 0.2], [0.3, 0.1, 4.0 + shift]])
        batch = collate([Molecule(np.array([6, 8, 1]), positions)], model.graph)
        inside = batch.num_edges
        assert inside in (2, 4, 6)
        return float(model.energy(batch).detach())

    cut = -0.01123  # the third atom comes within 4 Angstrom of the first about here
    smooth, published = helm(head, envelope=True), helm(head)
    steps = np.linspace(cut - 0.01, cut + 0.01, 81)
    jumps = [
        np.abs(np.diff([energies(model, s) for s in steps])).max() for model in (smooth, published)
    ]
    assert jumps[0] < 1e-3 * jumps[1]
    assert helm().hyperparameters["envelope"] is False


def test_forces_of_the_envelope_are_its_slope() -> None:
    model = helm(envelope=True)
    (molecule,) = molecules(1, 3)
    forces = model.energy_and_forces(collate([molecule], model.graph))[1].numpy()
    slope = np.zeros_like(forces)
    for atom, axis in np.ndindex(*forces.shape):
        ends = []
        for sign in (1, -1):
            moved = molecule.positions.copy()
            moved[atom, axis] += sign * 1e-5
            batch = collate([dataclasses.replace(molecule, positions=moved)], model.graph)
            ends.append(float(model.energy(batch).detach()))
        slope[atom, axis] = -(ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(forces, slope, rtol=0, atol=1e-7)


def test_every_model_with_embeddings_has_an_energy_stage_and_no_other() -> None:
    with pytest.raises(ConfigError, match="MeanBlock offers no embeddings to predict energies"):
        build_energy_model("mean_block", BASIS, {}, {})
    with pytest.raises(ConfigError, match="helm's energy head has no hyperparameter 'depth'"):
        build_energy_model("helm", BASIS, SMALL, {"depth": 3})
    assert helm().hyperparameters["energy"] == {"head": "convolution"}
    with pytest.raises(ConfigError, match="offers no embeddings"):
        Model.embeddings(pretrained(), collate(molecules(1), pretrained().graph))


def test_the_floor_is_a_sum_over_elements() -> None:
    floor = build_energy_model("element_reference", BASIS, {}, {})
    assert floor.count_parameters() == 0
    mols = [dataclasses.replace(m, energy=-7.0 * m.numbers.sum()) for m in molecules(9)]
    floor.prepare(mols)
    predicted = floor(collate(mols, floor.graph)).energies
    assert predicted.tolist() == pytest.approx([m.energy for m in mols], abs=1e-9)


def test_references_keep_their_precision_in_float32() -> None:
    model = helm()
    cast(model, torch.float32)
    assert model.references.dtype == torch.float64


def test_elements_that_are_not_determined_are_told(
    caplog: pytest.LogCaptureFixture, tmp_path, monkeypatch
) -> None:
    """A reference of zero, or one of many solutions, makes energies of other molecules absurd."""
    monkeypatch.setenv("HAMBENCH_DATA", str(tmp_path))
    caplog.set_level("WARNING", logger="hambench")
    water = Molecule(np.array([8, 1, 1]), np.eye(3), energy=-76.0)
    peroxide = Molecule(np.array([8, 8, 1, 1]), np.arange(12.0).reshape(4, 3), energy=-151.0)
    small = OrbitalBasis.load("def2-svp", [1, 8])
    for basis, mols, said in (
        (BASIS, [water], "the training set has no C, N: energies of molecules of other"),
        (small, [water], "does not give one energy per element"),
        (small, [water, peroxide], ""),
    ):
        for _ in range(2):  # computed, and found
            caplog.clear()
            floor = build_energy_model("element_reference", basis, {}, {})
            prepare(floor, mols, f"these {len(mols)}", silent)
            assert caplog.text == "" if not said else said in caplog.text
            assert float(floor.references[8]) != 0
    assert len(list((tmp_path / "statistics").iterdir())) == 3
    with pytest.raises(ConfigError, match=r"set it as model\.energy\.head"):
        build_energy_model("helm", BASIS, SMALL, {"head": "linaer"})
