"""Checks of results that somebody hands in: everything in them that can be made again is.

Code of a submission is never run, and nothing of it is trusted: it is data.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple

import h5py

from hambench.compose import compose
from hambench.config import ScoreOptions
from hambench.data.task import Task
from hambench.errors import DataError, HambenchError, RegistryError
from hambench.leaderboard.ranking import impossible, settings_of
from hambench.leaderboard.runs import Run, read_runs
from hambench.registry import load_task
from hambench.reproduce import parse_command
from hambench.rescore import Request, score_file
from hambench.results import Metric, Result
from hambench.rundir import PREDICTIONS
from hambench.scoring import METRICS, Score
from hambench.scoring.energy_table import ENERGIES
from hambench.scoring.predictions import is_predictions
from hambench.scoring.score_table import ScoreTable
from hambench.scoring.summary import scores_of

_EXACT: Final = 1e-6  # relative difference that other libraries and processors make
_ROUNDED: Final = 3e-6  # Eh, of predictions kept in float32, beside 1 %
_COARSE: Final = 1e-2


class Finding(NamedTuple):
    """One thing a check found: ``ok``, a ``warning`` for readers, or an ``error`` to refuse."""

    level: Literal["ok", "warning", "error"]
    text: str


@dataclass(frozen=True)
class Checked:
    """One result with all findings, in the order they were made."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return all(finding.level != "error" for finding in self.findings)


def check(paths: Iterable[str | os.PathLike[str]], data: Path | None = None) -> list[Checked]:
    """Check results, each by itself, then seeds of one model against each other.

    Args:
        paths: ``result.json`` files, run directories, or folders above them.
        data: where data of the tasks are; None: where tasks look by themselves.

    Raises:
        DataError: a path that does not exist, or no result anywhere.
    """
    found = read_runs(paths)
    if not found.runs and not found.left_out:
        raise DataError("there is no finished run among these; a submission is of results")
    made = [Checked(name, (Finding("error", why),)) for name, why in found.left_out]
    twins, copies = _twins(found.runs), _copies(found.runs)
    for run in found.runs:
        findings = [finding for step in _STEPS for finding in _guarded(step, run, data)]
        others = (*twins.get(run.name, ()), *copies.get(run.name, ()))
        made.append(Checked(run.name, (*findings, *others)))
    return sorted(made, key=lambda one: one.name)


Step = Callable[[Run, Path | None], Iterator[Finding]]


def _guarded(step: Step, run: Run, data: Path | None) -> Iterator[Finding]:
    """The findings of a step; what it cannot do is an error of the submission."""
    try:
        yield from step(run, data)
    except HambenchError as error:
        yield Finding("error", str(error))


def _says_what_it_is(run: Run, data: Path | None) -> Iterator[Finding]:
    """Schema, and who hands it in."""
    yield Finding("ok", "follows the schema")
    if run.submission is not None:
        yield Finding("ok", f"handed in by {', '.join(run.submission.authors)}")


def _is_of_the_task(run: Run, data: Path | None) -> Iterator[Finding]:
    """Version, data, split, metrics and units of the task that it names."""
    result, task = run.result, _task(run.result, data)
    if result.task_version != task.version:
        yield Finding(
            "error",
            f"it is of {task.name} v{result.task_version}, the task is at v{task.version}; run it "
            "again",
        )
    if result.primary != task.metrics[0]:
        yield Finding(
            "error", f"its primary metric is '{result.primary}', that of the task {task.metrics[0]}"
        )
    for name, metric in result.metrics.items():
        if name not in METRICS:
            yield Finding("warning", f"'{name}' is a metric that this hambench does not know")
        elif reason := impossible(METRICS[name], metric):
            yield Finding("error", f"'{name}' {reason}")
    if result.split not in task.splits:
        yield Finding("error", f"'{task.name}' has no split '{result.split}'")
    if not task.available:
        yield Finding(
            "warning", f"the data of '{task.name}' are not here: rows and fingerprint not compared"
        )
    elif result.fingerprint != task.fingerprint:
        yield Finding(
            "error",
            f"its data are not those here: fingerprints {result.fingerprint:.12}, "
            f"{task.fingerprint:.12}",
        )
    else:
        yield Finding("ok", "is of the data that are here")


def _kept_to_the_protocol(run: Run, data: Path | None) -> Iterator[Finding]:
    """Budget, pretraining data, and code."""
    result = run.result
    budget = _task(result, data).protocol.max_steps
    if budget is not None and result.cost.steps > budget:
        yield Finding("warning", f"{result.cost.steps:,} steps, the task's budget is {budget:,}")
    before = result.pretraining
    if before is not None:
        audit = before.audit
        seen = audit.same_geometries or (audit.unseen == "molecules" and audit.same_molecules)
        if seen:
            yield Finding("error", f"its pretraining saw {seen} of {audit.scored} scored molecules")
    if result.provenance.dirty:
        yield Finding("warning", "its code had changes that are in no commit")


def _composes(run: Run, data: Path | None) -> Iterator[Finding]:
    """Whether its command line is that of the cell it says it is."""
    result = run.result
    if not result.reproduce:
        yield Finding("warning", "it has no command that runs it again")
        return
    try:
        config = compose(parse_command(result.reproduce))
    except RegistryError as error:
        yield Finding("warning", f"its command is of something that is not here: {error}")
        return
    if config.run_id != result.run_id:
        yield Finding(
            "error",
            f"its command ({result.reproduce:.200}) is that of cell {config.run_id[:8]}, not of "
            f"{result.run_id:.8}, with the presets that are here",
        )
    elif config.seed != result.seed or config.model["name"] != result.preset:
        yield Finding("error", "seed or preset of its command are not those it states")
    else:
        yield Finding("ok", "its command composes this cell")


