"""Geometries that are to be labelled: a task's own, or those of a user's file."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from tqdm import tqdm

from hambench.chem import smiles
from hambench.chem.molecule import SYMBOLS, Molecule, formula
from hambench.data.xyz import read_frames
from hambench.errors import ConfigError, DataError
from hambench.files import sha256_of

if TYPE_CHECKING:
    from hambench.data.task import Task

XYZ: Final = (".xyz", ".extxyz")
SMILES: Final = (".smi", ".smiles", ".csv")

SHORTEST: Final = 0.4
"""Angstrom; atoms that are nearer are a mistake of unit or column (H2 is 0.74 long)."""


@dataclass(frozen=True)
class Source:
    """Molecules without labels, and where they come from.

    Attributes:
        molecules: with unique ids.
        recipe: how they were made, JSON-able, for the provenance.
        name: what they are from, for messages.
        places: of every molecule, where in it, for messages; empty: nothing but the id to say.
    """

    molecules: tuple[Molecule, ...]
    recipe: dict[str, Any]
    name: str
    places: tuple[str, ...] = ()

    @staticmethod
    def of_task(task: Task, n: int | None = None) -> Source:
        """The first ``n`` (None: all) of a task's own."""
        return Source(tuple(task.geometries(n)), task.recipe, f"task '{task.name}'")

    def first(self, n: int | None) -> tuple[Molecule, ...]:
        """The first ``n`` (None: all); ConfigError if there are fewer."""
        if n is not None and n > len(self.molecules):
            raise ConfigError(
                f"{self.name} has {len(self.molecules)} geometries, {n} were asked for"
            )
        return self.molecules[:n]

    def where(self, index: int) -> str:
        """Molecule ``index`` for a message."""
        place = f", {self.places[index]}" if self.places else ""
        return f"{self.name}{place}: molecule '{self.molecules[index].id}'"


def from_file(
    path: Path,
    *,
    n: int | None = None,
    conformers: int | None = None,
    seed: int | None = None,
    progress: bool = True,
) -> Source:
    """The geometries of an xyz file, or conformers of the molecules of a list of SMILES.

    Rows are called as the file says, else ``<stem>_<frame>`` (from 0), and in a list of SMILES
    ``<name, or place from 0>-<conformer>``. What stands before the dash is one molecule, whose
    conformers stay together where splits go by molecules.

    Args:
        path: .xyz or .extxyz (see `hambench.data.xyz`); .smi or .smiles with a SMILES and perhaps a
            name in every line; .csv with columns ``smiles`` and perhaps ``name``.
        n: no more than the first ``n``.
        conformers: of every SMILES (see `hambench.chem.smiles.conformers`); None: 1.
        seed: of the conformers; None: 0.
        progress: show how far the conformers are.

    Raises:
        DataError: the file is missing or wrong; the message names the line.
        ConfigError: another ending; conformers or seed for an xyz file; no RDKit for SMILES.
    """
    kind = path.suffix.lower()
    if kind not in XYZ + SMILES:
        raise ConfigError(
            f"geometries come from files of {', '.join(XYZ + SMILES)}, not '{path.name}'; name the "
            "file by what it holds"
        )
    if not path.is_file():
        raise DataError(f"there is no file {path} with geometries; check the name")
    about = {"file": path.name, "sha256": sha256_of(path)}
    if kind in XYZ:
        if conformers is not None or seed is not None:
            raise ConfigError(
                f"conformers and seed are for lists of SMILES; {path.name} has its geometries, "
                "leave them out"
            )
        return _source(path, islice(_xyz(path), n), {"sampler": "a user's file"} | about)
    count, seed = conformers or 1, seed or 0
    recipe = {
        "sampler": "RDKit ETKDG conformers, MMFF-relaxed, displaced",
        "displacement_angstrom": smiles.DISPLACEMENT,
        "conformers": count,
        "seed": seed,
        "rdkit": smiles.version(),
    }
    return _source(path, islice(_embedded(path, count, seed, progress), n), recipe | about)


class _Found(NamedTuple):
    molecule: Molecule
    place: str


