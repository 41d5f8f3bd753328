"""How the error of a test set is made up: |dH| by the distance of two atoms, or by their elements.

Elements are pooled: the parts, weighted by their shares of the elements, add up to ``h_mae_elem``.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule, symbol
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import DataError
from hambench.scoring.comparison import Comparison
from hambench.scoring.metrics import METRICS, Score
from hambench.scoring.statistics import RESAMPLES, ratio_intervals

By = Literal["distance", "pairs"]
"""Bins of distance, or pairs of elements; blocks of an atom with itself are apart in both."""

WIDTH: Final = 1.0
"""Angstrom, of a bin of distances."""
_ON_SITE: Final = -1  # the bin of blocks of an atom with itself

Key = tuple[int, ...]


class Part(NamedTuple):
    """One bin or pair.

    Attributes:
        name: ``"2-3 A"``; ``"C-H"``, or ``"C"`` for blocks of a carbon with itself.
        score: mean |dH| of its matrix elements.
        elements: its share of all matrix elements.
        error: its share of the sum of all |dH|.
    """

    name: str
    score: Score
    elements: float
    error: float


class Breakdown:
    """Collects the errors of one molecule after another, as `Scorer` does.

    Args:
        by: what makes the parts.
        basis: orbital basis of the matrices.
    """

    def __init__(self, by: By, basis: OrbitalBasis) -> None:
        self.by = by
        self.basis = basis
        self._sums: list[dict[Key, NDArray[np.float64]]] = []
        self._groups: list[str] = []
        self._failed = 0

    def add(self, prediction: object, molecule: Molecule, group: str | None = None) -> None:
        """Compare one prediction with its label; one that failed is in no part.

        Arguments and errors as of `Scorer.add`.
        """
        compared = Comparison(prediction, molecule, self.basis)
        if compared.failed:
            self._failed += 1
            return
        keys = self._keys(molecule)
        found, place = np.unique(keys.reshape(-1, keys.shape[-1]), axis=0, return_inverse=True)
        sums = np.stack(
            [
                np.bincount(place.ravel(), weights=blocks.ravel(), minlength=len(found))
                for blocks in (compared.block_errors, compared.block_sizes)
            ],
            axis=1,
        )
        self._sums.append(dict(zip(map(tuple, found.tolist()), sums, strict=True)))
        self._groups.append(group if group is not None else f"#{len(self._groups)}")

    def parts(self, *, resamples: int = RESAMPLES, seed: int = 0) -> list[Part]:
        """All parts, on-site blocks first, then by distance or by elements.

        Args:
            resamples, seed: of the bootstrap, see `ratio_intervals`.

        Raises:
            DataError: there is no prediction that has not failed.
        """
        if not self._sums:
            raise DataError(
                f"there is nothing to break down: {self._failed} predictions, all of them failed"
            )
        keys = sorted({key for sums in self._sums for key in sums})
        nothing = np.zeros(2)
        terms = np.array([[sums.get(key, nothing) for key in keys] for sums in self._sums])
        errors, sizes = np.moveaxis(terms, 2, 0)
        lone = len(set(self._groups)) == 1
        ends = ratio_intervals(errors, sizes, groups=self._groups, resamples=resamples, seed=seed)
        unit, error, size = METRICS["h_mae_elem"].unit, errors.sum(0), sizes.sum(0)
        return [
            Part(
                self._name(key),
                Score(
                    float(error[k] / size[k]),
                    unit,
                    None if lone else (float(ends[k, 0]), float(ends[k, 1])),
                    int((sizes[:, k] > 0).sum()),
                ),
                float(size[k] / size.sum()),
                float(error[k] / error.sum()) if error.any() else 0.0,
            )
            for k, key in enumerate(keys)
        ]

    def _keys(self, molecule: Molecule) -> NDArray[np.int64]:
        """(N, N, keys) what each pair of atoms belongs to, whole numbers that sort as shown."""
        n = len(molecule)
        if self.by == "distance":
            apart = molecule.positions[:, None] - molecule.positions[None]
            bins = np.floor(np.linalg.norm(apart, axis=-1) / WIDTH).astype(np.int64)
            np.fill_diagonal(bins, _ON_SITE)
            return bins[..., None]
        z = np.broadcast_to(molecule.numbers, (n, n))
        return np.stack([~np.eye(n, dtype=bool), np.minimum(z, z.T), np.maximum(z, z.T)], axis=-1)

    def _name(self, key: Key) -> str:
        if self.by == "distance":
            low = key[0] * WIDTH
            return "on-site" if key[0] == _ON_SITE else f"{low:g}-{low + WIDTH:g} A"
        apart, *pair = key
        return "-".join(symbol(z) for z in (pair if apart else pair[:1]))
