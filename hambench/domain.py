"""What a training set was made of, and in what a molecule lies beyond it."""

from __future__ import annotations

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
    nearest: dict[str, tuple[float, float]] = {}
    largest = 0
    for index in range(len(rows)):
        molecule = rows.geometry(index)
        elements.update(molecule.numbers.tolist())
        charges.add(molecule.charge)
        largest = max(largest, len(molecule))
        for pair, distances in _nearest(molecule).items():
            low, high = nearest.get(pair, (np.inf, 0.0))
            nearest[pair] = min(low, float(distances.min())), max(high, float(distances.max()))
    return Domain(
        elements=tuple(SYMBOLS[z] for z in sorted(elements)),
        charges=tuple(sorted(charges)),
        atoms=largest,
        nearest=dict(sorted(nearest.items())),
    )


def beyond(domain: Domain, molecule: Molecule) -> list[str]:
    """In what a molecule lies outside a training set, a few words each; empty: in nothing.

    Nothing said is no promise: geometries can be new where elements, charge, size and the nearest
    neighbour of every atom are not.
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
    """Of every kind of nearest neighbours, that it is new, or the one farthest out of range."""
    said = []
    known = set(domain.elements)
    for pair, distances in _nearest(molecule).items() if domain.nearest else ():
        one, other = pair.split("-")
        if pair not in domain.nearest:
            if {one, other} <= known:
                said.append(f"{one} nearest to {other}, never so in training")
            continue
        low, high = domain.nearest[pair]
        out = np.maximum(low - distances, distances - high)
        if out.max() > _SLACK:
            said.append(
                f"{one} {distances[out.argmax()]:.2f} Angstrom from its nearest atom {other}, in "
                f"training {low:.2f} to {high:.2f}"
            )
    return said


def _nearest(molecule: Molecule) -> dict[str, NDArray[np.float64]]:
    """Distances in Angstrom of the atoms to their nearest neighbour, by both elements: ``H-O``."""
    if len(molecule) == 1:
        return {}
    distances = squareform(pdist(molecule.positions))
    np.fill_diagonal(distances, np.inf)
    symbols = np.array([SYMBOLS[z] for z in molecule.numbers.tolist()])
    other, nearest = symbols[distances.argmin(axis=1)], distances.min(axis=1)
    pairs = [f"{one}-{two}" for one, two in zip(symbols, other, strict=True)]
    return {pair: nearest[np.array(pairs) == pair] for pair in sorted(set(pairs))}


def _listed(charges: Iterable[int]) -> str:
    return ", ".join(f"{charge:+d}" if charge else "0" for charge in charges)