def _source(path: Path, found: Iterator[_Found], recipe: dict[str, Any]) -> Source:
    """The molecules of a file, after a check of ids and distances."""
    rows = list(found)
    if not rows:
        raise DataError(f"{path} holds no geometries; check the file")
    source = Source(tuple(m for m, _ in rows), recipe, str(path), tuple(p for _, p in rows))
    first: dict[str, int] = {}
    for index, molecule in enumerate(source.molecules):
        if molecule.id != _word(molecule.id):
            raise DataError(f"{source.where(index)}: an id has no spaces; change it")
        if molecule.id in first:
            raise DataError(
                f"{source.where(index)} has the id of that of {rows[first[molecule.id]].place}; "
                "give every row an id of its own, or none"
            )
        first[molecule.id] = index
        check_distances(molecule, source.where(index))
    return source


def _xyz(path: Path) -> Iterator[_Found]:
    for index, (molecule, line) in enumerate(read_frames(path)):
        row = molecule.id or f"{_word(path.stem)}_{index}"
        yield _Found(replace(molecule, id=row), f"line {line}")


def _embedded(path: Path, count: int, seed: int, progress: bool) -> Iterator[_Found]:
    """Conformers of every SMILES of a file; those of one do not depend on the others."""
    listed = list(_smiles_csv(path) if path.suffix.lower() == ".csv" else _smiles_lines(path))
    bar = tqdm(listed, desc="conformers", unit="molecule", disable=not progress, leave=False)
    for index, (text, name, line) in enumerate(bar):
        try:
            made = smiles.conformers(text, count, seed)
        except DataError as error:
            raise DataError(
                f"{path}, line {line}: {error}; mend or remove the line, or give its geometries as "
                "an xyz file"
            ) from error
        for number, molecule in enumerate(made):
            row = f"{_word(name) or index}-{number}"
            yield _Found(replace(molecule, id=row), f"line {line}")


def _word(name: str) -> str:
    """A name without spaces, which ids do not have."""
    return "_".join(name.split())


class _Listed(NamedTuple):
    smiles: str
    name: str
    line: int


def _smiles_lines(path: Path) -> Iterator[_Listed]:
    for line, text in enumerate(_text(path).splitlines(), start=1):
        if words := text.split(maxsplit=1):
            yield _Listed(words[0], "".join(words[1:]).strip(), line)


def _smiles_csv(path: Path) -> Iterator[_Listed]:
    rows = csv.DictReader(_text(path).splitlines())
    columns = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    if "smiles" not in columns:
        raise DataError(
            f"{path}, line 1: no column 'smiles' among {', '.join(columns) or 'none'}; name the "
            "columns in the first line"
        )
    names = next((columns[c] for c in ("id", "name") if c in columns), None)
    for row in rows:
        text = (row[columns["smiles"]] or "").strip()
        yield _Listed(text, (row[names] or "").strip() if names else "", rows.line_num)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise DataError(f"{path} cannot be read as a list of SMILES: {reason}") from error


def check_distances(molecule: Molecule, where: str, least: float = SHORTEST) -> None:
    """DataError, which begins with ``where``, for atoms nearer than ``least`` Angstrom."""
    x = molecule.positions
    i, j = np.triu_indices(len(x), 1)
    nearest = float(np.linalg.norm(x[i] - x[j], axis=1).min(initial=np.inf))
    if nearest < least:
        raise DataError(
            f"{where} has two atoms {nearest:.2f} Angstrom apart; check the geometry, positions "
            "have to be in Angstrom"
        )


def check_fit(source: Source, elements: Sequence[str], task: str) -> None:
    """Whether molecules can be rows of a task.

    Raises:
        ConfigError: one has an element that is not of the task, or is no closed shell.
    """
    for index, molecule in enumerate(source.molecules):
        foreign = {SYMBOLS[z] for z in molecule.numbers.tolist()} - set(elements)
        if foreign:
            raise ConfigError(
                f"{source.where(index)} holds {', '.join(sorted(foreign))}, but task '{task}' is "
                f"of {' '.join(elements)}; take it out, or generate for another task"
            )
        electrons = int(molecule.numbers.sum()) - molecule.charge
        if molecule.multiplicity != 1 or electrons % 2 or electrons < 2:
            what = f"{formula(molecule.numbers)} of charge {molecule.charge} and multiplicity"
            raise ConfigError(
                f"{source.where(index)}: {what} {molecule.multiplicity} with {electrons} electrons "
                "is no closed shell; only closed shells are computed, check charge= and "
                "multiplicity="
            )
