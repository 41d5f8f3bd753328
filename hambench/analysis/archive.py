"""``embeddings.h5``: the embeddings of every atom of a split, by several models.

Layout (version 1): attributes ``format``, ``version`` and what was embedded; ``molecules/id`` and
``molecules/group``; of every atom, in order, ``atoms/molecule`` (a row of these), ``atoms/index``
(its place in the molecule), ``atoms/element`` and ``atoms/environment``; ``drawn``, the places of
the atoms that numbers and picture are of, and ``on_site`` (Eh) of these where there are
Hamiltonians; for each model ``models/K`` with attributes, ``vectors`` (atoms, D) and ``umap``
(drawn, 2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.analysis.atoms import Atoms
from hambench.hdf5 import atomic_hdf5

FORMAT: Final = "hambench-embeddings"
VERSION: Final = 1

_CHUNK: Final = 1 << 18  # numbers in a chunk of the file


class Archive:
    """Adds one model after another to a file; made by `write_archive`."""

    def __init__(
        self,
        file: h5py.File,
        check_disk: Callable[[], None],
        atoms: Atoms,
        drawn: NDArray[np.int64],
    ) -> None:
        self._file, self._check_disk = file, check_disk
        self._drawn, self._count = drawn, len(atoms)
        file.create_group("models")
        molecules = int(atoms.molecule[-1]) + 1
        self._starts = np.searchsorted(atoms.molecule, np.arange(molecules + 1))

    def add(
        self, about: Mapping[str, Any], parts: Iterable[tuple[int, NDArray[Any]]]
    ) -> NDArray[np.float64]:
        """Write the vectors of a model, which may be more than the memory holds.

        Args:
            about: the model, as attributes.
            parts: of each molecule its row and the (N, D) vectors of its atoms, in any order.

        Returns:
            (drawn, D) vectors of the atoms that were drawn.
        """
        model = self._file.create_group(f"models/{len(self._file['models'])}")
        model.attrs.update(about)
        chosen: NDArray[np.float64] | None = None
        for row, part in parts:
            if chosen is None:
                chosen = np.empty((len(self._drawn), part.shape[1]))
                self._create(model, part)
            first, last = self._starts[row : row + 2]
            model["vectors"][first:last] = part
            here = slice(*np.searchsorted(self._drawn, (first, last)))
            chosen[here] = part[self._drawn[here] - first]
            self._check_disk()
        assert chosen is not None  # a split has molecules
        return chosen

    def _create(self, model: h5py.Group, like: NDArray[Any]) -> None:
        width = like.shape[1]
        model.create_dataset(
            "vectors", (self._count, width), like.dtype, compression="gzip", shuffle=True,
            fletcher32=True, chunks=(max(1, min(self._count, _CHUNK // width)), width),
        )  # fmt: skip

    def place(self, umap: NDArray[np.float64]) -> None:
        """Write the (drawn, 2) picture of the model that was added last."""
        models = self._file["models"]
        models[f"{len(models) - 1}/umap"] = umap
        self._check_disk()


@contextmanager
def write_archive(
    path: Path,
    about: Mapping[str, Any],
    molecules: Sequence[tuple[str, str]],
    atoms: Atoms,
    drawn: NDArray[np.int64],
    on_site: NDArray[np.float64] | None,
) -> Iterator[Archive]:
    """An archive whose file appears at ``path`` when the block ends well, and not before.

    Args:
        path: the file; an existing one is replaced.
        about: what is embedded, as attributes.
        molecules: id and group of each.
        atoms: all of their atoms, in this order.
        drawn: ascending places of those that are analysed.
        on_site: (drawn,) in Eh, or None.

    Raises:
        RunError: the disk is full, or the folder cannot be written.
    """
    text = h5py.string_dtype()
    with atomic_hdf5(path) as (file, check_disk):
        file.attrs.update({"format": FORMAT, "version": VERSION, **about})
        for place, name in enumerate(("id", "group")):
            file[f"molecules/{name}"] = np.array([row[place] for row in molecules], dtype=text)
        columns = {
            "molecule": atoms.molecule,
            "index": atoms.index,
            "element": atoms.number.astype(np.uint8),
            "environment": atoms.environment.astype(np.bytes_),  # text of one length is packed
        }
        for name, column in columns.items():
            file.create_dataset(f"atoms/{name}", data=column, compression="gzip", fletcher32=True)
        file["drawn"] = drawn
        if on_site is not None:
            file["on_site"] = on_site
        yield Archive(file, check_disk, atoms, drawn)
