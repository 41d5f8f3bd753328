"""What accuracy costs, and who is on the front: nobody is both as good and as cheap."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import fmean
from typing import Final, NamedTuple

from hambench.leaderboard.ranking import Entry, Ranking
from hambench.results import Result
from hambench.scoring import METRICS


class Price(NamedTuple):
    """One kind of cost.

    Attributes:
        unit: of its values.
        of: of one run; None where it was not measured.
        on_device: whether it depends on the device, so that entries of one device are compared.
        description: one line.
    """

    unit: str
    of: Callable[[Result], float | None]
    on_device: bool
    description: str


def _prediction_s(result: Result) -> float | None:
    found = result.cost.inference
    return None if found is None else found.molecule_s


PRICES: Final[dict[str, Price]] = {
    "training": Price("s", lambda r: r.cost.wall_s, True, "wall time of training"),
    "prediction": Price("s", _prediction_s, True, "time to predict a molecule, with its guess"),
    "memory": Price("bytes", lambda r: r.cost.peak_memory, True, "peak memory of training"),
    "parameters": Price("", lambda r: r.parameters, False, "trainable numbers"),
}
"""Kinds of cost by name."""


def price(entry: Entry, kind: str) -> float | None:
    """Mean over seeds of a cost; None unless all seeds have it."""
    found = [PRICES[kind].of(result) for result in entry.results]
    known = [value for value in found if value is not None]
    return fmean(known) if len(known) == len(found) else None


def devices(entry: Entry) -> tuple[str, ...]:
    """What its runs were trained on."""
    return tuple(sorted({result.cost.device for result in entry.results}))


def front(ranking: Ranking, kind: str) -> frozenset[int]:
    """Places of the entries on the front of the primary metric against a cost.

    An entry is on it if no ranked one of the same device is better in one and no worse in the other
    (Pareto). Means are compared as they are, also where they tie.
    """
    sign = 1.0 if METRICS[ranking.metric].direction == "lower" else -1.0
    found: dict[int, tuple[object, float, float]] = {}
    for k, entry in enumerate(ranking.entries):
        cost, summary = price(entry, kind), entry.summary(ranking.metric)
        if ranking.places[k] is not None and cost is not None and summary is not None:
            where = devices(entry) if PRICES[kind].on_device else None
            found[k] = where, sign * summary.value, cost
    return frozenset(_undominated(found.items()))


def _undominated(points: Iterable[tuple[int, tuple[object, float, float]]]) -> Iterable[int]:
    """Keys of points (class, error, cost) that no other of their class dominates."""
    least: dict[object, tuple[float, float]] = {}  # class -> cost so far, error it came with
    for k, (where, error, cost) in sorted(points, key=lambda p: (p[1][1], p[1][2])):
        best = least.get(where)
        if best is None or cost < best[0] or (cost, error) == best:
            least[where] = cost, error
            yield k