def _scores_agree(run: Run, data: Path | None) -> Iterator[Finding]:
    """Metrics against the scores of every molecule that lie beside the result."""
    if isinstance(run.scores, DataError):
        yield Finding("warning", f"no paired tests: {run.scores}")
        return
    known = [name for name in run.result.metrics if name in run.scores.settings]
    yield from _compared(
        "scores of every molecule", run.result, _scored(run.scores, known), _EXACT, 0.0
    )


def _predictions_agree(run: Run, data: Path | None) -> Iterator[Finding]:
    """Metrics against those of the predictions that lie beside the result."""
    result, task = run.result, _task(run.result, data)
    kept = [run.folder / name for name in (PREDICTIONS, ENERGIES)]
    given = next((path for path in kept if path.is_file()), None)
    if given is None or not task.available:
        why = "no predictions are given" if given is None else f"no data of '{task.name}' here"
        yield Finding("warning", f"metrics not computed again: {why}")
        return
    cheap = [name for name in result.metrics if name in METRICS and _is_cheap(name)]
    request = Request(
        task=result.task,
        data=data,
        split=None if result.variant == task.spec.variant else result.variant,
        score=ScoreOptions(split=result.split, metrics=cheap),
    )
    rounded = _is_rounded(given)
    limits = (_COARSE, _ROUNDED) if rounded else (_EXACT, 0.0)
    yield from _compared(
        f"predictions in {given.name}",
        result,
        score_file(given, request, progress=False).scores,
        *limits,
    )
    dear = [name for name in result.metrics if name not in cheap and name in METRICS]
    dear = [name for name in dear if not METRICS[name].alarm]
    if dear:
        yield Finding("warning", f"not computed again: {', '.join(dear)}")


_STEPS: Final[Sequence[Step]] = (
    _says_what_it_is,
    _is_of_the_task,
    _kept_to_the_protocol,
    _composes,
    _scores_agree,
    _predictions_agree,
)


def _twins(runs: Sequence[Run]) -> Mapping[str, list[Finding]]:
    """Results of one model and seed that are there more than once."""
    cells: dict[tuple[object, ...], list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        kind = r.preset, settings_of(r)
        cells[r.task, r.fingerprint, r.split, r.training_split, kind, r.seed].append(run)
    return {
        run.name: [Finding("error", f"seed {run.result.seed} of this model is in {twin} too")]
        for same in cells.values()
        for run in same
        for twin in [next((other.name for other in same if other is not run), None)]
        if twin is not None
    }


def _copies(runs: Sequence[Run]) -> Mapping[str, list[Finding]]:
    """Results of several seeds whose scores of molecules are the very same."""
    known: dict[tuple[object, ...], Run] = {}
    found: dict[str, list[Finding]] = {}
    for run in runs:
        r, scores = run.result, run.scores
        if isinstance(scores, DataError) or not r.parameters:  # without weights seeds are equal
            continue
        same = r.model, r.preset, r.task, r.fingerprint, r.split, r.training_split, r.strategy
        first = known.setdefault((*same, scores.terms.tobytes()), run)
        if first.result.seed != r.seed:
            said = f"its molecules have the very scores of {first.name}, which is of another seed"
            found[run.name] = [Finding("error", said)]
    return found


def _task(result: Result, data: Path | None) -> Task:
    task = load_task(result.task, data)
    variant = result.variant
    return task if variant == task.spec.variant else load_task(result.task, data, split=variant)


def _scored(table: ScoreTable, names: Sequence[str]) -> Mapping[str, Score]:
    return scores_of(table, names) if names else {}


def _compared(
    what: str, result: Result, again: Mapping[str, Score], relative: float, absolute: float
) -> Iterator[Finding]:
    """Metrics of a result against others of the same names."""
    wrong = [
        f"{name} is {_said(result.metrics.get(name))}, by the {what} {_said(score)}"
        for name, score in again.items()
        if not _agree(result.metrics.get(name), score, relative, absolute)
    ]
    yield from (Finding("error", text) for text in wrong)
    if again and not wrong:
        yield Finding("ok", f"{len(again)} metrics agree with the {what}")


def _agree(metric: Metric | None, score: Score, relative: float, absolute: float) -> bool:
    if metric is None or metric.n != score.n or (metric.ci95 is None) != (score.ci95 is None):
        return False
    mine = [metric.value, *(metric.ci95 or ())]
    its = [score.value, *(score.ci95 or ())]
    scale = max(map(abs, its))
    return all(abs(a - b) <= relative * scale + absolute for a, b in zip(mine, its, strict=True))


def _said(score: Metric | Score | None) -> str:
    if score is None:
        return "not in it"
    ends = "" if score.ci95 is None else f" [{score.ci95[0]:.7g}, {score.ci95[1]:.7g}]"
    return f"{score.value:.7g}{ends} (n {score.n})"


def _is_cheap(name: str) -> bool:
    """Whether a metric needs no more than predictions and labels."""
    m = METRICS[name]
    return not (m.needs_theory or m.needs_turned or m.needs_cutoff or m.sample or m.alarm)


def _is_rounded(path: Path) -> bool:
    """Whether predictions were kept in less than float64."""
    if not is_predictions(path):
        return False
    with h5py.File(path, "r", locking=False) as file:
        return file["values"].dtype.itemsize < 8 if "values" in file else False
