"""How scores are printed: reporting units, and no more digits than the interval supports."""

from __future__ import annotations

import math

from hambench.scoring.metrics import METRICS, Score
from hambench.units import MEV, PERCENT, REPORT

_HUGE = 1e7
_FINEST = -9  # power of ten of the last digit that is written out


def reporting_unit(unit: str, metric: str = "") -> tuple[str, float]:
    """Label and factor a stored unit is printed with.

    ``("uEh", 1e6)`` for ``"Eh"``; ``("meV", 27211.4)`` where the metric is of total energies, for
    which the field says meV, and ``("%", 1e2)`` where it is printed in 1e-2.
    """
    if metric in METRICS and METRICS[metric].energy:
        return MEV
    if metric in METRICS and METRICS[metric].percent:
        return PERCENT
    return REPORT.get(unit, (unit, 1.0))


def format_numbers(value: float, ci95: tuple[float, float] | None) -> tuple[str, str]:
    """A value and its interval as text; the interval is empty text where there is none.

    The last digit shown is the second significant one of the interval's half width; four
    significant digits where there is no interval. Beyond ten millions it is 1.234e+08, and where
    more than nine places would be needed 1.2e-13.
    """
    if abs(value) >= _HUGE:
        return f"{value:.3e}", "" if ci95 is None else f"[{ci95[0]:.3e}, {ci95[1]:.3e}]"
    half = (ci95[1] - ci95[0]) / 2 if ci95 is not None else 0.0
    finest = _exponent(half) - 1 if half > 0 else _exponent(value) - 3
    if finest < _FINEST:
        form = ".4g" if abs(value) > 1e-6 else ".1e"
        return f"{value:{form}}", "" if ci95 is None else f"[{ci95[0]:{form}}, {ci95[1]:{form}}]"
    places = max(0, -finest)
    number = f"{value:.{places}f}"
    if ci95 is None:
        return number, ""
    return number, f"[{ci95[0]:.{places}f}, {ci95[1]:.{places}f}]"


def format_score(score: Score, metric: str = "") -> str:
    """A score of a metric as one text in its reporting unit: ``"12.3 [11.9, 12.8] uEh"``.

    With its standard deviation where it has one: ``"0.61 [0.59, 0.63] (std 0.07)"``.
    """
    label, factor = reporting_unit(score.unit, metric)
    ends = None if score.ci95 is None else (score.ci95[0] * factor, score.ci95[1] * factor)
    number, interval = format_numbers(score.value * factor, ends)
    spread = "" if score.std is None else f"(std {score.std * factor:.2g})"
    return " ".join(part for part in (number, interval, label, spread) if part)


def _exponent(value: float) -> int:
    """Power of ten of the first significant digit; 0 for zero."""
    return math.floor(math.log10(abs(value))) if value else 0
