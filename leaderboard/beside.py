"""Published numbers beside those of runs: a column per source, never ranked."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hambench.leaderboard.ranking import Entry, Ranking
from hambench.leaderboard.reported import Reported, reported
from hambench.leaderboard.table import Cell

NOT_COMPARABLE = "\u2260"
"""Behind a number that is not of the same data and statistic."""


@dataclass(frozen=True)
class Beside:
    """What one source prints for the models of a ranking, in its primary metric.

    Attributes:
        numbers: each with why it cannot be compared with the ranking; empty where it can.
    """

    numbers: tuple[tuple[Reported, str], ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What stands below the table."""
        reasons = {(row.source, why) for row, why in self.numbers if why}
        return tuple(f"{NOT_COMPARABLE} {source}: {why}" for source, why in sorted(reasons))

    def cell(self, entry: Entry) -> Cell:
        """Numbers of the network of an entry."""
        mine = [(row, why) for row, why in self.numbers if _is_of(row, entry)]
        shown = [f"{row.printed} {NOT_COMPARABLE}" if why else row.printed for row, why in mine]
        details = [f"{row.printed}: {row.locator}; {why or 'comparable'}" for row, why in mine]
        return Cell(", ".join(shown), mine[0][0].value if mine else None, "\n".join(details))


def beside(ranking: Ranking) -> dict[str, Beside]:
    """Published numbers for the networks in a ranking, by source and unit as a heading has them."""
    found: dict[str, list[tuple[Reported, str]]] = defaultdict(list)
    for row in reported():
        if (row.task, row.metric) != (ranking.task, ranking.metric):
            continue
        if any(_is_of(row, entry) for entry in ranking.entries):
            heading = f"{row.source} / {row.printed_unit}"
            found[heading].append((row, _why_not(row, ranking)))
    return {heading: Beside(tuple(rows)) for heading, rows in sorted(found.items())}


def _is_of(row: Reported, entry: Entry) -> bool:
    """Whether a number is of the network and strategy of an entry."""
    first = entry.results[0]
    return row.model == first.model and (first.strategy is None or row.setting == first.strategy)


def _why_not(row: Reported, ranking: Ranking) -> str:
    """Why a number cannot be compared with the runs of a ranking; empty if it can."""
    variants = {result.variant for entry in ranking.entries for result in entry.results}
    reasons = []
    if ranking.source != "published":
        reasons.append("labels of the runs are generated")
    if row.split != ranking.split:
        reasons.append(f"of the {row.split} split")
    if {row.variant} != variants:
        reasons.append(f"splits '{row.variant}'" if row.variant else "its splits are not known")
    if row.caveat:
        reasons.append(row.caveat)
    return "; ".join(reasons)
