"""The table of the project's own results is that of the results."""

from __future__ import annotations

from pathlib import Path

from hambench.leaderboard import build

FOLDER = Path(__file__).resolve().parents[2] / "leaderboard"


def test_the_table_is_of_the_present_results(tmp_path: Path) -> None:
    """After a change: ``make board``."""
    made = build([FOLDER / "results"], tmp_path)
    assert made[0].read_text("utf-8") == (FOLDER / "README.md").read_text("utf-8")
