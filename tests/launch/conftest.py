"""Stand-ins for the commands of SLURM."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from slurm_stand_in import StandIn


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Commands in front of any SLURM of this machine."""
    commands = StandIn(tmp_path / "commands")
    monkeypatch.setenv("PATH", f"{commands.folder}:{os.environ['PATH']}")
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
        monkeypatch.delenv(name)
    return commands
