"""`Comparison`: a predicted Hamiltonian beside its label, and what metrics share of the two."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule, formula
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, DataError
from hambench.scoring.spectra import WHOLE, SpectralErrors, Trouble, spectral_errors

if TYPE_CHECKING:
    from hambench.chem.functional import Functional, State
    from hambench.chem.scf import Acceleration


class Comparison:
    """One molecule's prediction and label; metrics are functions of it.

    Args:
        prediction: array or torch tensor (nao, nao) in Eh, canonical order; taken as it is, in
            float64, nothing is made symmetric.
        molecule: with the original label, cut nowhere.
        basis: orbital basis of both.
        cutoff: Angstrom, for metrics of near pairs; None: all pairs are near.
        theory: level of theory of the label, for metrics that need it.
        turned: what was predicted for the molecule turned by its `scoring_rotation`, in that frame,
            for metrics that need it.
        inference_s: seconds that predicting a molecule takes, for metrics of wall time; None: not
            known.
        threshold: of the overlap, for metrics of the spectrum; None: `overlap_threshold`.

    Raises:
        DataError: no label, a label unfit for scoring (`Molecule.checked`), or a prediction of
            another shape or type.
    """

    def __init__(
        self,
        prediction: object,
        molecule: Molecule,
        basis: OrbitalBasis,
        cutoff: float | None = None,
        theory: Theory | None = None,
        turned: object = None,
        inference_s: float | None = None,
        threshold: float | None = None,
    ) -> None:
        counts = basis.ao_counts(molecule.numbers)
        self.nao = int(counts.sum())
        if molecule.hamiltonian is None:
            raise DataError(
                f"molecule '{molecule.id}' has no Hamiltonian to compare with; score on molecules "
                "that have one"
            )
        self.molecule = molecule.checked(self.nao)
        self.label = molecule.hamiltonian
        self.basis = basis
        self.prediction = self._checked(prediction)
        self.turned = None if turned is None else self._checked(turned)
        self.cutoff = cutoff
        self.theory = theory
        self.inference_s = inference_s
        self.threshold = threshold
        self._counts = counts

    def _checked(self, prediction: object) -> NDArray[np.float64]:
        """A prediction in float64, of the right shape."""
        values = _float64(prediction, self.molecule)
        if values.shape != (self.nao, self.nao):
            raise DataError(
                f"molecule '{self.molecule.id}': the predicted Hamiltonian has shape "
                f"{values.shape}, expected ({self.nao}, {self.nao}) for "
                f"{formula(self.molecule.numbers)} in {self.basis.name}; check the order of the "
                "molecules and the basis of the model"
            )
        return values

    @cached_property
    def failed(self) -> bool:
        """Whether the prediction cannot be used: NaN, infinity, or beyond what can be squared.

        So it is too where the one for the molecule turned is not finite.
        """
        turned_fails = self.turned is not None and not np.isfinite(self.turned).all()
        return turned_fails or not np.isfinite(self.squared_error)

    @cached_property
    def difference(self) -> NDArray[np.float64]:
        """(nao, nao) prediction minus label, Eh."""
        return self.prediction - self.label

    @cached_property
    def rotation_difference(self) -> NDArray[np.float64]:
        """(nao, nao) ``H(R x) - D H(x) D^T`` in Eh, in the frame of the turned molecule."""
        # SciPy, which listing metrics needs not
        from hambench.chem.rotation import scoring_rotation, turned_matrix

        assert self.turned is not None  # as the scorer made sure
        rotation = scoring_rotation(self.molecule)
        return self.turned - turned_matrix(
            self.prediction, self.molecule.numbers, self.basis, rotation
        )

    @cached_property
    def squared_error(self) -> float:
        """``sum_ij dH_ij^2`` in Eh^2."""
        flat = self.difference.ravel()
        with np.errstate(over="ignore"):
            return float(flat @ flat)

    @cached_property
    def block_errors(self) -> NDArray[np.float64]:
        """(N, N) sums of |dH| over the block of each ordered atom pair, Eh."""
        starts = np.cumsum(self._counts) - self._counts
        rows = np.add.reduceat(np.abs(self.difference), starts, axis=0)
        return np.add.reduceat(rows, starts, axis=1)

    @cached_property
    def block_sizes(self) -> NDArray[np.int64]:
        """(N, N) number of entries in those blocks."""
        return np.outer(self._counts, self._counts)

    @cached_property
    def near(self) -> NDArray[np.bool_]:
        """(N, N) pairs closer than the cutoff, every atom with itself among them."""
        positions = self.molecule.positions
        if self.cutoff is None:
            return np.ones((len(positions),) * 2, dtype=bool)
        return np.linalg.norm(positions[:, None] - positions[None], axis=-1) < self.cutoff

    @cached_property
    def overlap(self) -> NDArray[np.float64]:
        """(nao, nao) overlap of the reference: the molecule's own, else computed.

        Raises:
            ConfigError: it has to be computed, and PySCF is not installed.
        """
        if self.molecule.overlap is not None:
            return self.molecule.overlap
        from hambench.chem.dft import overlap  # SciPy, which listing metrics needs not

        try:
            return overlap(self.molecule.numbers, self.molecule.positions, self.basis.name)
        except ConfigError as error:
            raise ConfigError(
                f"molecule '{self.molecule.id}' has no overlap, which metrics of the spectrum "
                f"need: {error}; or leave these metrics out"
            ) from error

    @cached_property
    def electrons(self) -> int:
        """Electrons outside the effective cores; DataError where the charge leaves fewer than none.

        Half of them, rounded down, are the occupied orbitals.
        """
        electrons = self.basis.electrons(self.molecule.numbers, self.molecule.charge)
        if electrons < 0:
            raise DataError(
                f"molecule '{self.molecule.id}': a charge of {self.molecule.charge} leaves "
                f"{formula(self.molecule.numbers)} {electrons} electrons; check its charge"
            )
        return electrons

    @cached_property
    def spectrum(self) -> SpectralErrors | Trouble:
        """What the spectra of both differ by, or why that cannot be said; see `solve_together`."""
        solve_together([self])
        return self.spectrum

    @cached_property
    def predicted_state(self) -> State:
        """What the prediction implies; it shares integrals, grid and orbital space with the label.

        Raises:
            ConfigError: a theory of another basis; and as `Functional` does.
        """
        return self._functional.at(self.prediction)

    @cached_property
    def label_state(self) -> State:
        """What the label implies; raises as `predicted_state`."""
        return self._functional.at(self.label)

    @cached_property
    def acceleration(self) -> Acceleration:
        """SCFs from the prediction and from named guesses; raises as `predicted_state`."""
        from hambench.chem.scf import Acceleration  # SciPy, which listing metrics needs not

        return Acceleration(self.prediction, self.label, self.molecule, self._level)

    @cached_property
    def _functional(self) -> Functional:
        from hambench.chem.functional import Functional  # SciPy, which listing metrics needs not

        return Functional(self.molecule, self._level)

    @property
    def _level(self) -> Theory:
        """The level of theory, of the basis of the matrices."""
        assert self.theory is not None  # as the scorer made sure
        if self.theory.basis.lower() != self.basis.name.lower():
            raise ConfigError(
                f"molecule '{self.molecule.id}' is in {self.basis.name}, the level of theory in "
                f"{self.theory.basis}; give the theory of the labels"
            )
        return self.theory


def solve_together(comparisons: Sequence[Comparison], device: str | None = None) -> None:
    """Find the `Comparison.spectrum` of molecules of one basis set, size and number of electrons.

    Args:
        comparisons: of predictions that have not failed.
        device: see `spectral_errors`.
    """
    from hambench.chem.levels import overlap_threshold  # SciPy, which listing metrics needs not

    first = comparisons[0]
    threshold = overlap_threshold(first.basis.name) if first.threshold is None else first.threshold
    found = spectral_errors(
        np.stack([c.prediction for c in comparisons]),
        np.stack([c.label for c in comparisons]),
        np.stack([c.overlap for c in comparisons]),
        electrons=first.electrons,
        threshold=threshold,
        whole=first.basis.name in WHOLE,
        device=device,
    )
    for comparison, errors in zip(comparisons, found, strict=True):
        comparison.spectrum = errors


def as_array(prediction: object) -> NDArray[Any]:
    """What was predicted as an array; of a torch tensor too, without importing torch."""
    detach = getattr(prediction, "detach", None)
    return np.asarray(prediction if detach is None else detach().cpu())


def _float64(prediction: object, molecule: Molecule) -> NDArray[np.float64]:
    values = as_array(prediction)
    if not np.can_cast(values.dtype, np.float64, "same_kind"):
        raise DataError(
            f"molecule '{molecule.id}': the predicted Hamiltonian is of type {values.dtype}, "
            "expected real numbers"
        )
    return values.astype(np.float64, copy=False)
