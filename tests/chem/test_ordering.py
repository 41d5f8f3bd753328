"""AO orders against tables published elsewhere, and as exact signed permutations."""

from __future__ import annotations

import numpy as np
import pytest

from hambench.chem.molecule import SYMBOLS
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.ordering import ORDERS, from_canonical, permutation, to_canonical
from hambench.errors import RegistryError

# Stored slot of the orbital that PySCF puts at each place, and PySCF places of minus signs: solved
# from full-precision ORCA runs by an independent project (equiv_dens_ml).
OMOL_STORED = {
    "H": ([0, 1, 2, 5, 3, 4, 8, 6, 7], []),
    "C": (
        [0, 1, 2, 3, 4, 34, 7, 8, 5, 10, 11, 6, 13, 14, 9, 19, 18, 12, 17, 16, 24, 23, 15, 22, 21,
         30, 31, 32, 35, 36, 33, 29, 28, 20, 27, 26, 25],
        [25, 29, 30, 36],
    ),
    "O": (
        [0, 1, 2, 3, 4, 32, 7, 8, 5, 10, 11, 6, 13, 14, 9, 36, 37, 28, 20, 17, 12, 16, 15, 25, 22,
         21, 19, 18, 33, 34, 35, 38, 39, 29, 30, 27, 26, 24, 23, 31],
        [28, 32, 33, 39],
    ),
    "S": (
        [0, 1, 2, 3, 4, 38, 7, 8, 5, 10, 11, 6, 13, 14, 9, 16, 17, 12, 19, 20, 15, 42, 43, 34, 26,
         23, 18, 22, 21, 31, 28, 27, 25, 24, 39, 40, 41, 44, 45, 35, 36, 33, 32, 30, 29, 37],
        [34, 38, 39, 45],
    ),
    "Br": (
        [0, 1, 2, 3, 4, 5, 49, 8, 9, 6, 11, 12, 7, 14, 15, 10, 17, 18, 13, 20, 21, 16, 53, 54, 45,
         27, 24, 19, 23, 22, 32, 29, 28, 26, 25, 37, 34, 33, 31, 30, 42, 39, 38, 36, 35, 50, 51, 52,
         55, 56, 46, 47, 44, 43, 41, 40, 48],
        [45, 49, 50, 56],
    ),
}  # fmt: skip


def test_water_index_lists() -> None:
    basis = OrbitalBasis.load("def2-svp")
    canonical = [
        0,
        1,
        2,
        4,
        5,
        3,
        7,
        8,
        6,
        9,
        10,
        11,
        12,
        13,
        14,
        15,
        17,
        18,
        16,
        19,
        20,
        22,
        23,
        21,
    ]
    assert permutation([8, 1, 1], basis, "pyscf")[0].tolist() == canonical
    carbon = [0, 1, 2, 5, 3, 4, 8, 6, 7, 13, 11, 9, 10, 12]
    for program in ("orca", "psi4"):
        assert permutation([6], basis, program)[0].tolist() == carbon
        assert permutation([1], basis, program)[0].tolist() == [0, 1, 4, 2, 3]


@pytest.mark.parametrize("symbol", OMOL_STORED)
def test_omol_stored_order(symbol: str) -> None:
    basis, z = OrbitalBasis.load("def2-tzvpd"), SYMBOLS.index(symbol)
    pyscf, _ = permutation([z], basis, "pyscf")
    stored, sign = permutation([z], basis, "omol_csh")
    at_pyscf_place = np.empty_like(stored)
    at_pyscf_place[pyscf] = stored
    signs = np.empty_like(sign)
    signs[pyscf] = sign
    expected, minus = OMOL_STORED[symbol]
    assert at_pyscf_place.tolist() == expected
    assert np.flatnonzero(signs < 0).tolist() == minus


@pytest.mark.parametrize("order", ORDERS)
def test_there_and_back_is_exact(order: str, rng: np.random.Generator) -> None:
    basis = OrbitalBasis.load("def2-tzvpd")
    numbers = rng.choice(basis.elements, size=7)
    matrix = rng.normal(size=(basis.nao(numbers),) * 2)
    there = from_canonical(matrix, numbers, basis, order)
    assert (to_canonical(there, numbers, basis, order) == matrix).all()
    assert np.allclose(np.linalg.norm(there), np.linalg.norm(matrix), rtol=1e-14)
    if order not in ("canonical",):
        assert not np.array_equal(there, matrix)


