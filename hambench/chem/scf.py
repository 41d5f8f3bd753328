"""How many cycles a self-consistent field takes, from a predicted Hamiltonian or a named guess.

A *cycle* diagonalises a Fock matrix and builds the one of the new density. The Fock matrix of the
starting density comes before the first cycle, so that a run of n cycles has n + 1 *builds*. QH9
(arXiv 2306.09549) prints the number of the last cycle counted from 0, which is n - 1.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.functional import Functional
from hambench.chem.molecule import Molecule
from hambench.chem.ordering import from_canonical
from hambench.chem.theory import Theory
from hambench.errors import ConfigError, nearest

Matrix = NDArray[np.float64]

GUESSES: Final = ("minao", "atom", "1e")
"""Starting densities that PySCF makes without a model."""


@dataclass(frozen=True, eq=False)
class SCFRun:
    """One self-consistent field.

    Attributes:
        cycles: until convergence, or as many as the theory allows.
        builds: of Fock matrices, that of the starting density among them.
        converged: whether it met the criteria of its theory.
        seconds: wall time, with the starting density, integrals and grid.
        energy: Eh, without dispersion.
        errors: (builds,) ``mean |F_k - H|`` in Eh of the Fock matrix of the starting density and of
            that after each cycle, neither mixed by DIIS; None where there was no H to compare with.
    """

    cycles: int
    builds: int
    converged: bool
    seconds: float
    energy: float
    errors: Matrix | None


def scf_from(
    guess: str | Matrix, molecule: Molecule, theory: Theory, label: Matrix | None = None
) -> SCFRun:
    """One SCF at the settings of a theory; no second attempt, no coarse grid first.

    Args:
        guess: one of `GUESSES`, or a (nao, nao) canonical Hamiltonian in Eh, of which one
            diagonalisation gives the starting density.
        molecule: numbers, positions and charge are used.
        theory: level of theory; ``max_cycles`` is where it gives up.
        label: (nao, nao) canonical Hamiltonian in Eh that the Fock matrices are compared with.

    Raises:
        ConfigError: an unknown guess; or as `Functional`.
    """
    began = time.perf_counter()
    functional = Functional(molecule, theory)
    field = functional.field
    start = density_of(functional, guess)
    if label is not None:
        label = from_canonical(label, molecule.numbers, functional.basis, "pyscf")
    build, errors = field.get_veff, []

    def counted(*words: Any, **named: Any) -> Any:
        potential = build(*words, **named)
        fock = functional.core + np.asarray(potential)
        errors.append(np.nan if label is None else float(np.abs(fock - label).mean()))
        return potential

    field.get_veff = counted
    energy = float(field.kernel(start))
    return SCFRun(
        cycles=int(field.cycles),
        builds=len(errors),
        converged=bool(field.converged),
        seconds=time.perf_counter() - began,
        energy=energy,
        errors=None if label is None else np.array(errors),
    )


def density_of(functional: Functional, guess: str | Matrix) -> Matrix:
    """(nao, nao) starting density in PySCF's order; arguments and errors as of `scf_from`."""
    if not isinstance(guess, str):
        return functional.at(guess).density
    if guess not in GUESSES:
        raise ConfigError(f"unknown initial guess '{guess}'.{nearest(guess, GUESSES)}")
    return np.asarray(functional.field.get_init_guess(functional.field.mol, guess))


class Acceleration:
    """SCFs of one molecule from a prediction and from the named guesses; each is run once.

    Args:
        prediction: (nao, nao) canonical Hamiltonian in Eh.
        label: the one it should be, that Fock matrices are compared with.
        molecule, theory: as `scf_from` takes them.
    """

    def __init__(
        self, prediction: Matrix, label: Matrix, molecule: Molecule, theory: Theory
    ) -> None:
        self.prediction, self.label = prediction, label
        self.molecule, self.theory = molecule, theory
        self._references: dict[str, SCFRun] = {}

    @cached_property
    def predicted(self) -> SCFRun:
        """From the prediction."""
        return scf_from(self.prediction, self.molecule, self.theory)

    def reference(self, guess: str) -> SCFRun:
        """From one of `GUESSES`."""
        if guess not in self._references:
            self._references[guess] = scf_from(guess, self.molecule, self.theory, self.label)
        return self._references[guess]


def settings(theory: Theory) -> dict[str, Any]:
    """What cycle counts depend on, JSON-able: thresholds, DIIS, grids, PySCF, what is counted."""
    import importlib.metadata

    names = ("conv_tol", "conv_tol_grad", "max_cycles", "grid_level", "nlc_grid_level", "fit")
    return {
        **{name: getattr(theory, name) for name in names},
        "diis": "CDIIS",
        "diis_space": engine.DIIS_SPACE,
        "first_build_is_a_cycle": False,
        "pyscf": importlib.metadata.version("pyscf"),
    }
