"""What pictures a board has, and which it lacks and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.style import shown
from hambench.leaderboard.ranking import Entry, Ranking

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST: Final = 20
"""Models in a panel, the best ones."""
RANKINGS: Final = 48
"""Rankings with panels of their own."""

REASONS: Final = 8
"""Reasons told of a picture, why something is not in it."""

T = TypeVar("T")


class Picture(NamedTuple):
    """A file to be: its name without suffix, and what draws it, in the style of `drawing`."""

    name: str
    make: Callable[[], Figure]


@dataclass(frozen=True)
class Album:
    """Pictures, and what is in none: (picture, why)."""

    pictures: tuple[Picture, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, some: Iterable[Album]) -> Album:
        """Several in one."""
        some = list(some)
        pictures = tuple(picture for one in some for picture in one.pictures)
        return cls(pictures, tuple(lost for one in some for lost in one.left_out))


@dataclass(frozen=True)
class Shown:
    """A ranking as pictures show it.

    Attributes:
        ranking: all of it.
        entries: the best of its entries, as many as a panel shows.
        labels: what they are called, all different.
    """

    ranking: Ranking
    entries: tuple[Entry, ...]
    labels: tuple[str, ...]

    @property
    def title(self) -> str:
        """Task, version, data, and how many entries are not shown."""
        r, count = self.ranking, len(self.ranking.entries)
        data = f"{r.source} data {shown(r.fingerprint[:8])}"
        lines = [
            f"{shown(r.task)} v{r.version}",
            f"trained on {shown(r.training_split, 16)}, scored on {shown(r.split, 16)}",
            f"{data}, best {len(self.entries)} of {count}" if len(self.entries) < count else data,
        ]
        return "\n".join(lines)


def reduced(board: Board) -> Board:
    """The board with no more than pictures show: the first rankings, of each the best entries.

    Entries are best first, so places of metrics are still theirs.
    """
    some = board.rankings[:RANKINGS]
    return replace(board, rankings=tuple(replace(r, entries=r.entries[:MOST]) for r in some))


def shown_rankings(board: Board) -> list[Shown]:
    """The rankings that have panels."""
    return [
        Shown(ranking, entries, _labels(entries))
        for ranking in board.rankings[:RANKINGS]
        for entries in [ranking.entries[:MOST]]
    ]


def _labels(entries: Sequence[Entry]) -> tuple[str, ...]:
    """Names of entries, with settings and then numbers where names are the same."""
    names = [shown(entry.label) for entry in entries]
    told = [
        f"{name} {entry.settings}" if names.count(name) > 1 else name
        for name, entry in zip(names, entries, strict=True)
    ]
    return tuple(
        f"{name} #{k + 1}" if told.count(name) > 1 else name for k, name in enumerate(told)
    )


@dataclass
class Lost:
    """Counts what is left out of a picture, by reason; the first of each is named."""

    picture: str
    _found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, why: str) -> None:
        """Leave ``name`` out."""
        self._found.setdefault(why, []).append(name)

    def told(self) -> tuple[tuple[str, str], ...]:
        """(picture, why), one for each of the first reasons, and how many more there are."""
        reasons = [
            (self.picture, f"{shown(names[0], 80)}{_more(names)}: {why}")
            for why, names in self._found.items()
        ]
        rest = len(reasons) - REASONS
        if rest > 0:
            reasons[REASONS:] = [(self.picture, f"and {rest} more reasons")]
        return tuple(reasons)


def _more(names: Sequence[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def paged(
    name: str, things: Sequence[T], most: int, make: Callable[[Sequence[T]], Any]
) -> tuple[Picture, ...]:
    """Pictures of up to ``most`` things each: ``name``, ``name_2`` ..."""
    pages = [things[k : k + most] for k in range(0, len(things), most)]
    return tuple(
        Picture(name if k == 0 else f"{name}_{k + 1}", lambda page=page: make(page))  # type: ignore[misc]
        for k, page in enumerate(pages)
    )
