"""`hambench bench model`: a step's parts, and what it does, are those of the training loop."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch

from hambench import cli
from hambench.bench.model import measure
from hambench.bench.molecules import BATCHES, MEDIUM, WATER, organic
from hambench.bench.step import Step
from hambench.bench.subject import Setting, of_case, of_task
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, DataError, RegistryError
from hambench.learn.device import open_fabric
from hambench.learn.training import Training

SMALL = ["model.hyperparameters.channels=8", "model.hyperparameters.layers=1"]
ENERGIES = Path(__file__).parent.parent / "fixtures" / "organic_mini_24.h5"


def test_cases_are_the_sizes_they_say() -> None:
    found = {name: len(case.numbers) for name, (case, _) in BATCHES.items()}
    assert found == {"water": 3, "ethanol": 9, "40_atoms": 40, "100_atoms": 100}
    case, size = BATCHES["ethanol"]
    assert (OrbitalBasis.load(case.basis).nao(case.numbers), size) == (72, 5)


def test_organic_molecules_have_any_number_of_atoms() -> None:
    assert organic(40, "def2-svp").composition == MEDIUM.composition
    for atoms in (3, 9, 25, 150):
        (molecule,) = organic(atoms, "def2-tzvpd").molecules()
        assert len(molecule) == atoms
        assert set(molecule.numbers.tolist()) <= {1, 6, 7, 8}


def test_a_step_is_that_of_a_training_in_parts() -> None:
    subject = of_case("helm_small", WATER, 2, "float64")
    other = copy.deepcopy(subject.model)
    step = Step(subject, "cpu")
    loaded = subject.builder(step.training, 0)()
    assert min(step.in_parts(loaded)) > 0
    for one, same in zip(subject.model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)  # the learning rate is zero
    training = Training(other, subject.recipe, 0, open_fabric("cpu"))
    training.step([loaded], 0.0)
    for one, same in zip(moments(step.training), moments(training), strict=True):
        assert torch.equal(one, same)
    whole, products = step.recorded(loaded)
    assert 100 < len(products) == len(whole.contractions)  # AdamW has none


def moments(training: Training) -> list[torch.Tensor]:
    (optimizer,) = training.optimizers
    found = [one["exp_avg_sq"] for one in optimizer.state.values()]
    assert sum(float(one.sum()) for one in found) > 0
    return found


def test_products_of_the_optimiser_are_apart() -> None:
    subject = of_task("helm_small", "water_mini", 1, "float32", ["recipe.optimizer={name:muon}"])
    step = Step(subject, "cpu")
    whole, products = step.recorded(subject.builder(step.training, 0)())
    assert 100 < len(products) < len(whole.contractions)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_step_is_measured(precision) -> None:
    threads = torch.get_num_threads()
    setting = Setting("cpu", precision)
    (found,) = measure("helm_small", cases=["water"], batch_size=2, repeats=2, setting=setting)
    assert (found.molecules, found.atoms, found.edges) == (2, 6, 12)
    assert 0 < found.matrix_products.low <= found.matrix_products.median < found.step.high
    parts = found.forward.median, found.backward.median, found.update.median
    assert max(parts) < found.step.median < sum(parts) * 1.5
    assert found.ratio == found.step.median / found.matrix_products.median
    assert found.molecules_per_s == 2 / found.step.median
    assert found.edges_per_s == 12 / found.step.median
    assert found.update_share == found.update.median / found.step.median
    assert found.flops > 6 * found.atoms * 1000
    assert 100 < found.products < found.calls
    assert found.product_bytes < found.bytes
    assert found.waits == 0
    assert found.peak > 4 * found.parameters  # at least the gradients
    assert found.threads == 1
    assert torch.get_num_threads() == threads


def test_twice_the_numbers_are_twice_the_bytes() -> None:
    settings = (Setting("cpu", precision) for precision in ("float32", "float64"))
    single, double = (
        measure("helm_small", cases=["water"], batch_size=1, repeats=1, setting=one, words=SMALL)[0]
        for one in settings
    )
    assert double.product_bytes == 2 * single.product_bytes
    assert 1.9 * single.bytes < double.bytes < 2.1 * single.bytes
    assert (double.calls, double.flops) == (single.calls, single.flops)


def test_a_task_gives_the_first_batch_of_its_training(setting) -> None:
    (found,) = measure("helm_small", task="water_mini", repeats=1, setting=setting, words=SMALL)
    assert (found.case, found.molecules, found.edges) == ("water_mini, train", 10, 60)
    words = ["strategy=direct", f"data={ENERGIES}", *SMALL]
    (found,) = measure(
        "helm_small", task="organic_mini_energy", batch_size=3, repeats=1, setting=setting,
        words=words,
    )  # fmt: skip
    assert (found.molecules, found.settings) == (3, tuple(words))
    assert found.case == "organic_mini_energy, train"


def test_captured_steps_are_replayed(stand_in) -> None:
    subject = of_case("helm_small", WATER, 1, "float32", SMALL)
    step = Step(subject, "cpu", stand_in)
    loaded = subject.builder(step.training, 0)()
    for _ in range(4):
        step.run(loaded)
    assert stand_in.replays == 2
    assert step.training.state.step == step.training.state.logged == 4


def test_no_graphs_without_a_gpu(setting) -> None:
    with pytest.raises(ConfigError, match="cuda_graph=true needs a GPU"):
        measure("helm_small", cases=["water"], cuda_graph=True, setting=setting, words=SMALL)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_in_one_graph() -> None:
    found = [
        measure(
            "helm_small", cases=["water"], batch_size=2, repeats=3, setting=Setting("cuda"),
            cuda_graph=graph,
        )[0]
        for graph in (False, True)
    ]  # fmt: skip
    assert found[1].launches < 20 < found[0].launches
    assert found[1].waits == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_step_on_a_gpu() -> None:
    setting = Setting("cuda")
    (found,) = measure("helm_small", cases=["water"], batch_size=2, repeats=3, setting=setting)
    assert 500 < found.launches < found.calls * 2
    assert found.waits == 0
    assert found.matrix_products.median < found.step.median
    (cpu,) = measure("helm_small", cases=["water"], batch_size=2, repeats=1, setting=Setting("cpu"))
    assert (found.flops, found.products) == (cpu.flops, cpu.products)


def test_what_cannot_be_measured(setting) -> None:
    with pytest.raises(ConfigError, match=r"no case 'ethanl'.*ethanol"):
        measure("helm_small", cases=["ethanl"], setting=setting)
    with pytest.raises(RegistryError, match="helm"):
        measure("helm_smal", cases=["water"], setting=setting)
    with pytest.raises(ConfigError, match="mean_block has no parameters to train"):
        measure("mean_block", cases=["water"], batch_size=1, setting=setting)
    with pytest.raises(ConfigError, match="minao has no parameters to train"):
        measure("minao", cases=["water"], batch_size=1, setting=setting)  # for want of a theory too
    with pytest.raises(RegistryError, match="water_mini"):
        measure("helm_small", task="water_min", setting=setting)
    with pytest.raises(DataError, match="hambench data download"):
        measure("helm_small", task="md17_water", words=["data=nowhere"], setting=setting)
    with pytest.raises(ConfigError, match=r"mace_small.*environment of its own"):
        measure("mace_small", task="organic_mini_energy", setting=setting)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["channels=8"], r"'channels=8' is no option of random .*model.hyperparameters.KEY=VALUE"),
        (["model.hyperparameters.channels=8,16"], "is no option"),
        (["model.hyperparameters.chanels=8"], "chanels.*channels"),
        (["8"], "cannot read '8'"),
        (["task=water_mini"], "task=water_mini and case=water exclude each other"),
    ],
)
def test_wrong_words(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["bench", "model", "model=helm_small", "case=water", *words])
    assert left.value.code == 2
    assert re.search(message, capsys.readouterr().err)


def test_the_command(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    words = ["bench", "model", "model=helm_small", "case=water,water", "batch_size=1", "repeats=1"]
    words += SMALL
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--json"])
    assert not left.value.code
    document = json.loads(capsys.readouterr().out)
    assert (document["schema"], document["measured"]) == (1, "model")
    assert document["provenance"]["libraries"]["torch"] == torch.__version__
    (found,) = document["results"]  # each case once
    assert (found["model"], found["settings"]) == ("helm_small", SMALL)
    assert found["step"]["median"] > 0
    assert found["launches"] is None
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "device=cpu", f"out={tmp_path / 'new'}"])
    assert not left.value.code
    out = capsys.readouterr().out
    assert re.search(r"1 x water, def2-SVP  cpu, float32  \d{2,3},\d{3} ", out)
    assert "step/matrix products" in out
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "bench.json", "bench.md", "bench.png", "bench.svg",
    }  # fmt: skip
    kept = json.loads((tmp_path / "new" / "bench.json").read_text())
    assert kept["results"][0].keys() == found.keys()
    assert "| 1 x water, def2-SVP |" in (tmp_path / "new" / "bench.md").read_text()


def test_a_cpu_has_no_tf32() -> None:
    with pytest.raises(ConfigError, match="precision=tf32 is for products on a GPU"):
        measure("helm_small", cases=["water"], batch_size=1, setting=Setting("cpu", "tf32"))
