"""A starting density for PySCF's self-consistent field from a trained model."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hambench.chem import engine
from hambench.chem.levels import orbital_levels, overlap_threshold
from hambench.chem.mole import from_mole
from hambench.chem.molecule import Molecule
from hambench.chem.ordering import from_canonical
from hambench.errors import ConfigError, RunError
from hambench.inference.hamiltonians import (
    check_predicts_hamiltonians,
    hamiltonians,
    load_hamiltonian_model,
)
from hambench.inference.molecules import check_molecule
from hambench.model import Model


def scf_guess(model: Model | str | os.PathLike[str], mol: Any) -> NDArray[np.float64]:
    """Density matrix from a predicted Hamiltonian, to start a self-consistent field with.

    ``D = 2 C C^T`` of the occupied orbitals that one diagonalisation of the prediction gives::

        mf = pyscf.dft.RKS(mol, xc="pbe")
        mf.kernel(hambench.scf_guess("runs/water_mini/helm/seed0-1a2b3c4d", mol))

    Any functional may follow; the guess is the better the nearer it is to that of the labels.

    Args:
        model: a model of Hamiltonians, where it is; or the directory of a finished run, or an
            export of one, whose model is loaded at every call.
        mol: a built ``pyscf.gto.Mole`` in the basis of the model, or a `Molecule`. Closed shells.

    Returns:
        (nao, nao) float64, in PySCF's order, atoms as in ``mol``.

    Raises:
        ConfigError: a model of energies; PySCF is not installed; or a molecule that does not fit
            the model: an element, another basis, Cartesian functions, core potentials, ghost atoms,
            an open shell.
        DataError: no finished run, or atoms too near each other, as in a mistaken unit.
        RunError: the prediction is not finite.
    """
    if isinstance(model, str | os.PathLike):
        model = load_hamiltonian_model(model).model
    if not isinstance(model, Model):
        raise ConfigError(
            f"model is {model!r:.60}, expected a run directory or what hambench.build_model gives"
        )
    check_predicts_hamiltonians(model, f"the {type(model).__name__}")
    basis = model.basis
    molecule = mol if isinstance(mol, Molecule) else from_mole(mol, basis)
    check_molecule(molecule, basis)
    if isinstance(mol, Molecule):
        mol = engine.mole(mol.numbers, mol.positions, basis.name, mol.charge)
    ((_, predicted),) = hamiltonians(model, [molecule], batch_size=1)
    if not np.isfinite(predicted).all():
        raise RunError(
            f"the Hamiltonian predicted for {engine.called(molecule)} holds NaN or infinity; "
            "the model is of no use for it, check its training"
        )
    hamiltonian = from_canonical(predicted, molecule.numbers, basis, "pyscf")
    overlap = mol.intor_symmetric("int1e_ovlp")
    _, coefficients = orbital_levels(hamiltonian, overlap, overlap_threshold(basis.name))
    occupied = coefficients[:, : basis.electrons(molecule.numbers, molecule.charge) // 2]
    density: NDArray[np.float64] = 2 * occupied @ occupied.T
    return density
