"""What a training set was made of, and in what a molecule lies beyond it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import pdist, squareform

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.data.rows import Rows
from hambench.results import Domain

_SLACK = 0.1
"""Angstrom by which an atom may be nearer or farther than any in training without being named."""


def domain_of(rows: Rows) -> Domain:
    """Elements, charges, sizes and bonds of some molecules; reads their geometries alone."""
    elements: set[int] = set()
    charges: set[int] = set()
    nearest: dict[int, tuple[float, float]] = defaultdict(lambda: (np.inf, 0.0))
    largest = 0
    for index in range(len(rows)):
        molecule = rows.geometry(index)
        elements.update(molecule.numbers.tolist())
        charges.add(molecule.charge)
        largest = max(largest, len(molecule))
        distances = _nearest(molecule)
        for z in np.unique(molecule.numbers) if distances.size else ():
            here, (low, high) = distances[molecule.numbers == z], nearest[int(z)]
            nearest[int(z)] = min(low, float(here.min())), max(high, float(here.max()))
    return Domain(
        elements=tuple(SYMBOLS[z] for z in sorted(elements)),
        charges=tuple(sorted(charges)),
        atoms=largest,
        nearest={SYMBOLS[z]: nearest[z] for z in sorted(nearest)},
    )


def beyond(domain: Domain, molecule: Molecule) -> list[str]:
    """In what a molecule lies outside a training set, a few words each; empty: in nothing.

    Nothing said is no promise: geometries can be new where elements, charge, size and the distance
    of each atom to its nearest neighbour are not.
    """
    said = []
    symbols = [SYMBOLS[z] for z in molecule.numbers.tolist()]
    if new := sorted(set(symbols) - set(domain.elements)):
        count = sum(symbol in new for symbol in symbols)
        said.append(f"{', '.join(new)} never seen in training ({count} of {len(symbols)} atoms)")
    if molecule.charge not in domain.charges:
        said.append(f"charge {molecule.charge:+d}, in training {_listed(domain.charges)}")
    if len(molecule) > domain.atoms:
        said.append(f"{len(molecule)} atoms, in training at most {domain.atoms}")
    return said + _strained(domain, molecule)


def _strained(domain: Domain, molecule: Molecule) -> list[str]:
    """The atom of each element that is farthest out of the range of its nearest neighbours."""
    distances = _nearest(molecule)
    said = []
    for symbol, (low, high) in domain.nearest.items() if distances.size else ():
        here = distances[molecule.numbers == SYMBOLS.index(symbol)]
        out = np.maximum(low - here, here - high)
        if out.size and out.max() > _SLACK:
            said.append(
                f"{symbol} {here[out.argmax()]:.2f} Angstrom from its nearest atom, in training "
                f"{low:.2f} to {high:.2f}"
            )
    return said


def _nearest(molecule: Molecule) -> NDArray[np.float64]:
    """Distance of every atom to its nearest neighbour, (N,) Angstrom; empty for a single atom."""
    if len(molecule) == 1:
        return np.empty(0)
    distances = squareform(pdist(molecule.positions))
    np.fill_diagonal(distances, np.inf)
    nearest: NDArray[np.float64] = distances.min(axis=1)
    return nearest


def _listed(charges: Iterable[int]) -> str:
    return ", ".join(f"{charge:+d}" if charge else "0" for charge in charges)