def test_orca_flips_f_with_m_three_alone() -> None:
    index, sign = permutation([72], OrbitalBasis.load("def2-tzvpd"), "orca")
    assert np.flatnonzero(sign < 0).tolist() == [len(sign) - 7, len(sign) - 1]
    assert sorted(index.tolist()) == list(range(len(index)))


def test_unknown_order() -> None:
    with pytest.raises(RegistryError, match=r"'orka'.*Did you mean 'orca'"):
        permutation([1], OrbitalBasis.load("def2-svp"), "orka")


# p shells of Be as ORCA's def2-TZVPD lists them: the three primitives of def2-SVP's contraction,
# coefficients kept, the tightest one by itself and first. PySCF lists and signs them otherwise.
ORCA_BE = [[1, [3.6316917145, -0.029033998305]],
           [1, [0.71695694366, -0.16877854032], [0.1954193286, -0.51403419628]],
           [1, [0.06051546589, 1.0]],
           [1, [0.027726324608, 1.0]]]  # fmt: skip


def _beryllium_hydride(basis: object) -> dict[str, np.ndarray]:
    """PySCF's overlap, core Hamiltonian and Fock matrix of a bent BeH2, in PySCF's order."""
    gto, dft = pytest.importorskip("pyscf.gto"), pytest.importorskip("pyscf.dft")
    mol = gto.M(atom="Be 0 0 0; H 0.3 0.9 0.95; H -0.2 0.5 -1.2", basis=basis, verbose=0)
    field = dft.RKS(mol, xc="pbe")
    field.grids.level = 1
    return {
        "overlap": field.get_ovlp(),
        "core": field.get_hcore(),
        "fock": field.get_fock(dm=field.get_init_guess(mol, "1e")),
    }


@pytest.mark.parametrize("order", ["orca", "listed", "omol_csh"])
def test_beryllium_of_other_programs(order: str) -> None:
    """Be of def2-TZVPD has two p shells exchanged and one phase turned; PySCF computes both."""
    gto = pytest.importorskip("pyscf.gto")
    own = [shell for shell in gto.basis.load("def2-tzvpd", "Be") if shell[0] != 1]
    ours = _beryllium_hydride("def2-tzvpd")
    theirs = _beryllium_hydride({"Be": [*own, *ORCA_BE], "H": "def2-tzvpd"})
    basis, numbers = OrbitalBasis.load("def2-tzvpd"), [4, 1, 1]
    slots = _program_slots(order)
    for name in ours:
        stored = np.empty_like(theirs[name])
        stored[np.ix_(slots, slots)] = theirs[name]
        expected = to_canonical(ours[name], numbers, basis, "pyscf")
        # 6e-11 of rounding in exponents and coefficients would grow with the core's 10 Eh
        np.testing.assert_allclose(
            to_canonical(stored, numbers, basis, order), expected, atol=1e-7, err_msg=name
        )


def _program_slots(order: str) -> list[int]:
    """Place of PySCF's k-th function of BeH2 in a file of ``order``, written out by hand.

    Be: five s, three p, d, the diffuse p. p is x, y, z in PySCF.
    """
    p, d = {"orca": ([1, 2, 0], [4, 2, 0, 1, 3]), "listed": ([2, 0, 1], [0, 1, 2, 3, 4])}.get(
        order, ([], [])
    )
    if order == "omol_csh":
        # raw ORCA places 14.. (d, then diffuse p) were read as if p came before d: p at 14-16
        # is in truth d of m = 0, +1, -1, and so on; ascending order of that wrong reading
        raw_of_stored = [0, 1, 2, 3, 4]
        raw_of_stored += [s + i for s in (5, 8, 11, 14) for i in (2, 0, 1)]
        raw_of_stored += [17 + i for i in (4, 2, 0, 1, 3)]
        stored_of_raw = [raw_of_stored.index(raw) for raw in range(22)]
        beryllium = [stored_of_raw[raw] for raw in _program_slots("orca")[:22]]
        hydrogen = [22, 23, 24, 27, 25, 26, 30, 28, 29]
        return [*beryllium, *hydrogen, *(i + 9 for i in hydrogen)]
    beryllium = [0, 1, 2, 3, 4]
    beryllium += [start + i for start in (5, 8, 11, 19) for i in p]
    beryllium += [14 + i for i in d]
    hydrogen = [22, 23, 24, *(start + i for start in (25, 28) for i in p)]
    return [*beryllium, *hydrogen, *(i + 9 for i in hydrogen)]


def test_beryllium_of_def2_svp_is_listed_as_in_pyscf() -> None:
    index, sign = permutation([4], OrbitalBasis.load("def2-svp"), "listed")
    assert index.tolist() == list(range(len(index)))
    assert (sign == 1).all()
