"""Grouping results that may be compared, averaging seeds, and ranking."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from hambench.errors import DataError, HambenchError
from hambench.results import Result
from hambench.scoring import FAILURES, METRICS
from hambench.scoring.pairs import differences, standings
from hambench.scoring.panel import panel
from hambench.scoring.score_table import ScoreTable

_DESCRIPTIVE = ("name", "title", "source")  # words in a recipe that change no number


@dataclass(frozen=True)
class Summary:
    """One metric over the seeds of an entry.

    Attributes:
        value: mean over seeds.
        ci95: means of the ends of the seeds' intervals over test molecules, None if one has none.
        spread: sample standard deviation over seeds (n - 1), None for a single seed.
        n: molecules scored, the least of the seeds.
    """

    value: float
    ci95: tuple[float, float] | None
    spread: float | None
    n: int


@dataclass(frozen=True)
class Entry:
    """One model with one set of settings: its results, a seed each.

    Attributes:
        settings: 8 hexadecimal digits that tell settings of one preset apart.
        results: sorted by seed.
        names: what each goes by in messages.
    """

    settings: str
    results: tuple[Result, ...]
    names: tuple[str, ...]

    @property
    def preset(self) -> str:
        """Name of the model preset."""
        return self.results[0].preset

    @property
    def label(self) -> str:
        """What it is called: the preset, and the strategy of a model of energies."""
        return " ".join(filter(None, (self.preset, self.results[0].strategy)))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Its seeds, ascending."""
        return tuple(result.seed for result in self.results)

    @cached_property
    def failure_rate(self) -> float:
        """Mean share of test molecules without a usable prediction."""
        found = (result.metrics.get(FAILURES) for result in self.results)
        return fmean(metric.value if metric else 0.0 for metric in found)

    @property
    def failures(self) -> tuple[int, ...]:
        """How many test molecules have no usable prediction, for each seed."""
        found = (result.metrics.get(FAILURES) for result in self.results)
        return tuple(round(metric.value * metric.n) if metric else 0 for metric in found)

    def summary(self, name: str) -> Summary | None:
        """A metric over the seeds; None unless all seeds have it."""
        found = [result.metrics[name] for result in self.results if name in result.metrics]
        if len(found) < len(self.results):
            return None
        intervals = [metric.ci95 for metric in found if metric.ci95 is not None]
        values = [metric.value for metric in found]
        return Summary(
            value=fmean(values),
            ci95=(fmean(low for low, _ in intervals), fmean(high for _, high in intervals))
            if len(intervals) == len(found)
            else None,
            spread=stdev(values) if len(values) > 1 else None,
            n=min(metric.n for metric in found),
        )


@dataclass(frozen=True)
class Ranking:
    """Entries that were scored on the very same data, best first.

    Attributes:
        task, version, fingerprint, source, split: what they were scored on.
        training_split: what they were trained on.
        metric: the primary metric, by which they are ranked.
        entries: (rank, entry); equal ranks are statistical ties, None is unranked: a model that
            failed on some molecules has no comparable mean.
        ties: a text of letters for each entry, empty for an unranked one: ranked entries that share
            a letter do not differ significantly. None where the scores of every molecule do not
            allow a test; ranks then are equal where intervals overlap.
        untested: why they do not, in words; empty where they do, or there is nothing to test.
    """

    task: str
    version: int
    fingerprint: str
    source: str
    split: str
    training_split: str
    metric: str
    entries: tuple[tuple[int | None, Entry], ...]
    ties: tuple[str, ...] | None
    untested: str


def rank(
    results: Mapping[str, Result], scores: Mapping[str, ScoreTable | DataError]
) -> tuple[list[Ranking], list[tuple[str, str]]]:
    """Rankings of all results, and those left out as (name, reason).

    Never mixed are tasks, task versions, data (fingerprint), splits, and training sets.

    Args:
        results: by the name a result goes by in messages.
        scores: of every molecule, by the same names; or why there are none.
    """
    groups: dict[tuple[str, int, str, str, str, str], dict[str, Result]] = defaultdict(dict)
    for name, r in results.items():
        key = (r.task, r.task_version, r.source, r.fingerprint, r.split, r.training_split)
        groups[key][name] = r
    rankings, left_out = [], []
    for (task, version, source, fingerprint, split, trained), members in sorted(groups.items()):
        metric = primary(members)
        kept = {}
        for name, result in members.items():
            if reason := _unfit(result, metric):
                left_out.append((name, reason))
            else:
                kept[name] = result
        entries, superseded = entries_of(kept)
        left_out += superseded
        if entries:
            ranked = _ranked(entries, metric, scores)
            data = task, version, fingerprint, source, split, trained
            rankings.append(Ranking(*data, metric, *ranked))
    return rankings, left_out


def primary(members: Mapping[str, Result]) -> str:
    """The metric that most results name first, which is where the task's primary one stands."""
    first = Counter(next(iter(result.metrics)) for result in members.values())
    return min(first, key=lambda name: (-first[name], name))


