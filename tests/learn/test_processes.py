"""Several processes compute what one computes: gradients, validations, runs, and their ends."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_work
from crowd import Crowd, together
from hypothesis import given
from hypothesis import strategies as some
from toy_model import RECIPE

from hambench import rundir
from hambench.data.loader import shared
from hambench.errors import ConfigError, HambenchError, RunError
from hambench.learn.interrupts import Interrupted
from hambench.learn.processes import ALONE, Processes, join
from hambench.results import read_status

WATER = ("task=water_mini", "device=cpu", "score.metrics=[h_mae]")
HELM = (
    *WATER, "model=helm_small", "model.hyperparameters.channels=8",
    "model.hyperparameters.layers=1", "precision=float64", "recipe.batch_size=7",
    "recipe.validate_every=2", "recipe.log_every=1", "max_steps=5",
)  # fmt: skip


@given(
    some.lists(some.integers(0, 400), min_size=1, max_size=40), some.integers(1, 9), some.randoms()
)
def test_shares_are_even(edges, size, random):
    rows = random.sample(range(len(edges)), random.randint(1, len(edges)))
    shares = shared(rows, edges, size)
    assert len(shares) == size
    assert sorted(row for share in shares for row in share) == sorted(rows)
    for share in shares:
        assert share == [row for row in rows if row in share]
    loads = [sum(edges[row] for row in share) for share in shares]
    assert max(loads) <= sum(loads) / size + max(edges[row] for row in rows)
    same = shared(rows, [edges[0]] * len(edges), size)
    assert max(map(len, same)) - min(map(len, same)) <= 1
    assert shared(rows, edges, 1) == [rows]


def gradients(crowd: int, preset: str, task: str, sizes: dict[str, int], accumulate: int) -> Any:
    """Of all processes, which agree to the bit; and the rows that each micro-batch held."""
    every = together(crowd, shared_work.gradient, preset, task, crowd, sizes, accumulate)
    first = every[0]
    for other in every[1:]:
        assert other["loss"] == first["loss"]
        assert other["molecules"] == first["molecules"]
        for name, gradient in first["gradient"].items():
            assert (gradient is None) == (other["gradient"][name] is None)
            assert gradient is None or np.array_equal(gradient, other["gradient"][name])
    parts = zip(*(one["rows"] for one in every), strict=True)
    return first, [sorted(row for share in part for row in share) for part in parts], every


def same_gradient(one: Any, other: Any) -> None:
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-13)
    scale = max(float(np.abs(g).max()) for g in one["gradient"].values() if g is not None)
    for name, gradient in one["gradient"].items():
        found = other["gradient"][name]
        assert (gradient is None) == (found is None), name
        if gradient is not None:
            assert np.abs(gradient - found).max() <= 1e-12 * scale, name


@pytest.fixture(scope="module")
def whole() -> Any:
    """The gradient of 8 molecules of several sizes in one batch of one process."""
    return gradients(1, "helm_small", "organic_mini", {"batch_size": 8}, 1)


@pytest.mark.parametrize(
    ("crowd", "size", "accumulate"),
    [
        (2, 8, 1),
        (3, 2, 4),
        pytest.param(1, 2, 4, marks=pytest.mark.slow),
        pytest.param(3, 8, 1, marks=pytest.mark.slow),
    ],
)
def test_the_gradient_is_that_of_one_process(whole, crowd: int, size: int, accumulate: int):
    """Of RMSE + MSE, no sum over molecules; with uneven shares, and with empty ones."""
    one, rows, _ = whole
    found, held, every = gradients(
        crowd, "helm_small", "organic_mini", {"batch_size": size}, accumulate
    )
    assert sorted(row for part in held for row in part) == rows[0]
    assert found["molecules"] == [size] * accumulate
    if (crowd, size) == (3, 2):
        assert any(share == () for one in every for share in one["rows"])
    same_gradient(one, found)


@pytest.mark.parametrize(
    "preset",
    [
        "schnorb_small",
        *(
            pytest.param(f"{m}_small", marks=pytest.mark.slow)
            for m in ("phisnet", "qhnet", "sphnet")
        ),
    ],
)
def test_so_it_is_for_every_model(preset: str):
    sizes = {"max_edges": 36}  # six of water
    one, rows, _ = gradients(1, preset, "water_mini", sizes, 1)
    found, held, every = gradients(2, preset, "water_mini", sizes, 1)
    assert held == rows
    assert [len(each["rows"][0]) for each in every] == [3, 3]
    same_gradient(one, found)


def test_validation_is_exact():
    """Seven molecules in batches of three: the last share of one process is empty."""
    arguments = ("helm_small", "organic_mini")
    (one,) = together(1, shared_work.validation, *arguments, 1, 3)
    every = together(2, shared_work.validation, *arguments, 2, 3)
    for found in every:
        assert found == every[0]
        assert found["metric"] == "h_mae"
        assert found["value"] == pytest.approx(one["value"], rel=1e-14)
        assert found["loss"] == pytest.approx(one["loss"], rel=1e-13)


def test_a_run_ends_as_with_one_process(tmp_path: Path):
    (one,) = together(1, shared_work.cell, *HELM, f"run_dir={tmp_path / 'one'}")
    words = (*HELM, "gpus=2", f"run_dir={tmp_path / 'two'}")
    first, second = together(2, shared_work.cell, *words)
    assert first == second
    two = first["result"]
    assert (two["run_id"], two["cost"]["steps"]) == (one["result"]["run_id"], 5)
    assert two["cost"]["device"] == "2 x cpu"
    value = one["result"]["metrics"]["h_mae"]["value"]
    assert two["metrics"]["h_mae"]["value"] == pytest.approx(value, rel=1e-9)
    logs = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    for ours, theirs in zip(*logs, strict=True):
        a, b = json.loads(ours), json.loads(theirs)
        timings = {"elapsed_s", "molecules_per_s"}
        assert a.keys() == b.keys()
        for key in a.keys() - timings:
            assert a[key] == pytest.approx(b[key], rel=1e-9), key
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("one", "two")] == []
    again = together(2, shared_work.cell, *words)
    assert [each["fresh"] for each in again] == [False, False]
    assert again[0]["result"] == two


VALUES = {**RECIPE, "checkpoint_every_steps": None, "checkpoint_every_seconds": None}


@pytest.mark.parametrize("told", [(1,), pytest.param((0, 1), marks=pytest.mark.slow)])
def test_a_stopped_run_goes_on_to_the_same_bits(told: tuple[int, ...], tmp_path: Path):
    whole = together(2, shared_work.train_toy, tmp_path / "whole", 2, VALUES, 0.0)
    folder = tmp_path / "stopped"
    crowd = Crowd(2, shared_work.train_toy, folder, 2, VALUES, 0.02)
    wait_for_row(folder / "log.jsonl")
    for rank in told:
        os.kill(crowd.processes[rank].pid or 0, signal.SIGTERM)
    ends = crowd.results()
    assert [type(end) for end in ends] == [Interrupted, Interrupted]
    assert "stopped by SIGTERM after step" in str(ends[0]) == str(ends[1])
    gone_on = together(2, shared_work.train_toy, folder, 2, VALUES, 0.0)
    for ended in (*gone_on, whole[1]):
        assert ended["result"]["steps"] == 30
        assert ended["result"]["best_value"] == whole[0]["result"]["best_value"]
        for name, weights in whole[0]["weights"].items():
            assert np.array_equal(weights, ended["weights"][name]), name
    assert gone_on[0]["result"]["restarts"] == 1


@pytest.mark.slow
def test_another_number_of_processes_may_go_on(tmp_path: Path):
    """What they write has no trace of how many they are."""
    constant = {"precision": "float64", "schedule": {"name": "constant"}}
    half = {**RECIPE, **constant, "max_steps": 15}
    full = {**half, "max_steps": 30}
    (whole,) = together(1, shared_work.train_toy, tmp_path / "one", 1, full, 0.0)
    together(2, shared_work.train_toy, tmp_path / "both", 2, half, 0.0)
    (ended,) = together(1, shared_work.train_toy, tmp_path / "both", 1, full, 0.0)
    for name, weights in whole["weights"].items():
        assert np.allclose(weights, ended["weights"][name], rtol=1e-9, atol=1e-12), name


def wait_for_row(log: Path) -> None:
    deadline = time.monotonic() + 60
    while not (log.exists() and log.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "how", "reason"),
    [
        (1, "memory", "process 1 of 2 failed: the GPU has too little memory for step 3; lower "),
        (1, "defect", "process 1 of 2 failed: ZeroDivisionError: a defect"),
        (1, "kill", "process 0 of 2 lost the connection to another one, which left no reason"),
        (0, "memory", "the GPU has too little memory for step 3; lower recipe.batch_size (now 7)"),
    ],
)
def test_a_failure_anywhere_ends_the_run_with_its_reason(rank, how, reason, tmp_path: Path):
    words = (*HELM, "gpus=2", f"run_dir={tmp_path / 'run'}")
    ends = Crowd(2, shared_work.failing_cell, rank, how, *words).results(60)
    assert isinstance(ends[0], HambenchError)
    status = read_status(tmp_path / "run")
    assert status.state == "failed"
    assert status.reason.startswith(reason)
    assert not rundir.is_running(tmp_path / "run")
    assert not (tmp_path / "run" / "result.json").exists()
    if how == "memory":
        assert isinstance(ends[1], RunError)
        own = "the GPU has too little memory" if rank else "process 1 of 2 lost the first one"
        assert str(ends[1]).startswith(own)


@pytest.mark.slow
def test_frozen_bodies_and_their_pretraining(tmp_path: Path):
    words = (
        "task=organic_mini_energy", f"data={shared_work.FIXTURE}", "device=cpu", "strategy=frozen",
        "model=helm_small", "model.hyperparameters.channels=8", "model.hyperparameters.layers=1",
        "max_steps=4", "recipe.validate_every=2", "recipe.batch_size=3", "precision=float64",
        "pretraining.max_steps=3", "pretraining.recipe.validate_every=3",
        "pretraining.precision=float64", "pretraining.score.metrics=[h_mae]",
    )  # fmt: skip
    (one,) = together(1, shared_work.cell, *words, f"root={tmp_path / 'one'}")
    two, _ = together(2, shared_work.cell, *words, f"root={tmp_path / 'two'}", "gpus=2")
    for name, metric in one["result"]["metrics"].items():
        assert two["result"]["metrics"][name]["value"] == pytest.approx(metric["value"], rel=1e-8)
    assert two["result"]["pretraining"]["steps"] == 3


def test_other_processes_than_asked_for_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match=r"nodes=2 gpus=4 asks for 8 processes, and there is 1"):
        join(2, 4, "cpu")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match=r"gpus=1 asks for 1 process, and there are 3 \(WORLD_S"):
        join(1, 1, "cpu")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=3 is set and MASTER_ADDR is not"):
        join(1, 3, "cpu")


def test_processes_that_do_not_meet_say_where(monkeypatch):
    variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_ADDR", "no.such.host.invalid")
    said = r"process 1 of 2 does not know the host of \S+ no\.such\.host\.invalid:1 "
    with pytest.raises(RunError, match=said):
        join(1, 2, "cpu")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr("hambench.learn.processes._MEETING", np.timedelta64(1, "s").item())
    with pytest.raises(
        RunError, match=r"process 1 of 2 did not meet the others at \S+ 127.0.0.1:1"
    ):
        join(1, 2, "cpu")


def test_one_process_is_left_as_it_is():
    assert join(1, 1, "cpu") is ALONE
    assert (ALONE.first, ALONE.several) == (True, False)
    assert Processes(1, 2).first is False
    value = object()
    assert ALONE.from_first(lambda: value) is ALONE.in_turn(lambda: value) is value
    assert ALONE.agreed(3.5, None) == (3.5, None)
