"""Modules beside these tests can be imported by name; runs to rank."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from board_case import Write, put


@pytest.fixture
def run(tmp_path: Path) -> Write:
    """Writes a result below ``runs`` and returns that folder."""

    def write(name: str, value: float | None = None, **changes: Any) -> Path:
        put(tmp_path / "runs" / name, value, **changes)
        return tmp_path / "runs"

    return write
