"""RDKit behind one door: geometries of a molecule that is given as a SMILES string.

RDKit is imported inside functions only: nothing else of the project needs it.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hambench.chem.molecule import Molecule
from hambench.errors import ConfigError, DataError

DISPLACEMENT: Final = 0.05
"""Angstrom, standard deviation of the random displacement of every coordinate."""

_MMFF_STEPS: Final = 2000


def conformers(smiles: str, count: int, seed: int) -> list[Molecule]:
    """Geometries near minima of the MMFF94 force field.

    Conformers of RDKit's ETKDG (version 3), relaxed with MMFF94, each coordinate displaced by a
    normal deviate of `DISPLACEMENT`, rounded to 6 decimals; the same at every call (other
    versions of RDKit may give others).

    Args:
        smiles: one molecule; hydrogens may be left out.
        count: how many; they are not forced to differ.
        seed: decides everything.

    Returns:
        Molecules without labels or ids, with the formal charge of the SMILES.

    Raises:
        DataError: not a SMILES string, or RDKit finds no geometry or no force field for it.
        ConfigError: RDKit is not installed.
    """
    chem, fields = _rdkit("Chem"), _rdkit("Chem.AllChem")
    with _rdkit("rdBase").BlockLogs():
        parsed = chem.MolFromSmiles(smiles)
        if parsed is None or not parsed.GetNumAtoms():
            raise DataError(f"'{smiles}' is no valid SMILES string")
        full = chem.AddHs(parsed)
        settings = fields.ETKDGv3()
        settings.randomSeed = seed
        settings.numThreads = 1
        found = list(fields.EmbedMultipleConfs(full, count, settings))
        if len(found) < count:
            raise DataError(f"RDKit finds {len(found)} of {count} geometries of '{smiles}'")
        if not fields.MMFFHasAllMoleculeParams(full):
            raise DataError(f"the force field MMFF94 has no parameters for '{smiles}'")
        fields.MMFFOptimizeMoleculeConfs(full, numThreads=1, maxIters=_MMFF_STEPS)
    numbers = np.array([atom.GetAtomicNum() for atom in full.GetAtoms()])
    charge = chem.GetFormalCharge(full)
    rng = np.random.default_rng([seed, *smiles.encode()])  # other molecules move otherwise
    return [
        Molecule(numbers, _displaced(conformer.GetPositions(), rng), charge=charge)
        for conformer in full.GetConformers()
    ]


def version() -> str:
    """Version of RDKit; ConfigError without it."""
    return str(_rdkit("rdBase").rdkitVersion)


def _displaced(positions: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    moved: NDArray[np.float64] = positions + rng.normal(scale=DISPLACEMENT, size=positions.shape)
    return moved.round(6)


def _rdkit(module: str) -> Any:
    """A module of RDKit; its type stubs are incomplete, hence Any."""
    try:
        return importlib.import_module(f"rdkit.{module}")
    except ImportError as error:
        raise ConfigError(
            "geometries from SMILES need RDKit, which is not installed; install it with: pip "
            "install 'hambench[smiles]', or give the geometries as an xyz file"
        ) from error