def _unfit(result: Result, first: str) -> str:
    """Why a result cannot be ranked by the primary metric; empty if it can."""
    if first not in METRICS:
        return f"its first metric '{first}' is not known to this version of hambench"
    if first not in result.metrics:
        return f"it has no '{first}', by which the others of its task are ranked"
    for name, metric in result.metrics.items():
        if name in METRICS and metric.unit != METRICS[name].unit:
            return f"its '{name}' is in '{metric.unit}', expected '{METRICS[name].unit}'"
    return ""


def entries_of(results: Mapping[str, Result]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Results by settings, one per seed: the one that finished last; the others, and why."""
    cells: dict[tuple[str, str, int], list[tuple[str, Result]]] = defaultdict(list)
    for name, result in results.items():
        cells[result.preset, _settings(result), result.seed].append((name, result))
    entries: dict[tuple[str, str], dict[str, Result]] = defaultdict(dict)
    superseded = []
    for (preset, settings, _), candidates in sorted(cells.items()):
        *earlier, (kept, last) = sorted(
            candidates, key=lambda c: (c[1].provenance.finished, c[1].model_dump_json(), c[0])
        )
        entries[preset, settings][kept] = last
        superseded += [(name, f"{kept} is the same cell, finished later") for name, _ in earlier]
    found = [Entry(key[1], tuple(of.values()), tuple(of)) for key, of in entries.items()]
    return found, superseded


def _settings(result: Result) -> str:
    """Digest of what makes two entries different models, whatever the seed."""
    return digest(result.model, result.hyperparameters, training(result))


def training(result: Result) -> list[Any]:
    """How a model was trained: the recipe without its words, the strategy, and what came before."""
    recipe = {k: v for k, v in result.recipe.items() if k not in _DESCRIPTIVE}
    before = result.pretraining
    kind = before and [before.preset, before.task, before.training_split]
    return [recipe, result.strategy, kind]


def digest(*parts: object) -> str:
    """8 hexadecimal digits that tell settings apart."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _ranked(
    entries: list[Entry], metric: str, scores: Mapping[str, ScoreTable | DataError]
) -> tuple[tuple[tuple[int | None, Entry], ...], tuple[str, ...] | None, str]:
    """Entries best first with their ranks; their ties, or why those are not known."""
    sign = 1.0 if METRICS[metric].direction == "lower" else -1.0

    def order(entry: Entry) -> tuple[float, str, str]:
        return sign * _summary(entry, metric).value, entry.preset, entry.settings

    whole = sorted((entry for entry in entries if not entry.failure_rate), key=order)
    failing = sorted((entry for entry in entries if entry.failure_rate), key=order)
    ties: tuple[str, ...] | None
    untested = ""
    try:
        ranks, letters = _by_tests(whole, metric, scores)
        ties = (*letters, *("" for _ in failing))
    except HambenchError as error:
        ranks, ties = _by_overlap(whole, metric), None
        untested = str(error) if len(whole) > 1 else ""
    ranked = zip(ranks, whole, strict=True)
    return (*ranked, *((None, entry) for entry in failing)), ties, untested


def _by_tests(
    entries: Sequence[Entry], metric: str, scores: Mapping[str, ScoreTable | DataError]
) -> tuple[list[int], list[str]]:
    """Ranks and ties of entries by paired tests.

    Tests draw random numbers: models stand in the order that ``hambench compare`` has them in, so
    that both say the same of a pair close to significance.

    Raises:
        HambenchError: scores of molecules that cannot be read, or not be compared.
    """
    arranged = sorted(entries, key=lambda entry: (entry.preset, entry.settings))
    tables = []
    for entry in arranged:
        called = [f"{entry.label} {entry.settings} seed {seed}" for seed in entry.seeds]
        tables.append({c: _table(scores[n], c) for c, n in zip(called, entry.names, strict=True)})
    models = panel(tables, [metric])
    order = [arranged.index(entry) for entry in entries]
    found = standings(order, differences(models)[0], METRICS[metric])
    return [found[k].rank for k in order], [found[k].ties for k in order]


def _table(found: ScoreTable | DataError, called: str) -> ScoreTable:
    if isinstance(found, DataError):
        raise DataError(f"{called}: {found}")
    return found


def _by_overlap(entries: Sequence[Entry], metric: str) -> list[int]:
    """Ranks of entries, best first; one whose interval meets that of the first of its rank ties."""
    ranks: list[int] = []
    for place, entry in enumerate(entries, start=1):
        leader = ranks[-1] if ranks else place
        one, other = (_summary(e, metric) for e in (entries[leader - 1], entry))
        ranks.append(leader if _meet(one, other) else place)
    return ranks


def _summary(entry: Entry, metric: str) -> Summary:
    summary = entry.summary(metric)
    assert summary is not None  # _unfit has seen to it
    return summary


def _meet(one: Summary, other: Summary) -> bool:
    """Whether two intervals overlap; a value without one stands for itself."""
    a, b = (s.ci95 or (s.value, s.value) for s in (one, other))
    return a[0] <= b[1] and b[0] <= a[1]
