"""Where every page of the site is: file names that no name of a result can leave or share."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Final

from hambench.leaderboard.collect import Board
from hambench.leaderboard.ranking import Entry, Ranking
from hambench.leaderboard.runs import Run
from hambench.leaderboard.table import Link

FOLDERS: Final = {"task": "tasks", "model": "models", "run": "runs"}
"""Folder of the pages of each kind."""

PAGE: Final = re.compile(rf"({'|'.join(FOLDERS.values())})/[a-z0-9-]*-[0-9a-f]{{32}}\.html")
"""Paths of pages other than the first, below the folder of the site."""

_READABLE = 60  # characters of a file name, at most, before its digest


class Pages:
    """Paths of all pages of a board, below the folder of the site.

    They depend on what a result says, not on the folder it was found in.
    """

    def __init__(self, board: Board) -> None:
        self._paths: dict[Link, str] = {}
        self._seeds: dict[Link, str] = {}
        for ranking in board.rankings:
            self._paths[Link("task", ranking.task)] = _path("task", ranking.task, ranking.task)
            for entry in ranking.entries:
                self._paths[Link("model", entry.preset)] = _path(
                    "model", entry.preset, entry.preset
                )
                for run in entry.runs:
                    link = Link("run", run.name)
                    self._paths[link] = _path("run", *_of_run(ranking, entry, run))
                    self._seeds[link] = str(run.result.seed)

    def path(self, link: Link) -> str:
        """Path of a page; empty where there is none."""
        return self._paths.get(link, "")

    def seed(self, link: Link) -> str:
        """Seed of a run that has a page."""
        return self._seeds[link]


def _of_run(ranking: Ranking, entry: Entry, run: Run) -> tuple[str, ...]:
    """What a run is called, and all that tells it from the others: a board has each cell once."""
    seed = str(run.result.seed)
    data = (ranking.version, ranking.fingerprint, ranking.source, ranking.split)
    cell = (*map(str, data), ranking.training_split, entry.settings)
    return f"{entry.label} {ranking.task} seed{seed}", entry.preset, ranking.task, seed, *cell


def _path(kind: str, called: str, *told_by: str) -> str:
    """``runs/helm-small-water-mini-seed0-DIGEST.html``; strangers cannot find two of one digest."""
    readable = re.sub("[^a-z0-9]+", "-", called.lower())[:_READABLE].strip("-")
    told = json.dumps(told_by).encode()
    return f"{FOLDERS[kind]}/{readable}-{hashlib.sha256(told).hexdigest()[:32]}.html"
