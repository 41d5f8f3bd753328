"""Embeddings of atoms by finished runs, side by side on the same atoms; numbers and a picture."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from hambench import rundir
from hambench.analysis.archive import write_archive
from hambench.analysis.atoms import Atoms, draw
from hambench.analysis.libraries import LIBRARIES, check_libraries
from hambench.analysis.numbers import FOLDS, Findings, examine
from hambench.analysis.picture import MIN_DISTANCE, NEIGHBOURS, Panel, draw_panels, project
from hambench.cell import model_of
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.loader import Loader
from hambench.data.rows import Rows, Unlabelled
from hambench.data.splits import clusters
from hambench.errors import ConfigError, RunError
from hambench.files import atomic_write
from hambench.learn import Recipe
from hambench.learn.validation import matmul_precision
from hambench.learn.weights import cast
from hambench.model import Model
from hambench.results import read_result
from hambench.trained import Trained, load_trained

MOST: Final = 10_000
"""Atoms that numbers and picture are of, at most: a draw of those of the split."""

T = TypeVar("T")


@dataclass(frozen=True)
class Embedded:
    """What `embed` found and wrote.

    Attributes:
        molecules, atoms: of the split.
        analysed: atoms that the numbers are of.
        findings: numbers by name of the model.
        files: vectors, numbers, pictures.
    """

    molecules: int
    atoms: int
    analysed: int
    findings: dict[str, Findings]
    files: list[Path]


class _Source(NamedTuple):
    """A model whose embeddings are asked for: a run's, or as that run began."""

    name: str
    run: Trained
    model: Model
    trained: bool

    def described(self) -> dict[str, Any]:
        """For files."""
        config = self.run.config
        return {
            "name": self.name,
            "run_dir": str(self.run.folder),
            "run_id": config.run_id,
            "task": self.run.task.name,
            "preset": config.model["name"],
            "strategy": config.strategy or "none",
            "seed": config.seed,
            "trained": self.trained,
        }


def embed(
    folders: Sequence[Path],
    out: Path,
    *,
    split: str = "test",
    seed: int = 0,
    norms: bool = False,
    untrained: bool = False,
    device: str = "auto",
    progress: bool = True,
) -> Embedded:
    """Embed a split with the models of runs, and write vectors, numbers and picture.

    The molecules are those of the first run's task; the other models need only fit them.

    Args:
        folders: run directories.
        out: folder for ``embeddings.h5``, ``.json``, ``.png`` and ``.svg``.
        split: of the task.
        seed: of the draw of atoms, the parts of the probes, and UMAP.
        norms: see `invariants`.
        untrained: also embed with the models as they were before any training.
        device: where the models run.
        progress: show bars on a terminal.

    Raises:
        ConfigError: a library is missing, a model offers no embeddings or does not fit the
            molecules, a run is named twice, the split is not there, or the data have changed.
        DataError: no finished run, data missing, or too few atoms.
        RunError: a model puts out numbers that are not finite, or the files cannot be written.
    """
    check_libraries()
    sources = _sources(folders, device)
    task = sources[0].run.task
    rows = _rows(sources, split)
    geometries = Unlabelled(rows)
    if untrained:
        sources += _begun(sources, geometries[:1])
    sources = _told_apart(sources)
    groups = list(clusters(rows.ids).values())
    atoms = Atoms.of(_shown(geometries, "environments", progress), groups)
    drawn = draw(len(atoms), MOST, seed)
    on_site = on_site_energies(rows, task.basis, atoms[drawn], progress)
    about: dict[str, Any] = {
        "task": task.name,
        "task_version": task.version,
        "split": split,
        "fingerprint": task.fingerprint,
        "seed": seed,
        "channels": "l=0 and norms of l>0" if norms else "l=0",
    }
    panels = []
    molecules = list(zip(rows.ids, groups, strict=True))
    h5 = out / "embeddings.h5"
    with write_archive(h5, about, molecules, atoms, drawn, on_site) as archive:
        for source in sources:
            parts = _vectors(source, geometries, norms, progress)
            vectors = archive.add(source.described(), parts)
            places = project(vectors, seed)
            archive.place(places)
            panels.append(Panel(source.name, places, examine(vectors, atoms[drawn], on_site, seed)))
    about |= {
        "molecules": len(rows),
        "groups": len(set(groups)),
        "atoms": len(atoms),
        "analysed": len(drawn),
    }
    _write_numbers(out / "embeddings.json", about, sources, panels)
    pictures = draw_panels(panels, atoms[drawn], out)
    return Embedded(
        molecules=len(rows),
        atoms=len(atoms),
        analysed=len(drawn),
        findings={panel.name: panel.findings for panel in panels},
        files=[h5, out / "embeddings.json", *pictures],
    )


