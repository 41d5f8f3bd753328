"""A board as JSON knows it: numbers in the units of results, everything by name."""

from __future__ import annotations

import json
from typing import Any, Final

from hambench.leaderboard.across import relative
from hambench.leaderboard.beside import beside
from hambench.leaderboard.collect import Board
from hambench.leaderboard.costs import PRICES, devices, front, price
from hambench.leaderboard.ranking import Contest, Entry, Ranking
from hambench.scoring import METRICS

VERSION: Final = 1
"""Of the layout; raised whenever a reader would have to know."""


def as_json(board: Board) -> str:
    """The board as indented JSON; the same board gives the same bytes."""
    content = {
        "version": VERSION,
        "rankings": [_ranking(ranking) for ranking in board.rankings],
        "unfinished": [
            {
                "run": one.name,
                "task": one.said("task"),
                "model": one.said("model"),
                "state": one.status.state,
                "step": one.status.step,
                "reason": one.status.reason,
            }
            for one in board.unfinished
        ],
        "left_out": [{"run": name, "reason": why} for name, why in board.left_out],
    }
    return json.dumps(content, indent=1) + "\n"


def _ranking(ranking: Ranking) -> dict[str, Any]:
    fronts = {kind: front(ranking, kind) for kind in PRICES}
    relatives = relative(ranking)
    return {
        "task": ranking.task,
        "version": ranking.version,
        "fingerprint": ranking.fingerprint,
        "source": ranking.source,
        "split": ranking.split,
        "training_split": ranking.training_split,
        "metric": ranking.metric,
        "entries": [
            _entry(ranking, k, entry)
            | {"relative_error": relatives[k].ratio}
            | {"front": [kind for kind, on_it in fronts.items() if k in on_it]}
            for k, entry in enumerate(ranking.entries)
        ],
        "untested": {name: one.untested for name, one in ranking.contests.items() if one.untested},
        "published": [
            {
                "model": row.model,
                "setting": row.setting,
                "metric": row.metric,
                "value": row.value,
                "unit": row.unit,
                "source": f"{row.source}, {row.locator}",
                "not_comparable": why,
            }
            for one in beside(ranking).values()
            for row, why in one.numbers
        ],
    }


def _entry(ranking: Ranking, k: int, entry: Entry) -> dict[str, Any]:
    return {
        "model": entry.results[0].model,
        "label": entry.label,
        "preset": entry.preset,
        "strategy": entry.results[0].strategy,
        "settings": entry.settings,
        "metrics": {
            name: found
            for name, contest in ranking.contests.items()
            if (found := _score(entry, name, contest, k)) is not None
        },
        "costs": {kind: price(entry, kind) for kind in PRICES},
        "devices": list(devices(entry)),
        "failures": list(entry.failures),
        "runs": [
            {"run": run.name, "run_id": run.result.run_id, "seed": run.result.seed}
            for run in entry.runs
        ],
        "unfinished": [
            {"run": one.name, "seed": one.seed, "state": one.status.state}
            for one in entry.unfinished
        ],
    }


def _score(entry: Entry, name: str, contest: Contest, k: int) -> dict[str, Any] | None:
    summary, place = entry.summary(name), contest.places[k]
    if summary is None:
        return None
    return {
        "value": summary.value,
        "unit": METRICS[name].unit,
        "ci95": summary.ci95,
        "spread": summary.spread,
        "n": summary.n,
        "rank": None if place is None else place.rank,
        "ties": "" if place is None else place.ties,
    }
