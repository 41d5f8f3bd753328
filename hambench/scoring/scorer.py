"""`score` and `Scorer`: from predictions and molecules to numbers with intervals."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import lru_cache
from itertools import compress, zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, DataError, RunError
from hambench.scoring.comparison import Comparison
from hambench.scoring.energy import EnergyComparison
from hambench.scoring.metrics import (
    CONVERGENCE,
    FAILURES,
    METRICS,
    Metric,
    Quantity,
    Sampled,
    Score,
    Terms,
    find_metric,
)
from hambench.scoring.statistics import RESAMPLES, ratio_intervals


class Scorer:
    """Collects the errors of one molecule after another; holds a few numbers per molecule.

    A prediction with NaN or infinity is a *failure*: the molecule is missing from every metric
    (whose ``n`` then is smaller), and ``failure_rate`` is reported, asked for or not.

    Args:
        metrics: names out of `METRICS`, of one quantity; None: all of Hamiltonians that can be
            computed from a prediction, those that need a theory if it is given, without those of
            SCFs. Any of these brings `CONVERGENCE` with it.
        cutoff: Angstrom, for ``h_mae_in_cutoff``; None: all pairs are within.
        basis: orbital basis; None: the one each molecule names.
        theory: level of theory of the labels, for metrics computed with PySCF (``e_dft_mae`` ...).
        executor: where those are computed, e.g. a pool of processes; None: here, one by one.
        ahead: molecules that may wait in the executor; `add` waits for the others.
        samples: ids of the molecules that metrics of a kind (`Metric.sample`) are computed on;
            a kind that is missing: all.
        inference_s: seconds that predicting a molecule takes, for ``scf_total_time_ratio``.

    Raises:
        RegistryError: an unknown metric (with the nearest name).
        ConfigError: no metric, metrics of two quantities, a cutoff that is not positive; a metric
            that needs a theory and there is none, or PySCF is missing.
    """

    def __init__(
        self,
        metrics: Sequence[str] | None = None,
        cutoff: float | None = None,
        basis: OrbitalBasis | None = None,
        theory: Theory | None = None,
        executor: Executor | None = None,
        ahead: int = 1,
        samples: Mapping[Sampled, Collection[str]] | None = None,
        inference_s: float | None = None,
    ) -> None:
        known = [
            name
            for name, one in METRICS.items()
            if one.of in ("hamiltonian", None)
            and (theory is not None or not one.needs_theory)
            and not one.needs_turned
            and one.sample != "scf"
        ]
        names = list(dict.fromkeys(known if metrics is None else metrics))
        if not names:
            raise ConfigError("no metric was asked for; name one or more, or None for all")
        if cutoff is not None and not cutoff > 0:
            raise ConfigError(f"the cutoff of scoring is {cutoff}, expected Angstrom above 0")
        self.cutoff = cutoff
        self.basis = basis
        self.theory = theory
        self._asked = names
        self._named = metrics is not None
        if any(find_metric(name).sample == "scf" for name in names) and CONVERGENCE not in names:
            names.append(CONVERGENCE)
        self._metrics = [find_metric(name) for name in dict.fromkeys([*names, FAILURES])]
        self.quantity = _quantity(self._metrics)
        costly = [metric.name for metric in self._metrics if metric.needs_theory]
        if costly:
            _check_theory(costly, theory)
        self._executor = executor if costly else None
        self._ahead = ahead
        self._samples, self.inference_s = samples or {}, inference_s
        self._ids: dict[str, None] = {}
        self._groups: list[str] = []
        self._terms: list[list[Terms] | Future[list[Terms]]] = []
        self._waiting: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._ids)

    def add(
        self,
        prediction: object,
        molecule: Molecule,
        group: str | None = None,
        turned: object = None,
    ) -> None:
        """Compare one prediction with its label.

        Args:
            prediction: array or tensor (nao, nao) in Eh, canonical AO order; or a total energy.
            molecule: with its original label.
            group: what to resample as one, e.g. the molecule a conformer belongs to; None:
                this molecule by itself.
            turned: what was predicted for the molecule turned by its
                `hambench.chem.rotation.scoring_rotation`, for ``h_rotation_mae``.

        Raises:
            DataError: see `Comparison`; or a molecule that was added before, or lacks ``turned``.
            ConfigError: see `hambench.chem.functional.Functional`; an executor may raise it later.
        """
        name = molecule.id or f"#{len(self._ids)}"
        if name in self._ids:
            raise DataError(
                f"molecule '{name}' is scored twice; every row of a test set counts once"
            )
        compared = self._compared(prediction, molecule, turned)
        asked = [self._is_asked(metric, name) for metric in self._metrics]
        dear = any(metric.needs_theory for metric in compress(self._metrics, asked))
        if self._executor is None or not dear:
            self._terms.append(_terms(self._metrics, asked, compared))
        else:
            if len(self._waiting) >= self._ahead:
                self._settle(self._waiting.popleft())
            self._waiting.append(len(self))
            self._terms.append(self._executor.submit(_terms, self._metrics, asked, compared))
        self._ids[name] = None
        self._groups.append(name if group is None else group)

    def scores(self, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Score]:
        """All metrics asked for, in that order, then the failures if there are any.

        Args:
            resamples: bootstrap samples of the intervals.
            seed: of the bootstrap, not of a run: intervals are the same at every call.

        Raises:
            DataError: nothing was added, or a metric asked for has no entry in any molecule. One
                of SCFs is left out then: `CONVERGENCE` says that none converged.
            RunError: every prediction is a failure.
        """
        if not self._terms:
            raise DataError("there is nothing to score; give at least one molecule")
        numerators, denominators = np.moveaxis(self._gathered(), 2, 0)
        failed = int(numerators[:, self._metrics.index(METRICS[FAILURES])].sum())
        if failed == len(self):
            raise RunError(
                f"all {failed} predictions hold NaN or infinity, there is nothing to score; the "
                "training diverged: lower the learning rate or clip gradients"
            )
        present = (denominators > 0).any(axis=0)
        needed = [self._named and metric.sample != "scf" for metric in self._metrics]
        if (missing := needed & ~present).any():
            empty = self._metrics[int(np.argmax(missing))]
            raise DataError(
                f"{empty.name} has no entry in any of the {len(self)} molecules "
                f"({empty.description}); leave this metric out"
            )
        numerators, denominators = numerators[:, present], denominators[:, present]
        entered = denominators > 0
        intervals = ratio_intervals(
            numerators, denominators, groups=self._groups, resamples=resamples, seed=seed
        )
        clusters = len(set(self._groups))
        scores = {}
        for k, metric in enumerate(compress(self._metrics, present)):
            if metric.name not in self._asked and not failed:
                continue
            ratio = numerators[:, k].sum() / denominators[:, k].sum()
            interval = intervals[k] if clusters > 1 else None
            match metric.aggregate:
                case "rms":
                    ratio = np.sqrt(ratio)
                    interval = None if interval is None else np.sqrt(interval)
                case "max":
                    ratio, interval = numerators[entered[:, k], k].max(), None
            ends = None if interval is None else (float(interval[0]), float(interval[1]))
            values = numerators[entered[:, k], k] / denominators[entered[:, k], k]
            std = float(values.std()) if metric.spread else None
            scores[metric.name] = Score(float(ratio), metric.unit, ends, len(values), std)
        return scores

    def table(self) -> dict[str, NDArray[Any]]:
        """Per molecule: ``id``, ``group``, and the value of every metric, NaN where it has none.

        Returns:
            Arrays of one length, in the order the molecules were added.
        """
        columns: dict[str, NDArray[Any]] = {
            "id": np.array(list(self._ids), dtype=str),
            "group": np.array(self._groups, dtype=str),
        }
        terms = self._gathered()
        for k, metric in enumerate(self._metrics):
            numerator, denominator = terms[:, k].T
            value = np.full(len(self), np.nan)
            np.divide(numerator, denominator, out=value, where=denominator > 0)
            columns[metric.name] = np.sqrt(value) if metric.aggregate == "rms" else value
        return columns

    def _compared(
        self, prediction: object, molecule: Molecule, turned: object
    ) -> Comparison | EnergyComparison:
        if self.quantity == "energy":
            return EnergyComparison(prediction, molecule)
        basis = self._basis_of(molecule)
        asking = [metric.name for metric in self._metrics if metric.needs_turned]
        if asking and turned is None:
            raise DataError(
                f"{' and '.join(asking)} needs what is predicted for molecule '{molecule.id}' "
                "turned; give it as turned, or leave the metric out"
            )
        return Comparison(
            prediction, molecule, basis, self.cutoff, self.theory, turned if asking else None,
            self.inference_s,
        )  # fmt: skip

    def _is_asked(self, metric: Metric, name: str) -> bool:
        """Whether a metric is computed on a molecule: it is in the metric's sample."""
        if metric.sample is None or metric.sample not in self._samples:
            return True
        return name in self._samples[metric.sample]

    def _settle(self, place: int) -> list[Terms]:
        """Terms of the molecule added at a place, waited for where an executor has them."""
        terms = self._terms[place]
        if isinstance(terms, Future):
            terms = self._terms[place] = terms.result()
        return terms

    def _gathered(self) -> NDArray[np.float64]:
        """(G, metrics, 2) numerators and denominators of all molecules."""
        terms = [self._settle(place) for place in range(len(self))]
        return np.array(terms, dtype=np.float64).reshape(len(self), len(self._metrics), 2)

    def _basis_of(self, molecule: Molecule) -> OrbitalBasis:
        if self.basis is not None:
            return self.basis
        if molecule.basis is None:
            raise DataError(
                f"molecule '{molecule.id}' names no orbital basis; give one: score(..., basis=...)"
            )
        return _basis(molecule.basis, tuple(sorted(set(molecule.numbers.tolist()))))