def invariants(features: Tensor, norms: bool = False) -> Tensor:
    """What no rotation of the molecule touches of the features of its atoms.

    Features of l > 0 turn with the molecule: two like atoms that are turned against each other
    would lie far apart, and a probe or a picture would show directions in space, not chemistry.

    Args:
        features: (N, S, C), S = (L+1)^2 with l ascending; or (N, C), taken to be l = 0.
        norms: append of every channel the norm over m of each l > 0. Off by default: the scalars
            are what heads of energies read, and a probe of them says what such a head can find.

    Returns:
        (N, C), or (N, (L+1) C) with norms.
    """
    if features.ndim == 2:
        return features
    degrees = math.isqrt(features.shape[1]) if norms else 1
    higher = [features[:, l * l : (l + 1) ** 2].norm(dim=1) for l in range(1, degrees)]
    return torch.cat([features[:, 0], *higher], dim=1)


def vectors_of(
    model: Model,
    molecules: Rows,
    *,
    batch_size: int | None = None,
    max_edges: int | None = None,
    norms: bool = False,
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Of every molecule, not always in order, its row and the (N, D) `invariants` of its atoms.

    Args:
        model: as it is, but put into evaluation mode.
        molecules: to embed.
        batch_size, max_edges: see `Loader`.
        norms: see `invariants`.
    """
    model.eval()
    loader = Loader(
        molecules, model.graph.bare(), batch_size=batch_size, max_edges=max_edges, shuffle=False,
        device=_device(model), cache_bytes=0,
    )  # fmt: skip
    with torch.no_grad(), matmul_precision("highest"):
        for rows, loaded in zip(loader.plan(0), loader.once(), strict=True):
            found = invariants(model.embeddings(loaded.batch), norms).cpu()
            sizes = torch.bincount(loaded.batch.batch, minlength=len(rows)).tolist()
            yield from zip(rows, (part.numpy() for part in found.split(sizes)), strict=True)


def on_site_energies(
    rows: Rows, basis: OrbitalBasis, atoms: Atoms, progress: bool = False
) -> NDArray[np.float64] | None:
    """(n,) mean diagonal element of H over the orbitals of each atom in Eh; None without H.

    It is a trace over whole shells, so no rotation touches it.

    Args:
        rows: the molecules.
        basis: of their Hamiltonians.
        atoms: n of their atoms.
        progress: show a bar on a terminal.
    """
    found = np.empty(len(atoms))
    for row in _shown(np.unique(atoms.molecule).tolist(), "on-site energies", progress):
        molecule = rows[row]
        if molecule.hamiltonian is None:
            return None
        counts = basis.ao_counts(molecule.numbers)
        sums = np.add.reduceat(molecule.hamiltonian.diagonal(), np.cumsum(counts) - counts)
        here = atoms.molecule == row
        found[here] = (sums / counts)[atoms.index[here]]
    return found


def _sources(folders: Sequence[Path], device: str) -> list[_Source]:
    """The models of the runs."""
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise ConfigError(f"{folder} is given twice; name every run once")
    runs = [load_trained(folder, device) for folder in folders]
    for run in runs:
        if type(run.model).embeddings is Model.embeddings:
            raise ConfigError(
                f"{run.folder}: model '{run.config.model['name']}' offers no embeddings; leave it "
                "out, or give runs of a model that does, e.g. helm"
            )
    return [_Source(_name(run), run, run.model, True) for run in runs]


def _rows(sources: Sequence[_Source], split: str) -> Rows:
    """The molecules of the first run's task, which must be those its runs had."""
    task = sources[0].run.task
    rows = task.split(split)
    for _, run, _, _ in sources:
        if run.task.name == task.name:
            begun_with = read_result(run.folder).fingerprint
            rundir.check_data(run.folder, begun_with, task.fingerprint)
    return rows


def _begun(sources: Sequence[_Source], sample: Rows) -> list[_Source]:
    """What the runs began as; those that embed a sample alike, as other heads do, only once."""
    found: dict[bytes, _Source] = {}
    for _, run, _, _ in sources:
        fresh = _fresh(run)
        ((_, vectors),) = vectors_of(fresh, sample, batch_size=1)
        name = f"{run.config.model['name']} untrained seed {run.config.seed}"
        found.setdefault(vectors.tobytes(), _Source(name, run, fresh, False))
    return list(found.values())


def _told_apart(sources: Sequence[_Source]) -> list[_Source]:
    """With the id of the run in a name that two have."""
    names = [source.name for source in sources]
    return [
        source._replace(name=f"{source.name} {source.run.config.run_id[:8]}")
        if names.count(source.name) > 1
        else source
        for source in sources
    ]


def _fresh(run: Trained) -> Model:
    """The model as its run began, or would have begun without pretraining."""
    torch.manual_seed(run.config.seed)
    model = model_of(run.config, run.task)
    cast(model, run.model.dtype)
    return model.to(_device(run.model))


def _name(run: Trained) -> str:
    """``helm_small finetuned train_20 seed 0``."""
    config = run.config
    words = [config.model["name"], config.strategy or run.task.name, config.train_on]
    return " ".join([*(word for word in words if word is not None), f"seed {config.seed}"])


def _vectors(
    source: _Source, molecules: Rows, norms: bool, progress: bool
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Vectors of all molecules, in batches as large as those the run was trained with."""
    recipe = Recipe.parse(source.run.config.training)
    found = vectors_of(
        source.model, molecules, batch_size=recipe.batch_size, max_edges=recipe.max_edges,
        norms=norms,
    )  # fmt: skip
    for row, part in _shown(found, source.name, progress, len(molecules)):
        if not np.isfinite(part).all():
            raise RunError(
                f"{source.run.folder}: the embeddings of molecule '{molecules.ids[row]}' hold NaN "
                "or infinity; leave the run out, or train it anew"
            )
        yield row, part


def _write_numbers(
    path: Path, about: dict[str, Any], sources: Sequence[_Source], panels: Sequence[Panel]
) -> None:
    """What the terminal shows, with all that is needed to say how it was made."""
    content = {
        **about,
        "parts": FOLDS,
        "umap": {"neighbours": NEIGHBOURS, "min_distance": MIN_DISTANCE},
        "libraries": {name: metadata.version(name) for name in LIBRARIES.values()},
        "models": [
            {**source.described(), **panel.findings.to_dict()}
            for source, panel in zip(sources, panels, strict=True)
        ],
    }
    with atomic_write(path) as file:
        json.dump(content, file, indent=2)


def _device(model: Model) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _shown(
    things: Iterable[T], label: str, progress: bool, total: int | None = None
) -> Iterable[T]:
    shown: Iterable[T] = tqdm(
        things, desc=label, unit="mol", total=total, leave=False,
        disable=not (progress and sys.stderr.isatty()),
    )  # fmt: skip
    return shown
