"""The toy beyond an initial guess."""

from __future__ import annotations

from dataclasses import replace

from hambench.chem.orbitals import OrbitalBasis
from hambench.data.graph import GraphSpec
from hambench.data.guess import Given, GuessName, guess_of
from hambench_toy.net import Toy


class Residual(Toy):
    """As `Toy`, for what is left of a Hamiltonian without an initial guess.

    Args:
        initial_guess: what it learns beyond.
        theory: level of theory of the labels.
    """

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        initial_guess: GuessName = "minao",
        theory: Given = None,
        cutoff: float = 5.0,
        start: float = 0.1,
    ) -> None:
        super().__init__(basis, cutoff=cutoff, start=start)
        self.guess = guess_of(initial_guess, theory, basis, "toy_residual")

    @property
    def graph(self) -> GraphSpec:
        return replace(super().graph, guess=self.guess)
