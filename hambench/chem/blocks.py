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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import torch
from e3nn import o3
from numpy.typing import NDArray
from torch import Tensor

from hambench.chem.cache import ByteCache
from hambench.chem.orbitals import DIFFUSE, OrbitalBasis

_MAP_BYTES: Final = 2**27
"""Index maps kept at most; a molecule of 100 atoms in def2-TZVPD has 87 MB of them."""


@dataclass(frozen=True)
class Irrep:
    """One coupled irrep of the layout: slots ``a`` (row) and ``b``, degree ``l``, first place."""

    a: int
    b: int
    l: int
    start: int


@dataclass(frozen=True)
class BlockMap:
    """Index maps of one molecule, or of several side by side (all int64 tensors).

    Attributes:
        node_places: real entries of the on-site blocks in the flat (N, K^2) vectors.
        node_matrix: their places in the flat (nao, nao) matrix.
        edge_places: real entries of the pair blocks in the flat (E, K^2) vectors.
        edge_matrix: their places in the flat matrix.
    """

    node_places: Tensor
    node_matrix: Tensor
    edge_places: Tensor
    edge_matrix: Tensor

    def matrix(self, node: Tensor, edge: Tensor, size: int) -> Tensor:
        """(size,) flat matrices of uncoupled vectors, zero where no edge is."""
        flat = node.new_zeros(size)
        flat[self.node_matrix] = node.reshape(-1)[self.node_places]
        flat[self.edge_matrix] = edge.reshape(-1)[self.edge_places]
        return flat

    def vectors(self, flat: Tensor, nodes: int, edges: int, size: int) -> tuple[Tensor, Tensor]:
        """(nodes, size) and (edges, size) uncoupled vectors of flat matrices, empty places zero."""
        node, edge = flat.new_zeros(nodes * size), flat.new_zeros(edges * size)
        node[self.node_places] = flat[self.node_matrix]
        edge[self.edge_places] = flat[self.edge_matrix]
        return node.view(-1, size), edge.view(-1, size)


@dataclass(frozen=True)
class OrbitalTables:
    """What finds a place of a pair's vector among the orbitals of its atoms (int64 tensors).

    Attributes:
        row, column: (K^2,) slot orbitals of the entry at every place (uncoupled).
        number: (Z, K) number of each slot orbital among the orbitals of an element that has it.
        count: (Z,) orbitals of an element.
    """

    row: Tensor
    column: Tensor
    number: Tensor
    count: Tensor


def tensor_bytes(record: object) -> int:
    """Bytes of the tensors among the attributes of a record."""
    return sum(int(v.nbytes) for v in vars(record).values() if isinstance(v, Tensor))


