"""The metric registry: what every metric is called, its unit, its direction, how it adds up.

A metric gives two numbers per molecule, a numerator and a denominator; its value over a test set
is the ratio of their sums. A molecule mean has denominator 1, an element-pooled mean the number of
elements. Molecules are the unit of resampling, so each metric has an interval for free.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

from hambench.errors import RegistryError, nearest

Quantity = Literal["hamiltonian", "energy"]
"""What is predicted and compared."""

Sampled = Literal["energy", "scf"]
"""Kinds of metrics that are so dear that each is computed on a sample of the molecules: energies
and dipole moments of one diagonalisation; self-consistent fields."""

Terms = tuple[float, float]
"""Numerator and denominator of one molecule; a denominator of 0: the metric has no entry there."""

FAILURES: Final = "failure_rate"
"""The metric that counts unusable predictions, the first of the alarms: see `Metric.alarm`."""

CONVERGENCE: Final = "scf_convergence_rate"
"""The metric that counts self-consistent fields that end; it joins every other metric of these."""

ROTATION_ERROR: Final = "h_rotation_mae"
"""The metric that joins every score of a model that is not equivariant."""


class Score(NamedTuple):
    """One metric over a test set.

    Attributes:
        value: in ``unit``.
        unit: "Eh", "D" (Debye), or "1" for a pure number.
        ci95: 95 % percentile bootstrap interval over molecules (lower, upper); None where
            there is no such thing: fewer than two molecules, or a maximum.
        n: molecules that entered.
        std: standard deviation over them (that of the sample, divisor n), for metrics whose spread
            is told beside the mean; else None.
    """

    value: float
    unit: str
    ci95: tuple[float, float] | None
    n: int
    std: float | None = None


@dataclass(frozen=True)
class Metric:
    """One registered metric.

    Attributes:
        name: as it stands in task files, results and tables.
        unit: of its value ("Eh", "D" for Debye, or "1" for a pure number).
        direction: which way is better.
        description: one line with the formula; dH is prediction minus label, n the orbitals of
            a molecule, G the molecules.
        terms: its numerator and denominator for one molecule, from the comparison of ``of``.
        of: the quantity it is an error of; None: of any.
        aggregate: over molecules: ``mean`` is sum(numerators) / sum(denominators), ``rms`` its
            square root, ``max`` the largest numerator.
        energy: whether its values are errors of total energies, which tables show in meV.
        needs_theory: whether it is computed with PySCF, at the labels' level of theory.
        needs_turned: whether it needs what was predicted for the molecule turned, too.
        sample: the kind of sample it is computed on; None: all molecules. One of ``scf`` has no
            entry where an SCF did not converge, and may have none at all.
        spread: whether the standard deviation over the molecules belongs to the score.
        needs_cutoff: whether it depends on the cutoff of scoring.
        needs_spectrum: whether it needs overlaps, and depends on the threshold of their
            eigenvalues.
        percent: whether it is a share of at most 1, which tables show in 1e-2.
        alarm: whether it counts what went wrong; it joins every score in which it is not zero.
    """

    name: str
    unit: str
    direction: Literal["lower", "higher"]
    description: str
    terms: Callable[[Any], Terms]
    of: Quantity | None = "hamiltonian"
    aggregate: Literal["mean", "rms", "max"] = "mean"
    energy: bool = False
    needs_theory: bool = False
    needs_turned: bool = False
    sample: Sampled | None = None
    spread: bool = False
    needs_cutoff: bool = False
    needs_spectrum: bool = False
    percent: bool = False
    alarm: bool = False


METRICS: Final[dict[str, Metric]] = {}
"""All metrics by name, the primary one of each quantity before its others."""


def metric(
    description: str,
    *,
    unit: str = "Eh",
    direction: Literal["lower", "higher"] = "lower",
    of: Quantity | None = "hamiltonian",
    aggregate: Literal["mean", "rms", "max"] = "mean",
    energy: bool = False,
    needs_theory: bool = False,
    needs_turned: bool = False,
    sample: Sampled | None = None,
    spread: bool = False,
    needs_cutoff: bool = False,
    needs_spectrum: bool = False,
    percent: bool = False,
    alarm: bool = False,
) -> Callable[[Callable[[Any], Terms]], Callable[[Any], Terms]]:
    """Register the decorated function of one molecule as a metric of its own name."""

    def register(terms: Callable[[Any], Terms]) -> Callable[[Any], Terms]:
        name = terms.__name__
        assert name not in METRICS, f"metric '{name}' is registered twice"
        of_energies = energy or of == "energy"
        METRICS[name] = Metric(
            name, unit, direction, description, terms, of, aggregate, of_energies, needs_theory,
            needs_turned, sample, spread, needs_cutoff, needs_spectrum, percent, alarm,
        )  # fmt: skip
        return terms

    return register


def find_metric(name: str) -> Metric:
    """The metric called ``name``; RegistryError with the nearest name if there is none."""
    if name not in METRICS:
        raise RegistryError(f"no metric '{name}'.{nearest(name, METRICS)}")
    return METRICS[name]