def score(
    predictions: Iterable[object],
    molecules: Iterable[Molecule],
    metrics: Sequence[str] | None = None,
    cutoff: float | None = None,
    basis: OrbitalBasis | None = None,
    groups: Iterable[str] | None = None,
    theory: Theory | None = None,
    turned: Iterable[object] | None = None,
) -> dict[str, Score]:
    """Compare predicted Hamiltonians, or energies, with the labels of molecules.

    Both are read one at a time, so generators serve test sets larger than the memory.

    Args:
        predictions: (nao, nao) arrays or tensors in Eh, canonical AO order; for metrics of energies
            total energies in Eh.
        molecules: with labels, in the same order.
        metrics, cutoff, basis: see `Scorer`.
        groups: one per molecule, clusters of the bootstrap; None: every molecule by itself.
        theory: level of theory of the labels (``task.level``); see `Scorer`.
        turned: one per molecule, see `Scorer.add`.

    Returns:
        ``{"h_mae": Score(value, unit, ci95, n), ...}`` in the order asked for.

    Raises:
        RegistryError: an unknown metric.
        DataError: see `Scorer`; or the arguments are not of one length.
    """
    if isinstance(molecules, Molecule):
        raise ConfigError("score takes lists: score([matrix], [molecule])")
    scorer = Scorer([metrics] if isinstance(metrics, str) else metrics, cutoff, basis, theory)
    end = object()
    given: dict[str, Iterable[Any] | None] = {
        "predictions": predictions, "molecules": molecules, "groups": groups, "turned": turned,
    }  # fmt: skip
    columns = {name: column for name, column in given.items() if column is not None}
    for items in zip_longest(*columns.values(), fillvalue=end):
        row = dict(zip(columns, items, strict=True))
        if any(item is end for item in items):
            short = [name for name, item in row.items() if item is end]
            raise DataError(
                f"only {len(scorer)} {' and '.join(short)} were given, fewer than the rest; give "
                "one for each molecule"
            )
        scorer.add(
            row["predictions"], row["molecules"], group=row.get("groups"), turned=row.get("turned")
        )
    return scorer.scores()


