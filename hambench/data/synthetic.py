"""`SyntheticFormat`: how the package of a file format makes files of it, to measure its reader."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hambench.chem.molecule import Molecule
from hambench.data.rows import Rows


@dataclass(frozen=True)
class SyntheticFormat:
    """Writer, reader and plain read of a format; a provider of tasks gives its own (`formats`).

    Attributes:
        name: of the format, for tables.
        write: molecules with a Hamiltonian (canonical order, Eh) as a file of the format.
        open: such a file by the reader that is measured.
        raw: for such a file, a function that reads what training needs of row i with the file
            library alone and returns the number of its bytes; the yardstick.
        write_sparse: as ``write``, for molecules without matrices until the file has the given
            bytes; its matrices are holes (all zero) that take no disk. None: not possible.
    """

    name: str
    write: Callable[[Path, Iterable[Molecule]], None]
    open: Callable[[Path], Rows]
    raw: Callable[[Path], Callable[[int], int]]
    write_sparse: Callable[[Path, Iterable[Molecule], int], None] | None = None
