"""What a molecule is made of, as a hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from hambench.chem.molecule import Molecule


def content_hash(molecule: Molecule, labels: Iterable[str]) -> bytes:
    """sha256 digest of numbers, positions, charge, multiplicity and the labels that exist."""
    digest = hashlib.sha256(f"{molecule.charge} {molecule.multiplicity}".encode())
    for name in ("numbers", "positions", *labels):
        value = getattr(molecule, name)
        if value is not None:
            array = np.asarray(value)
            digest.update(f"{name} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()
