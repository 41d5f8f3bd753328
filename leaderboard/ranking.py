"""Grouping results that may be compared, averaging seeds, and ranking them in every metric."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from statistics import fmean
from typing import Any, NamedTuple

from hambench.errors import DataError, HambenchError
from hambench.leaderboard.runs import Run, Unfinished
from hambench.results import Metric, Result
from hambench.scoring import FAILURES, METRICS
from hambench.scoring.metrics import Metric as Known
from hambench.scoring.pairs import MOST, differences, tie_letters
from hambench.scoring.panel import panel

_ROUNDING = 1e-9
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

    @property
    def ends(self) -> tuple[float, float]:
        """The interval; a value without one stands for itself."""
        return self.ci95 or (self.value, self.value)


@dataclass(frozen=True)
class Entry:
    """One model with one set of settings: its runs, a seed each.

    Attributes:
        settings: 8 hexadecimal digits that tell settings of one preset apart.
        runs: sorted by seed.
        unfinished: cells that differ in the seed alone and have no result.
    """

    settings: str
    runs: tuple[Run, ...]
    unfinished: tuple[Unfinished, ...] = ()

    @cached_property
    def results(self) -> tuple[Result, ...]:
        """Of its runs."""
        return tuple(run.result for run in self.runs)

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
        """A metric over the seeds; None unless all seeds have it, in the unit it is known in."""
        return self._summaries.get(name)

    @cached_property
    def _summaries(self) -> dict[str, Summary]:
        first, *others = self.results
        found = {}
        for name in first.metrics:
            seeds = [result.metrics.get(name) for result in (first, *others)]
            known = [metric for metric in seeds if metric and metric.unit == _unit(name)]
            if len(known) == len(seeds):
                found[name] = _summary_of(known)
        return found


def _unit(name: str) -> str | None:
    return METRICS[name].unit if name in METRICS else None


def _summary_of(metrics: Sequence[Metric]) -> Summary:
    values = [metric.value for metric in metrics]
    intervals = [metric.ci95 for metric in metrics if metric.ci95 is not None]
    ci95 = None
    if len(intervals) == len(metrics):
        ci95 = fmean(low for low, _ in intervals), fmean(high for _, high in intervals)
    mean = fmean(values)
    spread = None
    if len(values) > 1:  # statistics.stdev is exact, and a hundred times slower
        spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return Summary(mean, ci95, spread, min(metric.n for metric in metrics))


class Place(NamedTuple):
    """Where an entry stands in one metric.

    Attributes:
        rank: 1 + the number of entries that are significantly better; where that cannot be tested,
            the place of the first whose interval overlaps. Equal ranks are ties.
        ties: letters; entries that share one do not differ significantly. Empty where untested.
    """

    rank: int
    ties: str


@dataclass(frozen=True)
class Contest:
    """All entries of a ranking in one metric.

    Attributes:
        places: of each entry; None for one without this metric, and for a model that failed on some
            molecules, which has no comparable mean.
        untested: why not all ties are of paired tests, in words; empty where they are, or where
            there is nothing to test.
    """

    places: tuple[Place | None, ...]
    untested: str

    @property
    def tested(self) -> bool:
        """Whether ranks are of paired tests."""
        return any(place is not None and place.ties for place in self.places)

    def is_best(self, k: int) -> bool:
        """Whether an entry is the best or ties with it, there being others."""
        place = self.places[k]
        return place is not None and place.rank == 1 and sum(p is not None for p in self.places) > 1


@dataclass(frozen=True)
class Ranking:
    """Entries that were scored on the very same data, best first.

    Attributes:
        task, version, fingerprint, source, split: what they were scored on.
        training_split: what they were trained on.
        metric: the primary metric, by which they are ordered.
        entries: best first, those that failed on some molecules last.
        contests: every metric that an entry has, the primary one first.
    """

    task: str
    version: int
    fingerprint: str
    source: str
    split: str
    training_split: str
    metric: str
    entries: tuple[Entry, ...]
    contests: Mapping[str, Contest]

    @property
    def places(self) -> tuple[Place | None, ...]:
        """Of each entry in the primary metric."""
        return self.contests[self.metric].places


def rank(
    runs: Iterable[Run], unfinished: Iterable[Unfinished] = ()
) -> tuple[list[Ranking], list[tuple[str, str]]]:
    """Rankings of all runs, and those left out as (name, reason).

    Never mixed are tasks, task versions, data (fingerprint), splits, and training sets.
    """
    groups: dict[tuple[str, int, str, str, str, str], list[Run]] = defaultdict(list)
    for run in runs:
        r = run.result
        key = (r.task, r.task_version, r.fingerprint, r.source, r.split, r.training_split)
        groups[key].append(run)
    waiting = list(unfinished)
    rankings, left_out = [], []
    for data, members in sorted(groups.items(), key=lambda g: (*g[0][:2], g[0][3], g[0])):
        metric = primary(members)
        kept = []
        for run in members:
            if reason := _unfit(run.result, metric):
                left_out.append((run.name, reason))
            else:
                kept.append(run)
        entries, superseded = entries_of(kept)
        left_out += superseded
        if entries:
            ordered = _ordered([_with_unfinished(e, waiting) for e in entries], metric)
            rankings.append(Ranking(*data, metric, ordered, _contests(ordered, metric)))
    return rankings, left_out


def primary(runs: Iterable[Run]) -> str:
    """The metric that most results name as their primary one."""
    named = Counter(run.result.primary for run in runs)
    return min(named, key=lambda name: (-named[name], name))


def _unfit(result: Result, metric: str) -> str:
    """Why a result cannot be ranked by a metric; empty if it can."""
    if metric not in METRICS:
        return f"its primary metric '{metric}' is not known to this version of hambench"
    if metric not in result.metrics:
        return f"it has no '{metric}', by which the others of its task are ranked"
    for name, found in result.metrics.items():
        if name in METRICS and (reason := impossible(METRICS[name], found)):
            return f"its '{name}' {reason}"
    return ""


def impossible(known: Known, found: Metric) -> str:
    """Why a number cannot be of a metric; empty if it can."""
    low, high = found.ci95 or (found.value, found.value)
    if found.unit != known.unit:
        return f"is in '{found.unit}', expected '{known.unit}'"
    if found.value < 0:
        return f"is {found.value:.4g}, no metric is negative"
    if known.percent and found.value > 1 + _ROUNDING:
        return f"is {found.value:.4g}, a share of at most 1"
    if not low - (high - low) <= found.value <= high + (high - low):
        return f"is {found.value:.4g}, far outside of its interval [{low:.4g}, {high:.4g}]"
    return ""


def entries_of(runs: Iterable[Run]) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Runs by settings, one per seed: the one that finished last; the others, and why."""
    cells: dict[tuple[str, str, int], list[Run]] = defaultdict(list)
    for run in runs:
        cells[run.result.preset, settings_of(run.result), run.result.seed].append(run)
    entries: dict[tuple[str, str], list[Run]] = defaultdict(list)
    superseded = []
    for (preset, settings, _), candidates in sorted(cells.items()):
        *earlier, last = sorted(candidates, key=_age)
        entries[preset, settings].append(last)
        superseded += [(run.name, _superseded(run, last)) for run in earlier]
    found = [Entry(settings, tuple(of)) for (_, settings), of in entries.items()]
    return found, superseded


