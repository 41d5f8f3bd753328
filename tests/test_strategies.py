"""Direct, frozen and finetuned, from Hamiltonians to energies, on a few real molecules.

``organic_mini_24.h5`` holds the first 24 rows of organic_mini, as `hambench data generate
organic_mini n=24` made them: 3 molecules train, 1 validates, 2 test.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import hambench
from hambench import evaluation, experiment
from hambench.compose import compose
from hambench.config import RunConfig
from hambench.data.graph import collate
from hambench.errors import CheckpointError, ConfigError, DataError, RunError
from hambench.learn.loop import BEST
from hambench.registry import load_task
from hambench.results import read_result
from hambench.scoring.energy_table import ENERGIES, read_energies
from hambench.scoring.score_table import SCORES, read_scores
from hambench.trained import load_trained

DATA = Path(__file__).parent / "fixtures" / "organic_mini_24.h5"
SMALL = (
    "model=helm_small",
    "model.hyperparameters.channels=8",
    "model.hyperparameters.layers=1",
    "model.hyperparameters.gaussians=16",
    "device=cpu",
    f"data={DATA}",
)
FAST = ("max_steps=6", "recipe.validate_every=3", "recipe.batch_size=3")
BEFORE = ("pretraining.max_steps=4", "pretraining.recipe.validate_every=2")


def cell(root: Path, strategy: str, *words: str) -> RunConfig:
    before = () if strategy == "direct" or any("pretrained=" in w for w in words) else BEFORE
    task = "task=organic_mini_energy"
    small = SMALL[-2:] if any(w.startswith("model=") for w in words) else SMALL
    return compose([task, *small, f"strategy={strategy}", f"root={root}", *FAST, *before, *words])


def run(config: RunConfig) -> experiment.Outcome:
    return experiment.run(config, progress=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, experiment.Outcome]:
    """One finished run of every strategy, in one root."""
    root = tmp_path_factory.mktemp("strategies")
    return {name: run(cell(root, name)) for name in ("direct", "frozen", "finetuned")}


def test_pretraining_comes_first_and_is_shared(runs: dict[str, experiment.Outcome]) -> None:
    root = runs["direct"].folder.parents[2]
    (before,) = (root / "organic_mini" / "helm_small").iterdir()
    made = read_result(before)
    assert (made.task, made.training_split, made.seed, made.strategy) == (
        "organic_mini", "train", 0, None,
    )  # fmt: skip
    assert runs["direct"].result.pretraining is None
    for name in ("frozen", "finetuned"):
        record = runs[name].result.pretraining
        assert record is not None
        assert (record.run_id, record.steps) == (made.run_id, 4)
        assert record.value == made.metrics["h_mae"].value
        assert record.wall_s == made.cost.wall_s
        assert "backbone.edge_blocks" in record.left_out
        assert "references" in record.fresh
        audit = record.audit
        assert (audit.unseen, audit.rows, audit.scored) == ("molecules", 13, 8)
        assert (audit.same_molecules, audit.same_geometries) == (0, 0)


@pytest.mark.parametrize("done", [True, False])
def test_another_body_is_refused_before_anything_is_trained(
    runs: dict[str, experiment.Outcome], tmp_path: Path, done: bool
) -> None:
    words = ["pretraining.model.hyperparameters.channels=4"]
    if done:
        (before,) = (runs["direct"].folder.parents[2] / "organic_mini" / "helm_small").iterdir()
        words = [f"pretrained={before}", "model.hyperparameters.channels=4"]
    theirs, ours = (8, 4) if done else (4, 8)
    said = rf"has hyperparameters\.channels={theirs}, the model of energies has {ours}; give both"
    with pytest.raises(CheckpointError, match=said):
        run(cell(tmp_path, "finetuned", *words))
    assert not list(tmp_path.iterdir())


def test_a_pretraining_of_another_model_is_named(
    runs: dict[str, experiment.Outcome], tmp_path: Path
) -> None:
    (before,) = (runs["direct"].folder.parents[2] / "organic_mini" / "helm_small").iterdir()
    said = r"is of model 'helm', the model of energies is 'qhnet'; pretrain the same"
    with pytest.raises(ConfigError, match=said):
        run(cell(tmp_path, "frozen", "model=qhnet_small", f"pretrained={before}"))
    assert not list(tmp_path.iterdir())


def test_failures_of_a_pretraining_say_whose_settings_they_name(tmp_path: Path) -> None:
    said = r"the training loss became .*recipe\.optimizer\.lr.* \(of the pretraining: its settings"
    with pytest.raises(RunError, match=said):
        run(cell(tmp_path, "frozen", "pretraining.recipe.optimizer.lr=1e30"))


def test_results_have_both_errors_and_the_table_behind_them(
    runs: dict[str, experiment.Outcome],
) -> None:
    for name, outcome in runs.items():
        result, rows = outcome.result, read_energies(outcome.folder / ENERGIES)
        assert result.strategy == name
        assert (result.training_rows, result.training_molecules) == (9, 3)
        for split, metrics in (("test", result.metrics), ("train", result.training_metrics)):
            errors = [abs(r.prediction - r.label) for r in rows if r.split == split]
            assert metrics["energy_mae"].value == pytest.approx(np.mean(errors), rel=1e-12)
            assert metrics["energy_mae"].n == len(errors)
            assert metrics["energy_mae"].unit == "Eh"
        tested = [r for r in rows if r.split == "test"]
        assert {r.group for r in tested} == {"2", "5"}
        task = load_task("organic_mini_energy", DATA)
        assert {r.id: r.label for r in tested} == {m.id: m.energy for m in task.split("test")}
        again = evaluation.evaluate(outcome.folder, progress=False)
        assert again["energy_mae"].value == result.metrics["energy_mae"].value
        log = [json.loads(line) for line in (outcome.folder / "log.jsonl").open()]
        assert [row["step"] for row in log if "val_e_mae" in row] == [3, 6]
    assert len({o.result.metrics["energy_mae"].value for o in runs.values()}) == 3


def test_scores_from_the_weights_are_those_of_the_table(
    runs: dict[str, experiment.Outcome], tmp_path: Path
) -> None:
    copy = shutil.copytree(runs["finetuned"].folder, tmp_path / "run")
    assert (
        read_scores(copy / SCORES).ids == load_task("organic_mini_energy", DATA).split("test").ids
    )
    (copy / SCORES).unlink()
    kept = evaluation.evaluate(copy, progress=False)
    (copy / ENERGIES).unlink()
    (copy / SCORES).unlink()
    made = evaluation.evaluate(copy, progress=False, device="cpu")
    assert made["energy_mae"].value == pytest.approx(kept["energy_mae"].value, rel=1e-9)
    lines = (runs["direct"].folder / ENERGIES).read_text().splitlines()
    (copy / ENERGIES).write_text("\n".join(lines[:-1]) + "\n")
    (copy / SCORES).unlink()
    with pytest.raises(DataError, match="7 molecules of split 'test', which has 8 others"):
        evaluation.evaluate(copy, progress=False)


def test_a_frozen_run_has_the_body_of_its_pretraining_to_the_bit(
    runs: dict[str, experiment.Outcome],
) -> None:
    root = runs["direct"].folder.parents[2]
    (before,) = (root / "organic_mini" / "helm_small").iterdir()
    source = load_file(before / "checkpoints" / BEST)
    bodies = {
        name: load_file(outcome.folder / "checkpoints" / BEST) for name, outcome in runs.items()
    }
    body = [k for k in bodies["frozen"] if k.startswith("backbone.")]
    assert body
    assert all(torch.equal(bodies["frozen"][k], source[k]) for k in body)
    assert not all(torch.equal(bodies["finetuned"][k], source[k]) for k in body)
    assert runs["frozen"].result.parameters < runs["finetuned"].result.parameters


def test_a_finished_run_can_be_named(runs: dict[str, experiment.Outcome], tmp_path: Path) -> None:
    root = runs["direct"].folder.parents[2]
    (before,) = (root / "organic_mini" / "helm_small").iterdir()
    named = cell(tmp_path, "finetuned", f"pretrained={before}")
    assert named.run_id == runs["finetuned"].result.run_id
    outcome = run(named)
    assert outcome.result.metrics == runs["finetuned"].result.metrics
    with pytest.raises(ConfigError, match="exclude each other"):
        cell(tmp_path, "finetuned", f"pretrained={before}", "pretraining.seed=1")
    with pytest.raises(
        ConfigError, match=r"'organic_mini_energy' is a task of energies; name a run"
    ):
        cell(tmp_path, "finetuned", f"pretrained={runs['direct'].folder}")
    with pytest.raises(CheckpointError, match=r"hyperparameters\.channels=8.*energies has 4"):
        run(cell(tmp_path, "frozen", f"pretrained={before}", "model.hyperparameters.channels=4"))
    unfinished = shutil.copytree(before, tmp_path / "half")
    (unfinished / "result.json").unlink()
    with pytest.raises(DataError, match="half is not finished"):
        run(cell(tmp_path, "frozen", f"pretrained={unfinished}"))


def test_what_does_not_go_together_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="there is none; add strategy=frozen or strategy=finetuned"
    ):
        cell(tmp_path, "direct", "pretraining.max_steps=3")
    with pytest.raises(ConfigError, match="strategy=frozen is for tasks of energies"):
        compose(["task=water_mini", *SMALL, "strategy=frozen"])
    with pytest.raises(ConfigError, match="expected 'direct', 'frozen' or 'finetuned'"):
        cell(tmp_path, "thawed", "recipe=helm_small")
    with pytest.raises(ConfigError, match="MeanBlock offers no embeddings"):
        run(compose(["task=organic_mini_energy", "model=mean_block", f"data={DATA}"]))
    floor = ["task=organic_mini_energy", "model=element_reference", f"data={DATA}"]
    with pytest.raises(ConfigError, match="has nothing that could be trained on Hamiltonians"):
        run(compose([*floor, "strategy=frozen", f"root={tmp_path}"]))
    with pytest.raises(ConfigError, match="predicts energies, task 'organic_mini' asks for"):
        run(compose(["task=organic_mini", "model=element_reference", f"data={DATA}"]))
    for words in (
        ["task=organic_mini_energy", *SMALL, f"data={DATA}", "score.metrics=[h_mae]"],
        ["task=water_mini", *SMALL, "score.metrics=[energy_mae]"],
    ):
        with pytest.raises(ConfigError, match=r"mae' is not of what models of task '.*' predict"):
            run(compose([*words, f"root={tmp_path}"]))
    seen = cell(tmp_path, "frozen", "score.split=validation")
    with pytest.raises(ConfigError, match="sees 4 of 4 molecules of split 'validation'"):
        run(seen)
    assert not list(tmp_path.rglob("status.json")), "refused before anything is pretrained"


def test_energies_change_no_run_on_hamiltonians() -> None:
    """The section ``energy`` of a preset is no part of a cell that has no use for it."""
    one = compose(["task=water_mini", "model=helm_small"])
    other = compose(["task=water_mini", "model=helm_small", "model.energy.head=linear"])
    assert one.run_id == other.run_id
    staged = [
        compose(["task=organic_mini_energy", "model=helm_small", *w])
        for w in ([], ["model.energy.head=linear"], ["train_on=train_10"], ["train_on=train"])
    ]
    assert [c.strategy for c in staged] == ["direct"] * 4
    assert len({c.run_id for c in staged}) == 3
    assert staged[0].run_id == staged[3].run_id
    before = compose(["task=organic_mini_energy", "model=helm_small", "strategy=frozen", "seed=3",
                      "train_on=train_10", "root=there"])  # fmt: skip
    assert before.pretraining is not None
    assert (before.pretraining.seed, before.pretraining.root) == (3, Path("there"))
    assert (before.pretraining.train_on, before.pretraining.strategy) == (None, None)


@pytest.mark.parametrize("strategy", ["frozen", pytest.param("finetuned", marks=pytest.mark.slow)])
def test_a_killed_energy_stage_goes_on_to_the_same_bits(
    strategy: str, runs: dict[str, experiment.Outcome], tmp_path: Path
) -> None:
    root = runs["direct"].folder.parents[2]
    (before,) = (root / "organic_mini" / "helm_small").iterdir()
    words = [f"pretrained={before}", "max_steps=40", "recipe.checkpoint_every_steps=5"]
    config = cell(tmp_path, strategy, *words)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    program = (
        "import sys; from pathlib import Path; from hambench import experiment; "
        "from hambench.config import read_config; import torch; torch.set_num_threads(1); "
        "experiment.run(read_config(Path(sys.argv[1])), progress=False)"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "config.yaml")])
    last = config.folder / "checkpoints" / "last.pt"
    while process.poll() is None:
        if last.is_file() and (config.folder / "checkpoints" / "previous.pt").is_file():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.01)
    process.wait()
    assert not (config.folder / "result.json").exists()
    outcome = run(config)
    assert outcome.result.provenance.restarts == 1
    undisturbed = run(cell(tmp_path / "other", strategy, *words))
    assert outcome.result.metrics == undisturbed.result.metrics
    one, two = (load_file(o.folder / "checkpoints" / BEST) for o in (outcome, undisturbed))
    assert all(torch.equal(one[k], two[k]) for k in one)


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(
    "strategy",
    ["frozen", *(pytest.param(s, marks=pytest.mark.slow) for s in ("direct", "finetuned"))],
)
def test_a_model_of_others_gets_the_same_stage(strategy: str, tmp_path: Path) -> None:
    words = ["task=organic_mini_energy", "model=toy", f"strategy={strategy}", f"data={DATA}"]
    outcome = run(compose([*words, f"root={tmp_path}", "device=cpu"]))
    result = outcome.result
    assert result.hyperparameters["energy"] == {"head": "network"}
    if strategy == "direct":
        assert result.pretraining is None
    else:
        assert result.pretraining is not None
        assert result.pretraining.preset == "toy"
        assert result.pretraining.left_out == ()
    body = load_file(outcome.folder / "checkpoints" / BEST)
    if strategy == "frozen":
        (before,) = (tmp_path / "organic_mini" / "toy").iterdir()
        source = load_file(before / "checkpoints" / BEST)
        assert all(torch.equal(body[f"body.{name}"], source[name]) for name in source)


TINY = {
    "phisnet_md17": (
        "features=4",
        "basis_functions=4",
        "modules=1",
        "molecule=null",
        "overlap=false",
    ),
    "qhnet_small": ("channels=4", "bottleneck=4"),
    "schnorb": ("width=8", "factors=8"),
    "sphnet_small": ("channels=8", "bottleneck=4", "initial_guess=none"),
}


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=[] if m == "schnorb" else [pytest.mark.slow]) for m in TINY]
)
def test_every_baseline_can_be_pretrained(model: str, tmp_path: Path) -> None:
    """Also presets that have no recipes of their own for energies: they take the plain preset's."""
    words = [f"model.hyperparameters.{word}" for word in TINY[model]]
    own = "phisnet_frozen" if model == "phisnet_md17" else f"{model}_frozen"
    config = cell(tmp_path, "frozen", f"model={model}", *words)
    assert config.recipe["name"] == own
    outcome = run(config)
    assert outcome.result.strategy == "frozen"
    before = outcome.result.pretraining
    assert before.steps == 4
    assert all(
        not name.startswith(("trunk.", "representation.", "backbone.")) for name in before.fresh
    )
    assert before.left_out


