"""All tasks side by side: ranks, and errors relative to the best. There is no total score."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from hambench.leaderboard.ranking import Entry, Place, Ranking
from hambench.leaderboard.table import Cell, Column, Link, Table
from hambench.scoring import METRICS


class Relative(NamedTuple):
    """An entry in one ranking.

    Attributes:
        place: None: unranked.
        ratio: its error over the least error there, 1 for the best; None where the metric is no
            error, or the least is zero.
    """

    entry: Entry
    place: Place | None
    ratio: float | None


def relative(ranking: Ranking) -> list[Relative]:
    """Every entry of a ranking relative to the best of those that are ranked."""
    values = [entry.summary(ranking.metric) for entry in ranking.entries]
    known = [v.value for v, place in zip(values, ranking.places, strict=True) if v and place]
    best = min(known, default=0.0)
    is_error = METRICS[ranking.metric].direction == "lower" and best > 0
    return [
        Relative(entry, place, v.value / best if is_error and v and place else None)
        for entry, place, v in zip(ranking.entries, ranking.places, values, strict=True)
    ]


def across_table(rankings: Sequence[Ranking]) -> Table | None:
    """A row per model, two columns per ranking; None for a single ranking.

    A model with several settings in one ranking has all of them there, best first.
    """
    if len(rankings) < 2:
        return None
    found: dict[str, dict[int, list[Relative]]] = defaultdict(lambda: defaultdict(list))
    for k, ranking in enumerate(rankings):
        for one in relative(ranking):
            found[one.entry.label][k].append(one)
    columns = [Column("model", numeric=False), Column("rankings", hint="in how many it is")]
    for ranking in rankings:
        where = _short(ranking, rankings)
        columns.append(Column(f"rank on {where}"))
        columns.append(
            Column(f"error / best on {where}", hint=f"{ranking.metric}, relative to the least")
        )
    rows = []
    for label in sorted(found, key=lambda label: (-len(found[label]), label)):
        mine = found[label]
        cells = [Cell(label, links=_links(mine)), Cell(str(len(mine)), len(mine))]
        for k in range(len(rankings)):
            cells += _cells(mine.get(k, []))
        rows.append(tuple(cells))
    return Table(
        "Across tasks",
        "rank and error relative to the best in the primary metric of each; no total is made of "
        "them",
        tuple(columns),
        tuple(rows),
        kind="across",
    )


def _cells(some: Sequence[Relative]) -> list[Cell]:
    ranks = ", ".join("-" if one.place is None else str(one.place.rank) for one in some)
    ratios = ", ".join("-" if one.ratio is None else f"{one.ratio:.3g}" for one in some)
    first = some[0] if some else None
    return [
        Cell(ranks, first.place.rank if first and first.place else None),
        Cell(ratios, first.ratio if first else None),
    ]


def _links(some: Mapping[int, Sequence[Relative]]) -> tuple[Link, ...]:
    """To the model, which all entries of a name have in common."""
    return (Link("model", next(iter(some.values()))[0].entry.preset),)


def _short(ranking: Ranking, rankings: Sequence[Ranking]) -> str:
    """Name of a ranking, no longer than it takes to tell it from the others."""
    parts = [
        (r.task, f"v{r.version}", r.training_split, r.split, r.source, r.fingerprint[:8])
        for r in rankings
    ]
    mine = parts[rankings.index(ranking)]
    twins = [other for other in parts if other[0] == mine[0]]
    told = [p for k, p in enumerate(mine) if k == 0 or len({other[k] for other in twins}) > 1]
    return " ".join(told)
