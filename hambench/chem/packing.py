"""Training labels from a stored matrix: which entries, and where they stand among block vectors.

A pair of atoms has two blocks, each the other's transpose. Labels hold the numbers of one of them
alone, and the places and signs of both: less to read, to keep and to send to a GPU. Their order is
free, so matrix elements keep that of the file; what is left out of a packed triangle, mostly its
on-site blocks, is replaced by entries from its end, so that most of it is copied as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hambench.chem.blocks import BlockLayout, coupling_matrices, tensor_bytes
from hambench.chem.cache import ByteCache
from hambench.chem.stored import Source, StoredMatrix, source

_MAP_BYTES: Final = 2**27
"""Maps kept at most; a molecule of 100 atoms in def2-TZVPD has 38 MB of them."""
_GAPS: Final = 0.1
"""Fraction of entries left out up to which filling their gaps is faster than picking the others."""
_PRODUCTS: Final = 8192
"""Shell pairs coupled at a time: their numbers stay in the processor's cache."""


@dataclass(frozen=True)
class LabelMap:
    """The labels of one molecule, P being half the entries of its pair blocks.

    Attributes:
        node: (int32) places of the on-site entries among the stored values.
        node_signs: (int8) what these are multiplied by to be canonical; None: nothing.
        pair: (int32) places of one pair entry of each two, or of those that fill gaps.
        gaps: (int64) the first P stored values but for these places, where the fillers go; None:
            every entry is picked.
        pair_signs: as ``node_signs``, for labels that are to be coupled.
        node_places: (int64) places of the on-site labels in the flat (N, K^2) block vectors.
        pair_places: (2, P) int32, places of each pair label in the flat (E, K^2) block vectors:
            in the block (i, j), i < j, and in its transpose.
        signs: (2, P) int8, the label's sign at these places.
        degrees: of coupled labels: how many belong to shells of degrees (la, lb), which they are
            sorted by.
    """

    node: Tensor
    node_signs: Tensor | None
    pair: Tensor
    gaps: Tensor | None
    pair_signs: Tensor | None
    node_places: Tensor
    pair_places: Tensor
    signs: Tensor
    degrees: tuple[tuple[tuple[int, int], int], ...] = ()

    def node_values(self, matrix: StoredMatrix) -> Tensor:
        """Matrix elements at ``node_places``, in the precision of the file."""
        values = torch.from_numpy(matrix.values).index_select(0, self.node)
        return values if self.node_signs is None else values.mul_(self.node_signs)

    def pair_values(self, matrix: StoredMatrix, dtype: torch.dtype) -> Tensor:
        """(P,) labels of pairs: matrix elements, or coupled ones (computed in float64)."""
        stored = torch.from_numpy(matrix.values)
        values = stored.index_select(0, self.pair)
        if self.gaps is not None:
            values = stored[: self.signs.shape[1]].clone().index_copy_(0, self.gaps, values)
        if self.pair_signs is not None:
            values.mul_(self.pair_signs)
        return self._coupled(values, dtype) if self.degrees else values.to(dtype)

    def _coupled(self, values: Tensor, dtype: torch.dtype) -> Tensor:
        out = values.new_empty(len(values), dtype=dtype)
        start = 0
        for (la, lb), count in self.degrees:
            matrix, _ = coupling_matrices(la, lb)
            group = slice(start, start + count)
            parts = (all_[group].view(-1, len(matrix)).split(_PRODUCTS) for all_ in (values, out))
            for uncoupled, coupled in zip(*parts, strict=True):
                coupled.copy_(uncoupled.double() @ matrix)
            start += count
        return out


_MAPS: ByteCache[LabelMap] = ByteCache(_MAP_BYTES, tensor_bytes)


def forget_maps() -> None:
    """Empty the cache of maps, as if no molecule had been seen yet."""
    _MAPS.clear()


def label_map(
    layout: BlockLayout,
    numbers: NDArray[np.int64],
    edges: NDArray[np.int64],
    *,
    order: str,
    packed: bool,
    coupled: bool,
) -> LabelMap:
    """The labels of a molecule, cached by its composition and edges.

    Args:
        layout: of the block vectors.
        numbers: (N,) atomic numbers; ConfigError for an element the basis does not cover.
        edges: (2, E) row atoms and column atoms, both directions of every pair.
        order: of the orbitals in the file, a key of `hambench.chem.ordering.ORDERS`.
        packed: whether the file keeps the upper triangle alone.
        coupled: whether pair labels are coupled.
    """

    def make() -> LabelMap:
        atoms = np.tile(np.arange(len(numbers)), (2, 1))
        node_places, node = layout.entries(numbers, atoms)
        origin = source(numbers, layout.basis, order, packed)
        rows, columns = np.divmod(node, len(origin.orbital))
        pairs = _pair_entries(layout, numbers, edges, origin, coupled)
        picked, gaps = pairs.stored, None
        if not coupled:
            by_place, picked, gaps = _by_place(pairs.stored)
            pairs = pairs.sorted(by_place)
        return LabelMap(
            node=torch.from_numpy(origin.places(rows, columns)),
            node_signs=_optional(origin.sign[rows] * origin.sign[columns], origin.signed),
            pair=torch.from_numpy(picked),
            gaps=None if gaps is None else torch.from_numpy(gaps),
            pair_signs=_optional(pairs.file_signs, origin.signed and coupled),
            node_places=torch.from_numpy(node_places),
            pair_places=torch.from_numpy(pairs.places),
            signs=torch.from_numpy(pairs.signs),
            degrees=pairs.degrees,
        )

    key = (layout.basis, numbers.tobytes(), edges.tobytes(), order, packed, coupled)
    return _MAPS.get(key, make)


