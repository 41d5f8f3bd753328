"""`Board`: everything that is known of the runs below some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hambench.errors import DataError
from hambench.leaderboard.across import across_table
from hambench.leaderboard.ranking import Entry, Ranking, rank
from hambench.leaderboard.reported import reported_table
from hambench.leaderboard.runs import Run, Unfinished, read_runs
from hambench.leaderboard.table import Table
from hambench.leaderboard.tables import ranking_table, unfinished_table


@dataclass(frozen=True)
class Board:
    """All rankings, cells without a result, and what is in neither with the reason why.

    Attributes:
        rankings: one per task, version, data, split and training set.
        unfinished: cells that failed, were stopped, or run.
        left_out: (result, reason), both text.
        folders: that were looked through.
    """

    rankings: tuple[Ranking, ...]
    unfinished: tuple[Unfinished, ...]
    left_out: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...] = ()

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are ranked."""
        return tuple(dict.fromkeys(ranking.task for ranking in self.rankings))

    @property
    def entries(self) -> Iterable[tuple[Ranking, Entry]]:
        """Every entry with the ranking it is in."""
        return ((ranking, entry) for ranking in self.rankings for entry in ranking.entries)

    @property
    def runs(self) -> Iterable[Run]:
        """Every ranked run."""
        return (run for _, entry in self.entries for run in entry.runs)

    @cached_property
    def tables(self) -> tuple[Table, ...]:
        """The rankings, all tasks side by side, unfinished cells, and what was published."""
        made = [
            *map(ranking_table, self.rankings),
            across_table(self.rankings),
            unfinished_table(self.unfinished),
            *map(reported_table, self.tasks),
        ]
        return tuple(table for table in made if table is not None)


def collect(paths: Iterable[str | os.PathLike[str]]) -> Board:
    """Read and rank all results at or below ``paths``.

    A result that cannot be read or ranked does not stop the others: it is listed as left out.

    Args:
        paths: ``result.json`` files, run directories, or folders above them.

    Raises:
        DataError: a path that does not exist, no run anywhere, or none of several results can be
            ranked.
    """
    given = tuple(Path(path) for path in paths)
    found = read_runs(given)
    rankings, unranked = rank(found.runs, found.unfinished)
    left_out = sorted([*found.left_out, *unranked])
    if not rankings and left_out:
        name, reason = left_out[0]
        raise DataError(
            f"none of {len(left_out)} results can be ranked; the first, {name}: {reason}"
        )
    folders = tuple(path for path in given if path.is_dir())
    return Board(tuple(rankings), found.unfinished, tuple(left_out), folders)