def test_the_floor(tmp_path: Path) -> None:
    words = ["task=organic_mini_energy", "model=element_reference", f"data={DATA}"]
    result = run(compose([*words, f"root={tmp_path}", "device=cpu"])).result
    assert (result.parameters, result.cost.steps, result.strategy) == (0, 0, "direct")
    task = load_task("organic_mini_energy", DATA)
    train = list(task.split("train"))
    counts = np.array([[np.sum(m.numbers == z) for z in range(17)] for m in train], dtype=float)
    found, *_ = np.linalg.lstsq(counts, np.array([m.energy for m in train]), rcond=None)
    errors = [abs(found[m.numbers].sum() - m.energy) for m in task.split("test")]
    assert result.metrics["energy_mae"].value == pytest.approx(np.mean(errors), rel=1e-6)


def test_a_run_is_a_calculator(runs: dict[str, experiment.Outcome]) -> None:
    """Energies of the table, forces by finite differences, and a molecule that relaxes."""
    from ase import Atoms
    from ase.optimize import BFGS

    outcome = runs["finetuned"]
    calculator = hambench.calculator(outcome.folder, device="cpu", precision="float64")
    row = next(r for r in read_energies(outcome.folder / ENERGIES) if r.split == "test")
    molecule = next(m for m in load_task("organic_mini", DATA).split("test") if m.id == row.id)
    atoms = Atoms(molecule.numbers, molecule.positions, calculator=calculator)
    assert atoms.get_potential_energy() == pytest.approx(row.prediction * 27.211386245988, abs=1e-3)
    forces = atoms.get_forces()
    for atom, axis in ((0, 0), (1, 2)):
        ends = []
        for step in (1e-4, -1e-4):
            moved = atoms.copy()
            moved.positions[atom, axis] += step
            moved.calc = calculator
            ends.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(ends[0] - ends[1]) / 2e-4, abs=1e-6)
    start = atoms.get_potential_energy()
    with BFGS(atoms, logfile=None, maxstep=0.02) as relaxation:
        relaxation.run(fmax=0.0, steps=5)
    assert atoms.get_potential_energy() < start
    assert not math.isnan(atoms.get_potential_energy())
    with pytest.warns(UserWarning, match="the model was trained without F: energies of molecules"):
        Atoms("HF", [[0, 0, 0], [0, 0, 0.92]], calculator=calculator).get_potential_energy()
    charged = Atoms("OH", [[0, 0, 0], [0, 0, 0.97]], calculator=calculator, info={"charge": -1})
    with pytest.warns(UserWarning, match="trained on molecules of charge 0, this one has -1"):
        charged.get_potential_energy()
    with warnings.catch_warnings(action="error"):  # told once
        charged.rattle(0.01)
        charged.get_potential_energy()
    with pytest.raises(ConfigError, match=r"does not know Kr, Xe; it is for H C N O F S"):
        Atoms("XeKr", [[0, 0, 0], [0, 0, 3]], calculator=calculator).get_potential_energy()
    with pytest.raises(ConfigError, match="the atoms are periodic"):
        Atoms("H", cell=[9, 9, 9], pbc=True, calculator=calculator).get_potential_energy()
    root = runs["direct"].folder.parents[2]
    (before,) = (root / "organic_mini" / "helm_small").iterdir()
    with pytest.raises(
        ConfigError, match="Helm predicts Hamiltonians, a calculator needs energies"
    ):
        hambench.calculator(before)


def test_trained_models_embed(runs: dict[str, experiment.Outcome]) -> None:
    trained = load_trained(runs["frozen"].folder)
    molecules = list(load_task("organic_mini", DATA).split("test"))[:2]
    embedded = trained.model.embeddings(collate(molecules, trained.model.graph))
    assert embedded.shape == (sum(map(len, molecules)), 25, 8)
    with pytest.raises(DataError, match="is no run directory"):
        load_trained(runs["frozen"].folder.parent)
