"""`Task`: a data set with fixed splits and metrics, described by one YAML file (`TaskSpec`).

The description needs no data on disk; rows are read lazily.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory
from hambench.data import splits as rules
from hambench.data.content import content_hash
from hambench.data.energies import WithEnergies, read_energies
from hambench.data.location import GENERATED, Location
from hambench.data.rows import Part, Rows
from hambench.data.spec import Protocol, SplitSpec, TaskSpec
from hambench.data.store import Store
from hambench.errors import ConfigError, DataError, RegistryError, nearest

_LABELS = ("hamiltonian", "energy", "forces")


class Task(ABC):
    """A data set with its splits; a subclass says how its files are read.

    Index lists stand beside the file of the subclass, data too where it ships with the package.
    Labels of our own (a `Store` made by `hambench data generate`) serve every task; where its
    published files are not there, they take their place and its ``source`` is "generated".

    Args:
        spec: the description, as `TaskSpec` or as the mapping read from YAML.
        path: data file, or the folder the files are in. None: the shipped file, else the folder
            named by ``HAMBENCH_DATA``, else ``~/.cache/hambench``.
        split: name of a variant of the splits; None: the task's own.
        energies: file of energies to join to the rows by id, see `hambench.data.energies`.

    Raises:
        ConfigError: the description is wrong, or ``energies`` are given where the file has them.
        RegistryError: no such variant.
    """

    rules: ClassVar[Mapping[str, rules.Rule]] = rules.RULES
    """Rules that its splits may name."""

    def __init__(
        self,
        spec: TaskSpec | Mapping[str, Any],
        path: str | os.PathLike[str] | None = None,
        *,
        split: str | None = None,
        energies: str | os.PathLike[str] | None = None,
    ) -> None:
        described = spec if isinstance(spec, TaskSpec) else TaskSpec.from_dict(spec)
        self._described = described if split is None else described.with_variant(split)
        self._asked_variant = split
        self.location = Location(described, None if path is None else Path(path), self.folder)
        self.energies = None if energies is None else Path(energies)
        if energies is not None and described.energies != "joined":
            raise ConfigError(
                f"task '{self.name}' joins no energies; leave out energies={energies}"
            )
        self._opened: dict[Path, Rows] = {}
        self._indices: dict[Path, dict[str, int]] = {}

    @abstractmethod
    def open(self, path: Path) -> Rows:
        """All rows of a data file, lazily; DataError where it is corrupt or foreign."""

    @property
    def obtain(self) -> str:
        """Command that gets the data, for messages."""
        return f"hambench data download {self.name}"

    @cached_property
    def spec(self) -> TaskSpec:
        """The description, with the splits that belong to the data that are here."""
        spec = self._described
        ours = self.source == GENERATED and GENERATED in spec.variants
        return spec.with_variant(GENERATED) if ours and self._asked_variant is None else spec

    @property
    def name(self) -> str:
        """Name the user types."""
        return self._described.name

    @property
    def version(self) -> int:
        """Raised whenever numbers can change; results of two versions are never mixed."""
        return self._described.version

    @property
    def title(self) -> str:
        """One line for a listing."""
        return self._described.title

    @property
    def source(self) -> Literal["generated", "published"]:
        """ "generated" (our own labels) or "published" (files of others); of the data here."""
        return self.location.source

    @property
    def theory(self) -> dict[str, Any]:
        """Level of theory of the labels, as the description gives it."""
        return self._described.theory

    @property
    def level(self) -> Theory:
        """Level of theory as settings that can be computed with."""
        return Theory.from_dict(self.theory)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the primary one first."""
        return [metric.name for metric in self._described.metrics]

    @property
    def unit(self) -> str:
        """Unit of the main target."""
        return self._described.unit

    @property
    def protocol(self) -> Protocol:
        """Roles of the splits, training sizes, seeds, step budget."""
        return self._described.protocol

    @cached_property
    def basis(self) -> OrbitalBasis:
        """Orbital basis over the task's elements."""
        elements = [SYMBOLS.index(symbol) for symbol in self._described.elements]
        return OrbitalBasis.load(self._described.basis, elements)

    @property
    def folder(self) -> Path:
        """Folder of the task's code, in which index lists and shipped data stand."""
        return Path(inspect.getfile(type(self))).parent

    @property
    def path(self) -> Path:
        """The main data file, whether it is there or not; see the class."""
        return self.location.of(next(iter(self._described.files)))

    @property
    def available(self) -> bool:
        """Whether the files are there that a run needs."""
        splits = self.spec.splits
        return all(self.location.of(splits[role].of).exists() for role in self.spec.roles)

    def rows_of(self, file: str) -> Rows:
        """All rows of a file of the description, lazily.

        Raises:
            DataError: the file is missing (the message says how to get it), corrupt or foreign,
                or of another basis than the task; or its energies are to be joined, and are not
                given.
        """
        self.check_given()
        path = self.location.of(file)
        if path not in self._opened:
            if not path.exists():
                raise DataError(
                    f"the data of task '{self.name}' are not at {path}; get them with: "
                    f"{self.obtain} (or say where they are: data=PATH, in Python path=PATH)"
                )
            self._opened[path] = self._joined(self.open(path))
        return self._opened[path]

    def check_given(self) -> None:
        """DataError where energies are to be joined to the public files, and are not given."""
        joined = self._described.energies == "joined" and self.source != GENERATED
        if joined and self.energies is None:
            raise DataError(
                f"the public files of task '{self.name}' hold no energies: give them with "
                "energies=FILE (CSV, Parquet or ASE-LMDB with id and energy of every row)"
            )

    @property
    def rows(self) -> Rows:
        """All rows of the main file; see `rows_of`."""
        return self.rows_of(next(iter(self._described.files)))

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Row ids of every split whose file is there; lists need none.

        Raises:
            DataError: an index list is missing or changed, a rule does not give the published
                rows, or a split overlaps with another, or is no part of the one it should be.
        """
        found = {
            name: self._ids(name, split)
            for name, split in self.spec.splits.items()
            if split.list is not None or self.location.of(split.of).exists()
        }
        rules.check_disjoint(found, self.spec)
        return found

    def split(self, name: str) -> Rows:
        """The molecules of a split, lazily.

        Raises:
            RegistryError: no such split (the nearest name is suggested).
            DataError: as `rows_of` and `splits`, or the file lacks rows of the split.
        """
        if name not in self.spec.splits:
            raise RegistryError(
                f"task '{self.name}' has no split '{name}'.{nearest(name, self.spec.splits)}"
            )
        spec = self.spec.splits[name]
        rows = self.rows_of(spec.of)
        wanted = self.splits[name]
        places = self._index(spec.of)
        present = [row for row in wanted if row in places]
        missing = [row for row in wanted if row not in places and not self._may_lack(row)]
        if missing or not present:
            missing = missing or list(wanted)
            raise DataError(
                f"{self.location.of(spec.of)} lacks {len(missing)} of {len(wanted)} rows of split "
                f"'{name}' (first: '{missing[0]}'); it is not the full data of task '{self.name}', "
                f"get it with: {self.obtain}"
            )
        return Part(rows, [places[row] for row in present])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over version, splits and the content of their rows (reads them).

        The splits are those of the files that every run needs. Of each row: numbers, positions,
        and the label arrays as they are delivered.
        """
        digest = hashlib.sha256(f"{self.name} {self.version}".encode())
        for name in self._fingerprinted():
            digest.update(f"\n{name}\n".encode())
            for molecule in self.split(name):
                self._check(molecule, self.location.of(self.spec.splits[name].of))
                digest.update(molecule.id.encode())
                digest.update(content_hash(molecule, _LABELS))
        return digest.hexdigest()

    def unverified(self) -> list[tuple[Path, Rows]]:
        """The files that are here, each with its rows, to be verified.

        Raises:
            DataError: there are none, or one is corrupt or foreign.
        """
        present = self.location.present
        if not present:
            _ = self.rows  # says what is missing, and how to get it
        return [(path, self.open(path)) for path in present]

    def check_rows(self, path: Path, rows: Rows, ids: Iterable[str]) -> None:
        """DataError where one of some rows of a file has foreign elements, or lacks a target."""
        wanted = set(ids)
        for place, name in enumerate(rows.ids):
            if name in wanted:
                self._check(rows[place], path)

    def files(self) -> list[dict[str, Any]]:
        """What is known of the files that are here, for `describe` and results."""
        return [{"file": p.name, "bytes": p.stat().st_size} for p in self.location.present]

    def describe(self) -> dict[str, Any]:
        """Everything about the task that needs no data on disk, and which data there are."""
        spec = self.spec
        return {
            **self._described.model_dump(mode="json", exclude={"splits", "variants"}),
            "source": self.source,
            "variant": spec.variant,
            "splits": self._sizes(),
            "rules": {name: str(split) for name, split in spec.splits.items()},
            "variants": {
                name: {key: split.size for key, split in splits.items()}
                for name, splits in spec.variants.items()
            },
            "path": str(self.path),
            "available": self.available,
            "here": self.files(),
            "obtain": self.obtain,
        }

    def _sizes(self) -> dict[str, int | None]:
        """Rows of every split: as described, or, of labels of our own, as they are."""
        sizes = {name: split.size for name, split in self.spec.splits.items()}
        if None in sizes.values() and self.source == GENERATED and self.available:
            with suppress(DataError):  # told when the data are used
                return sizes | {name: len(ids) for name, ids in self.splits.items()}
        return sizes

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {split.size}" for name, split in self.spec.splits.items())
        return f"Task({self.name} v{self.version}: {sizes})"

    # Labels of our own.

    @property
    def recipe(self) -> dict[str, Any]:
        """How its own geometries are made (sampler, seed, ...), JSON-able, for the provenance."""
        return {}

    def geometries(self, n: int | None = None) -> list[Molecule]:
        """The first ``n`` (None: all) molecules without labels, the same at every call.

        Raises:
            ConfigError: the task has no geometries of its own.
        """
        raise ConfigError(
            f"task '{self.name}' has no geometries of its own; give them: hambench data generate "
            f"{self.name} from=FILE (xyz, extended xyz, or a list of SMILES)"
        )

    def _store(self, path: Path) -> Store:
        """The rows of a `Store`; DataError if it is corrupt, foreign or of another theory."""
        store = Store(path)
        wanted = self.level.to_dict() | {"basis": self._described.basis}
        found = store.theory | {"basis": store.basis.name}
        for key, value in wanted.items():
            if found.get(key) != value:
                raise DataError(
                    f"the labels in {path} have {key}={found.get(key)}, those of task "
                    f"'{self.name}' {key}={value}; give the file that belongs to the task"
                )
        return store

    def _may_lack(self, row: str) -> bool:
        """Whether data without this row are still data of the task.

        Rows that failed are, and those beyond the first n where no more were asked for. The
        fingerprint tells such data from the full ones, so that results are never mixed.
        """
        made = getattr(self.rows, "provenance", {}) if self.source == GENERATED else {}
        return "first" in made or row in made.get("left_out", {})

    # Splits.

    def _joined(self, rows: Rows) -> Rows:
        """The rows with the energies that the files lack."""
        if self.energies is None:
            return rows
        return WithEnergies(rows, self._joined_energies, self.energies)

    @cached_property
    def _joined_energies(self) -> dict[str, float]:
        """Eh, by id, of the file given as ``energies``."""
        return {} if self.energies is None else read_energies(self.energies)

    def _ids(self, name: str, split: SplitSpec) -> tuple[str, ...]:
        """Row ids of a split, from its list or by its rule."""
        try:
            if split.rule is None:
                return rules.read_list(self.folder / str(split.list), split)
            if split.rule not in self.rules:
                raise DataError(
                    f"there is no rule '{split.rule}'.{nearest(split.rule, self.rules)}"
                )
            rows = self._counted(split.of)
            places = rules.apply_rule(self.rules[split.rule], rows, split, name)
        except DataError as error:
            raise DataError(f"task '{self.name}', split '{name}': {error}") from error
        ids = rows.ids
        return tuple(ids[place] for place in places.tolist())

    def _counted(self, file: str) -> Rows:
        """Rows of a published file, which must be as many as a release is known to have."""
        rows = self.rows_of(file)
        if self.source != GENERATED:
            self.check_release(self.location.of(file), rows)
        return rows

    def check_release(self, path: Path, rows: Rows) -> None:
        """DataError where a published file has not as many rows as a known release of it."""
        names = [f.rows for f in self._described.files.values() if f.name == path.name]
        known = names[0] if names else next(iter(self._described.files.values())).rows
        if known and len(rows) not in known:
            raise DataError(
                f"{path} has {len(rows)} rows, expected {' or '.join(map(str, known))}; it is not "
                f"the published file, whose splits are known: remove it and fetch it again "
                f"({self.obtain}), or give another"
            )

    def _index(self, file: str) -> dict[str, int]:
        """Places of the rows of a file by their ids."""
        path = self.location.of(file)
        if path not in self._indices:
            self._indices[path] = {row: place for place, row in enumerate(self.rows_of(file).ids)}
        return self._indices[path]

    def _fingerprinted(self) -> list[str]:
        needed = {self.spec.splits[role].of for role in self.spec.roles}
        return sorted(name for name, split in self.spec.splits.items() if split.of in needed)

    def _check(self, molecule: Molecule, path: Path) -> None:
        """DataError for a row that is not what the description says."""
        problem = None
        foreign = {SYMBOLS[z] for z in molecule.numbers.tolist()} - set(self._described.elements)
        if foreign:
            problem = (
                f"holds {', '.join(sorted(foreign))}, the task {' '.join(self._described.elements)}"
            )
        joined = self._described.energies == "joined" and self.energies is None
        for target in self._described.targets:
            if getattr(molecule, target.name) is None and not (joined and target.name == "energy"):
                problem = f"has no {target.name}, which is a target of the task"
        if problem is not None:
            raise DataError(
                f"{path}, row '{molecule.id}': {problem}; give the data of '{self.name}'"
            )


class GeneratedTask(Task):
    """A task whose labels the project computes itself and keeps in a `Store`."""

    @property
    def obtain(self) -> str:
        """Command that computes the labels."""
        return f"hambench data generate {self.name}"

    def open(self, path: Path) -> Rows:
        """The rows of a `Store`; DataError if it is corrupt, foreign or of another theory."""
        return self._store(path)
