"""What a training set was made of, and in what a molecule lies beyond it."""

from __future__ import annotations

from collections.abc import Iterable

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.data.rows import Rows
from hambench.results import Domain


def domain_of(rows: Rows) -> Domain:
    """Elements, charges and sizes of some molecules; reads their geometries alone."""
    elements: set[int] = set()
    charges: set[int] = set()
    largest = 0
    for index in range(len(rows)):
        molecule = rows.geometry(index)
        elements.update(molecule.numbers.tolist())
        charges.add(molecule.charge)
        largest = max(largest, len(molecule))
    return Domain(
        elements=tuple(SYMBOLS[z] for z in sorted(elements)),
        charges=tuple(sorted(charges)),
        atoms=largest,
    )


def beyond(domain: Domain, molecule: Molecule) -> list[str]:
    """In what a molecule lies outside a training set, a few words each; empty: in nothing.

    Nothing said is no promise: geometries and bonds can be new where elements, charge and size
    are not.
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
    return said


def _listed(charges: Iterable[int]) -> str:
    return ", ".join(f"{charge:+d}" if charge else "0" for charge in charges)
