"""`score` and `Scorer`: from predictions and molecules to numbers with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from copy import copy
from functools import lru_cache
from itertools import zip_longest
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, DataError
from hambench.scoring.comparison import Comparison, solve_together
from hambench.scoring.energy import EnergyComparison
from hambench.scoring.metrics import (
    FAILURES,
    METRICS,
    Metric,
    Quantity,
    Sampled,
    Score,
    find_metric,
)
from hambench.scoring.sampling import Sample
from hambench.scoring.statistics import RESAMPLES
from hambench.scoring.summary import alarms, summarise, with_convergence

_WAITING: Final = 32 * 2**20
"""Bytes of molecules that may wait for others of their size."""
_ARRAYS: Final = 4  # of (nao, nao) that each of them holds


class Scorer:
    """Collects the errors of one molecule after another; holds a few numbers per molecule.

    A prediction with NaN or infinity is a *failure*: the molecule is missing from every metric
    (whose ``n`` then is smaller), and ``failure_rate`` is reported, asked for or not. So are the
    other alarms, which say why a molecule is missing from metrics of the spectrum.

    Args:
        metrics: names out of `METRICS`, of one quantity; None: all of Hamiltonians that can be
            computed from a prediction, those that need a theory if it is given, without those of
            SCFs. Any of these brings `CONVERGENCE` with it.
        cutoff: Angstrom, for ``h_mae_in_cutoff``; None: all pairs are within.
        basis: orbital basis; None: the one each molecule names.
        theory: level of theory of the labels, for metrics computed with PySCF (``e_dft_mae`` ...).
        executor: where those are computed, e.g. a pool of processes; None: here, one by one.
        ahead: pieces of work that may wait in the executor; `add` waits for the others.
        samples: of the molecules, for metrics of a kind (`Metric.sample`); a kind that is missing:
            all.
        inference_s: seconds that predicting a molecule takes, for ``scf_total_time_ratio``.
        threshold: overlap eigenvectors below it are left out of spectra; None:
            `hambench.chem.levels.overlap_threshold` of the basis.
        device: torch's name of the GPU that finds spectra ("cuda"); None: NumPy on the processor.

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
        samples: Mapping[Sampled, Sample] | None = None,
        inference_s: float | None = None,
        threshold: float | None = None,
        device: str | None = None,
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
        if threshold is not None and not threshold > 0:
            raise ConfigError(
                f"the threshold of overlaps is {threshold}, expected a number above 0"
            )
        self.cutoff = cutoff
        self.basis = basis
        self.theory = theory
        self.threshold = threshold
        self.device = device
        self._asked = with_convergence(names)
        self._named = metrics is not None
        asked = [find_metric(name) for name in self._asked]
        self._metrics = [*asked, *(metric for metric in alarms(asked) if metric not in asked)]
        self.quantity = _quantity(self._metrics)
        costly = [metric.name for metric in self._metrics if metric.needs_theory]
        if costly:
            _check_theory(costly, theory)
        self._executor = executor
        self._ahead = ahead
        self._samples, self.inference_s = samples or {}, inference_s
        self._costly = np.array([metric.needs_theory for metric in self._metrics])
        self._spectral = np.array([metric.needs_spectrum for metric in self._metrics])
        self._plain = ~(self._costly | self._spectral)
        self._ids: dict[str, None] = {}
        self._groups: list[str] = []
        self._terms: list[NDArray[np.float64]] = []
        self._futures: dict[int, Future[NDArray[np.float64]]] = {}
        self._waiting: dict[tuple[str, int, int], list[tuple[int, Comparison]]] = {}
        self._bytes = 0

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
        bare = copy(compared)  # for another process, without what is found here
        spectral = self._spectral.any() and not compared.failed
        waiting = compared if spectral and isinstance(compared, Comparison) else None
        if waiting is not None:
            _size(waiting)  # its errors come before anything is kept
        place, costly = len(self), self._costly & self._sampled(name)
        self._ids[name] = None
        self._groups.append(name if group is None else group)
        self._terms.append(_terms(self._metrics, compared, self._plain))
        if waiting is not None:
            self._wait(place, waiting)
        if self._executor is None:
            self._terms[place] += _terms(self._metrics, compared, costly)
        elif costly.any():
            if len(self._futures) >= self._ahead:
                self._settle(next(iter(self._futures)))
            self._futures[place] = self._executor.submit(_terms, self._metrics, bare, costly)

    def scores(self, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Score]:
        """All metrics asked for, in that order, then the alarms that are not zero.

        Arguments and errors as of `summarise`; metrics that were named must have an entry.
        """
        return summarise(
            self._metrics, self.terms, self.groups, asked=self._asked, strict=self._named,
            resamples=resamples, seed=seed,
        )  # fmt: skip

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of the molecules, in the order they were added."""
        return tuple(self._ids)

    @property
    def groups(self) -> tuple[str, ...]:
        """What the bootstrap resamples each of them with."""
        return tuple(self._groups)

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Every metric that is computed, the alarms too, and what its numbers depend on.

        That is, beside prediction and label: JSON-able values of this scorer.
        """
        from hambench.chem.levels import overlap_threshold  # SciPy, which listing metrics needs not

        basis = None if self.basis is None else self.basis.name
        threshold = self.threshold
        if threshold is None and basis is not None:
            threshold = overlap_threshold(basis)
        samples = {kind: dict(sample.settings) for kind, sample in self._samples.items()}
        return {
            metric.name: ({"cutoff": self.cutoff} if metric.needs_cutoff else {})
            | ({"threshold": threshold} if metric.needs_spectrum else {})
            | ({"theory": self.theory.to_dict()} if metric.needs_theory and self.theory else {})
            | (samples.get(metric.sample, {}) if metric.sample else {})
            for metric in self._metrics
        }

    @property
    def terms(self) -> NDArray[np.float64]:
        """(G, metrics, 2) numerators and denominators of all molecules, columns as `settings`."""
        self._solve_waiting()
        for place in list(self._futures):
            self._settle(place)
        return np.array(self._terms, dtype=np.float64).reshape(len(self), len(self._metrics), 2)

    def table(self) -> dict[str, NDArray[Any]]:
        """Per molecule: ``id``, ``group``, and the value of every metric, NaN where it has none.

        Returns:
            Arrays of one length, in the order the molecules were added.
        """
        columns: dict[str, NDArray[Any]] = {
            "id": np.array(list(self._ids), dtype=str),
            "group": np.array(self._groups, dtype=str),
        }
        terms = self.terms
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
            self.inference_s, self.threshold,
        )  # fmt: skip

    def _sampled(self, name: str) -> NDArray[np.bool_]:
        """(metrics,) whether each is computed on a molecule: it is in the metric's sample."""
        samples = (self._samples.get(m.sample) if m.sample else None for m in self._metrics)
        return np.array([sample is None or name in sample.ids for sample in samples])

    def _settle(self, place: int) -> None:
        """Wait for what an executor computes of the molecule added at a place."""
        if place in self._futures:
            self._terms[place] += self._futures.pop(place).result()

    def _wait(self, place: int, compared: Comparison) -> None:
        """Let a molecule wait for others whose spectra are found together with its own.

        More than `_WAITING` bytes never wait: what has most of them is solved.
        """
        self._waiting.setdefault(_size(compared), []).append((place, compared))
        self._bytes += _ARRAYS * compared.nao**2 * 8
        while self._bytes > _WAITING:
            self._solve(max(self._waiting, key=lambda k: len(self._waiting[k]) * k[1] ** 2))

    def _solve_waiting(self) -> None:
        for key in list(self._waiting):
            self._solve(key)

    def _solve(self, key: tuple[str, int, int]) -> None:
        """Find the spectra of the molecules of a size, and what they add."""
        places, compared = zip(*self._waiting.pop(key), strict=True)
        self._bytes -= _ARRAYS * key[1] ** 2 * 8 * len(places)
        solve_together(compared, self.device)
        for place, one in zip(places, compared, strict=True):
            self._terms[place] += _terms(self._metrics, one, self._spectral)

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
    metrics: Sequence[Metric], compared: Comparison | EnergyComparison, chosen: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """(metrics, 2) what one molecule adds to the chosen metrics; nothing if its prediction failed.

    Zeros for the metrics that are not chosen.
    """
    terms = np.zeros((len(metrics), 2))
    for k, (metric, wanted) in enumerate(zip(metrics, chosen, strict=True)):
        if wanted and (metric.name == FAILURES or not compared.failed):
            terms[k] = metric.terms(compared)
    return terms


def _size(compared: Comparison) -> tuple[str, int, int]:
    """What molecules share whose spectra are found together: basis, orbitals and electrons.

    The overlap is found too, so that an error of it is one of this molecule alone.
    """
    assert compared.overlap.ndim == 2
    return compared.basis.name, compared.nao, compared.electrons


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
