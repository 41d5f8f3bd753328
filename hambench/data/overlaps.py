"""Overlaps of molecules whose files have none: computed once, kept under the cache folder.

A kept overlap is named by what it depends on (basis, atomic numbers, positions), so it can never
be that of another molecule, and processes that compute one at the same time write the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hambench.chem import dft
from hambench.chem.molecule import Molecule
from hambench.chem.triangle import pack_triangle, triangle_size, unpack_triangle
from hambench.data.location import data_folder
from hambench.errors import HambenchError
from hambench.files import atomic_write

logger = logging.getLogger(__name__)


def cached_overlap(molecule: Molecule, basis: str, nao: int) -> NDArray[np.float64]:
    """(nao, nao) canonical overlap of a molecule in a basis set, from the cache or from PySCF.

    Where the cache folder cannot be written it is computed at every call, which a warning says.

    Raises:
        ConfigError: it has to be computed, and PySCF is not installed.
    """
    path = _place(molecule, basis)
    packed = _read(path, int(triangle_size(np.array(nao))))
    if packed is not None:
        return unpack_triangle(packed)
    overlap = dft.overlap(molecule.numbers, molecule.positions, basis)
    try:
        with atomic_write(path, "wb") as file:
            np.savez_compressed(file, overlap=pack_triangle(overlap))
    except HambenchError as error:
        logger.warning("overlaps are computed anew at every access: %s", error)
    return overlap


def _place(molecule: Molecule, basis: str) -> Path:
    digest = hashlib.sha256(basis.encode())
    digest.update(molecule.numbers.astype("<i8").tobytes())
    digest.update(molecule.positions.astype("<f8").tobytes())
    name = digest.hexdigest()
    return data_folder() / "overlaps" / basis / name[:2] / f"{name}.npz"


def _read(path: Path, size: int) -> NDArray[np.float64] | None:
    """A kept triangle, or None if there is none or it is damaged (zip files have checksums)."""
    try:
        with np.load(path, allow_pickle=False) as file:
            packed: NDArray[np.float64] = file["overlap"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return packed if packed.shape == (size,) and packed.dtype == np.float64 else None
