"""UMAP of embeddings, and the figure: runs side by side, coloured by element and environment."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hambench.analysis.atoms import Atoms
from hambench.analysis.libraries import library
from hambench.analysis.numbers import Findings, standardised
from hambench.chem.molecule import symbol
from hambench.errors import DataError
from hambench.files import atomic_path
from hambench.scoring import Score, format_score

NEIGHBOURS: Final = 15
MIN_DISTANCE: Final = 0.1
"""Settings of UMAP, its defaults."""

SHOWN: Final = 12
"""Environments that have a colour of their own, the most frequent ones."""

_REST: Final = ("others", "0.85")  # name and grey
_SUFFIXES: Final = ("png", "svg")


@dataclass(frozen=True, eq=False)
class Panel:
    """A column of the figure.

    Attributes:
        name: of the run.
        places: (n, 2) coordinates of the atoms, in no unit.
        findings: its numbers, which stand in the titles.
    """

    name: str
    places: NDArray[np.float64]
    findings: Findings


def project(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(n, 2) UMAP of the standardised (n, D) embeddings; the same for the same seed.

    Raises:
        DataError: fewer atoms than neighbours are asked for.
    """
    if len(vectors) <= NEIGHBOURS:
        raise DataError(
            f"{len(vectors)} atoms are too few for a picture, which needs more than {NEIGHBOURS}; "
            "choose a larger split"
        )
    umap = library("umap").UMAP(
        n_neighbors=NEIGHBOURS, min_dist=MIN_DISTANCE, random_state=seed, n_jobs=1
    )
    with warnings.catch_warnings():
        # atoms that are far from all others get random places; isolated clusters, spectral ones
        warnings.simplefilter("ignore", UserWarning)
        places: NDArray[np.float64] = umap.fit_transform(standardised(vectors)).astype(np.float64)
    return places


def draw_panels(panels: Sequence[Panel], atoms: Atoms, folder: Path) -> list[Path]:
    """Write ``embeddings.png`` and ``embeddings.svg``.

    Args:
        panels: a column each.
        atoms: those of every panel.
        folder: where they go.
    """
    figure = library("matplotlib.figure").Figure(
        figsize=(3.4 * len(panels) + 1.6, 7.2), layout="constrained"
    )
    rows = figure.subplots(2, len(panels), squeeze=False)
    elements = [symbol(z) for z in atoms.number.tolist()]
    frequent = [name for name, _ in Counter(atoms.environment.tolist()).most_common(SHOWN)]
    kinds = [
        (np.array(elements), sorted(set(elements)), "tab10", _element_title),
        (atoms.environment, sorted(frequent), "Paired", _environment_title),
    ]
    for axes, (classes, names, colours, title) in zip(rows, kinds, strict=True):
        for panel, one in zip(panels, axes, strict=True):
            _scatter(one, panel.places, _colours(classes, names, colours))
            one.set_title(title(panel), fontsize="small")
        axes[-1].legend(
            *_legend(classes, names, colours), loc="center left", bbox_to_anchor=(1, 0.5),
            frameon=False, fontsize="small",
        )  # fmt: skip
    return _save(figure, folder)


def _element_title(panel: Panel) -> str:
    lines = [panel.name, f"silhouette of elements {_text(panel.findings.silhouette_element)}"]
    if panel.findings.on_site_r2 is not None:
        lines.append(f"on-site energy R2 {_text(panel.findings.on_site_r2)}")
    return "\n".join(lines)


def _environment_title(panel: Panel) -> str:
    found = panel.findings
    if found.environment_accuracy is None:
        return "no element has environments to tell apart"
    return (
        f"silhouette of environments {_text(found.silhouette_environment)}\n"
        f"told in other molecules {_text(found.environment_accuracy)}\n"
        f"most frequent one {_text(found.environment_majority)}"
    )


def _text(score: Score | None) -> str:
    return "none" if score is None else format_score(score)


def _colours(classes: NDArray[Any], names: Sequence[str], colours: str) -> list[Any]:
    """(n,) colour of each atom."""
    palette = _palette(names, colours)
    return [palette.get(name, _REST[1]) for name in classes.tolist()]


def _palette(names: Sequence[str], colours: str) -> dict[str, Any]:
    colour_map = library("matplotlib").colormaps[colours]
    return {name: colour_map(place % colour_map.N) for place, name in enumerate(names)}


def _legend(
    classes: NDArray[Any], names: Sequence[str], colours: str
) -> tuple[list[Any], list[str]]:
    """Handles and texts, of the rest too where there is any."""
    palette = _palette(names, colours)
    if set(classes.tolist()) - set(names):
        palette[_REST[0]] = _REST[1]
    line = library("matplotlib.lines").Line2D
    handles = [line([], [], ls="", marker="o", color=colour) for colour in palette.values()]
    return handles, list(palette)


def _scatter(axes: Any, places: NDArray[np.float64], colours: list[Any]) -> None:
    size = float(np.clip(6000 / len(places), 0.5, 12))
    axes.scatter(*places.T, s=size, c=colours, linewidths=0, rasterized=True)
    axes.set(xticks=[], yticks=[])


def _save(figure: Any, folder: Path) -> list[Path]:
    """The same bytes for the same figure."""
    written = []
    for suffix in _SUFFIXES:
        path = folder / f"embeddings.{suffix}"
        fixed = {"Date": None} if suffix == "svg" else {"Software": None}
        with (
            atomic_path(path) as temporary,
            library("matplotlib").rc_context({"svg.hashsalt": "hambench", "svg.fonttype": "none"}),
        ):
            figure.savefig(temporary, format=suffix, dpi=200, metadata=fixed)
        written.append(path)
    return written
