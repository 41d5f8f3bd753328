"""The standardised metrics: from matrices and energies to numbers with intervals. No models here.

`METRICS` lists them; `score` compares predictions with molecules, `Scorer` does it one molecule at
a time; ``hambench.scoring.predictions`` keeps what was predicted. Nothing here needs torch.
"""

from __future__ import annotations

# Metrics are registered in this order, which is that of tables.
# isort: off
import hambench.scoring.matrix  # those of matrix elements, the first ...
import hambench.scoring.spectrum  # ... of orbitals and levels ...
import hambench.scoring.total_energy  # ... of the energies they imply ...
import hambench.scoring.dipole  # ... of dipole moments ...
import hambench.scoring.scf  # noqa: F401 (... and of SCFs that start from them)

# isort: on
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
