"""All results as one tidy pandas frame. Needs the ``plots`` extra."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hambench.errors import ConfigError
from hambench.leaderboard.collect import Board
from hambench.leaderboard.ranking import Entry, Ranking
from hambench.leaderboard.runs import Run

if TYPE_CHECKING:
    import pandas as pd


def frame(board: Board) -> pd.DataFrame:
    """A row per ranked run and metric; one value per column, in the units of results (Eh, 1, D).

    Columns: ``run task version fingerprint source variant split training_split model preset
    strategy settings seed metric primary value unit ci_low ci_high n std parameters steps
    step_budget wall_s peak_memory molecule_s device rank`` (of the entry in this metric) ``package
    finished``. Only runs that are comparable share ``task version fingerprint source split
    training_split``.

    Raises:
        ConfigError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError(
            "frames and CSV files need pandas, which is not installed; run "
            "`pip install 'hambench[plots]'`, or choose another format"
        ) from error
    return pd.DataFrame(list(_rows(board)))


def _rows(board: Board) -> Iterator[dict[str, Any]]:
    for ranking in board.rankings:
        for k, entry in enumerate(ranking.entries):
            for run in entry.runs:
                yield from _of_run(ranking, k, entry, run)


def _of_run(ranking: Ranking, k: int, entry: Entry, run: Run) -> Iterable[dict[str, Any]]:
    result = run.result
    inference = result.cost.inference
    for name, metric in result.metrics.items():
        contest = ranking.contests.get(name)
        place = None if contest is None else contest.places[k]
        low, high = metric.ci95 or (None, None)
        yield {
            "run": run.name,
            "task": ranking.task,
            "version": ranking.version,
            "fingerprint": ranking.fingerprint,
            "source": ranking.source,
            "variant": result.variant,
            "split": ranking.split,
            "training_split": ranking.training_split,
            "model": result.model,
            "preset": result.preset,
            "strategy": result.strategy,
            "settings": entry.settings,
            "seed": result.seed,
            "metric": name,
            "primary": name == ranking.metric,
            "value": metric.value,
            "unit": metric.unit,
            "ci_low": low,
            "ci_high": high,
            "n": metric.n,
            "std": metric.std,
            "parameters": result.parameters,
            "steps": result.cost.steps,
            "step_budget": result.step_budget,
            "wall_s": result.cost.wall_s,
            "peak_memory": result.cost.peak_memory,
            "molecule_s": None if inference is None else inference.molecule_s,
            "device": result.cost.device,
            "rank": None if place is None else place.rank,
            "package": result.provenance.package,
            "finished": result.provenance.finished.isoformat(),
        }
