"""Results of runs that were never run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hambench.leaderboard.ranking import Entry, Ranking
from hambench.results import Cost, Metric, Provenance, Result, write_result

START = datetime(2026, 1, 1, tzinfo=UTC)
Write = Callable[..., Path]
Compile = Callable[[str], str]


def ranked(ranking: Ranking) -> list[tuple[int | None, Entry]]:
    """Entries of a ranking with their ranks."""
    places = (place and place.rank for place in ranking.places)
    return list(zip(places, ranking.entries, strict=True))


def ties(ranking: Ranking) -> tuple[str, ...] | None:
    """Letters of the entries of a ranking; None where they come from no tests."""
    found = tuple(place.ties if place else "" for place in ranking.places)
    return found if ranking.contests[ranking.metric].tested else None


def metric(value: float, width: float = 0.05, **changes: Any) -> Metric:
    """A metric of ``value`` uEh with an interval of a share of it to each side."""
    low, high = value * (1 - width) * 1e-6, value * (1 + width) * 1e-6
    content = {"value": value * 1e-6, "unit": "Eh", "ci95": (low, high), "n": 100}
    return Metric(**content | changes)


def put(folder: Path, value: float | None = None, **changes: Any) -> None:
    """Write a result of h_mae = ``value`` uEh, with fields changed."""
    after = timedelta(seconds=changes.pop("finished", 100))
    content = dict(
        run_id="0" * 64,
        task="water_mini",
        task_version=1,
        fingerprint="ab" * 32,
        source="generated",
        split="test",
        model="helm",
        preset="helm_small",
        hyperparameters={"channels": 16},
        parameters=123456,
        recipe={"optimizer": {"name": "adam"}, "title": "words"},
        seed=0,
        metrics={"h_mae": metric(value or 100.0)},
        cost=Cost(
            device="cpu",
            wall_s=200,
            steps=5000,
            epochs=10,
            steps_per_s=25,
            molecules_per_s=100,
            stopped_by="max_steps",
        ),
        provenance=Provenance(
            package="0.1.0",
            commit=None,
            dirty=None,
            python="3.11",
            libraries={},
            plugins={},
            cuda=None,
            gpu=None,
            cpu="cpu",
            cores=2,
            os="Linux",
            command="hambench run",
            restarts=0,
            started=START,
            finished=START + after,
        ),
    )
    content |= changes
    write_result(folder, Result(**{"primary": next(iter(content["metrics"])), **content}))
