"""`OrbitalBasis`: the atomic orbitals of every element, and the slots a network predicts.

Shells stand in PySCF's order: l ascending, within one l as the basis file lists them. The tables
of def2-SVP (H-Kr) and def2-TZVPD (the 60 elements of the OMol_CSH table) ship with the package;
any other basis set is asked of PySCF. A *slot* is a place for one shell in the block every element
shares: slots are counted per label, the label being l, or l + 10 for a diffuse shell (one the
basis file appends after shells of higher l), so that diffuse shells have slots of their own
(HELM, arXiv 2510.00224, and its public code).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.molecule import SYMBOLS, symbol
from hambench.errors import ConfigError, RegistryError, nearest

SHIPPED = ("def2-svp", "def2-tzvpd")
DIFFUSE = 10
"""Added to l in the label of a diffuse shell."""


@dataclass(frozen=True)
class Shells:
    """The shells of one element.

    Attributes:
        l: angular momenta in canonical order, ascending.
        appended: angular momenta of the shells the basis file lists after all others (they are
            the last ones of their l in ``l``).
        core: electrons an effective core potential removes.
        exchanged: places in ``l`` of two shells of which ORCA's file of the basis set lists the
            second first, and with the opposite phase; empty where it lists as PySCF does.
    """

    l: tuple[int, ...]
    appended: tuple[int, ...] = ()
    core: int = 0
    exchanged: tuple[int, ...] = ()

    @cached_property
    def nao(self) -> int:
        """Number of atomic orbitals."""
        return sum(2 * l + 1 for l in self.l)

    @cached_property
    def listed(self) -> tuple[int, ...]:
        """Angular momenta in the order of the basis file, appended shells last."""
        remaining = list(self.l)
        for l in self.appended:
            remaining.remove(l)
        return (*remaining, *self.appended)

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Slot label of each shell, canonical order: l, or l + 10 where the shell is diffuse.

        Diffuse are the shells of ``listed`` at and after the first decrease of l.
        """
        listed = self.listed
        first = next((i for i in range(1, len(listed)) if listed[i] < listed[i - 1]), len(listed))
        diffuse = list(listed[first:])
        labels = []
        for l in reversed(self.l):  # the diffuse shell of an l is its last
            if l in diffuse:
                diffuse.remove(l)
                labels.append(l + DIFFUSE)
            else:
                labels.append(l)
        return tuple(reversed(labels))