_MAPS: ByteCache[BlockMap] = ByteCache(_MAP_BYTES, tensor_bytes)


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
        pair_start: (slots, slots) int64, first place of the part of a pair of slots.
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
        self.pair_start = (np.cumsum(areas) - areas.ravel()).reshape(areas.shape)
        self.irreps = self._list_irreps()
        self.square = torch.from_numpy(self._square_places(widths))
        self.transposed, self.parity = self._transposition()
        self._orbitals = self._element_orbitals(widths)
        self._moved: dict[tuple[torch.device, torch.dtype], list[_Coupling]] = {}
        self._flips: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}
        self._tables: dict[torch.device, OrbitalTables] = {}

    def _list_irreps(self) -> tuple[Irrep, ...]:
        found = []
        for a, la in enumerate(self.slots):
            for b, lb in enumerate(self.slots):
                start = int(self.pair_start[a, b])
                for l in range(abs(la - lb), la + lb + 1):
                    found.append(Irrep(a, b, l, start))
                    start += 2 * l + 1
        return tuple(found)

    def _square_places(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        slot = np.repeat(np.arange(len(widths)), widths)
        m = np.arange(self.width) - np.repeat(np.cumsum(widths) - widths, widths)
        start = self.pair_start[np.ix_(slot, slot)]
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
            slots = self.shell_slots[z]
            places = [
                starts[s] + m
                for s, l in zip(slots, shells.l, strict=True)
                for m in range(2 * l + 1)
            ]
            table[z, : len(places)] = places
        return table

    @cached_property
    def shell_slots(self) -> dict[int, tuple[int, ...]]:
        """Slot of every shell of each element."""
        found = {}
        for z, shells in self.basis.shells.items():
            labels = shells.labels
            found[z] = tuple(
                self.basis.slots.index(label) + labels[:place].count(label)
                for place, label in enumerate(labels)
            )
        return found

    def couple(self, vectors: Tensor) -> Tensor:
        """Coupled form of uncoupled vectors (..., K^2); exact inverse of `uncouple`."""
        return self._convert(vectors, forward=True)

    def uncouple(self, vectors: Tensor) -> Tensor:
        """Matrix-element form of coupled vectors (..., K^2); exact inverse of `couple`."""
        return self._convert(vectors, forward=False)

    def flip(self, vectors: Tensor) -> Tensor:
        """Coupled vectors (..., K^2) of the transposed blocks."""
        key = (vectors.device, vectors.dtype)
        if key not in self._flips:
            self._flips[key] = self.transposed.to(key[0]), self.parity.to(*key)
        place, parity = self._flips[key]
        return vectors.index_select(-1, place) * parity

    def tables(self, device: torch.device) -> OrbitalTables:
        """Which orbitals the places of a vector belong to, as (cached) tensors on a device."""
        if device not in self._tables:
            row, column = torch.empty(2, self.size, dtype=torch.long)
            within = torch.arange(self.width).expand(self.width, -1)
            row[self.square], column[self.square] = within.T, within
            number = torch.zeros(len(self._orbitals), self.width, dtype=torch.long)
            count = torch.zeros(len(self._orbitals), dtype=torch.long)
            for z, shells in self.basis.shells.items():
                count[z] = shells.nao
                number[z, self._orbitals[z, : shells.nao]] = torch.arange(shells.nao)
            moved = (table.to(device) for table in (row, column, number, count))
            self._tables[device] = OrbitalTables(*moved)
        return self._tables[device]

    def _convert(self, vectors: Tensor, forward: bool) -> Tensor:
        groups = self._couplings(vectors.device, vectors.dtype)
        parts = [(g.places, g.couple if forward else g.uncouple) for g in groups]
        out: Tensor = _Conversion.apply(vectors, parts)
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
        for la in self.degrees:
            for lb in self.degrees:
                starts = self.pair_start[np.ix_(slots == la, slots == lb)].ravel()
                area = (2 * la + 1) * (2 * lb + 1)
                places = torch.from_numpy((starts[:, None] + np.arange(area)).ravel())
                groups.append(_Coupling(places, *coupling_matrices(la, lb)))
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
            return BlockMap(*places)

        return _MAPS.get((self.basis, numbers.tobytes(), edges.tobytes()), make)

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

    @cached_property
    def degrees(self) -> tuple[int, ...]:
        """Every l of the slots, ascending."""
        return tuple(sorted(set(self.slots)))


class _Conversion(torch.autograd.Function):
    """Matrices acting on parts of vectors, each on its own places.

    Its derivative is a conversion too, by the transposed matrices; left to itself, autograd would
    write every part into a copy of the whole.
    """

    @staticmethod
    def forward(ctx: Any, vectors: Tensor, parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Parts: places, and what each of their runs is right-multiplied by."""
        ctx.parts = parts
        out = torch.empty_like(vectors)
        for places, matrix in parts:  # one per (la, lb), however many slots there are
            part = vectors.index_select(-1, places).unflatten(-1, (-1, len(matrix)))
            out.index_copy_(-1, places, (part @ matrix).flatten(-2))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """The conversion back, not by the inverse but by the transpose."""
        parts = [(places, matrix.T) for places, matrix in ctx.parts]
        gradient: Tensor = _Conversion.apply(gradients[0], parts)
        return gradient, None


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
def coupling_matrices(la: int, lb: int) -> tuple[Tensor, Tensor]:
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
    return where.vectors(matrix.reshape(-1), len(numbers), edges.shape[1], layout.size)


def unpack(
    node: Tensor,
    edge: Tensor,
    layout: BlockLayout,
    edges: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> Tensor:
    """The (nao, nao) matrix of uncoupled vectors, zero where no edge is; inverse of `pack`."""
    where, nao = layout.block_map(numbers, edges), layout.basis.nao(numbers)
    return where.matrix(node, edge, nao**2).view(nao, nao)
