"""SCF iterations from PySCF's own guess and from the Hamiltonian that a trained model predicts.

hambench run task=water_mini model=helm_small max_minutes=4
python examples/scf_guess.py RUN_DIR
"""

from __future__ import annotations

import sys

from pyscf import gto
from pyscf.dft.rks import RKS

import hambench
from hambench.errors import HambenchError

WATER = "O 0 0 0.1173; H 0 0.7900 -0.4692; H 0 -0.7200 -0.5000"  # Angstrom, out of equilibrium


def mean_field(mol: gto.Mole) -> RKS:
    """The level of theory of water_mini, which the model has learned from."""
    field = mol.RKS(xc="pbe").density_fit(auxbasis="def2-universal-jfit")
    field.grids.level = 5
    field.conv_tol = 1e-9
    return field


def main(run_dir: str) -> None:
    mol = gto.M(atom=WATER, basis="def2-svp", verbose=0)
    guesses = {"minao": None, "model": hambench.scf_guess(run_dir, mol)}  # None: PySCF's default
    for name, density in guesses.items():
        field = mean_field(mol)
        energy = field.kernel(density)
        print(f"{name}: {field.cycles} iterations, {energy:.9f} Eh, converged: {field.converged}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        main(sys.argv[1])
    except HambenchError as error:
        sys.exit(f"error: {error}")
