"""`hambench bench model`: what runs in a step is counted, and its numbers are there."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

from hambench import cli
from hambench.bench.model import BATCHES, measure
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, RegistryError
from hambench.profiling.contractions import Recorder, replay
from hambench.profiling.memory import peak_and_launches


def test_products_are_recorded_forward_and_backward() -> None:
    linear = nn.Linear(5, 7)
    x, y = torch.randn(3, 5, requires_grad=True), torch.randn(4, 6, 7)
    with Recorder() as seen:
        h = linear(x)  # 3 x 5 by 5 x 7
        (h @ y.transpose(1, 2)).sum().backward()  # folded, or four of 3 x 7 by 7 x 6
    forward = [2 * 3 * 5 * 7, 2 * 4 * 3 * 7 * 6]
    flops = sum(one.flops for one in seen.contractions)
    assert flops == forward[0] * 3 + forward[1] * 2  # y needs no gradient
    assert seen.calls >= len(seen.contractions)


def test_products_into_memory_of_others_count_views_do_not() -> None:
    a, b, out = torch.randn(4, 6), torch.randn(12, 5), torch.empty(8, 5)
    with Recorder() as seen:
        torch.mm(a, b[::2], out=out[1::2])
        out.addmm_(torch.randn(8, 2), torch.randn(2, 5))
        torch.randn(0, 4) @ torch.randn(4, 5)
        a.mv(torch.randn(6))
        out.unsqueeze(0).baddbmm_(torch.randn(1, 8, 3), torch.randn(1, 3, 5))
        out.view(-1)[3:].unsqueeze(0).transpose(0, 1)
    assert [one.flops for one in seen.contractions] == [240, 160, 48, 240]
    assert seen.contractions[0].right_strides == (10, 1)
    assert seen.calls == 5 + 7  # and the random numbers
    alone = replay(seen.contractions * 2)
    with Recorder() as again:
        alone()
    assert [one.flops for one in again.contractions] == [240, 160, 48, 240] * 2
    assert again.contractions[0].right_strides == (10, 1)


def test_peak_is_that_of_tensors() -> None:
    x = torch.ones(1000)

    def work() -> None:
        y = x + 1
        z = y * y  # two of 4 kB
        del y
        (z + 1).sum()

    peak, launches = peak_and_launches(work, torch.device("cpu"))
    assert 8000 <= peak < 8200
    assert launches is None


def test_cases_are_the_sizes_they_say() -> None:
    found = {name: len(case.numbers) for name, (case, _) in BATCHES.items()}
    assert found == {"water": 3, "ethanol": 9, "40_atoms": 40, "100_atoms": 100}
    case, size = BATCHES["ethanol"]
    assert (OrbitalBasis.load(case.basis).nao(case.numbers), size) == (72, 5)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_step_is_measured(precision) -> None:
    threads = torch.get_num_threads()
    (found,) = measure("helm_small", ["water"], batch_size=2, repeats=2, precision=precision)
    assert (found.molecules, found.atoms, found.edges) == (2, 6, 12)
    assert 0 < found.contractions.low <= found.contractions.median < found.step.high
    parts = found.forward.median, found.backward.median, found.update.median
    assert max(parts) < found.step.median < sum(parts) * 1.5
    assert found.ratio == found.step.median / found.contractions.median
    assert found.rate == 2 / found.step.median
    assert found.flops > 6 * found.atoms * 1000
    assert 100 < found.products < found.calls
    assert found.peak > 4 * found.parameters  # at least the gradients
    assert found.threads == 1
    assert torch.get_num_threads() == threads


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match=r"no case 'ethanl'.*ethanol"):
        measure("helm_small", ["ethanl"])
    with pytest.raises(RegistryError, match="helm"):
        measure("helm_smal", ["water"])
    with pytest.raises(ConfigError, match="no parameters to train"):
        measure("mean_block", ["water"], batch_size=1)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("channels=8", r"'channels=8' is no option here, .*model.hyperparameters.KEY=VALUE"),
        ("model.hyperparameters.channels=8,16", "is no option here"),
        ("model.hyperparameters.chanels=8", "chanels.*channels"),
        ("8", "cannot read '8'"),
    ],
)
def test_wrong_words(word: str, message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "model", "model=helm_small", "case=water", word])
    assert left.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_command(capsys: pytest.CaptureFixture) -> None:
    words = ["bench", "model", "model=helm_small", "case=water", "batch_size=1", "repeats=1"]
    words.append("model.hyperparameters.channels=8")
    for more in (["--json"], ["device=cpu"]):
        with pytest.raises(SystemExit) as left:
            cli.main([*words, *more])
        assert not left.value.code
        out = capsys.readouterr().out
        if more == ["--json"]:
            (found,) = json.loads(out)
            assert (found["model"], found["settings"]) == ("helm_small", {"channels": 8})
            assert found["step"]["median"] > 0
            assert found["launches"] is None
        else:
            assert re.search(r"1 x water, def2-SVP  cpu, float32  \d{2,3},\d{3} ", out)
            assert "step/contractions" in out
