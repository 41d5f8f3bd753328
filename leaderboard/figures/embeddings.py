"""UMAP panels of the runs on a board, from the ``embeddings.h5`` of `hambench embed`.

Numbers are read and drawn anew; the pictures beside such a file may be anybody's.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from hambench.errors import DataError
from hambench.hdf5 import short
from hambench.leaderboard.collect import Board
from hambench.leaderboard.figures.album import Album, Lost, paged
from hambench.leaderboard.figures.style import looks, panels, shown
from hambench.leaderboard.runs import find_files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMBEDDINGS: Final = "embeddings.h5"
NAME: Final = "embeddings"
PANELS: Final = 12
"""Models of a file that are drawn."""
FILES: Final = 8
"""Files that are drawn."""

_FORMAT: Final = ("hambench-embeddings", 1)
_ATOMS: Final = 20_000  # in a picture, twice what is ever drawn
_ALL: Final = 1 << 26  # in a file
_ELEMENTS: Final = 8  # with a look of their own, the most frequent ones
_COLUMNS: Final = 4
_SIDE: Final = 3.0  # inches of a panel


class Panel(NamedTuple):
    """A model: its name, and the (n, 2) places of the atoms."""

    name: str
    places: NDArray[np.float64]


class Embedded(NamedTuple):
    """A file: what it is of, the (n,) elements of its atoms, its models that are on the board."""

    title: str
    elements: NDArray[np.str_]
    panels: tuple[Panel, ...]


def pictures(board: Board) -> Album:
    """A picture per file that holds models of the board."""
    lost = Lost(NAME)
    named = {
        run.result.run_id: f"{e.label} seed {run.result.seed}"
        for _, e in board.entries
        for run in e.runs
    }
    try:
        files = sorted(find_files(board.folders, EMBEDDINGS).items())
    except (DataError, OSError) as error:  # a folder is gone, a link leads nowhere
        lost.add(NAME, f"folders cannot be looked through: {error}")
        return Album((), lost.told())
    if not files:
        lost.add(NAME, f"no {EMBEDDINGS} in the given folders; `hambench embed RUN_DIR` makes one")
    found: list[Embedded] = []
    for name, path in files:
        try:
            one = read(path, named)
        except DataError as error:
            lost.add(name, str(error))
            continue
        if not one.panels:
            lost.add(name, "none of its models is on the board")
        elif len(found) == FILES:
            lost.add(name, f"the first {FILES} files are drawn")
        else:
            found.append(one)
            for panel in one.panels[PANELS:]:
                lost.add(panel.name, f"{PANELS} models of a file are drawn")
    return Album(paged(NAME, found, 1, lambda page: _figure(page[0])), lost.told())


def read(path: Path, named: dict[str, str]) -> Embedded:
    """What a file holds of the runs in ``named``, by their run_id.

    Raises:
        DataError: it is foreign or corrupt.
    """
    if not path.is_file():
        raise DataError(f"{path.name} is no file")
    try:
        with h5py.File(path, "r", locking=False) as file:
            if (file.attrs.get("format"), file.attrs.get("version")) != _FORMAT:
                raise DataError(f"{path.name} holds no embeddings of version {_FORMAT[1]}")
            drawn = _array(file, "drawn", (None,), _ATOMS, "iu")
            environments = _array(file, "atoms/environment", (None,), _ALL, "S")
            if len(drawn) == 0 or drawn.min() < 0 or drawn.max() >= len(environments):
                raise DataError(f"{path.name} draws atoms that it has not")
            elements = np.array([_element(name) for name in environments[drawn]])
            found = []
            for model in _models(file):
                about = dict(model.attrs)
                name = named.get(str(about.get("run_id")))
                if name is None:
                    continue
                places = _array(model, "umap", (len(drawn), 2), _ATOMS, "f").astype(np.float64)
                if not np.isfinite(places).all() or np.abs(places).max() > 1e6:
                    raise DataError(f"{path.name} has places that are no numbers")
                begun = "" if about.get("trained", True) else " untrained"
                found.append(Panel(f"{name}{begun}", places))
            task, split = (str(file.attrs.get(key, "")) for key in ("task", "split"))
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path.name} cannot be read ({short(error)})") from error
    return Embedded(f"atoms of {shown(task)}, split {shown(split)}", elements, tuple(found))


def _models(file: h5py.File) -> Sequence[h5py.Group]:
    group = file["models"]
    return [group[str(k)] for k in range(min(len(group), 100))]


def _array(
    group: h5py.Group, name: str, shape: tuple[int | None, ...], most: int, kinds: str
) -> NDArray[Any]:
    """A data set of the file itself, not of another one, if it has the expected shape and type."""
    found = group[name]
    within = isinstance(found, h5py.Dataset) and found.file == group.file
    if not within or found.is_virtual or found.external:
        raise DataError(f"{EMBEDDINGS}: {name} is no data set of the file")
    fits = len(found.shape) == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
    )
    if not fits or found.shape[0] > most or found.dtype.kind not in kinds:
        raise DataError(f"{EMBEDDINGS}: {name} has shape {found.shape} and type {found.dtype}")
    if found.dtype.itemsize > 256:
        raise DataError(f"{EMBEDDINGS}: {name} has entries of {found.dtype.itemsize} bytes")
    return np.asarray(found[:])


def _element(environment: bytes) -> str:
    """``C`` of ``C(C,H,H,H)``."""
    found = re.match(rb"[A-Z][a-z]?", environment)
    if found is None:
        raise DataError(f"{EMBEDDINGS}: an environment does not begin with an element")
    return found[0].decode()


def _figure(one: Embedded) -> Figure:
    from matplotlib.lines import Line2D

    some = one.panels[:PANELS]
    rows = -(-len(some) // _COLUMNS)
    columns = -(-len(some) // rows)
    figure, grid = panels([_SIDE + 0.4] * rows, [_SIDE] * columns)
    frequent = [name for name, _ in Counter(one.elements.tolist()).most_common(_ELEMENTS)]
    marks = dict(zip(sorted(frequent), looks(len(frequent)), strict=True))
    for panel, axes in zip(some, grid.flat, strict=False):
        for element in [*sorted(set(one.elements.tolist()) - set(marks)), *marks]:
            here = one.elements == element
            look = marks.get(element)
            axes.scatter(
                *panel.places[here].T, s=float(np.clip(6000 / len(here), 2, 14)), linewidths=0,
                color=look.color if look else "0.8", marker=look.marker if look else ".",
                rasterized=True,
            )  # fmt: skip
        axes.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        axes.set_title(shown(panel.name, 36), fontsize="medium")
    for axes in list(grid.flat)[len(some) :]:
        axes.set_visible(False)
    handles = [
        Line2D([], [], linestyle="", marker=look.marker, color=look.color)
        for look in marks.values()
    ]
    figure.suptitle(one.title, fontsize="medium")
    figure.legend(handles, list(marks), loc="outside right center", frameon=False)
    return figure
