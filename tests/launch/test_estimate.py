"""What cells will take: a few real steps, the arithmetic from there, and what is not known."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from hambench import cli
from hambench.compose import compose
from hambench.launch import estimate as module
from hambench.launch.estimate import Estimate, estimate, in_all, time_text, training_seconds
from hambench.launch.plan import Plan
from hambench.launch.trial import Trial, run
from hambench.learn import Recipe

DATA = Path(__file__).parents[1] / "fixtures" / "organic_mini_24.h5"
SMALL = [f"model.hyperparameters.{key}" for key in ("channels=8", "layers=1", "gaussians=16")]
WATER = ["task=water_mini", "device=cpu"]
HELM = [*WATER, "model=helm_small", *SMALL]
RECIPE = compose([*WATER, "model=helm_small"]).training


def simulated(steps: int | None, minutes: float | None, every: int | None, each: float | None,
              step_s: float, validation_s: float) -> float:  # fmt: skip
    """The clock of a training loop at its end."""
    clock, step, validated, at = 0.0, 0, 0, 0.0
    while True:
        over = step == steps or (minutes is not None and clock >= 60 * minutes)
        due = step % every == 0 if every else clock - at >= 60 * each
        if step != validated and (due or over):
            clock += validation_s
            validated, at = step, clock
            over = step == steps or (minutes is not None and clock >= 60 * minutes)
        if over and step == validated:
            return clock
        step, clock = step + 1, clock + step_s


@given(
    some.integers(1, 300), some.integers(1, 60), some.floats(0.01, 2), some.floats(0, 3),
    some.sampled_from([None, 0.3, 1.0]),
)  # fmt: skip
def test_the_time_of_a_training_is_what_its_loop_would_take(steps, every, step_s, val_s, minutes):
    recipe = Recipe.parse(
        {**RECIPE, "max_steps": steps, "max_minutes": minutes, "validate_every": every}
    )
    found = training_seconds(recipe, step_s, val_s)
    loop = simulated(steps, minutes, every, None, step_s, val_s)
    if minutes is None:
        assert found == pytest.approx(loop)
    else:  # the loop ends after the step, or validation, in which its time is up
        assert loop - step_s - val_s - 1e-6 <= found <= loop + val_s + 1e-6


@pytest.mark.parametrize("each", [0.05, 0.2])
@pytest.mark.parametrize("minutes", [None, 1.0])
def test_validations_may_be_counted_in_minutes(each: float, minutes: float | None):
    budget = {"max_steps": 200, "max_minutes": minutes}
    often = {"validate_every": None, "validate_every_minutes": each}
    found = training_seconds(Recipe.parse({**RECIPE, **budget, **often}), 0.5, 0.4)
    loop = simulated(200, minutes, None, each, 0.5, 0.4)
    assert found == pytest.approx(loop, abs=2 * (0.5 + 0.4))
    endless = Recipe.parse({**RECIPE, **often, "max_steps": None, "max_minutes": 2.0})
    assert training_seconds(endless, 0.5, 0.4) == 120.4


@pytest.mark.slow
def test_a_few_real_steps_of_each_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two kinds: one with learning rates, budgets and seeds that do not count, one of a floor."""
    tried = []
    real = module._tried
    monkeypatch.setattr(module, "_tried", lambda *a: tried.append(a[0]) or real(*a))
    more = ["max_steps=50,1000", "recipe.optimizer.lr=1e-3,1e-2", "seed=0,1", f"root={tmp_path}"]
    learned = Plan.make([*HELM, *more])
    floor = Plan.make([*WATER, "model=minao", f"root={tmp_path}"])
    plan = Plan((*learned.nodes, *floor.nodes))
    found = estimate(plan, threads=1, progress=False)
    assert len(tried) == 2
    assert list(found) == [node.folder for node in plan.nodes]
    for node in learned.nodes:
        one = found[node.folder]
        assert one.reason == ""
        assert one.device == "cpu"
        assert one.step_s is not None
        assert one.validation_s is not None
        assert one.memory is not None
        assert one.step_s > 0
        assert one.validation_s > 0
        assert one.memory > 2**27
        recipe = Recipe.parse(node.config.training)
        assert one.seconds == training_seconds(recipe, one.step_s, one.validation_s)
    none = found[floor.nodes[0].folder]
    assert (none.seconds, none.step_s, none.reason) == (0.0, 0.0, "")
    assert not any(tmp_path.iterdir())


