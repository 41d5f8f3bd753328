"""The standardised metrics: from matrices and energies to numbers with intervals. No models here.

`METRICS` lists them; `score` compares predictions with molecules, `Scorer` does it one molecule at
a time; ``hambench.scoring.predictions`` keeps what was predicted. Nothing here needs torch.
"""

from __future__ import annotations

import hambench.scoring.matrix  # registers the metrics of matrix elements, the first ...
import hambench.scoring.spectrum  # ... then those of orbitals and levels ...
import hambench.scoring.total_energy  # noqa: F401 (... and of the energies they imply)
from hambench.scoring.display import format_score
from hambench.scoring.metrics import FAILURES, METRICS, ROTATION_ERROR, Metric, Score, find_metric
from hambench.scoring.scorer import Scorer, score

__all__ = [
    "FAILURES",
    "METRICS",
    "ROTATION_ERROR",
    "Metric",
    "Score",
    "Scorer",
    "find_metric",
    "format_score",
    "score",
]