@dataclass(frozen=True, eq=False)
class OrbitalBasis:
    """A named basis set over a set of elements; make one with `OrbitalBasis.load`.

    Attributes:
        name: PySCF's name of the basis set, lower case.
        shells: `Shells` of every element it covers, by atomic number.

    Which elements it covers decides the slots (and so the width of a network's output):
    `restrict` narrows it.
    """

    name: str
    shells: Mapping[int, Shells]

    @staticmethod
    def load(name: str, elements: Iterable[int | str] | None = None) -> OrbitalBasis:
        """The basis set called ``name``, for ``elements`` (atomic numbers or symbols).

        Args:
            name: any name PySCF knows, e.g. ``"def2-svp"``.
            elements: the elements to cover. None: all of the shipped table.

        Raises:
            RegistryError: nobody knows the name.
            ConfigError: no such element, the basis set has no functions for it, or ``elements`` was
                not given for a basis that does not ship with the package.
        """
        key = name.lower()
        wanted = None if elements is None else _atomic_numbers(elements)
        if key in SHIPPED:
            shipped = _shipped(key)
            if wanted is None:
                return shipped
            if set(wanted) <= set(shipped.shells):
                return shipped.restrict(wanted)
        if wanted is None:
            raise ConfigError(
                f"basis '{name}' has no shipped table (those are {', '.join(SHIPPED)}); name the "
                "elements it is wanted for: OrbitalBasis.load(name, elements=[1, 6, 8])"
            )
        return OrbitalBasis(key, _from_pyscf(key, wanted))

    @cached_property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers covered, ascending."""
        return tuple(sorted(self.shells))

    @cached_property
    def lmax(self) -> int:
        """Largest angular momentum of any shell."""
        return max(max(s.l) for s in self.shells.values())

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """Slot labels, ascending: per label the largest count over the elements."""
        most: dict[int, int] = {}
        for shells in self.shells.values():
            for label in set(shells.labels):
                most[label] = max(most.get(label, 0), shells.labels.count(label))
        return tuple(label for label in sorted(most) for _ in range(most[label]))

    @cached_property
    def core_electrons(self) -> dict[int, int]:
        """Electrons removed by the effective core potential, by atomic number."""
        return {z: s.core for z, s in self.shells.items()}

    def nao(self, numbers: ArrayLike) -> int:
        """Atomic orbitals of a molecule with these (N,) atomic numbers.

        Raises:
            ConfigError: an element the basis does not cover.
        """
        return int(self.ao_counts(numbers).sum())

    def ao_counts(self, numbers: ArrayLike) -> NDArray[np.int64]:
        """(N,) atomic orbitals of each atom; raises ConfigError as `nao` does."""
        given = np.asarray(numbers)
        numbers = given.astype(np.int64, copy=False)
        if given is not numbers and (numbers != given).any():
            raise ConfigError(f"atomic numbers are whole, got {given.tolist()!s:.60}")
        counts = self._counts.take(numbers, mode="clip")
        if not counts.all():
            missing = sorted({symbol(z) for z in numbers[counts == 0]})
            raise ConfigError(
                f"no orbitals for {', '.join(missing)} in {self!r}; "
                "build the model or task for a basis that covers them"
            )
        return counts

    def electrons(self, numbers: ArrayLike, charge: int = 0) -> int:
        """Electrons outside the effective cores of a molecule with (N,) numbers and a charge."""
        numbers = np.asarray(numbers, dtype=np.int64)
        return int(numbers.sum() - sum(self.shells[int(z)].core for z in numbers) - charge)

    def restrict(self, elements: Iterable[int]) -> OrbitalBasis:
        """The same basis set for fewer ``elements``; ConfigError for one it does not cover."""
        wanted = sorted({int(z) for z in elements})
        self.ao_counts(wanted)
        return OrbitalBasis(self.name, {z: self.shells[z] for z in wanted})

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON form, for checkpoints and results; `from_dict` reads it back."""
        return {
            "name": self.name,
            "shells": {
                str(z): {"l": list(s.l), "appended": list(s.appended), "core": s.core}
                | ({"exchanged": list(s.exchanged)} if s.exchanged else {})
                for z, s in sorted(self.shells.items())
            },
        }

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> OrbitalBasis:
        """The basis that `to_dict` wrote."""
        shells = {
            int(z): Shells(
                tuple(s["l"]), tuple(s["appended"]), int(s["core"]), tuple(s.get("exchanged", ()))
            )
            for z, s in content["shells"].items()
        }
        return OrbitalBasis(str(content["name"]), shells)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OrbitalBasis) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash((self.name, self.elements))

    def __repr__(self) -> str:
        symbols = [SYMBOLS[z] for z in self.elements]
        shown = " ".join(symbols) if len(symbols) <= 10 else f"{len(symbols)} elements"
        return f"OrbitalBasis({self.name}: {shown})"

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        counts = np.zeros(len(SYMBOLS) + 1, dtype=np.int64)
        for z, shells in self.shells.items():
            counts[z] = shells.nao
        return counts


def _atomic_numbers(elements: Iterable[int | str]) -> list[int]:
    """Ascending atomic numbers; ConfigError for what is no list of elements."""
    found = [] if isinstance(elements, str | int) else sorted({_atomic_number(e) for e in elements})
    if not found:
        raise ConfigError(f"elements are {elements!r}, expected some, as in [1, 8] or ['H', 'O']")
    return found


def _atomic_number(element: int | str) -> int:
    if element in SYMBOLS[1:]:
        return SYMBOLS.index(str(element))
    if isinstance(element, str) or not 0 < element < len(SYMBOLS) or element != int(element):
        raise ConfigError(
            f"no element {element!r}; give atomic numbers 1 to {len(SYMBOLS) - 1}, or symbols"
        )
    return int(element)


@lru_cache
def _shipped(name: str) -> OrbitalBasis:
    text = resources.files("hambench.chem").joinpath("data", f"{name}.json").read_text("utf-8")
    return OrbitalBasis.from_dict(json.loads(text))


def _from_pyscf(name: str, elements: list[int]) -> dict[int, Shells]:
    from hambench.chem import dft  # PySCF stays behind its one door, and unneeded for shipped sets

    try:
        return {z: Shells(l, (), core) for z, (l, core) in dft.basis_shells(name, elements).items()}
    except RegistryError as error:
        raise RegistryError(f"{error}{nearest(name, SHIPPED)}") from error
