"""Matrix <-> atom-pair blocks <-> coupled irreps, with exact inverses.

Every pair of atoms shares one *slot* table (`OrbitalBasis.slots`): the block of a pair is a
vector of K^2 numbers, K = sum over slots (2l+1). The vector runs over slot pairs (a, b), a outer,
b inner. In *uncoupled* form a pair's (2la+1)(2lb+1) numbers are the matrix entries, row m1 outer;
in *coupled* form the same places hold L = |la-lb| .. la+lb, each M = -L..L. An element fills the
slots of its own shells and leaves the rest empty, in the same places in both forms, so one index
map serves matrices, blocks and irreps (HELM, arXiv 2510.00224, and its public code; the real Wigner
3j symbols are e3nn's)::

    H[a m1, b m2] = sum_LM w(la, lb, L)[m1, m2, M] x[ab, L, M]
    x[ab, L, M]   = (2L + 1) sum_{m1 m2} w(L, la, lb)[M, m1, m2] H[a m1, b m2]

Letters: K orbitals of the slot table, N atoms, E ordered pairs (edges: row atom i, column atom j).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Final

import numpy as np
import torch
from e3nn import o3
from numpy.typing import NDArray
from torch import Tensor

from hambench.chem.maps import (
    BLOCK_MAPS,
    GROUPINGS,
    STORED_MAPS,
    BlockMap,
    Grouping,
    StoredMap,
)
from hambench.chem.orbitals import DIFFUSE, OrbitalBasis
from hambench.chem.stored import source

_PRODUCTS: Final = 8192  # shell pairs coupled at a time


@dataclass(frozen=True)
class Irrep:
    """One coupled irrep of the layout: slots ``a`` (row) and ``b``, degree ``l``, first place."""

    a: int
    b: int
    l: int
    start: int


class BlockLayout:
    """Where everything stands in the K^2 vector of a pair; get one by `layout`.

    Attributes:
        basis: the basis whose slots these are.
        slots: l of each slot.
        width: K.
        size: K^2.
        lmax: largest coupled degree, twice the largest l.
        irreps: all coupled irreps in order.
        square: (K, K) int64, place in the vector of the matrix entry (k1, k2) of a block.
        transposed: (K^2,) int64 and ``parity`` (K^2,): coupled vector of the transposed block,
            ``x_T[p] = parity[p] * x[transposed[p]]`` with parity (-1)^(la+lb+L).
    """

    def __init__(self, basis: OrbitalBasis) -> None:
        self.basis = basis
        self.slots = tuple(label % DIFFUSE for label in basis.slots)
        widths = np.array([2 * l + 1 for l in self.slots])
        self.width = int(widths.sum())
        self.size = self.width**2
        self.lmax = 2 * max(self.slots)
        areas = np.outer(widths, widths)
        self._pair_start = (np.cumsum(areas) - areas.ravel()).reshape(areas.shape)
        self.irreps = self._list_irreps()
        self.square = torch.from_numpy(self._square_places(widths))
        self.transposed, self.parity = self._transposition()
        self._orbitals = self._element_orbitals(widths)
        self._moved: dict[tuple[torch.device, torch.dtype], list[_Coupling]] = {}

    def _list_irreps(self) -> tuple[Irrep, ...]:
        found = []
        for a, la in enumerate(self.slots):
            for b, lb in enumerate(self.slots):
                start = int(self._pair_start[a, b])
                for l in range(abs(la - lb), la + lb + 1):
                    found.append(Irrep(a, b, l, start))
                    start += 2 * l + 1
        return tuple(found)

    def _square_places(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        slot = np.repeat(np.arange(len(widths)), widths)
        m = np.arange(self.width) - np.repeat(np.cumsum(widths) - widths, widths)
        start = self._pair_start[np.ix_(slot, slot)]
        return start + m[:, None] * widths[slot][None, :] + m[None, :]

    def _transposition(self) -> tuple[Tensor, Tensor]:
        place = torch.empty(self.size, dtype=torch.long)
        parity = torch.empty(self.size)
        starts = {(i.a, i.b, i.l): i.start for i in self.irreps}
        for i in self.irreps:
            here, m = slice(i.start, i.start + 2 * i.l + 1), torch.arange(2 * i.l + 1)
            place[here] = starts[i.b, i.a, i.l] + m
            parity[here] = (-1.0) ** (self.slots[i.a] + self.slots[i.b] + i.l)
        return place, parity

    def _element_orbitals(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """(118, max nao) place among the K slot orbitals of every orbital of an element."""
        table = np.zeros((119, max(s.nao for s in self.basis.shells.values())), dtype=np.int64)
        starts = np.cumsum(widths) - widths
        for z, shells in self.basis.shells.items():
            used: dict[int, int] = {}
            places: list[int] = []
            for l, label in zip(shells.l, shells.labels, strict=True):
                slot = self.basis.slots.index(label) + used.get(label, 0)
                used[label] = used.get(label, 0) + 1
                places.extend(range(starts[slot], starts[slot] + 2 * l + 1))
            table[z, : len(places)] = places
        return table

    def couple(self, vectors: Tensor) -> Tensor:
        """Coupled form of uncoupled vectors (..., K^2); exact inverse of `uncouple`."""
        return self._convert(vectors, forward=True)

    def uncouple(self, vectors: Tensor) -> Tensor:
        """Matrix-element form of coupled vectors (..., K^2); exact inverse of `couple`."""
        return self._convert(vectors, forward=False)

    def _convert(self, vectors: Tensor, forward: bool) -> Tensor:
        groups = self._couplings(vectors.device, vectors.dtype)
        out = torch.empty_like(vectors)
        for group in groups:  # one per (la, lb), at most lmax^2, whatever the number of slots
            matrix = group.couple if forward else group.uncouple
            part = vectors[..., group.places].unflatten(-1, (-1, len(matrix)))
            out[..., group.places] = (part @ matrix).flatten(-2)
        return out

    def _couplings(self, device: torch.device, dtype: torch.dtype) -> list[_Coupling]:
        key = (device, dtype)
        if key not in self._moved:
            with torch.device("cpu"):
                groups = self._make_couplings()
            self._moved[key] = [g.to(device, dtype) for g in groups]
        return self._moved[key]

    def _make_couplings(self) -> list[_Coupling]:
        groups = []
        slots = np.array(self.slots)
        for la in sorted(set(self.slots)):
            for lb in sorted(set(self.slots)):
                starts = self._pair_start[np.ix_(slots == la, slots == lb)].ravel()
                area = (2 * la + 1) * (2 * lb + 1)
                places = torch.from_numpy((starts[:, None] + np.arange(area)).ravel())
                groups.append(_Coupling(places, *_coupling_matrices(la, lb)))
        return groups

    def block_map(self, numbers: NDArray[np.int64], edges: NDArray[np.int64]) -> BlockMap:
        """Index maps of one molecule's blocks, cached by composition and edges.

        Args:
            numbers: (N,) atomic numbers; ConfigError for an element the basis does not cover.
            edges: (2, E) row atoms and column atoms.
        """
        self.basis.ao_counts(numbers)

        def make() -> BlockMap:
            node = self.entries(numbers, np.tile(np.arange(len(numbers)), (2, 1)))
            edge = self.entries(numbers, edges)
            places = (torch.from_numpy(a) for a in (*node, *edge))
            return BlockMap(self.basis.nao(numbers), *places)

        return BLOCK_MAPS.get((self.basis, numbers.tobytes(), edges.tobytes()), make)

    def entries(
        self, numbers: NDArray[np.int64], pairs: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Real entries of the blocks of atom pairs.

        Args:
            numbers: (N,) atomic numbers.
            pairs: (2, R) row and column atom of each block.

        Returns:
            ``places`` in the flat (R, K^2) vectors, and ``matrix`` in the flat (nao, nao) matrix,
            of every entry that exists for its two elements, by ascending place.
        """
        counts = self.basis.ao_counts(numbers)
        offset = np.cumsum(counts) - counts
        nao = int(counts.sum())
        rows, columns = pairs
        # one pattern per pair of elements, joined; each block is a pattern moved to its place
        elements, kind = np.unique(numbers, return_inverse=True)
        patterns = [self._pattern(a, b, nao) for a in elements for b in elements]
        sizes = np.array([len(places) for places, _ in patterns])
        pattern = kind[rows] * len(elements) + kind[columns]
        areas = sizes[pattern]
        first = np.cumsum(sizes) - sizes
        entry = np.repeat(first[pattern] - (np.cumsum(areas) - areas), areas)
        entry += np.arange(len(entry))
        found = []
        blocks = np.arange(pairs.shape[1]) * self.size, offset[rows] * nao + offset[columns]
        for joined, block in zip(
            map(np.concatenate, zip(*patterns, strict=True)), blocks, strict=True
        ):
            values = joined[entry]
            values += np.repeat(block, areas)
            found.append(values)
        return found[0], found[1]

    def _pattern(self, a: int, b: int, nao: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Entries of a block of elements ``a`` and ``b``: in its K^2 vector, in the flat matrix."""
        na, nb = self.basis.shells[a].nao, self.basis.shells[b].nao
        square = self.square.numpy()
        places = square[np.ix_(self._orbitals[a, :na], self._orbitals[b, :nb])]
        matrix = np.arange(na)[:, None] * nao + np.arange(nb)[None, :]
        order = np.argsort(places, axis=None)
        return places.ravel()[order], matrix.ravel()[order]

    def stored_map(
        self, numbers: NDArray[np.int64], edges: NDArray[np.int64], order: str, packed: bool
    ) -> StoredMap:
        """Where the entries of `block_map` stand in a `StoredMatrix`, cached as those are.

        Args:
            numbers: (N,) atomic numbers; ConfigError for an element the basis does not cover.
            edges: (2, E) row atoms and column atoms.
            order: of the orbitals in the file, a key of `hambench.chem.ordering.ORDERS`.
            packed: whether the file keeps the upper triangle alone.
        """

        def make() -> StoredMap:
            where = self.block_map(numbers, edges)
            origin = source(numbers, self.basis, order, packed)
            places = torch.from_numpy(origin.places).view(-1)
            return StoredMap(
                places.index_select(0, where.node_matrix),
                places.index_select(0, where.edge_matrix),
                origin.signed,
            )

        key = (self.basis, numbers.tobytes(), edges.tobytes(), order, packed)
        return STORED_MAPS.get(key, make)

    def grouping(self, numbers: NDArray[np.int64], edges: NDArray[np.int64]) -> Grouping:
        """How `couple_entries` sorts the pair entries of a molecule; cached as the maps are."""

        def make() -> Grouping:
            places = self.block_map(numbers, edges).edge_places
            group = self._group_of_place[places.numpy() % self.size]
            order = np.argsort(group, kind="stable")
            back = np.empty(len(order), dtype=np.int32)
            back[order] = np.arange(len(order), dtype=np.int32)
            counts = np.bincount(group, minlength=len(self._degrees) ** 2).tolist()
            places_of = torch.from_numpy(order.astype(np.int32)), torch.from_numpy(back)
            return Grouping(*places_of, tuple(counts))

        return GROUPINGS.get((self.basis, numbers.tobytes(), edges.tobytes()), make)

    def couple_entries(
        self,
        values: Tensor,
        numbers: NDArray[np.int64],
        edges: NDArray[np.int64],
        dtype: torch.dtype,
    ) -> Tensor:
        """Coupled form of the pair entries of one molecule, without their empty places.

        Args:
            values: real entries in the order of ``BlockMap.edge_places``, uncoupled.
            numbers, edges: of the molecule, as for `block_map`.
            dtype: of the result; it is computed in float64.
        """
        grouping = self.grouping(numbers, edges)
        ordered = values.index_select(0, grouping.order)
        out = ordered.new_empty(len(ordered), dtype=dtype)
        start = 0
        for (la, lb), count in zip(product(self._degrees, repeat=2), grouping.counts, strict=True):
            matrix, _ = _coupling_matrices(la, lb)
            group = slice(start, start + count)
            parts = (all_[group].view(-1, len(matrix)).split(_PRODUCTS) for all_ in (ordered, out))
            for uncoupled, coupled in zip(*parts, strict=True):
                coupled.copy_(uncoupled.double() @ matrix)
            start += count
        return out.index_select(0, grouping.back)

    @cached_property
    def _degrees(self) -> tuple[int, ...]:
        return tuple(sorted(set(self.slots)))

    @cached_property
    def _group_of_place(self) -> NDArray[np.uint8]:
        """(K^2,) number of (la, lb) among all pairs of degrees."""
        slot_of = np.repeat(self.slots, [2 * l + 1 for l in self.slots])
        degree = np.searchsorted(self._degrees, slot_of)
        table = np.empty(self.size, dtype=np.uint8)
        table[self.square.numpy()] = degree[:, None] * len(self._degrees) + degree[None, :]
        return table


@dataclass(frozen=True)
class _Coupling:
    """All slot pairs of one (la, lb): their places, and the matrices acting on each pair's part."""

    places: Tensor
    couple: Tensor
    uncouple: Tensor

    def to(self, device: torch.device, dtype: torch.dtype) -> _Coupling:
        matrices = (m.to(device, dtype) for m in (self.couple, self.uncouple))
        return _Coupling(self.places.to(device), *matrices)


@lru_cache
def layout(basis: OrbitalBasis) -> BlockLayout:
    """The (cached) `BlockLayout` of a basis."""
    with torch.device("cpu"):  # whatever device the caller builds its model on
        return BlockLayout(basis)


@lru_cache
def _coupling_matrices(la: int, lb: int) -> tuple[Tensor, Tensor]:
    """((2la+1)(2lb+1) square) matrices right-multiplied to couple and to uncouple, float64."""
    area = (2 * la + 1) * (2 * lb + 1)
    couple, uncouple = [], []
    for l in range(abs(la - lb), la + lb + 1):
        first = o3.wigner_3j(l, la, lb, dtype=torch.float64)
        couple.append((2 * l + 1) * first.reshape(-1, area).T)
        uncouple.append(o3.wigner_3j(la, lb, l, dtype=torch.float64).reshape(area, -1).T)
    return torch.cat(couple, 1), torch.cat(uncouple, 0)


def pack(
    matrix: Tensor, layout: BlockLayout, edges: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Uncoupled vectors of a matrix: on-site (N, K^2) and pairs (E, K^2), empty places zero.

    Args:
        matrix: (nao, nao), canonical order.
        layout: of its basis.
        edges: (2, E) row and column atoms.
        numbers: (N,) atomic numbers.
    """
    where = layout.block_map(numbers, edges)
    flat = matrix.reshape(-1)
    node = flat.new_zeros(len(numbers) * layout.size)
    edge = flat.new_zeros(edges.shape[1] * layout.size)
    node[where.node_places] = flat[where.node_matrix]
    edge[where.edge_places] = flat[where.edge_matrix]
    return node.view(-1, layout.size), edge.view(-1, layout.size)


def unpack(
    node: Tensor,
    edge: Tensor,
    layout: BlockLayout,
    edges: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> Tensor:
    """The (nao, nao) matrix of uncoupled vectors, zero where no edge is; inverse of `pack`."""
    where = layout.block_map(numbers, edges)
    flat = node.new_zeros(where.nao**2)
    flat[where.node_matrix] = node.reshape(-1)[where.node_places]
    flat[where.edge_matrix] = edge.reshape(-1)[where.edge_places]
    return flat.view(where.nao, where.nao)
