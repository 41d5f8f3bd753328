"""The standardised metrics: from matrices to numbers with units and intervals. Knows no models.

`METRICS` lists them; `score` compares predictions with molecules, `Scorer` does it one molecule at
a time; ``hambench.scoring.predictions`` keeps what was predicted. Nothing here needs torch.
"""

from __future__ import annotations

from hambench.scoring import matrix  # noqa: F401 (registers the matrix metrics)
from hambench.scoring.display import format_score
from hambench.scoring.metrics import FAILURES, METRICS, Metric, Score, find_metric
from hambench.scoring.scorer import Scorer, score

__all__ = [
    "FAILURES",
    "METRICS",
    "Metric",
    "Score",
    "Scorer",
    "find_metric",
    "format_score",
    "score",
]