def _age(run: Run) -> tuple[Any, ...]:
    """The newest counts; of equally old ones that with scores of molecules."""
    has_scores = not isinstance(run.scores, DataError)
    return run.result.provenance.finished, has_scores, run.result.model_dump_json(), run.name


def _superseded(run: Run, by: Run) -> str:
    """Why a run is left out in favour of another one."""
    mine, its = run.result, by.result
    later = mine.provenance.finished < its.provenance.finished
    differ = "" if mine.metrics == its.metrics else "; their metrics differ"
    return f"{by.name} is the same cell{', finished later' if later else ''}{differ}"


def settings_of(result: Result) -> str:
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


def _with_unfinished(entry: Entry, waiting: Sequence[Unfinished]) -> Entry:
    mine = tuple(one for one in waiting if one.is_seed_of(entry.results[0]))
    return replace(entry, unfinished=mine) if mine else entry


def _ordered(entries: Iterable[Entry], metric: str) -> tuple[Entry, ...]:
    """Best first, those that failed on some molecules last."""

    def order(entry: Entry) -> tuple[bool, float, str, str]:
        value = _sign(metric) * _summary(entry, metric).value
        return entry.failure_rate > 0, value, entry.preset, entry.settings

    return tuple(sorted(entries, key=order))


def _sign(metric: str) -> float:
    return 1.0 if METRICS[metric].direction == "lower" else -1.0


