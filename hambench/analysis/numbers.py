"""Numbers that say how embeddings separate atoms, and what can be read off them linearly.

An untrained network separates elements too, and a picture in two dimensions separates what is not
separate. So every number is of the embeddings themselves, has an interval over molecules, and what
is asked of environments and of orbital energies is asked within one element, beside what knowing
the element alone gives. Probes are fitted to some molecules and asked about others; conformers of
a molecule are never divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hambench.analysis.atoms import Atoms
from hambench.analysis.libraries import library
from hambench.scoring import Score
from hambench.scoring.statistics import ratio_intervals

Array = NDArray[np.float64]
Places = NDArray[np.int64]

FOLDS: Final = 5
"""Parts the molecules are divided into; each is predicted from the others."""

_RIDGE: Final = np.logspace(-3, 4, 8)  # penalties; the best of the fitted molecules is taken
_STEPS: Final = 5000  # at most, of the logistic regression


class Findings(NamedTuple):
    """Numbers of one set of embeddings; None where the atoms do not allow one.

    Attributes:
        silhouette_element: mean silhouette (-1 to 1) of the atoms, classes the elements.
        silhouette_environment: the same, of the atoms of one element at a time, classes the
            environments.
        environment_accuracy: part of the atoms whose environment a logistic regression (L2 penalty
            of weight 1) tells, fitted to atoms of this element in other molecules.
        environment_majority: the same by naming the most frequent environment of the element.
        on_site_r2: part of the variance of on-site energies within elements that a ridge
            regression explains, fitted likewise; below 0: worse than the mean of the element.
        environment_atoms: atoms that entered where environments were asked for: those whose
            environment was found in at least `FOLDS` groups of molecules, of elements that have
            two of these.
    """

    silhouette_element: Score | None
    silhouette_environment: Score | None
    environment_accuracy: Score | None
    environment_majority: Score | None
    on_site_r2: Score | None
    environment_atoms: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, the scores with value, unit, interval and number of groups."""
        fields = self._asdict().items()
        return {k: v._asdict() if isinstance(v, Score) else v for k, v in fields}


def examine(vectors: Array, atoms: Atoms, on_site: Array | None, seed: int) -> Findings:
    """All numbers of embeddings.

    Args:
        vectors: (n, D), of the atoms; standardised here, among the atoms that are compared.
        atoms: n of them.
        on_site: (n,) on-site energies in Eh, or None.
        seed: divides the molecules into parts.
    """
    common = _common(atoms)
    accuracy = majority = r2 = None
    if common.any():
        accuracy, majority = _environments_told(vectors[common], atoms[common], seed)
    if on_site is not None:
        spread = _spread(atoms, atoms.number.astype(np.str_))
        r2 = _on_site_r2(vectors[spread], atoms[spread], on_site[spread], seed)
    return Findings(
        silhouette_element=_silhouette_element(vectors, atoms),
        silhouette_environment=_silhouette_environment(vectors[common], atoms[common]),
        environment_accuracy=accuracy,
        environment_majority=majority,
        on_site_r2=r2,
        environment_atoms=int(common.sum()),
    )


def standardised(vectors: Array) -> Array:
    """(n, D) with mean 0 and deviation 1 of every channel; constant channels are 0."""
    scaled: Array = library("sklearn.preprocessing").StandardScaler().fit_transform(vectors)
    return scaled


def _spread(atoms: Atoms, classes: NDArray[np.str_]) -> NDArray[np.bool_]:
    """(n,) whether the class of an atom is found in enough groups of molecules."""
    pairs = np.unique(np.stack([classes, atoms.group.astype(np.str_)], axis=1), axis=0)
    names, counts = np.unique(pairs[:, 0], return_counts=True)
    return np.isin(classes, names[counts >= FOLDS])


def _common(atoms: Atoms) -> NDArray[np.bool_]:
    """Atoms whose environment enough groups have, of elements with two such environments."""
    common = _spread(atoms, atoms.environment)
    for element in np.unique(atoms.number):
        here = atoms.number == element
        if len(np.unique(atoms.environment[here & common])) < 2:
            common[here] = False
    return common