def _terms(
    metrics: Sequence[Metric], asked: Sequence[bool], compared: Comparison | EnergyComparison
) -> list[Terms]:
    """What one molecule adds to each metric; nothing where it is not asked for, or has failed."""
    wanted = [
        is_asked and (metric.name == FAILURES or not compared.failed)
        for metric, is_asked in zip(metrics, asked, strict=True)
    ]
    return [
        metric.terms(compared) if is_wanted else (0.0, 0.0)
        for metric, is_wanted in zip(metrics, wanted, strict=True)
    ]


def _check_theory(names: Sequence[str], theory: Theory | None) -> None:
    """ConfigError where metrics that are computed at a level of theory cannot be."""
    if theory is None:
        raise ConfigError(
            f"{' and '.join(names)} need the level of theory of the labels; give it: "
            "score(..., theory=task.level), or leave them out"
        )
    engine.pyscf()


def _quantity(metrics: Sequence[Metric]) -> Quantity:
    """The one that all metrics are errors of."""
    found = {metric.of: metric.name for metric in metrics if metric.of is not None}
    if len(found) > 1:
        raise ConfigError(
            f"{' and '.join(found.values())} are metrics of different quantities "
            f"({', '.join(found)}); score them one after the other"
        )
    return next(iter(found), "hamiltonian")


@lru_cache(maxsize=1024)
def _basis(name: str, elements: tuple[int, ...]) -> OrbitalBasis:
    return OrbitalBasis.load(name, elements)
