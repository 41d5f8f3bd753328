"""`fit`: it learns, logs, stops when it should, and refuses what it cannot go on with."""

from __future__ import annotations

import json
import math

import pytest
import torch
from toy_model import RECIPE, Toy, molecules, rows, train

from hambench.errors import CheckpointError, ConfigError, RunError
from hambench.learn import Recipe, fit, load_weights
from hambench.learn.checkpoint import load_checkpoint
from hambench.learn.reporters import Reporter
from hambench.model import Model


def run(folder, model: Model | None = None, val=7, reporters=(), seed=3, **changes):
    recipe = Recipe.parse({**RECIPE, **changes})
    validation = molecules(val, seed=1) if val else []
    return fit(
        model or Toy(dropout=0.0),
        molecules(21),
        validation,
        recipe,
        folder,
        seed=seed,
        device="cpu",
        progress=False,
        reporters=reporters,
    )


def h_mae(model: Model, rows) -> float:
    """The validation metric by the book: full matrices, one molecule at a time."""
    from hambench.data.graph import collate

    model.eval()
    errors = []
    for molecule in rows:
        with torch.no_grad():
            (matrix,) = model(collate([molecule], model.graph)).matrices()
        errors.append((matrix - torch.from_numpy(molecule.hamiltonian)).abs().mean())
    return float(torch.stack(errors).mean())


def test_it_learns_and_the_model_ends_with_its_best_weights(tmp_path):
    model = Toy(dropout=0.0)
    constant = {"name": "constant"}
    changes = {"max_steps": 300, "validate_every": 50, "schedule": constant, "ema_decay": None}
    changes |= {"optimizer": {"name": "adamw", "lr": 0.03}, "clip_norm": None}
    before = h_mae(model, molecules(7, seed=1))
    result = run(tmp_path, model, **changes)
    assert result.best_value < before / 2
    assert h_mae(model, molecules(7, seed=1)) == pytest.approx(result.best_value, rel=1e-6)
    validations = [row for row in rows(tmp_path) if "val_h_mae" in row]
    assert [row["step"] for row in validations] == [50, 100, 150, 200, 250, 300]
    best = min(validations, key=lambda row: row["val_h_mae"])
    assert (result.best_value, result.best_step) == (best["val_h_mae"], best["step"])
    assert result.metric == "h_mae"
    assert result.stopped_by == "max_steps"
    assert (result.steps, result.epochs, result.restarts) == (300, 50.0, 0)
    assert result.molecules_per_s == pytest.approx(result.steps_per_s * 3.5)
    assert result.wall_s > 0
    assert result.peak_memory > 2**20
    fresh = Toy(dropout=0.0)
    info = load_weights(tmp_path / "checkpoints" / "best.safetensors", fresh)
    assert info.step == result.best_step
    assert all(map(torch.equal, fresh.state_dict().values(), model.state_dict().values()))


def test_every_row_has_its_step_once_and_losses_are_means_over_the_steps_between(tmp_path):
    one = rows_of(tmp_path / "one", log_every=1)
    five = rows_of(tmp_path / "five", log_every=5)
    assert [row["step"] for row in one] == list(range(1, 31))
    assert [row["step"] for row in five] == list(range(5, 31, 5))
    for k, row in enumerate(five):
        mean = math.fsum(r["train_loss"] for r in one[5 * k : 5 * k + 5]) / 5
        assert row["train_loss"] == mean


def rows_of(folder, **changes):
    torch.manual_seed(0)
    run(folder, **changes)
    return [row for row in rows(folder) if "train_loss" in row]


def test_a_finished_run_is_not_done_again_and_a_larger_budget_goes_on(tmp_path):
    constant = {"schedule": {"name": "constant"}}
    first = train(tmp_path / "a", {**RECIPE, **constant, "max_steps": 16})
    log = (tmp_path / "a" / "log.jsonl").read_bytes()
    assert train(tmp_path / "a", {**RECIPE, **constant, "max_steps": 16}) == first
    assert (tmp_path / "a" / "log.jsonl").read_bytes() == log
    more = train(tmp_path / "a", {**RECIPE, **constant, "max_steps": 32})
    train(tmp_path / "b", {**RECIPE, **constant, "max_steps": 32})
    assert (more.steps, more.restarts) == (32, 1)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_minutes_end_training_and_count_over_restarts(tmp_path):
    changes = {"max_steps": None, "max_minutes": 0.04, "checkpoint_every_steps": None}
    result = run(tmp_path, **changes)
    assert result.stopped_by == "max_minutes"
    assert 2.4 <= result.wall_s < 60
    lrs = [row["lr"] for row in rows(tmp_path) if "lr" in row]
    assert lrs == sorted(lrs, reverse=True)
    assert lrs[-1] < 0.3 * lrs[0]  # the cosine came down with the time
    again = run(tmp_path, **{**changes, "max_minutes": 0.06})
    assert again.restarts == 1
    assert 3.6 <= again.wall_s < 90
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    elapsed = [json.loads(line)["elapsed_s"] for line in lines]
    assert elapsed == sorted(elapsed)


def test_validation_by_minutes(tmp_path):
    run(tmp_path, validate_every=None, validate_every_minutes=1e-6)
    assert [r["step"] for r in rows(tmp_path) if "val_h_mae" in r] == list(range(1, 31))


