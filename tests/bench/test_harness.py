"""`hambench bench harness`: both loops do the same steps, and blocks are what they say."""

from __future__ import annotations

import json

import pytest
import torch

from hambench import cli
from hambench.bench import harness
from hambench.bench.harness import measure
from hambench.bench.subject import Setting
from hambench.errors import ConfigError
from hambench.learn import loop

WORDS = ["model.hyperparameters.channels=8", "model.hyperparameters.layers=1"]


def test_both_loops_do_the_same_steps(setting, monkeypatch) -> None:
    made = []
    before = harness._Turns.__init__

    def kept(self, *args):
        before(self, *args)
        made.append(self)

    monkeypatch.setattr(harness._Turns, "__init__", kept)
    (found,) = measure(
        "helm_small", ["water"], batch_size=2, setting=setting, blocks=2, steps=8, words=WORDS
    )
    (turns,) = made
    assert turns.total == 20 + 2 * (3 + 8) == len(turns.loop.losses)
    assert [row["step"] for row in turns.rows] == [20, 40]
    assert turns.rows[1]["train_loss"] != turns.rows[0]["train_loss"]
    assert found.loss_difference < 1e-6
    assert (found.blocks, found.steps, found.molecules) == (2, 8, 2)
    assert len(turns.ours) == len(turns.bare) == 2
    assert found.ours.low > 0
    assert found.overhead == found.added.median / found.bare.median


def test_other_steps_are_noticed(setting, monkeypatch) -> None:
    step = harness._Bare.step

    def other(self, packed):
        for group in self.optimizers[0].param_groups:
            group["lr"] = 1e-6
        step(self, packed)

    monkeypatch.setattr(harness._Bare, "step", other)
    (found,) = measure(
        "helm_small", ["water"], batch_size=1, setting=setting, blocks=1, steps=2, words=WORDS
    )
    assert found.loss_difference > 1e-4


def test_steps_captured_by_both_loops_are_the_same_too(setting, monkeypatch, stand_in) -> None:
    monkeypatch.setattr(harness, "cuda_graphs", lambda device, recipe: stand_in)
    monkeypatch.setattr(loop, "CudaGraphs", lambda device: stand_in)
    monkeypatch.setattr(loop, "check_cuda_graph", lambda *args: None)
    (found,) = measure(
        "helm_small", ["water"], batch_size=1, setting=setting, blocks=1, steps=2, words=WORDS,
        cuda_graph=True,
    )  # fmt: skip
    assert found.loss_difference < 1e-6
    assert stand_in.replays == 2 * (20 + 3 + 2 - 2)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_loops_of_replayed_steps() -> None:
    (found,) = measure(
        "helm_small", ["water"], batch_size=2, setting=Setting("cuda"), cuda_graph=True
    )
    assert found.loss_difference < 1e-4


def test_wrong_input(setting) -> None:
    with pytest.raises(ConfigError, match="cuda_graph=true needs a GPU"):
        measure("helm_small", ["water"], cuda_graph=True, setting=setting, words=WORDS)
    with pytest.raises(ConfigError, match=r"no case 'wate'.*water"):
        measure("helm_small", ["wate"], setting=setting)


def test_the_command(capsys) -> None:
    words = ["case=water", "batch_size=1", "blocks=1", "steps=1", "device=cpu", *WORDS]
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "harness", "model=helm_small", *words, "--json"])
    assert not left.value.code
    document = json.loads(capsys.readouterr().out)
    assert document["measured"] == "harness"
    (found,) = document["results"]
    assert (found["case"], found["settings"]) == ("water, def2-SVP", WORDS)
    assert found["loss_difference"] < 1e-6
