"""Index maps between matrices, files and blocks, by composition and edges; kept a while."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from torch import Tensor

from hambench.chem.cache import ByteCache

_MAP_BYTES: Final = 2**27
"""Index maps of each kind kept at most; a molecule of 100 atoms in def2-TZVPD has 90 MB of them."""


@dataclass(frozen=True)
class BlockMap:
    """Index maps of one molecule (all int64 tensors).

    Attributes:
        nao: orbitals of the molecule.
        node_places: real entries of the on-site blocks in the flat (N, K^2) vectors.
        node_matrix: their places in the flat (nao, nao) matrix.
        edge_places: real entries of the pair blocks in the flat (E, K^2) vectors.
        edge_matrix: their places in the flat matrix.
    """

    nao: int
    node_places: Tensor
    node_matrix: Tensor
    edge_places: Tensor
    edge_matrix: Tensor


@dataclass(frozen=True)
class StoredMap:
    """Where the entries of a `BlockMap` stand in ``StoredMatrix.tabled(signed)`` (int32).

    Attributes:
        node, edge: places of the on-site entries and of those of the pairs.
        signed: whether negatives are among them.
    """

    node: Tensor
    edge: Tensor
    signed: bool


@dataclass(frozen=True)
class Grouping:
    """Pair entries sorted by the degrees (la, lb) of their shells, shell pair by shell pair.

    Attributes:
        order: (int32) entry at each place of the sorted list; ``back``: its inverse.
        counts: entries of every (la, lb).
    """

    order: Tensor
    back: Tensor
    counts: tuple[int, ...]


def _bytes(maps: BlockMap | StoredMap | Grouping) -> int:
    return sum(value.nbytes for value in vars(maps).values() if isinstance(value, Tensor))


BLOCK_MAPS: ByteCache[BlockMap] = ByteCache(_MAP_BYTES, _bytes)
STORED_MAPS: ByteCache[StoredMap] = ByteCache(_MAP_BYTES // 2, _bytes)
GROUPINGS: ByteCache[Grouping] = ByteCache(_MAP_BYTES // 2, _bytes)


def forget_maps() -> None:
    """Empty the cache of index maps, as if no molecule had been seen yet."""
    BLOCK_MAPS.clear()
    STORED_MAPS.clear()
    GROUPINGS.clear()