def _optional(signs: NDArray[np.int8], wanted: bool) -> Tensor | None:
    return torch.from_numpy(signs) if wanted else None


def _by_place(
    stored: NDArray[np.int32],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64] | None]:
    """How to take different stored places in about the order of the file.

    Returns:
        The order in which they are taken, and `LabelMap.pair` and ``gaps``.
    """
    rank = np.full(int(stored.max(initial=-1)) + 1, -1, dtype=np.int32)
    rank[stored] = np.arange(len(stored), dtype=np.int32)
    gaps = np.flatnonzero(rank[: len(stored)] < 0)
    if len(gaps) > _GAPS * len(stored):
        order = rank[rank >= 0].astype(np.int64)
        return order, stored.take(order), None
    fillers = rank[len(stored) :]
    fillers = fillers[fillers >= 0]
    order = rank[: len(stored)].astype(np.int64)
    order[gaps] = fillers
    return order, stored.take(fillers), gaps


@dataclass(frozen=True)
class _PairEntries:
    """The P entries of the blocks (i, j), i < j, shell pair by shell pair.

    Attributes:
        stored: (P,) int32, places among the stored values.
        file_signs: (P,) int8, signs that make these canonical.
        places, signs, degrees: see `LabelMap`.
    """

    stored: NDArray[np.int32]
    file_signs: NDArray[np.int8]
    places: NDArray[np.int32]
    signs: NDArray[np.int8]
    degrees: tuple[tuple[tuple[int, int], int], ...]

    @staticmethod
    def joined(parts: Sequence[_PairEntries]) -> _PairEntries:
        """Entries of one pair of degrees behind those of another."""
        return _PairEntries(
            np.concatenate([part.stored for part in parts]),
            np.concatenate([part.file_signs for part in parts]),
            np.concatenate([part.places for part in parts], axis=1),
            np.concatenate([part.signs for part in parts], axis=1),
            tuple(degree for part in parts for degree in part.degrees),
        )

    def sorted(self, order: NDArray[np.int64]) -> _PairEntries:
        """Matrix elements in another order, no longer by degrees."""
        stored, file_signs = self.stored.take(order), self.file_signs.take(order)
        places, signs = self.places.take(order, axis=1), np.stack([file_signs, file_signs])
        return _PairEntries(stored, file_signs, places, signs, ())


def _pair_entries(
    layout: BlockLayout,
    numbers: NDArray[np.int64],
    edges: NDArray[np.int64],
    origin: Source,
    coupled: bool,
) -> _PairEntries:
    """Sorted by the degrees of their shells."""
    edge = np.full((len(numbers), len(numbers)), -1, dtype=np.int32)
    edge[edges[0], edges[1]] = np.arange(edges.shape[1])
    wanted = np.triu(edge >= 0, 1)
    atom, l, slot, first = _shells(layout, numbers)
    starts = layout.pair_start.astype(np.int32)

    def of_degrees(la: int, lb: int) -> _PairEntries:
        of_a, of_b = np.flatnonzero(l == la), np.flatnonzero(l == lb)
        s, t = np.nonzero(wanted[np.ix_(atom[of_a], atom[of_b])])
        i, j, a, b = atom[of_a][s], atom[of_b][t], slot[of_a][s], slot[of_b][t]
        m1, m2 = np.arange(2 * la + 1)[:, None], np.arange(2 * lb + 1)[None, :]
        rows, columns = first[of_a, None, None] + m1, first[of_b, None, None] + m2
        stored = origin.start[rows][s] + origin.orbital[columns][t]
        file_signs = (origin.sign[rows][s] * origin.sign[columns][t]).ravel()
        within = m1 * m2.size + m2
        mirrored = within if coupled else m2 * m1.size + m1
        places = np.empty((2, *stored.shape), dtype=np.int32)
        for out, here, start in (
            (places[0], within, edge[i, j] * np.int32(layout.size) + starts[a, b]),
            (places[1], mirrored, edge[j, i] * np.int32(layout.size) + starts[b, a]),
        ):
            np.add(start[:, None, None], here.astype(np.int32), out=out)
        signs = np.stack([file_signs, file_signs])
        if coupled:
            start = layout.pair_start[layout.slots.index(la), layout.slots.index(lb)]
            signs[0], signs[1] = 1, np.tile(layout.parity[start : start + within.size], len(s))
        degrees = (((la, lb), stored.size),)
        return _PairEntries(stored.ravel(), file_signs, places.reshape(2, -1), signs, degrees)

    kinds = product(layout.degrees, repeat=2)
    return _PairEntries.joined([of_degrees(la, lb) for la, lb in kinds])


def _shells(
    layout: BlockLayout, numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Atom, l, slot and first orbital of every shell of a molecule."""
    shells = [layout.basis.shells[z].l for z in numbers.tolist()]
    atom = np.repeat(np.arange(len(numbers)), [len(of_atom) for of_atom in shells])
    l = np.concatenate(shells)
    slot = np.concatenate([layout.shell_slots[z] for z in numbers.tolist()])
    return atom, l, slot, np.cumsum(2 * l + 1) - (2 * l + 1)
