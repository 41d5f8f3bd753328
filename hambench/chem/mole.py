"""From PySCF's molecules to ours, where their orbitals are those of a basis of ours."""

from __future__ import annotations

from typing import Any

import numpy as np

from hambench.chem import engine
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError
from hambench.units import BOHR

_NEAR = 1e-8  # relative, of exponents and coefficients


def from_mole(mole: Any, basis: OrbitalBasis) -> Molecule:
    """The molecule of a ``pyscf.gto.Mole``, atoms in its order.

    Args:
        mole: built; its orbitals have to be those of ``basis``, number by number, so that matrices
            of the two differ in nothing but order.
        basis: what matrices are wanted in.

    Raises:
        ConfigError: no built molecule; a periodic cell, ghost atoms, an element outside the basis,
            Cartesian functions, another basis set, or other core potentials.
    """
    gto, _, _ = engine.pyscf()
    _check_kind(mole, gto)
    symbols = [mole.atom_symbol(i) for i in range(mole.natm)]
    if ghosts := [i for i, name in enumerate(symbols) if gto.mole.is_ghost_atom(name)]:
        raise ConfigError(
            f"atom {ghosts[0]} of mol ({symbols[ghosts[0]]}) is a ghost: a model predicts for real "
            "atoms; take ghost atoms out"
        )
    numbers = np.array([gto.charge(name) for name in symbols])  # without what a potential removes
    foreign = sorted({SYMBOLS[z] for z in numbers if z not in basis.shells})
    if foreign:
        known = " ".join(SYMBOLS[z] for z in basis.elements)
        raise ConfigError(f"mol holds {', '.join(foreign)}, the model knows {known} alone")
    if mole.cart:
        raise ConfigError(
            "mol has Cartesian functions, the model spherical ones; build it with cart=False"
        )
    molecule = Molecule(
        numbers, mole.atom_coords() * BOHR, charge=int(mole.charge), multiplicity=mole.spin + 1
    )
    expected = engine.mole(numbers, molecule.positions, basis.name, charge=None)
    _check_cores(mole, expected, symbols)
    if not _same_shells(mole, expected):
        raise ConfigError(
            f"mol has the basis set {_named(mole.basis)}, the model predicts in {basis.name}; "
            f"build mol with basis='{basis.name}'"
        )
    return molecule


def _check_kind(mole: Any, gto: Any) -> None:
    if not isinstance(mole, gto.MoleBase):
        hint = "; give its mol" if hasattr(mole, "mol") else ""
        raise ConfigError(
            f"mol is a {type(mole).__name__}, expected a pyscf.gto.Mole or a "
            f"hambench.Molecule{hint}"
        )
    if hasattr(mole, "lattice_vectors"):
        raise ConfigError(
            "mol is a periodic cell, the model is of molecules; give a pyscf.gto.Mole"
        )
    if not mole.natm:
        raise ConfigError("mol has no atoms, or was not built; call mol.build() first")


def _check_cores(mole: Any, expected: Any, symbols: list[str]) -> None:
    """ConfigError where core potentials remove other electrons than those of the basis."""
    for i, name in enumerate(symbols):
        has, wanted = mole.atom_nelec_core(i), expected.atom_nelec_core(i)
        if has != wanted:
            raise ConfigError(
                f"mol has {has} electrons of {name} in an effective core potential, the labels of "
                f"the model {wanted}; build it with ecp="
                + (f"'{_named(expected.basis)}'" if wanted else "{}")
            )


def _same_shells(one: Any, other: Any) -> bool:
    """Whether two molecules of the same atoms have the same contracted functions, in order."""
    if one.nbas != other.nbas:
        return False
    return all(
        one.bas_atom(i) == other.bas_atom(i)
        and one.bas_angular(i) == other.bas_angular(i)
        and _equal(one.bas_exp(i), other.bas_exp(i))
        and _equal(one.bas_ctr_coeff(i), other.bas_ctr_coeff(i))
        for i in range(one.nbas)
    )


def _equal(a: Any, b: Any) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=_NEAR, atol=0))


def _named(basis: Any) -> str:
    return basis if isinstance(basis, str) else "of its own"
