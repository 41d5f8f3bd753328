"""Grouping results that may be compared, averaging seeds, and ranking."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean, stdev
from typing import Any

from hambench.results import Result
from hambench.scoring import FAILURES, METRICS

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
    """

    settings: str
    results: tuple[Result, ...]

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
    """

    task: str
    version: int
    fingerprint: str
    source: str
    split: str
    training_split: str
    metric: str
    entries: tuple[tuple[int | None, Entry], ...]


def rank(results: Mapping[str, Result]) -> tuple[list[Ranking], list[tuple[str, str]]]:
    """Rankings of all results, and those left out as (name, reason).

    Never mixed are tasks, task versions, data (fingerprint), splits, and training sets.

    Args:
        results: by the name a result goes by in messages.
    """
    groups: dict[tuple[str, int, str, str, str, str], dict[str, Result]] = defaultdict(dict)
    for name, r in results.items():
        key = (r.task, r.task_version, r.source, r.fingerprint, r.split, r.training_split)
        groups[key][name] = r
    rankings, left_out = [], []
    for (task, version, source, fingerprint, split, trained), members in sorted(groups.items()):
        metric = _primary(members)
        kept = {}
        for name, result in members.items():
            if reason := _unfit(result, metric):
                left_out.append((name, reason))
            else:
                kept[name] = result
        entries, superseded = _entries(kept)
        left_out += superseded
        if entries:
            ranked = tuple(_ranked(entries, metric))
            rankings.append(
                Ranking(task, version, fingerprint, source, split, trained, metric, ranked)
            )
    return rankings, left_out


def _primary(members: Mapping[str, Result]) -> str:
    """The metric that most results name first, which is where the task's primary one stands."""
    first = Counter(next(iter(result.metrics)) for result in members.values())
    return min(first, key=lambda name: (-first[name], name))


def _unfit(result: Result, primary: str) -> str:
    """Why a result cannot be ranked by the primary metric; empty if it can."""
    if primary not in METRICS:
        return f"its first metric '{primary}' is not known to this version of hambench"
    if primary not in result.metrics:
        return f"it has no '{primary}', by which the others of its task are ranked"
    for name, metric in result.metrics.items():
        if name in METRICS and metric.unit != METRICS[name].unit:
            return f"its '{name}' is in '{metric.unit}', expected '{METRICS[name].unit}'"
    return ""


def _entries(results: Mapping[str, Result]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Results by settings, one per seed: the one that finished last."""
    cells: dict[tuple[str, str, int], list[tuple[str, Result]]] = defaultdict(list)
    for name, result in results.items():
        cells[result.preset, _settings(result), result.seed].append((name, result))
    entries: dict[tuple[str, str], list[Result]] = defaultdict(list)
    superseded = []
    for (preset, settings, _), candidates in sorted(cells.items()):
        *earlier, (kept, last) = sorted(
            candidates, key=lambda c: (c[1].provenance.finished, c[1].model_dump_json(), c[0])
        )
        entries[preset, settings].append(last)
        superseded += [(name, f"{kept} is the same cell, finished later") for name, _ in earlier]
    return [Entry(key[1], tuple(cells)) for key, cells in entries.items()], superseded


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


def _ranked(entries: list[Entry], metric: str) -> list[tuple[int | None, Entry]]:
    """Entries best first; one whose interval meets that of the first of its rank shares it."""
    sign = 1.0 if METRICS[metric].direction == "lower" else -1.0
    summaries = {id(entry): entry.summary(metric) for entry in entries}

    def order(entry: Entry) -> tuple[bool, float, str, str]:
        summary = summaries[id(entry)]
        assert summary is not None  # _unfit has seen to it
        return entry.failure_rate > 0, sign * summary.value, entry.preset, entry.settings

    ranked: list[tuple[int | None, Entry]] = []
    leader: tuple[int, Summary] | None = None
    for place, entry in enumerate(sorted(entries, key=order), start=1):
        summary = summaries[id(entry)]
        assert summary is not None
        if entry.failure_rate > 0:
            ranked.append((None, entry))
            continue
        if leader is None or not _meet(leader[1], summary):
            leader = place, summary
        ranked.append((leader[0], entry))
    return ranked


def _meet(one: Summary, other: Summary) -> bool:
    """Whether two intervals overlap; a value without one stands for itself."""
    a, b = (s.ci95 or (s.value, s.value) for s in (one, other))
    return a[0] <= b[1] and b[0] <= a[1]