def test_patience_stops_early_and_plateau_stops_at_its_lr(tmp_path):
    still = {"optimizer": {"name": "adam", "lr": 1e-12}, "ema_decay": None, "validate_every": 2}
    plateau = {"name": "plateau", "patience": 0, "stop_lr": 3e-13, "factor": 0.5}
    result = run(tmp_path / "a", **still, patience=3, schedule={"name": "constant"})
    assert result.stopped_by == "patience"
    assert result.steps < 30
    result = run(tmp_path / "b", **still, schedule=plateau)
    assert result.stopped_by == "stop_lr"
    # the first validation is the best; two more halve the rate to 2.5e-13
    assert result.steps == 6


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_checkpoint(tmp_path):
    model = Toy(dropout=0.0, broken_at=14)
    with pytest.raises(
        RunError,
        match=r"loss became nan at step 14, the last good checkpoint is",
    ):
        run(tmp_path, model)
    saved = load_checkpoint(tmp_path / "checkpoints")
    assert saved["state"]["step"] == 12
    assert all(v.isfinite().all() for v in saved["weights"].values())
    resumed = run(tmp_path, Toy(dropout=0.0))  # the cause is gone
    assert resumed.steps == 30


def test_a_parameter_that_is_not_finite_is_not_saved(tmp_path):
    class Overflowing(Toy):
        def loss(self, prediction, batch):
            loss = super().loss(prediction, batch)
            if self.calls == 14:  # a finite loss with an infinite gradient
                root = (loss.terms - loss.terms.detach()).sqrt()
                return type(loss)(loss.terms + root, loss.counts, loss.finish)
            return loss

    with pytest.raises(RunError, match=r"became nan at step 1[45]"):
        run(tmp_path, Overflowing(dropout=0.0), checkpoint_every_steps=1, clip_norm=None)
    assert load_checkpoint(tmp_path / "checkpoints")["state"]["step"] == 13


def test_too_little_memory_is_told(tmp_path):
    class Greedy(Toy):
        def loss(self, prediction, batch):
            if self.calls == 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().loss(prediction, batch)

    with pytest.raises(RunError, match=r"memory for step 5; lower recipe\.batch_size \(now 4\)"):
        run(tmp_path, Greedy(dropout=0.0))


def test_without_validation_the_last_weights_are_the_result(tmp_path):
    model = Toy(dropout=0.0)
    result = run(tmp_path, model, val=0, ema_decay=None)
    assert result.best_value is None
    assert result.best_step == 30
    weights = load_checkpoint(tmp_path / "checkpoints")["weights"]
    assert all(torch.equal(weights[k], v) for k, v in model.state_dict().items())


def test_the_average_is_what_is_validated_and_kept(tmp_path):
    model = Toy(dropout=0.0)
    run(tmp_path, model, max_steps=8, validate_every=8)
    saved = load_checkpoint(tmp_path / "checkpoints")
    names = [name for name, _ in model.named_parameters()]
    for name, average in zip(names, saved["ema"]["average"], strict=True):
        assert torch.equal(model.state_dict()[name], average)
        assert not torch.equal(saved["weights"][name], average)


def test_wide_buffers_stay_wide_and_preparation_runs_once(tmp_path):
    model = Toy(dropout=0.0)
    run(tmp_path, model)
    shift = model.shift.clone()
    assert shift.dtype == torch.float64
    assert float(shift[0]) == sum(m.hamiltonian.mean() for m in molecules(21))
    again = Toy(dropout=0.0)
    run(tmp_path, again)
    assert torch.equal(again.shift, shift)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": Toy(9, dropout=0.0)}, "hyperparameters.width is 8, this model's is 9"),
        ({"seed": 4}, "holds a run with seed=3, this one has 4"),
        ({"batch_size": 5}, "holds a run with recipe.batch_size=4, this one has 5"),
    ],
)
def test_checkpoints_of_another_run_are_refused(tmp_path, changes, message):
    run(tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match=message):
        run(tmp_path, max_steps=2, **changes)


def test_bad_usage_is_told_in_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no budget"):
        run(tmp_path, max_steps=None)
    recipe = Recipe.parse(RECIPE)
    for device, message in [("tpu", "expected auto, cpu"), ("cuda:99", "device=cuda:99 is not")]:
        with pytest.raises(ConfigError, match=message):
            fit(Toy(), molecules(4), [], recipe, tmp_path, seed=0, device=device)


def test_precision_is_explicit(tmp_path):
    seen = []

    class Watch(Reporter):
        def step(self, step, elapsed_s):
            seen.append(torch.get_float32_matmul_precision())

    for precision, setting, dtype in [
        ("float32", "highest", torch.float32),
        ("tf32", "high", torch.float32),
        ("float64", "highest", torch.float64),
    ]:
        model = Toy(dropout=0.0)
        run(tmp_path / precision, model, max_steps=2, precision=precision, reporters=[Watch()])
        assert seen[-1] == setting
        assert model.dtype == dtype
        assert torch.get_float32_matmul_precision() == "highest"


def test_plain_log_lines_where_there_is_no_terminal(tmp_path, caplog):
    recipe = Recipe.parse(RECIPE)
    with caplog.at_level("INFO", logger="hambench.learn"):
        fit(Toy(), molecules(8), molecules(3), recipe, tmp_path, seed=0, device="cpu")
    assert any("step 30/30" in line and "val_h_mae=" in line for line in caplog.messages)
