"""Shells, slots and electron counts, against PySCF and against the published tables."""

from __future__ import annotations

import pytest

from hambench.chem.molecule import SYMBOLS
from hambench.chem.orbitals import SHIPPED, OrbitalBasis
from hambench.errors import ConfigError, RegistryError

# def2-TZVPD in ORCA's listing order, appended diffuse shells last (OMol_CSH, public code of HELM);
# digits are l.
LISTED = {
    "H He": "00011",
    "Li": "000001111",
    "Be": "0000011121",
    "B C N": "0000011122302",
    "O F Ne": "00000111223012",
    "Na Mg": "0000011112221",
    "Al Si P": "000001111122302",
    "S Cl Ar": "0000011111223012",
    "K Ca": "00000011111222",
    "Ga Ge As": "000000111112222302",
    "Se Br Kr": "0000001111122223012",
    "Rb Sr": "0000001111222",
    "Y Zr Nb Mo Tc Ru Rh Pd Ag Cd Ba": "00000011112223",
    "In Sn Sb Tl Pb Bi": "000000111112223302",
    "Te I Xe Po At": "0000001111122233012",
    "Cs": "000001111222",
    "Hf Ta W Re Os Ir Pt Au": "000000111122231",
    "Hg": "0000001111122231",
}


def test_def2_tzvpd_lists_shells_as_published() -> None:
    basis = OrbitalBasis.load("def2-tzvpd")
    listed = {s: digits for group, digits in LISTED.items() for s in group.split()}
    assert {SYMBOLS[z] for z in basis.elements} == set(listed)
    for z in basis.elements:
        assert "".join(map(str, basis.shells[z].listed)) == listed[SYMBOLS[z]], SYMBOLS[z]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_tables_equal_pyscf(name: str) -> None:
    from hambench.chem import dft

    basis = OrbitalBasis.load(name)
    fresh = dft.basis_shells(name, basis.elements)
    for z in basis.elements:
        assert (basis.shells[z].l, basis.shells[z].core) == fresh[z], SYMBOLS[z]


def test_slots_of_the_three_published_layouts() -> None:
    md17 = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9])
    nabla = OrbitalBasis.load("def2-svp", [1, 6, 7, 8, 9, 16, 17, 35])
    omol = OrbitalBasis.load("def2-tzvpd")
    assert md17.slots == (0,) * 3 + (1,) * 2 + (2,)
    assert nabla.slots == (0,) * 5 + (1,) * 4 + (2,) * 3
    assert omol.slots == (0,) * 6 + (1,) * 5 + (2,) * 4 + (3,) * 2 + (10, 11, 12)


def test_orbitals_electrons_and_cores() -> None:
    svp = OrbitalBasis.load("def2-svp")
    assert svp.nao([8, 1, 1]) == 24
    assert svp.nao([6, 6, 8] + [1] * 6) == 72
    omol = OrbitalBasis.load("def2-tzvpd")
    assert [omol.nao([z]) for z in (1, 6, 8, 15, 16, 35, 53, 50, 55, 79, 80)] == [
        9, 37, 40, 43, 46, 57, 59, 56, 32, 43, 46,
    ]  # fmt: skip
    assert [omol.core_electrons[z] for z in (36, 37, 54, 55, 56, 72, 83)] == [
        0,
        28,
        28,
        46,
        46,
        60,
        60,
    ]
    assert omol.electrons([79, 17, 17], charge=-1) == 79 - 60 + 34 + 1


def test_any_pyscf_basis_by_name() -> None:
    basis = OrbitalBasis.load("6-31G*", [1, 8])
    assert basis.shells[1].l == (0, 0)
    assert basis.nao([8, 1, 1]) == 18
    assert OrbitalBasis.from_dict(basis.to_dict()) == basis
    assert OrbitalBasis.load("def2-svp", [57]).nao([57]) > 0  # beyond the shipped table


@pytest.mark.parametrize("elements", [[], "HO", 8])
def test_what_is_no_list_of_elements_is_named(elements: object) -> None:
    with pytest.raises(ConfigError, match="expected some, as in"):
        OrbitalBasis.load("def2-svp", elements)


def test_atomic_numbers_are_whole() -> None:
    with pytest.raises(ConfigError, match=r"atomic numbers are whole, got \[8.5\]"):
        OrbitalBasis.load("def2-svp", [8]).nao([8.5])


def test_wrong_names_and_elements_are_named() -> None:
    with pytest.raises(RegistryError, match=r"def2-svq.*Did you mean 'def2-svp'"):
        OrbitalBasis.load("def2-svq", [1])
    with pytest.raises(ConfigError, match=r"no orbitals for Fe in OrbitalBasis.def2-svp: H O"):
        OrbitalBasis.load("def2-svp", [1, 8]).nao([26, 8])
    with pytest.raises(ConfigError, match="name the elements"):
        OrbitalBasis.load("6-31g")
    for element in (0, -1, 92, 1.5, "Hx", ""):
        with pytest.raises(ConfigError, match=f"no element {element!r}; give atomic numbers 1 to"):
            OrbitalBasis.load("def2-svp", [element])
    with pytest.raises(ConfigError, match="no orbitals for Z=-1, Z=120 in"):
        OrbitalBasis.load("def2-svp", ["H", "O"]).nao([120, -1])