def _contests(entries: Sequence[Entry], metric: str) -> dict[str, Contest]:
    """The primary metric, then all others that are known."""
    names = [name for e in entries for result in e.results for name in result.metrics]
    wanted = dict.fromkeys([metric, *(n for n in names if n in METRICS and n != FAILURES)])
    return {name: _contest(entries, name) for name in wanted}


def _contest(entries: Sequence[Entry], metric: str) -> Contest:
    """Places in one metric: by paired tests of those whose scores of every molecule allow them."""
    able = [k for k, e in enumerate(entries) if e.summary(metric) and not e.failure_rate]
    able.sort(key=lambda k: _sign(metric) * _summary(entries[k], metric).value)
    some = [entries[k] for k in able]
    tests, untested = _tests(some, metric)
    found = _by_tests(some, metric, tests) if tests else _by_overlap(some, metric)
    places = dict(zip(able, found, strict=True))
    return Contest(tuple(places.get(k) for k in range(len(entries))), untested)


def _tests(entries: Sequence[Entry], metric: str) -> tuple[dict[tuple[int, int], bool], str]:
    """Which pairs (i, j), i < j, of entries differ significantly, as far as that can be tested.

    Tests draw random numbers: models stand in the order that ``hambench compare`` has them in, so
    that both say the same of a pair close to significance.

    Returns:
        Whether they differ, by pair; why others are not among them, empty where all are.
    """
    found_against = [_untestable(entry, metric) for entry in entries]
    reasons = [reason for reason in found_against if reason]
    usable = [k for k, reason in enumerate(found_against) if not reason]
    usable.sort(key=lambda k: (entries[k].preset, entries[k].settings))
    if len(entries) > MOST:
        return {}, f"tests after correction cannot tell more than {MOST} models apart"
    tables = [
        {_called(entries[k], run): run.usable_scores for run in entries[k].runs} for k in usable
    ]
    try:
        found = differences(panel(tables, [metric]), intervals=False)[0] if usable else {}
    except HambenchError as error:
        return {}, str(error)
    tests = {
        (min(usable[i], usable[j]), max(usable[i], usable[j])): difference.significant
        for (i, j), difference in found.items()
    }
    more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
    return tests, f"{reasons[0]}{more}" if reasons and len(entries) > 1 else ""


def _untestable(entry: Entry, metric: str) -> str:
    """Why an entry cannot be tested; empty if it can."""
    for run in entry.runs:
        if isinstance(run.scores, DataError):
            return f"{_called(entry, run)}: {run.scores}"
        if metric not in run.scores.settings:
            return f"{_called(entry, run)} has no scores of '{metric}'"
    return ""


def _called(entry: Entry, run: Run) -> str:
    return f"{entry.label} {entry.settings} seed {run.result.seed}"


def _by_tests(
    entries: Sequence[Entry], metric: str, tests: Mapping[tuple[int, int], bool]
) -> list[Place]:
    """Places of entries, best first; two that were not tested differ if their intervals do."""
    ends = [_summary(entry, metric).ends for entry in entries]
    different = {
        (i, j)
        for i, j in combinations(range(len(entries)), 2)
        if tests.get((i, j), not _meet(ends[i], ends[j]))
    }
    beaten = Counter(j for _, j in different)  # the first of a pair has the better mean
    letters = tie_letters(len(entries), different)
    return [Place(1 + beaten[k], letters[k]) for k in range(len(entries))]


def _by_overlap(entries: Sequence[Entry], metric: str) -> list[Place]:
    """Places of entries, best first; one whose interval meets the first's of its rank shares it."""
    ranks: list[int] = []
    for place, entry in enumerate(entries, start=1):
        leader = ranks[-1] if ranks else place
        one, other = (_summary(e, metric).ends for e in (entries[leader - 1], entry))
        ranks.append(leader if _meet(one, other) else place)
    return [Place(found, "") for found in ranks]


def _meet(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Whether two intervals have something in common."""
    return one[0] <= other[1] and other[0] <= one[1]


def _summary(entry: Entry, metric: str) -> Summary:
    summary = entry.summary(metric)
    assert summary is not None  # whoever has none was left out
    return summary
