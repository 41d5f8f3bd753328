"""Which irreps PhiSNet's heads predict: a column for every pair of shells of a pair of elements.

Every ordered pair of elements has weights of its own, for each pair of their shells and each degree
L these couple to; nothing is shared between elements. So the heads grow with the square of the
number of elements, and a basis of all elements is refused (`check_size`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hambench.chem.blocks import BlockLayout, layout
from hambench.chem.molecule import SYMBOLS
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError

Kind = tuple[int, int]
"""Atomic numbers of a block's row atom and column atom."""


@dataclass(frozen=True)
class Kinds:
    """Kinds of blocks a model has weights for.

    Attributes:
        atoms: (Z, Z) of the on-site blocks, in the order of their columns.
        pairs: of the blocks of two atoms.
    """

    atoms: tuple[Kind, ...]
    pairs: tuple[Kind, ...]

    @property
    def lone(self) -> tuple[int, ...]:
        """Elements of which a molecule may have one atom only: no pair of two of them is there."""
        return tuple(z for z, _ in self.atoms if (z, z) not in self.pairs)


def block_kinds(basis: OrbitalBasis, molecule: Sequence[str] | None) -> Kinds:
    """Kinds of a basis, or those of one molecule alone, in the order of the public code.

    Args:
        basis: whose elements are to be covered.
        molecule: symbols of the molecule's atoms in order; None: all pairs of elements.

    Raises:
        ConfigError: ``molecule`` has not just the elements of the basis.
    """
    if molecule is None:
        atoms = list(basis.elements)
        pairs = [(a, b) for a in atoms for b in atoms]
    else:
        unknown = [name for name in molecule if name not in SYMBOLS[1:]]
        atoms = [] if unknown else [SYMBOLS.index(name) for name in molecule]
        if unknown or set(atoms) != set(basis.elements):
            wanted = ", ".join(SYMBOLS[z] for z in basis.elements)
            raise ConfigError(
                f"PhiSNet's molecule is [{', '.join(molecule)}], expected atoms of exactly the "
                f"elements {wanted}; set model.hyperparameters.molecule=null for all pairs of them"
            )
        pairs = [(a, b) for i, a in enumerate(atoms) for j, b in enumerate(atoms) if i != j]
    return Kinds(tuple((z, z) for z in dict.fromkeys(atoms)), tuple(dict.fromkeys(pairs)))


def column_counts(basis: OrbitalBasis, kinds: Sequence[Kind]) -> list[int]:
    """Columns of each degree, L = 0 .. twice the largest l, over all kinds."""
    degrees = range(basis.lmax + 1)
    shells = {z: np.array([s.l.count(l) for l in degrees]) for z, s in basis.shells.items()}
    pairs = np.zeros((len(degrees), len(degrees)), dtype=np.int64)
    for a, b in kinds:
        pairs += np.outer(shells[a], shells[b])
    la, lb = np.indices(pairs.shape)
    return [
        int(pairs[(abs(la - lb) <= l) & (l <= la + lb)].sum()) for l in range(2 * basis.lmax + 1)
    ]


def check_size(basis: OrbitalBasis, kinds: Kinds, lmax: int, features: int, largest: int) -> None:
    """Refuse heads that are too large, before anything is allocated.

    Args:
        basis, kinds: what the columns are of.
        lmax: largest degree of the features.
        features: F, weights of a column.
        largest: weights the head of pairs may have.

    Raises:
        ConfigError: it would have more.
    """
    count = features * sum(column_counts(basis, kinds.pairs)[: lmax + 1])
    if count > largest:
        raise ConfigError(
            f"PhiSNet has weights of its own for every ordered pair of elements: "
            f"{len(kinds.atoms)} elements in {basis.name} need a head of {count:,} parameters, "
            f"more than largest_head={largest:,}; choose a task of fewer elements, a model that "
            "shares weights between them, or raise model.hyperparameters.largest_head"
        )


