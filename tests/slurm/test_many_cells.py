"""A sweep that is disturbed again and again ends complete and correct."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from sweeping import TINY, at_end, hambench, launched, outcome, process_of, runs, status, until

pytestmark = [pytest.mark.slurm, pytest.mark.usefixtures("toy_jobs")]


@pytest.mark.slow
def test_a_sweep_of_twenty_cells_of_which_three_are_killed(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith(("max_steps", "recipe.validate"))]
    words += ["max_steps=300", "recipe.validate_every=150"]
    sweep = launched(*words, "seed=range(0,20)", cwd=tmp_path)
    every = runs(sweep)
    chance = random.Random(7)
    killed: list[Path] = []
    while len(killed) < 3:
        under_way = [run for run in every if run not in killed and _trains_now(run)]
        if under_way:
            run = chance.choice(under_way)
            try:
                os.kill(process_of(run), signal.SIGKILL)
            except (ProcessLookupError, FileNotFoundError):
                continue  # it was faster
            if not (run / "result.json").exists():
                killed.append(run)
        time.sleep(chance.random())
    assert at_end(sweep) == ["done"] * 20
    assert [status(run)["restarts"] for run in killed] == [1, 1, 1]
    assert sum(status(run)["restarts"] for run in every) == 3
    board = sweep / "leaderboard" / "leaderboard.md"
    until(board.is_file, "the leaderboard")
    for run in killed:
        seed = run.name.partition("-")[0].removeprefix("seed")
        hambench("run", *words, f"seed={seed}", f"run_dir=alone{seed}", cwd=tmp_path)
        assert outcome(run) == outcome(tmp_path / f"alone{seed}")


def _trains_now(run: Path) -> bool:
    return status(run).get("state") == "running" and (run / "log.jsonl").is_file()
