"""Finding runs, finished or not, and reading what they left."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from hambench.errors import DataError
from hambench.leaderboard.submitted import Submission, Submissions
from hambench.results import RESULT, STATUS, Result, Status, read_result, read_status
from hambench.scoring import METRICS
from hambench.scoring.energy_table import ENERGIES, read_energies, score_table
from hambench.scoring.score_table import SCORES, ScoreTable, read_scores

CONFIG: Final = "config.yaml"
_BUDGET: Final = ("precision", "max_steps", "max_minutes")  # said beside a recipe, they replace its


@dataclass(frozen=True)
class Run:
    """A finished cell.

    Attributes:
        name: what it goes by: the given folder's name, and the path of the run below it.
        folder: where its ``result.json`` is, and what else it left.
        result: that file.
        scores: of every molecule; or why there are none that can be used.
        submission: who handed it in; None where nothing says so.
    """

    name: str
    folder: Path
    result: Result
    scores: ScoreTable | DataError = field(repr=False)
    submission: Submission | None = None

    @property
    def usable_scores(self) -> ScoreTable:
        """The scores; DataError where there are none."""
        if isinstance(self.scores, DataError):
            raise DataError(f"{self.name}: {self.scores}")
        return self.scores


@dataclass(frozen=True)
class Unfinished:
    """A cell that was begun and has no result.

    Attributes:
        name: as that of a `Run`.
        status: how far it is, and why it stopped.
        cell: its ``config.yaml``, if that can be read; its content is unchecked.
    """

    name: str
    status: Status
    cell: Mapping[str, Any]

    def said(self, section: str) -> str:
        """Name of its task or model; empty where it is not known."""
        found = self.cell.get(section)
        return str(found.get("name", "")) if isinstance(found, Mapping) else ""

    @property
    def seed(self) -> object:
        """Its seed; None where it is not known."""
        return self.cell.get("seed")

    def is_seed_of(self, result: Result) -> bool:
        """Whether it differs from a finished run in nothing but the seed, as far as is known."""
        model, recipe = self.cell.get("model"), self.cell.get("recipe")
        if not isinstance(model, Mapping) or not isinstance(recipe, Mapping):
            return False
        given = {key: self.cell[key] for key in _BUDGET if self.cell.get(key) is not None}
        chosen = model.get("hyperparameters")
        known = result.hyperparameters
        return (
            self.said("task") == result.task
            and self.said("model") == result.preset
            and self.cell.get("strategy") == result.strategy
            and {**recipe, **given} == result.recipe
            and isinstance(chosen, Mapping)
            and all(known.get(key) == value for key, value in chosen.items())
        )


@dataclass(frozen=True)
class Found:
    """Everything below some folders; ``left_out`` is what cannot be read: (name, reason)."""

    runs: tuple[Run, ...]
    unfinished: tuple[Unfinished, ...]
    left_out: tuple[tuple[str, str], ...]


def read_runs(paths: Iterable[str | os.PathLike[str]]) -> Found:
    """All runs at or below some paths, by name.

    Args:
        paths: ``result.json`` files, run directories, or folders above them.

    Raises:
        DataError: a path that does not exist, or neither a result nor a run anywhere.
    """
    given = [Path(path) for path in paths]
    results = find_files(given, RESULT)
    statuses = find_files(filter(Path.is_dir, given), STATUS)
    if not results and not statuses:
        raise _nothing_in(given)
    runs, unfinished, submissions = [], [], Submissions()
    left_out: list[tuple[str, str]] = []
    for name, path in sorted(results.items()):
        try:
            result, submission = read_result(path), submissions.of(path.parent)
        except DataError as error:
            left_out.append((name, str(error).replace(str(path), RESULT)))
        else:
            known_as, scores = name.removesuffix(f"/{RESULT}"), _scores(path, result)
            runs.append(Run(known_as, path.parent, result, scores, submission))
    for name, path in sorted(statuses.items()):
        if (path.parent / RESULT).exists():
            continue
        try:
            status = read_status(path)
        except DataError as error:
            left_out.append((name, str(error).replace(str(path), STATUS)))
        else:
            known_as = name.removesuffix(f"/{STATUS}")
            unfinished.append(Unfinished(known_as, status, _config(path.parent / CONFIG)))
    return Found(tuple(runs), tuple(unfinished), tuple(left_out))


def scores_of(path: Path, result: Result) -> ScoreTable:
    """The scores of every molecule beside a ``result.json``.

    Raises:
        DataError: there are none, or they cannot be read or are of other data than the result.
    """
    file = path.parent / SCORES
    if not file.is_file():
        if (path.parent / ENERGIES).is_file():
            return energy_scores(path.parent / ENERGIES, result)
        raise DataError(f"no {SCORES} (`hambench evaluate RUN_DIR` writes it)")
    try:
        table = read_scores(file)
    except DataError as error:
        raise DataError(f"{error}; `hambench evaluate {path.parent}` writes it anew") from error
    for key in ("task", "task_version", "fingerprint", "split"):
        if getattr(table, key) != getattr(result, key):
            raise DataError(
                f"{file} is of {key} {getattr(table, key)!s:.24}, {RESULT} beside it of "
                f"{getattr(result, key)!s:.24}; `hambench evaluate {path.parent}` writes it anew"
            )
    return table


def energy_scores(path: Path, result: Result) -> ScoreTable:
    """Scores of every molecule of a run on energies, from its ``energies.csv``.

    Raises:
        DataError: it cannot be read, or has no row of the scored split.
    """
    known = [name for name in result.metrics if name in METRICS and METRICS[name].of == "energy"]
    table = score_table(
        read_energies(path),
        known,
        task=result.task,
        task_version=result.task_version,
        fingerprint=result.fingerprint,
        split=result.split,
    )
    if not table.ids:
        raise DataError(f"{path} has no row of split '{result.split}'; restore it")
    return table


def find_results(paths: Iterable[str | os.PathLike[str]]) -> dict[str, Path]:
    """Result files as `find_files` names them; DataError if there is none, or no such path."""
    given = [Path(path) for path in paths]
    found = find_files(given, RESULT)
    if not found:
        raise _nothing_in(given)
    return found


def find_files(given: Iterable[Path], name: str) -> dict[str, Path]:
    """Files called ``name`` by the name they go by: the given folder, and their path below it.

    Not the absolute path, so that a moved tree gives the same page. A file that is given itself is
    taken whatever it is called.

    Raises:
        DataError: a path that does not exist.
    """
    found: dict[str, Path] = {}
    seen: set[object] = set()
    for root in given:
        if not root.exists():
            raise DataError(f"there is no {root}; give folders that hold runs")
        base = root if root.is_dir() else root.parent
        home = base.resolve().name
        for file in _files(root, name) if root.is_dir() else [root]:
            if _identity(file) in seen:
                continue
            seen.add(_identity(file))
            known_as = (Path(home) / file.relative_to(base)).as_posix()
            while known_as in found:  # two roots with the same tree below
                known_as += "'"
            found[known_as] = file
    return found


def _identity(file: Path) -> object:
    """What tells a file from others, by whatever path it was found; of a broken link, the path."""
    try:
        there = file.stat()
    except OSError:
        return file
    return there.st_dev, there.st_ino


def _files(root: Path, name: str) -> list[Path]:
    """Files of that name at or below a folder, sorted."""
    return sorted(
        Path(folder) / name
        for folder, folders, files in os.walk(root)
        if name in files or name in folders  # which whoever reads it refuses
    )


def _nothing_in(given: Iterable[Path]) -> DataError:
    where = ", ".join(map(str, given)) or "no folder at all"
    return DataError(f"no {RESULT} in {where}; a run writes it when it is finished")


def _scores(path: Path, result: Result) -> ScoreTable | DataError:
    """Scores of a run, or why it is ranked without, said without the place of the folder."""
    try:
        return scores_of(path, result)
    except DataError as error:
        return DataError(str(error).replace(str(path.parent), path.parent.name))


def _config(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_bytes())
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
