"""From runs of energy tasks to learning curves: what was tested on the same molecules, as lines.

A line is a preset with a strategy; along it the training set grows. Settings that go along with
the training set, such as a budget in epochs or pretraining on the same molecules, stay one line;
settings that compete on one training set make a line each.
"""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Final, Literal

import numpy as np
import yaml
from numpy.typing import NDArray

from hambench.errors import DataError
from hambench.leaderboard.gains import Arm
from hambench.leaderboard.ranking import digest, training
from hambench.leaderboard.runs import find_files, find_results
from hambench.results import RESULT, STATUS, Result, read_result, read_status
from hambench.scoring.energy_table import ENERGIES, EnergyRow, read_energies
from hambench.scoring.statistics import cluster_sums
from hambench.units import HARTREE_EV

ErrorMetric = Literal["energy_mae", "energy_mae_per_atom"]
METRICS: Final[dict[ErrorMetric, str]] = {
    "energy_mae": "meV per molecule",
    "energy_mae_per_atom": "meV per atom",
}
"""Metrics of a curve, and the unit it shows them in."""

CONFIG: Final = "config.yaml"
_AGREE: Final = 1e-9  # relative difference of a mean from the same rows, summed in another order


@dataclass(frozen=True)
class Run:
    """One finished energy run.

    Attributes:
        name: what it goes by in messages.
        folder: its run directory.
        result: its ``result.json``.
        train, test: its rows of ``energies.csv``, sorted by id.
    """

    name: str
    folder: Path
    result: Result
    train: tuple[EnergyRow, ...]
    test: tuple[EnergyRow, ...]

    @property
    def trained_on(self) -> tuple[str, str]:
        """Task and split of the training set."""
        return self.result.task, self.result.training_split

    @cached_property
    def settings(self) -> str:
        """Digest of everything that was chosen but the seed."""
        return digest(self.architecture, training(self.result))

    @property
    def architecture(self) -> list[Any]:
        """What makes another model of it."""
        return [self.result.model, self.result.hyperparameters]

    @cached_property
    def tested(self) -> str:
        """Digest of the rows it was tested on, with their labels."""
        return digest([[row.id, row.group, row.atoms, row.label] for row in self.test])

    def errors(self, metric: ErrorMetric, rows: Sequence[EnergyRow]) -> NDArray[np.float64]:
        """(n,) absolute errors of rows in meV; NaN where a prediction failed."""
        found = np.array([abs(row.prediction - row.label) for row in rows])
        if metric == "energy_mae_per_atom":
            found /= np.array([row.atoms for row in rows])
        return 1000 * HARTREE_EV * found

    def error(self, metric: ErrorMetric) -> float:
        """Mean absolute error on the test split, meV."""
        return float(self.errors(metric, self.test).mean())

    def train_error(self, metric: ErrorMetric) -> float | None:
        """The same on the training split; None where a prediction of it failed."""
        found = float(self.errors(metric, self.train).mean())
        return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Point:
    """The runs of one line on one training set, a seed each, by seed."""

    runs: tuple[Run, ...]

    @property
    def first(self) -> Result:
        """The result with the least seed."""
        return self.runs[0].result

    @property
    def molecules(self) -> int:
        """How many different molecules it was trained on."""
        assert self.first.training_molecules is not None  # `_load` has seen to it
        return self.first.training_molecules

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, ascending."""
        return tuple(run.result.seed for run in self.runs)

    def error(self, metric: ErrorMetric) -> float:
        """Mean over seeds of the test error, meV."""
        return fmean(run.error(metric) for run in self.runs)

    def train_error(self, metric: ErrorMetric) -> float | None:
        """Mean over seeds of the training error, meV; None where a seed has none."""
        found = [error for run in self.runs if (error := run.train_error(metric)) is not None]
        return fmean(found) if len(found) == len(self.runs) else None

    def arm(self, metric: ErrorMetric) -> Arm:
        """Its errors summed over the rows of each test molecule."""
        rows = np.stack([run.errors(metric, run.test) for run in self.runs], axis=1)
        return Arm(self.seeds, cluster_sums(rows, [row.group for row in self.runs[0].test]).T)


@dataclass(frozen=True)
class Line:
    """One preset with one strategy.

    Attributes:
        preset, strategy: their names.
        settings: 8 hexadecimal digits where several lines share these names, else empty.
        points: by the size of their training sets.
    """

    preset: str
    strategy: str
    settings: str
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """What it is called."""
        return " ".join(filter(None, (self.preset, self.strategy, self.settings)))


@dataclass(frozen=True)
class Study:
    """Lines that were tested on the very same rows, with the same labels.

    Attributes:
        tasks: names; several where tasks share their test rows.
        version, source, split: of them all.
        lines: by preset, strategy (direct first) and settings.
    """

    tasks: tuple[str, ...]
    version: int
    source: str
    split: str
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """Task and version."""
        return f"{', '.join(self.tasks)} v{self.version}"

    @property
    def test(self) -> tuple[EnergyRow, ...]:
        """The rows of the test split, as one of the runs predicted them."""
        return self.lines[0].points[0].runs[0].test

    @cached_property
    def rows(self) -> NDArray[np.float64]:
        """(C,) rows of each test molecule."""
        return cluster_sums(np.ones((len(self.test), 1)), [row.group for row in self.test])[:, 0]


@dataclass(frozen=True)
class Curves:
    """All studies, and the runs that are in none with the reason why."""

    studies: tuple[Study, ...]
    left_out: tuple[tuple[str, str], ...]


def collect_curves(paths: Iterable[str | os.PathLike[str]]) -> Curves:
    """Read the runs of energy tasks at or below ``paths``.

    Runs of Hamiltonian tasks, such as the pretraining ones, are passed over. Energy runs that are
    not finished or cannot be read are listed as left out.

    Args:
        paths: folders that hold run directories.

    Raises:
        DataError: a path that does not exist, or no energy run that can be used.
    """
    given = [Path(path) for path in paths]
    runs: list[Run] = []
    left_out = _unfinished(given)
    for name, path in sorted(find_results(given).items()):
        try:
            result = read_result(path)
            if result.strategy is not None:
                runs.append(_load(name, path.parent, result))
        except DataError as error:
            left_out.append((name, str(error).replace(f"{path.parent}{os.sep}", "")))
    kept, superseded = _last_of_each_cell(runs)
    left_out = sorted(left_out + superseded)
    if not kept:
        raise DataError(_nothing(given, left_out))
    return Curves(tuple(_studies(kept)), tuple(left_out))


def _load(name: str, folder: Path, result: Result) -> Run:
    """A run whose table of energies is whole and says the same as its result."""
    if result.training_rows is None or result.training_molecules is None:
        raise DataError(f"{RESULT} does not say how many molecules it was trained on; run it anew")
    table = sorted(read_energies(folder / ENERGIES), key=lambda row: row.id)
    train = tuple(row for row in table if row.split == result.training_split)
    test = tuple(row for row in table if row.split == result.split)
    run = Run(name, folder, result, train, test)
    if not test or len(train) != result.training_rows:
        raise DataError(
            f"{ENERGIES} has {len(train)} rows of '{result.training_split}' and {len(test)} of "
            f"'{result.split}', {RESULT} says {result.training_rows} and some; run it anew"
        )
    failed = sum(not math.isfinite(row.prediction) for row in test)
    if failed:
        raise DataError(
            f"{failed} of {len(test)} test predictions failed; a mean over the others cannot be "
            "compared"
        )
    for metric in METRICS:
        stated, found = result.metrics.get(metric), run.error(metric)
        if stated and not math.isclose(
            1000 * HARTREE_EV * stated.value, found, rel_tol=_AGREE, abs_tol=_AGREE
        ):
            raise DataError(
                f"{ENERGIES} gives {metric} = {found:.6g} meV, {RESULT} "
                f"{1000 * HARTREE_EV * stated.value:.6g} meV; run it anew"
            )
    if run.error("energy_mae") == 0:
        raise DataError("its test error is exactly zero, which has no logarithm and no ratio")
    return run


def _unfinished(given: Sequence[Path]) -> list[tuple[str, str]]:
    """Runs of energy tasks that were begun and have no result."""
    lost = []
    folders = [path for path in given if path.is_dir() or not path.exists()]
    for name, path in find_files(folders, STATUS).items():
        if (path.parent / RESULT).exists() or not _has_strategy(path.parent / CONFIG):
            continue
        try:
            status = read_status(path)
            why = ": ".join(filter(None, (f"{status.state} at step {status.step}", status.reason)))
        except DataError as error:
            why = str(error).replace(f"{path.parent}{os.sep}", "")
        lost.append((name, f"no {RESULT}: {why}"))
    return lost


def _has_strategy(config: Path) -> bool:
    """Whether a run is known to be of an energy task."""
    try:
        content = yaml.safe_load(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return False
    return isinstance(content, dict) and content.get("strategy") is not None


def _last_of_each_cell(runs: Iterable[Run]) -> tuple[list[Run], list[tuple[str, str]]]:
    """One run per settings, training set and seed: the one that finished last."""
    cells: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        data = (r.task_version, r.source, r.fingerprint, r.split, run.tested, *run.trained_on)
        cells[*data, r.preset, run.settings, r.seed].append(run)
    kept, superseded = [], []
    for candidates in cells.values():
        *earlier, last = sorted(
            candidates, key=lambda run: (run.result.provenance.finished, run.name)
        )
        kept.append(last)
        superseded += [(run.name, _superseded(run, last)) for run in earlier]
    return kept, superseded


def _superseded(run: Run, by: Run) -> str:
    mine, its = run.result.pretraining, by.result.pretraining
    another = ""
    if mine and its and mine.run_id != its.run_id:
        another = f" (with another pretraining: {its.steps:,} steps, not {mine.steps:,})"
    return f"{by.name} is the same cell{another}, finished later"


def _studies(runs: Sequence[Run]) -> list[Study]:
    """Runs by what they were tested on.

    Tasks that share their test rows are one study, unless one of them comes with several data.
    """
    groups: dict[tuple[Any, ...], list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        groups[r.task_version, r.source, r.split, run.tested].append(run)
    studies = []
    for (version, source, split, _), members in groups.items():
        data = {(run.result.task, run.result.fingerprint) for run in members}
        tasks = {task for task, _ in data}
        if len(tasks) == len(data):
            parts = [members]
        else:
            parts = [[r for r in members if r.result.fingerprint == f] for _, f in sorted(data)]
        for part in parts:
            names = tuple(sorted({run.result.task for run in part}))
            studies.append(Study(names, version, source, split, tuple(_lines(part))))
    return sorted(studies, key=lambda s: (s.tasks, s.version, s.source, s.split, s.test))


def _lines(runs: Iterable[Run]) -> list[Line]:
    families: dict[tuple[str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        assert run.result.strategy is not None
        key = (run.result.preset, run.result.strategy, digest(run.architecture))
        families[key].append(run)
    found = []
    for (preset, strategy, architecture), members in families.items():
        for procedure, line in _without_competition(members).items():
            settings = digest(architecture, procedure)
            found.append(Line(preset, strategy, settings, _points(line)))
    names = [(line.preset, line.strategy) for line in found]
    shown = [
        Line(n[0], n[1], line.settings if names.count(n) > 1 else "", line.points)
        for n, line in zip(names, found, strict=True)
    ]
    return sorted(shown, key=lambda x: (x.preset, x.strategy != "direct", x.strategy, x.settings))


def _without_competition(runs: Sequence[Run]) -> Mapping[str, list[Run]]:
    """All runs as one line, or by settings where several settings share a training set."""
    settings: dict[tuple[str, str], set[str]] = defaultdict(set)
    for run in runs:
        settings[run.trained_on].add(run.settings)
    if all(len(some) == 1 for some in settings.values()):
        return {"": list(runs)}
    lines: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        lines[run.settings].append(run)
    return lines


def _points(runs: Iterable[Run]) -> tuple[Point, ...]:
    sets: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for run in runs:
        sets[run.trained_on].append(run)
    points = [Point(tuple(sorted(some, key=lambda run: run.result.seed))) for some in sets.values()]
    return tuple(sorted(points, key=lambda p: (p.molecules, p.runs[0].trained_on)))


def _nothing(given: Sequence[Path], left_out: Sequence[tuple[str, str]]) -> str:
    where = ", ".join(map(str, given))
    if left_out:
        name, reason = left_out[0]
        return (
            f"none of {len(left_out)} energy runs in {where} is usable; the first, {name}: {reason}"
        )
    return (
        f"no run of an energy task in {where}; make some with `hambench run "
        "task=organic_mini_energy model=helm_small strategy=finetuned`"
    )