def test_a_trial_of_energies_on_batches_of_edges(tmp_path: Path):
    """In this process: a frozen body, with embeddings that are computed before the first step."""
    words = ["task=organic_mini_energy", "model=helm_small", *SMALL, "device=cpu", f"data={DATA}"]
    edges = ["recipe.batch_size=null", "recipe.max_edges=200", "recipe.accumulate=2"]
    trial = run(compose([*words, *edges, "strategy=frozen", "max_steps=1"]), tmp_path / "trial")
    assert (trial.phase, trial.reason) == ("done", "")
    assert trial.validation_s is not None
    assert min(trial.steps) > 0


def test_what_goes_wrong_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    missing = compose([*HELM, f"data={tmp_path}/no.h5"])
    assert "are not at" in run(missing, tmp_path / "trial").reason
    huge = compose([*HELM, "recipe.optimizer.lr=1e38"])
    assert "became" in run(huge, tmp_path / "trial").reason
    plan = Plan.make([*HELM, f"root={tmp_path}"])
    (tmp_path / "python").write_text("#!/bin/sh\necho what it said\nexit 3\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert list(estimate(plan, progress=False).values()) == [Estimate(reason="what it said")]
    (tmp_path / "python").write_text("#!/bin/sh\nkill -9 $$\n")
    (found,) = estimate(plan, progress=False).values()
    assert found.reason == "ended by SIGKILL, probably for want of memory"
    (tmp_path / "python").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(module, "_START", 0.2)
    (found,) = estimate(plan, progress=False).values()
    assert (found.seconds, found.reason) == (None, "nothing was trained within 0 s")


def test_a_kind_that_makes_no_step_in_time_has_a_lower_bound(tmp_path: Path, monkeypatch):
    (tmp_path / "python").write_text(
        '#!/bin/sh\necho \'{"phase": "steps", "parameters": 9, "device": "cpu"}\' > "$4"\n'
        "exec sleep 60\n"
    )
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    plan = Plan.make([*HELM, f"root={tmp_path}", "max_steps=100"])
    (found,) = estimate(plan, seconds=1.0, progress=False).values()
    assert found.bound
    assert found.reason == "> 1 s/step"
    assert found.step_s is not None
    assert found.step_s >= 1
    assert found.seconds is not None
    assert found.seconds >= 100
    assert time_text(found).startswith("> ")


def test_models_elsewhere_and_finished_cells_are_not_tried(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(module, "_tried", None)
    words = ["task=organic_mini_energy", f"data={DATA}", f"root={tmp_path}"]
    plan = Plan.make([*words, "model=mace_small"])
    (found,) = estimate(plan, progress=False).values()
    assert (time_text(found), found.reason) == (
        "-", "in an environment of its own, nothing is measured",
    )  # fmt: skip
    done = Plan.make([*WATER, "model=minao", f"root={tmp_path}"])
    done.nodes[0].folder.mkdir(parents=True)
    (done.nodes[0].folder / "result.json").touch()
    assert estimate(done, progress=False) == {}


def test_the_sum_over_cells():
    cells = {
        Path("a"): Estimate(seconds=5400.0, device="cpu"),
        Path("b"): Estimate(seconds=1800.0, device="cpu", bound=True),
        Path("c"): Estimate(reason="why"),
    }
    assert in_all(cells, 2).startswith("training takes more than 4 core hours and 1 unknown, by")
    gpu = {Path("a"): Estimate(seconds=5400.0, device="NVIDIA H100")}
    assert in_all(gpu, 2).startswith("training takes 1.5 GPU hours, by")
    assert [time_text(Estimate(seconds=s)) for s in (0.0, 59.6, 150.0, 9000.0, 86400.0)] == [
        "0 s", "60 s", "2.5 min", "2.5 h", "24 h",
    ]  # fmt: skip


def test_the_command_line_tells_them(tmp_path: Path, monkeypatch, capsys, caplog):
    caplog.set_level("INFO")
    trials = {"helm_small": Trial("done", [3.0, 2.0, 0.5], 1.0, 9, 2**31, "cpu")}
    trials["minao"] = Trial("start", reason="it is gone")
    monkeypatch.setattr(module, "_tried", lambda config, *_: (trials[config.model["name"]], 1.0))
    few = ["max_steps=100", "recipe.validate_every=50"]
    with pytest.raises(SystemExit) as left:
        cli.main(["sweep", *WATER, "model=helm_small,minao", *few, f"root={tmp_path}", "--dry-run"])
    assert not left.value.code
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0][:5] == ["#", "state", "needs", "time", "memory"]
    assert lines[2][:6] == ["1", "new", "52", "s", "2", "GiB"]
    assert lines[3][:4] == ["2", "new", "-", "-"]
    assert lines[5] == ["2:", "it", "is", "gone"]
    assert "2 kinds of cells" in caplog.text
    assert "--no-estimate" in caplog.text
    assert not any(tmp_path.iterdir())