class Columns:
    """Columns of some kinds, by degree, and where their irreps stand in block vectors.

    Args:
        basis, kinds: what they are of.
        lmax: largest degree that features have.
        left_out: (shell, shell, L) -> whether this irrep has no effect on a matrix, and no column.

    Attributes:
        kinds: in order.
        counts: columns of each degree up to ``top``, the largest there is.
        numbers: (columns,) of each, among those of its degree in the public code, which has columns
            for what has no effect, too; ``width``: the most it has for a degree.
        degrees: (columns,) of each.
        shells: (columns, 2) l of the row's and the column's shell.
        irreps: per degree the number of irreps of a block vector, n_l.
        places: (columns,) place in a (kinds, sum of n_l) table, degrees one behind the other.
        outputs: places of all terms in the K^2 vector: degree by degree, m outer, irreps inner.
    """

    def __init__(
        self,
        basis: OrbitalBasis,
        kinds: Sequence[Kind],
        lmax: int,
        left_out: Callable[[int, int, int], bool] = lambda a, b, l: False,
    ) -> None:
        blocks = layout(basis)
        self.kinds, self.size = tuple(kinds), blocks.size
        found = column_counts(basis, kinds)[: lmax + 1]
        self.width = max(found)
        self.top = max(l for l, n in enumerate(found) if n)
        starts, rank = self._starts(blocks)
        self.irreps = [len(s) for s in starts]
        first = [sum(self.irreps[:l]) for l in range(self.top + 1)]
        columns: list[list[tuple[int, int, int, int]]] = [[] for _ in starts]
        numbers = [0 for _ in starts]
        for k, (one, other) in enumerate(self.kinds):
            for a, la in zip(blocks.shell_slots[one], basis.shells[one].l, strict=True):
                for b, lb in zip(blocks.shell_slots[other], basis.shells[other].l, strict=True):
                    for l in range(abs(la - lb), min(la + lb, self.top) + 1):
                        place = k * sum(self.irreps) + first[l] + rank[a, b, l]
                        if not left_out(a, b, l):
                            columns[l].append((place, la, lb, numbers[l]))
                        numbers[l] += 1
        self.counts = [len(some) for some in columns]
        table = np.array([entry for some in columns for entry in some], dtype=np.int64)
        table = table.reshape(-1, 4)
        self.places, self.shells, self.numbers = table[:, 0].copy(), table[:, 1:3], table[:, 3]
        self.degrees = np.repeat(np.arange(self.top + 1), self.counts)
        self.outputs = np.concatenate(
            [
                (np.array(s)[None] + np.arange(2 * l + 1)[:, None]).ravel()
                for l, s in enumerate(starts)
            ]
        )

    def _starts(
        self, blocks: BlockLayout
    ) -> tuple[list[list[int]], dict[tuple[int, int, int], int]]:
        """Per degree the first places of its irreps in a block vector, and each one's rank."""
        starts: list[list[int]] = [[] for _ in range(self.top + 1)]
        rank = {}
        for irrep in blocks.irreps:
            if irrep.l <= self.top:
                rank[irrep.a, irrep.b, irrep.l] = len(starts[irrep.l])
                starts[irrep.l].append(irrep.start)
        return starts, rank


def cancels(a: int, b: int, l: int) -> bool:
    """Whether an irrep of an on-site block cancels in M + M^T: odd ones of a shell with itself."""
    return a == b and l % 2 == 1


def on_diagonal(a: int, b: int, l: int) -> bool:
    """Whether a scalar irrep of an on-site block fills the diagonal of a matrix alone."""
    return a == b


@dataclass(frozen=True)
class Tiles:
    """Rows grouped by kind, every group filled up to whole tiles of equal size.

    So one batched product serves all kinds, with the weights of a tile read once, and no shape
    depends on what a device holds: there is room for one tile too many per kind.

    Attributes:
        size: rows of a tile.
        kinds: (tiles,) kind of each.
        places: (R,) where each row stands in the tiles.
    """

    size: int
    kinds: Tensor
    places: Tensor

    @classmethod
    def of(cls, kinds: Tensor, count: int, largest: int = 64) -> Tiles:
        """Tiles for rows of ``kinds`` (R,), of which there are ``count``."""
        rows, device = len(kinds), kinds.device
        size = max(1, min(largest, rows // count))
        present = torch.zeros(count, dtype=torch.long, device=device)
        present = present.index_add(0, kinds, torch.ones_like(kinds))
        needed = (present + size - 1) // size
        ends = needed.cumsum(0)
        # row p of the sorted ones is the (p - first of its kind)-th of its kind
        first = (ends - needed) * size - (present.cumsum(0) - present)
        order = kinds.argsort(stable=True)
        spots = first.index_select(0, kinds.index_select(0, order))
        spots = spots + torch.arange(rows, device=device)
        tiles = torch.arange(rows // size + min(count, rows), device=device)
        owner = torch.searchsorted(ends, tiles, right=True).clamp(max=count - 1)
        return cls(size, owner, torch.empty_like(spots).index_copy(0, order, spots))
