"""Oracles in the place of models: they train as their models do, and on any device."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from dataclasses import replace

import oracles
import phisnet_oracle
import pytest
import qhnet_oracle
import sphnet_oracle
import torch
from elsewhere import Elsewhere, There, moved
from graphs_stand_in import StandIn
from oracle_models import oracle_model

from hambench.baselines.phisnet.embedding import configurations
from hambench.bench.molecules import WATER
from hambench.bench.step import Step
from hambench.bench.subject import Subject, of_case
from hambench.chem.blocks import layout
from hambench.data.graph import collate
from hambench.errors import RunError

CPU = torch.device("cpu")


SMALLER = {"phisnet": ("modules=1", "features=8", "basis_functions=8")}
"""Than the small preset."""


def subject(model: str) -> Subject:
    """The small preset of a model on two waters."""
    words = (*oracles.PRESETS[model][1], *SMALLER.get(model, ()))
    settings = [f"model.hyperparameters.{word}" for word in words]
    return oracles.prepared(of_case(f"{model}_small", WATER, 2, "float64", settings), CPU)


@pytest.mark.parametrize("model", oracles.PRESETS)
def test_a_step_of_an_oracle_is_that_of_its_model(model: str) -> None:
    """The same losses in a training of the same weights, whatever their names and shapes."""
    ours = subject(model)
    theirs = replace(ours, model=oracle_model(ours.model))
    batch = collate(ours.molecules, ours.model.graph)
    agreement = oracles.compare(ours.model, theirs.model, batch)
    assert max(vars(agreement).values()) < 1e-12
    losses = []
    for one in (theirs, ours):
        step = Step(one, "cpu")
        for group in step.training.groups:
            group["initial_lr"] = 1e-3
        loaded = one.builder(step.training, 0)()
        before = [p.detach().clone() for p in one.model.parameters()]
        for k in range(3):
            step.training.step([loaded], progress=k / 3)
        losses.append(step.training.checked_losses())
        with torch.no_grad():  # which some oracles share with their models
            for p, old in zip(one.model.parameters(), before, strict=True):
                p.copy_(old)
    assert losses[0] == pytest.approx(losses[1], rel=1e-10)
    assert len(set(losses[0])) == 3


def test_what_does_not_agree_is_not_timed() -> None:
    ours = subject("schnorb")
    oracle = oracle_model(ours.model)
    batch = collate(ours.molecules, ours.model.graph)
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter.mul_(1.1)
    with pytest.raises(RunError, match=r"ours and the oracle differ by .*, 0\.0001 is"):
        oracles.compare(ours.model, oracle, batch)


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["schnorb", "water", "--small", "--batch-size", "1", "--repeats", "1"]
    oracles.main([*words, "--device", "cpu", "--set", "factors=8"])
    head, _, slow, fast = capsys.readouterr().out.splitlines()
    assert head.startswith("molecules")
    assert "1 x water, def2-SVP" in slow
    assert "schnorb_small, path by path" in slow
    assert "schnorb_small, ours" in fast


def test_a_captured_step_is_timed_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = StandIn()
    monkeypatch.setattr(oracles, "graphs_of", lambda device, recipe: graphs)
    words = ["sphnet", "water", "--small", "--batch-size", "1", "--repeats", "3", "--json"]
    oracles.main([*words, "--device", "cpu"])
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == "oracles"
    assert document["provenance"]["libraries"]["torch"]
    (result,) = document["results"]
    assert graphs.replays == 1 + 1 + 3  # where it was captured, an untimed one, and the timed ones
    assert result["graph_ratio"] == result["oracle"]["median"] / result["graph"]["median"]
    assert (result["molecules"], result["edges"]) == (1, 6)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--device", "tpu"], "device is 'tpu'"),
        (["--set", "nothing=1"], "nothing"),
        (["--batch-size", "0"], "batch-size"),
    ],
)
def test_wrong_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        oracles.main(["schnorb", "water", "--small", "--batch-size", "1", *words])
    assert said in f"{stopped.value} {capsys.readouterr().err}"


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Tables are kept by device; other tests have tensors without data on the same."""
    yield
    for kept in (
        layout, configurations, phisnet_oracle.coupling, qhnet_oracle.w3j, sphnet_oracle.symbol,
    ):  # fmt: skip
        kept.cache_clear()
    gc.collect()
    assert not [one for one in gc.get_objects() if type(one) is There]


@pytest.mark.usefixtures("nothing_left")
@pytest.mark.parametrize("model", oracles.PRESETS)
def test_an_oracle_computes_where_its_batch_is(model: str) -> None:
    chosen = subject(model)
    network = chosen.model
    batch = collate(chosen.molecules, network.graph)
    with torch.no_grad():
        expected = oracle_model(network)(batch)
        with Elsewhere() as elsewhere:
            moved(network)
            there = batch.clone().apply(There)
            oracle = oracle_model(network)
            found = oracle(there)
            loss = oracle.loss(found, there).value()
    assert not elsewhere.mixed
    assert all(isinstance(tensor, There) for tensor in (found.node, found.edge, loss))
    assert torch.equal(found.node.numbers, expected.node)
    assert torch.equal(found.edge.numbers, expected.edge)


@pytest.mark.usefixtures("nothing_left")
def test_a_tensor_left_behind_would_be_noticed() -> None:
    with Elsewhere() as elsewhere:
        values = There(torch.arange(3.0))
        assert (values + values).tolist() == [0.0, 2.0, 4.0]
        assert not elsewhere.mixed
        values[[2, 0]]
        values * torch.ones(3)
    assert elsewhere.mixed == {"aten.index.Tensor", "aten.mul.Tensor"}