def _silhouette_element(vectors: Array, atoms: Atoms) -> Score | None:
    if not 2 <= len(np.unique(atoms.number)) < len(atoms):
        return None
    return _mean(_silhouettes(vectors, atoms.number), atoms.group)


def _silhouette_environment(vectors: Array, atoms: Atoms) -> Score | None:
    if not len(atoms):
        return None
    values = np.empty(len(atoms))
    for element in np.unique(atoms.number):
        here = atoms.number == element
        values[here] = _silhouettes(vectors[here], atoms.environment[here])
    return _mean(values, atoms.group)


def _silhouettes(vectors: Array, classes: NDArray[Any]) -> Array:
    """(n,) silhouettes of standardised vectors, Euclidean (Rousseeuw 1987)."""
    found: Array = library("sklearn.metrics").silhouette_samples(standardised(vectors), classes)
    return found


def _environments_told(vectors: Array, atoms: Atoms, seed: int) -> tuple[Score, Score]:
    """Parts of the atoms whose environment the probe tells, and the most frequent one is."""
    right, base = np.zeros(len(atoms)), np.zeros(len(atoms))
    for fitted, asked in _divisions(atoms, seed):
        known, wanted = atoms.environment[fitted], atoms.environment[asked]
        names, counts = np.unique(known, return_counts=True)
        told = base_told = names[counts.argmax()]
        if len(names) > 1:
            regression = library("sklearn.linear_model").LogisticRegression(max_iter=_STEPS)
            told = _scaled(regression).fit(vectors[fitted], known).predict(vectors[asked])
        right[asked], base[asked] = told == wanted, base_told == wanted
    return _mean(right, atoms.group), _mean(base, atoms.group)


def _on_site_r2(vectors: Array, atoms: Atoms, on_site: Array, seed: int) -> Score | None:
    left, whole = np.zeros(len(atoms)), np.zeros(len(atoms))
    for fitted, asked in _divisions(atoms, seed):
        ridge = _scaled(library("sklearn.linear_model").RidgeCV(_RIDGE))
        told = ridge.fit(vectors[fitted], on_site[fitted]).predict(vectors[asked])
        left[asked] = (told - on_site[asked]) ** 2
        whole[asked] = (on_site[fitted].mean() - on_site[asked]) ** 2
    if not whole.any():
        return None
    rest = _ratio(left, whole, atoms.group)
    ends = None if rest.ci95 is None else (1 - rest.ci95[1], 1 - rest.ci95[0])
    return Score(1 - rest.value, "1", ends, rest.n)


def _divisions(atoms: Atoms, seed: int) -> Iterator[tuple[Places, Places]]:
    """Places of the atoms to fit to and of those to ask about, per element and part of its groups.

    Every element is in as many groups as there are parts, or more.
    """
    rng = np.random.default_rng(seed)
    for element in np.unique(atoms.number):
        here = np.flatnonzero(atoms.number == element)
        groups, place = np.unique(atoms.group[here], return_inverse=True)
        part = (rng.permutation(len(groups)) % FOLDS)[place]
        yield from ((here[part != k], here[part == k]) for k in range(FOLDS))


def _scaled(regression: Any) -> Any:
    """A regression of standardised vectors; the scales are those of the atoms it is fitted to."""
    scaler = library("sklearn.preprocessing").StandardScaler()
    return library("sklearn.pipeline").make_pipeline(scaler, regression)


def _mean(values: Array, group: Places) -> Score:
    return _ratio(values, np.ones(len(values)), group)


def _ratio(numerators: Array, denominators: Array, group: Places) -> Score:
    """Ratio of two sums over atoms, with the bootstrap interval over groups of molecules."""
    count = len(np.unique(group))
    value = float(numerators.sum() / denominators.sum())
    if count < 2:
        return Score(value, "1", None, count)
    (ends,) = ratio_intervals(numerators[:, None], denominators[:, None], groups=group).tolist()
    return Score(value, "1", (ends[0], ends[1]), count)
