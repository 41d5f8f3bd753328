"""The HDF5 files of OMol_CSH_58k (wB97M-V/def2-TZVPD) as lazy rows, read in place.

A molecule is a group, at any depth, with the datasets ``fock`` (row-major upper triangle with the
diagonal, Eh, float32 or float64), ``elements`` (N,) and ``coords`` (N, 3) Angstrom, and perhaps
the attributes ``charge`` and ``spin`` (multiplicity). There is no overlap and no energy. The order
of the orbitals is ``omol_csh`` of `hambench.chem.ordering`.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule, within
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.stored import StoredMatrix
from hambench.chem.theory import named
from hambench.chem.triangle import triangle_size
from hambench.data.conventions import Conventions
from hambench.data.hdf5_rows import Hdf5Rows
from hambench.data.overlaps import cached_overlap
from hambench.errors import ConfigError, DataError, nearest
from hambench.tasks.omol_csh_keys import LEAF, is_leaf, keys_of
from hambench.tasks.omol_csh_names import charge_of_name

CONVENTIONS: Final = Conventions("angstrom", "omol_csh")
"""What the public files are known to have."""

LARGEST_ELEMENT: Final = 1e4
"""Eh; a Fock matrix with a larger element is refused, as the public code does."""

_MOST_ATOMS: Final = 10_000  # far more than the set has (150): a larger number is damage
_PROBES: Final = 1000  # groups looked into until a file is known not to be of this format


class OmolCshFile(Hdf5Rows):
    """A file of OMol_CSH as a lazy sequence of `Molecule`; ids are the paths of the groups.

    Memory does not grow with the file, but for the list of keys. It may cross `fork` and be
    pickled: every process opens the file for itself.

    Args:
        path: the file.
        charges: charges by key, where neither attribute nor name tells one; they go before both.
        overlap: "compute" gives every molecule the overlap of its orbitals, computed by PySCF
            and kept (see `hambench.data.overlaps`); None leaves it out.
        conventions: unit and order of the file, if they are not those of the public ones.
        progress: show progress while the keys are collected, if that takes long.

    Raises:
        DataError: missing, foreign, truncated or corrupt file; and for a row (on access) that is
            unreadable, not sound or without a charge, naming file and key.
        ConfigError: ``charges`` names a key that the file does not have.
    """

    computes_overlap: bool
    theory: Final = named("wb97m-v/def2-tzvpd").to_dict()
    """Level of theory of the labels."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        charges: Mapping[str, int] | None = None,
        overlap: Literal["compute"] | None = None,
        conventions: Conventions = CONVENTIONS,
        progress: bool = True,
    ) -> None:
        super().__init__(path)
        self.conventions = conventions
        self.computes_overlap = overlap == "compute"
        self.charges = dict(charges or {})
        with self._reading("the list of its groups"):
            self._ids = keys_of(self.path, self._open(), progress)
        if not self._ids:
            raise DataError(
                f"{self.path} has no group with a dataset '{LEAF}'; it is not a file of OMol_CSH, "
                "or empty: fetch it again"
            )
        for key in sorted(self.charges.keys() - set(self._ids))[:1]:
            raise ConfigError(f"{self.path} has no group '{key}'.{nearest(key, self._ids)}")

    @staticmethod
    def recognises(path: str | os.PathLike[str]) -> bool:
        """Whether a file is an HDF5 file whose first groups hold one with a dataset ``fock``."""
        if not Path(path).is_file():
            return False
        try:
            with h5py.File(path, "r", locking=False) as file:
                return _first_leaf(file)
        except (OSError, RuntimeError, KeyError, ValueError):
            return False

    @cached_property
    def basis(self) -> OrbitalBasis:
        """def2-TZVPD, all elements of the set."""
        return OrbitalBasis.load("def2-tzvpd")

    @property
    def ids(self) -> tuple[str, ...]:
        """Paths of the groups, in the order of the list of keys."""
        return self._ids

    def row(self, index: int) -> Molecule:
        """The molecule of row ``index`` (0 to n-1); see the class for errors."""
        key = self._ids[index]
        with self._reading(f"group '{key}'"):
            bare, hamiltonian = self._read(key)
            molecule = replace(bare, hamiltonian=hamiltonian.canonical())
            nao = self.basis.nao(bare.numbers)
            if self.computes_overlap:
                overlap = cached_overlap(molecule, self.basis.name, nao)
                molecule = replace(molecule, overlap=overlap)
            return molecule.checked(nao)

    def stored(self, index: int) -> tuple[Molecule, StoredMatrix | None]:
        """The molecule of a row for training, see `Rows.stored`."""
        key = self._ids[index]
        with self._reading(f"group '{key}'"):
            return self._read(key)

    def geometry(self, index: int) -> Molecule:
        """A row without its Hamiltonian."""
        key = self._ids[index]
        with self._reading(f"group '{key}'"):
            return self._bare(key, self._open()[key])

    def with_conventions(self, conventions: Conventions) -> Self:
        """The same file read with another unit of positions or order of orbitals."""
        other = copy.copy(self)
        other.conventions = conventions
        other._file = None  # each closes its own
        return other

    def __repr__(self) -> str:
        return f"OmolCshFile({self.path}: {len(self)} molecules)"

    def _read(self, key: str) -> tuple[Molecule, StoredMatrix]:
        """The checked molecule of a group without matrices, and its Hamiltonian."""
        group = self._open()[key]
        bare = self._bare(key, group)
        nao = self.basis.nao(bare.numbers)
        return bare.checked(nao), self._hamiltonian(group, bare.numbers, nao)

    def _bare(self, key: str, group: h5py.Group) -> Molecule:
        """The molecule of a group without matrices; not checked."""
        numbers = _elements(group)
        self.basis.ao_counts(numbers)  # refuses what is no element of it
        positions = _array(group, "coords", (len(numbers), 3), "fiu").astype(np.float64)
        charge, multiplicity = self._state(key, group.attrs, int(numbers.sum()))
        return Molecule(
            numbers,
            positions * self.conventions.length,
            charge=charge,
            multiplicity=multiplicity,
            basis=self.basis.name,
            id=key,
        )

    def _hamiltonian(self, group: h5py.Group, numbers: NDArray[np.int64], nao: int) -> StoredMatrix:
        packed = _array(group, LEAF, (int(triangle_size(np.array(nao))),), "f")
        if not within(packed, LARGEST_ELEMENT):
            raise DataError(
                f"'{LEAF}' holds NaN or an element above {LARGEST_ELEMENT:g} Eh; the calculation "
                "behind it failed: leave the group out"
            )
        return StoredMatrix(packed, numbers, self.basis, self.conventions.order, packed=True)

    def _state(self, key: str, attributes: Mapping[str, Any], protons: int) -> tuple[int, int]:
        """Charge and multiplicity; a spin of 0 is 2S, since no multiplicity is 0."""
        multiplicity = max(_integer(attributes, "spin", default=1), 1)
        if key in self.charges:
            return self.charges[key], multiplicity
        if "charge" in attributes:
            return _integer(attributes, "charge"), multiplicity
        charge = charge_of_name(key, protons)
        if charge is None:
            raise DataError(
                "neither an attribute 'charge' nor the name tells a charge that makes a closed "
                f"shell; give it to the reader: charges={{'{key}': CHARGE}}"
            )
        return charge, multiplicity


