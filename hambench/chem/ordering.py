"""The one place that knows in which order and phase programs list atomic orbitals.

Canonical order: atoms in file order; inside an atom shells as PySCF lists them; inside a shell
m = -l..l, real spherical harmonics with e3nn and PySCF signs. Other orders:

=============  =====================================================================
``pyscf``      p as x, y, z (m = +1, -1, 0), all else canonical
``orca``       m = 0, +1, -1, +2, -2, ...; minus sign for |m| >= 3; appended (diffuse)
               shells listed after all others
``psi4``       m = 0, +1, -1, ... without signs; shells as canonical
``listed``     m = -l..l, shells in the order of the basis file (appended ones last): the
               order of HELM's public code
``omol_csh``   the stored order of the OMol_CSH files: ORCA matrices brought to m = -l..l
               with a shell list that was wrongly sorted by l
=============  =====================================================================

ORCA's def2-TZVPD (``orca``, ``listed``, ``omol_csh``) lists the p shells of Be otherwise than
PySCF: the tight primitive (exponent 3.632) comes before the contraction of 0.717 and 0.195, and
has the opposite phase. Both files cut it out of def2-SVP's contraction of the three, whose
coefficients are all negative; ORCA's keeps the sign (-0.029), PySCF's writes +1. The published
mean blocks of OMol_CSH show the exchange and the relative sign; they cannot show the sign that
all four p shells share.

Every map is a signed permutation,
``A_canonical[i, j] = sign[i] sign[j] A_source[index[i], index[j]]``. Conventions were checked
numerically against PySCF overlaps; the tests repeat that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hambench.chem.orbitals import OrbitalBasis, Shells
from hambench.errors import RegistryError, nearest

Map = tuple[NDArray[np.int64], NDArray[np.float64]]


def permutation(numbers: ArrayLike, basis: OrbitalBasis, source: str) -> Map:
    """The signed permutation that brings a molecule's matrices from ``source`` to canonical order.

    Args:
        numbers: (N,) atomic numbers.
        basis: basis set of the matrices.
        source: a key of `ORDERS`.

    Returns:
        ``index`` (nao,) int64 and ``sign`` (nao,) of +-1 as in the module's formula.

    Raises:
        RegistryError: an order nobody knows.
        ConfigError: an element the basis does not cover.
    """
    if source not in ORDERS:
        raise RegistryError(f"unknown AO order '{source}'.{nearest(source, ORDERS)}")
    numbers = np.asarray(numbers, dtype=np.int64)
    basis.ao_counts(numbers)  # names a missing element
    return _composed(tuple(numbers.tolist()), basis, source)


def to_canonical(
    matrix: NDArray[Any], numbers: ArrayLike, basis: OrbitalBasis, source: str
) -> NDArray[Any]:
    """A (nao, nao) matrix of a program, in canonical order; raises as `permutation`."""
    index, sign = permutation(numbers, basis, source)
    out = matrix[index].take(index, axis=1, mode="clip")  # a third of the time of np.ix_
    if (sign < 0).any():
        out *= np.outer(sign, sign).astype(matrix.dtype)
    return out


def from_canonical(
    matrix: NDArray[Any], numbers: ArrayLike, basis: OrbitalBasis, target: str
) -> NDArray[Any]:
    """A canonical (nao, nao) matrix in the order of a program; raises as `permutation`."""
    index, sign = permutation(numbers, basis, target)
    out = np.empty_like(matrix)
    out[np.ix_(index, index)] = matrix * np.outer(sign, sign).astype(matrix.dtype)
    return out


@lru_cache(maxsize=4096)
def _composed(numbers: tuple[int, ...], basis: OrbitalBasis, source: str) -> Map:
    """Atoms' maps joined; index maps depend on the composition alone and are cached by it."""
    elements = {z: ORDERS[source](basis.shells[z]) for z in set(numbers)}
    counts = basis.ao_counts(numbers)
    offset = np.repeat(np.cumsum(counts) - counts, counts)
    index = np.concatenate([elements[z][0] for z in numbers]) + offset
    sign = np.concatenate([elements[z][1] for z in numbers])
    index.flags.writeable = sign.flags.writeable = False
    return index, sign


def _ascending_from_zero_first(l: int) -> list[int]:
    """Place of m = -l..l in the order 0, +1, -1, +2, -2, ..., e.g. d: [4, 2, 0, 1, 3]."""
    return [2 * abs(m) - (1 if m > 0 else 0) for m in range(-l, l + 1)]


def _orca_sign(l: int) -> list[float]:
    """ORCA's phase of m = -l..l: minus for |m| >= 3 (f and g)."""
    return [-1.0 if abs(m) >= 3 else 1.0 for m in range(-l, l + 1)]


def _shell_starts(shells: tuple[int, ...]) -> NDArray[np.int64]:
    widths = np.array([2 * l + 1 for l in shells])
    return np.cumsum(widths) - widths


def _within_shells(
    shells: tuple[int, ...], places: Callable[[int], list[int]]
) -> NDArray[np.int64]:
    """Per shell, its first position plus ``places(l)``, joined."""
    starts = _shell_starts(shells)
    return np.concatenate([s + np.array(places(l)) for s, l in zip(starts, shells, strict=True)])


def _sorted(shells: Shells) -> Map:
    """From basis-file shell order (m ascending) and phase to canonical."""
    starts = _shell_starts(shells.listed)
    order = np.argsort(shells.listed, kind="stable")
    phase = np.ones(len(order))
    if shells.exchanged:
        first, second = shells.exchanged
        order[[first, second]] = order[[second, first]]
        phase[second] = -1.0
    index = np.concatenate([starts[s] + np.arange(2 * shells.listed[s] + 1) for s in order])
    return index, np.repeat(phase, [2 * l + 1 for l in shells.l])


def _pyscf(shells: Shells) -> Map:
    index = _within_shells(shells.l, lambda l: [1, 2, 0] if l == 1 else list(range(2 * l + 1)))
    return index, np.ones(len(index))


def _psi4(shells: Shells) -> Map:
    index = _within_shells(shells.l, _ascending_from_zero_first)
    return index, np.ones(len(index))


def _listed(shells: Shells) -> Map:
    return _sorted(shells)


def _orca(shells: Shells) -> Map:
    ascending = _within_shells(shells.listed, _ascending_from_zero_first)
    sign = np.concatenate([_orca_sign(l) for l in shells.listed])
    order, phase = _sorted(shells)
    return ascending[order], sign[order] * phase


def _omol_csh(shells: Shells) -> Map:
    """Undo the conversion that used the l-sorted shell list, then do it with the true list."""
    wrong = tuple(sorted(shells.listed))
    stored_of_raw = np.argsort(_within_shells(wrong, _ascending_from_zero_first))
    raw_sign = np.concatenate([_orca_sign(l) for l in wrong])[stored_of_raw]
    raw_index, sign = _orca(shells)
    return stored_of_raw[raw_index], sign * raw_sign[raw_index]


def _canonical(shells: Shells) -> Map:
    return np.arange(shells.nao), np.ones(shells.nao)


ORDERS: Final[dict[str, Callable[[Shells], Map]]] = {
    "canonical": _canonical,
    "pyscf": _pyscf,
    "orca": _orca,
    "psi4": _psi4,
    "listed": _listed,
    "omol_csh": _omol_csh,
}
"""Orders by name, each a function from an element's shells to its map to canonical order."""
