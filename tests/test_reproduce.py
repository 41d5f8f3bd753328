"""The command line that a result gives for its cell."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hambench.compose import compose
from hambench.reproduce import command_of, words_of

WATER = ["task=water_mini", "model=helm_small"]
ENERGIES = ["task=organic_mini_energy", "model=helm_small"]


@pytest.mark.parametrize(
    "words",
    [
        WATER,
        [*WATER, "seed=7", "max_steps=500", "precision=float64", "device=cpu", "root=/elsewhere"],
        [*WATER, "recipe.max_steps=null", "max_minutes=4", "recipe.optimizer.betas=[0.5,0.9]"],
        [*WATER, "model.hyperparameters.channels=48", "model.hyperparameters.envelope=true"],
        [*WATER, "recipe=helm_small_direct", "recipe.optimizer.lr=3e-4", "recipe.pad=true"],
        [*WATER, "recipe.alignment.weight=0.5"],
        ["task=md17_ethanol", "model=qhnet", "split=contiguous", "score.split=validation"],
        ["task=organic_mini", "model=sphnet", "train_on=train_10", "score.metrics=[h_mae,psi]"],
        [*ENERGIES, "strategy=direct", "model.energy.head=linear"],
        [*ENERGIES, "strategy=finetuned", "pretraining.max_steps=50", "seed=2"],
        [*ENERGIES, "strategy=frozen", "pretraining.recipe.batch_size=3", "max_steps=3"],
    ],
)
def test_the_command_composes_the_same_cell(words: list[str]) -> None:
    config = compose(words)
    again = compose(words_of(config))
    assert again.run_id == config.run_id
    assert again.score == config.score
    assert words_of(again) == words_of(config)


def test_only_what_differs_is_said() -> None:
    config = compose([*WATER, "max_steps=20", "model.hyperparameters.channels=48"])
    assert words_of(config) == [
        "task=water_mini",
        "model=helm_small",
        "seed=0",
        "max_steps=20",
        "model.hyperparameters.channels=48",
    ]


def test_the_command_line_is_one_for_a_shell(tmp_path: Path) -> None:
    config = compose([*WATER, "score.metrics=[h_mae,psi]", "max_steps=2", f"root={tmp_path}"])
    program, *words = shlex.split(command_of(config))
    assert program == "hambench"
    shown = subprocess.run(
        [sys.executable, "-m", "hambench", *words, "--cfg"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "max_steps: 2" in shown.stdout
