"""Finding the results, and writing what becomes of them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hambench.errors import DataError
from hambench.files import atomic_write
from hambench.leaderboard.page import page
from hambench.leaderboard.ranking import Ranking, rank
from hambench.leaderboard.reported import reported_table
from hambench.leaderboard.tables import NOTE, Table, ranking_table
from hambench.leaderboard.text import markdown
from hambench.results import RESULT, Result, read_result
from hambench.scoring.score_table import SCORES, ScoreTable, read_scores


@dataclass(frozen=True)
class Board:
    """All rankings, and the results that are in none with the reason why.

    Attributes:
        rankings: one per task, version, data and split.
        left_out: (result, reason), both text.
    """

    rankings: tuple[Ranking, ...]
    left_out: tuple[tuple[str, str], ...]

    @property
    def tables(self) -> list[Table]:
        """The rankings, then what was published for the tasks in them."""
        tasks = dict.fromkeys(ranking.task for ranking in self.rankings)
        published = [table for task in tasks if (table := reported_table(task)) is not None]
        return [*map(ranking_table, self.rankings), *published]


def collect(paths: Iterable[str | os.PathLike[str]]) -> Board:
    """Read and rank all results at or below ``paths``.

    A result that cannot be read or ranked does not stop the others: it is listed as left out.

    Args:
        paths: ``result.json`` files, run directories, or folders above them.

    Raises:
        DataError: a path that does not exist, or no result anywhere that can be ranked.
    """
    results: dict[str, Result] = {}
    scores: dict[str, ScoreTable | DataError] = {}
    left_out: list[tuple[str, str]] = []
    for name, path in sorted(find_results(paths).items()):
        try:
            results[name] = read_result(path)
        except DataError as error:
            left_out.append((name, str(error).replace(str(path), RESULT)))
            continue
        try:
            scores[name] = scores_of(path, results[name])
        except DataError as error:  # it is ranked without, which its table says
            scores[name] = DataError(str(error).replace(str(path.parent), path.parent.name))
    rankings, unranked = rank(results, scores)
    if not rankings:
        name, reason = (left_out + unranked)[0]
        raise DataError(
            f"none of {len(left_out) + len(unranked)} results can be ranked; the first, {name}: "
            f"{reason}"
        )
    return Board(tuple(rankings), tuple(sorted(left_out + unranked)))


def write(board: Board, folder: str | os.PathLike[str]) -> list[Path]:
    """Write ``leaderboard.md`` and ``index.html`` in ``folder``; same board, same bytes.

    Raises:
        RunError: the folder cannot be written, or the disk is full.
    """
    contents = {
        "leaderboard.md": markdown("Leaderboard", NOTE, board.tables, board.left_out),
        "index.html": page(board.tables, board.left_out),
    }
    written = []
    for name, content in contents.items():
        with atomic_write(Path(folder) / name) as file:
            file.write(content)
        written.append(Path(folder) / name)
    return written


def build(paths: Iterable[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> list[Path]:
    """`collect` and `write` in one."""
    return write(collect(paths), folder)


def scores_of(path: Path, result: Result) -> ScoreTable:
    """The scores of every molecule beside a ``result.json``.

    Raises:
        DataError: there are none, or they cannot be read or are of other data than the result.
    """
    file = path.parent / SCORES
    if not file.is_file():
        raise DataError(
            f"{path.parent} has no {SCORES}, the scores of every molecule; "
            f"`hambench evaluate {path.parent}` writes it"
        )
    try:
        table = read_scores(file)
    except DataError as error:
        raise DataError(f"{error}; `hambench evaluate {path.parent}` writes it anew") from error
    for field in ("task", "task_version", "fingerprint", "split"):
        if getattr(table, field) != getattr(result, field):
            raise DataError(
                f"{file} is of {field} {getattr(table, field)!s:.24}, {RESULT} beside it of "
                f"{getattr(result, field)!s:.24}; `hambench evaluate {path.parent}` writes it anew"
            )
    return table


def find_results(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Result files as `find_files` names them; DataError if there is none, or no such path."""
    given = [Path(path) for path in paths]
    found = find_files(given, RESULT)
    if not found:
        where = ", ".join(map(str, given)) or "no folder at all"
        raise DataError(f"no {RESULT} in {where}; a run writes it when it is finished")
    return found


def find_files(given: Iterable[Path], name: str) -> dict[str, Path]:
    """Files called ``name`` by the name they go by: the given folder, and their path below it.

    Not the absolute path, so that a moved tree gives the same page. A file that is given itself is
    taken whatever it is called.

    Raises:
        DataError: a path that does not exist.
    """
    found: dict[str, Path] = {}
    seen: set[Path] = set()
    for root in given:
        if not root.exists():
            raise DataError(f"there is no {root}; give folders that hold runs")
        files = sorted(root.rglob(name)) if root.is_dir() else [root]
        for file in files:
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            base = root if root.is_dir() else root.parent
            known_as = (Path(base.resolve().name) / file.relative_to(base)).as_posix()
            while known_as in found:  # two roots with the same tree below
                known_as += "'"
            found[known_as] = file
    return found