def _first_leaf(file: h5py.File) -> bool:
    """Whether one of the first groups, each level from its first on, is a molecule."""
    waiting: list[h5py.Group] = [file]
    for _ in range(_PROBES):
        if not waiting:
            return False
        group = waiting.pop()
        if is_leaf(group):
            return True
        inner = [group.get(name) for name, _ in zip(group, range(8), strict=False)]
        waiting += [child for child in reversed(inner) if isinstance(child, h5py.Group)]
    return False


def _elements(group: h5py.Group) -> NDArray[np.int64]:
    """(N,) atomic numbers of a group."""
    count = _dataset(group, "elements").shape
    if len(count) != 1 or not 1 <= count[0] <= _MOST_ATOMS:
        raise DataError(
            f"'elements' has shape {count}, expected one list of 1 to {_MOST_ATOMS} atomic "
            "numbers; fetch the file again"
        )
    numbers: NDArray[np.int64] = _array(group, "elements", count, "iu").astype(np.int64)
    return numbers


def _array(group: h5py.Group, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
    """A dataset, after its shape and kind of numbers were found to be right."""
    data = _dataset(group, name)
    if data.shape != shape or data.dtype.kind not in kinds:
        expected = " or ".join({"f": "float", "i": "integer", "u": "unsigned"}[k] for k in kinds)
        raise DataError(
            f"'{name}' is {data.dtype} of shape {data.shape}, expected {expected} of shape "
            f"{shape}; it does not belong to these atoms in def2-TZVPD: fetch the file again"
        )
    values = np.empty(shape, dtype=data.dtype.newbyteorder("="))
    data.read_direct(values)
    return values


def _dataset(group: h5py.Group, name: str) -> h5py.Dataset:
    data = group.get(name) if isinstance(group, h5py.Group) else None
    if not isinstance(data, h5py.Dataset):
        raise DataError(f"there is no dataset '{name}'; fetch the file again")
    return data


def _integer(attributes: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A whole number among the attributes; ``default`` where there is none of that name."""
    if default is not None and name not in attributes:
        return default
    value = np.asarray(attributes[name])
    if value.size != 1 or value.dtype.kind not in "iuf" or value.item() != int(value.item()):
        raise DataError(f"attribute '{name}' is {attributes[name]!r}, expected one whole number")
    return int(value.item())
