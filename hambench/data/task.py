"""`Task`: a data set with fixed splits and metrics, described by one YAML file.

The description (`TaskSpec`) needs no data on disk; rows are read lazily from `Task.path`.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hambench.chem.dft import Theory
from hambench.chem.molecule import SYMBOLS, Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.data.rows import Part, Rows
from hambench.data.store import Store
from hambench.errors import ConfigError, DataError, RegistryError, nearest
from hambench.files import sha256_of

DATA_VARIABLE = "HAMBENCH_DATA"
"""Environment variable naming the folder of data files; default ``~/.cache/hambench``."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitSpec(_Section):
    """One index list: a text file of row ids, one a line, beside the task's code."""

    file: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    count: Annotated[int, Field(gt=0)]


class TargetSpec(_Section):
    """One label: an attribute of `Molecule`, its unit and shape."""

    name: Literal["hamiltonian", "overlap", "energy", "forces"]
    unit: str
    shape: str


class MetricSpec(_Section):
    """One metric by its name in the metric registry, and which way is better."""

    name: str
    direction: Literal["lower", "higher"]


class Protocol(_Section):
    """What a run has to keep to, for its result to be comparable."""

    training_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    training_sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    max_steps: Annotated[int, Field(gt=0)] | None = None


class TaskSpec(_Section):
    """A task's YAML file. A change that can change a number raises ``version``."""

    name: Annotated[str, Field(pattern="^[a-z0-9_]+$")]
    version: Annotated[int, Field(gt=0)]
    title: str
    citation: str
    license: str
    family: str
    source: Literal["generated", "published"]
    file: str
    basis: str
    elements: tuple[str, ...]
    theory: dict[str, Any]
    unit: Literal["Eh", "meV"] = "Eh"
    splits: Annotated[dict[str, SplitSpec], Field(min_length=1)]
    targets: Annotated[tuple[TargetSpec, ...], Field(min_length=1)]
    metrics: Annotated[tuple[MetricSpec, ...], Field(min_length=1)]
    protocol: Protocol = Protocol()
    references: tuple[dict[str, Any], ...] = ()

    @staticmethod
    def from_dict(content: Mapping[str, Any]) -> TaskSpec:
        """The description in a mapping read from YAML; ConfigError names every wrong key."""
        try:
            return TaskSpec.model_validate(dict(content))
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc'])) or 'task'}: {e['msg']} (got {e['input']!r:.60})"
                for e in error.errors()
            )
            raise ConfigError(f"task '{content.get('name', '?')}': {problems}") from error

    @field_validator("elements")
    @classmethod
    def _known_elements(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [symbol for symbol in elements if symbol not in SYMBOLS[1:]]
        if unknown or not elements:
            raise ValueError(
                f"element symbols expected, unknown: {', '.join(unknown) or 'none given'}"
            )
        return elements

    @model_validator(mode="after")
    def _known_splits(self) -> Self:
        for role in ("training_split", "validation_split", "test_split"):
            name = getattr(self.protocol, role)
            if name not in self.splits:
                raise ValueError(f"protocol.{role} '{name}' is not in splits {sorted(self.splits)}")
        return self


class Task(ABC):
    """A data set with its splits; a subclass says how its file is read.

    Index lists stand beside the file of the subclass, data too where it ships with the package.

    Args:
        spec: the description, as `TaskSpec` or as the mapping read from YAML.
        path: data file, or the folder it is in. None: the shipped file, else the folder named by
            ``HAMBENCH_DATA``, else ``~/.cache/hambench``.

    Raises:
        ConfigError: the description is wrong.
    """

    obtain = "hambench data download {name}"
    """Command that gets the data, for messages."""

    def __init__(
        self, spec: TaskSpec | Mapping[str, Any], path: str | os.PathLike[str] | None = None
    ) -> None:
        self.spec = spec if isinstance(spec, TaskSpec) else TaskSpec.from_dict(spec)
        self._given_path = None if path is None else Path(path)

    @abstractmethod
    def open(self, path: Path) -> Rows:
        """All rows of the data file, lazily; DataError where it is corrupt or foreign."""

    @property
    def name(self) -> str:
        """Name the user types."""
        return self.spec.name

    @property
    def version(self) -> int:
        """Raised whenever numbers can change; results of two versions are never mixed."""
        return self.spec.version

    @property
    def title(self) -> str:
        """One line for a listing."""
        return self.spec.title

    @property
    def source(self) -> Literal["generated", "published"]:
        """ "generated" (our own labels) or "published" (files of others)."""
        return self.spec.source

    @property
    def theory(self) -> dict[str, Any]:
        """Level of theory of the labels, as the description gives it."""
        return self.spec.theory

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, the primary one first."""
        return [metric.name for metric in self.spec.metrics]

    @property
    def unit(self) -> str:
        """Unit of the main target."""
        return self.spec.unit

    @property
    def protocol(self) -> Protocol:
        """Roles of the splits, training sizes, seeds, step budget."""
        return self.spec.protocol

    @cached_property
    def basis(self) -> OrbitalBasis:
        """Orbital basis over the task's elements."""
        return OrbitalBasis.load(self.spec.basis, [SYMBOLS.index(s) for s in self.spec.elements])

    @property
    def folder(self) -> Path:
        """Folder of the task's code, in which index lists and shipped data stand."""
        return Path(inspect.getfile(type(self))).parent

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Row ids of every split.

        Raises:
            DataError: an index list is missing, changed, or overlaps with another.
        """
        splits = {name: self._index_list(name, spec) for name, spec in self.spec.splits.items()}
        seen: dict[str, str] = {}
        for name, ids in splits.items():
            for row in ids:
                if row in seen:
                    raise DataError(
                        f"task '{self.name}': row '{row}' is in split '{name}' and in "
                        f"'{seen[row]}' too; splits must not overlap"
                    )
                seen[row] = name
        return splits

    @property
    def path(self) -> Path:
        """The data file, whether it is there or not; see the class."""
        if self._given_path is not None:
            given = self._given_path
            return given / self.spec.file if given.is_dir() else given
        shipped = self.folder / self.spec.file
        return shipped if shipped.exists() else data_folder() / self.spec.file

    @property
    def available(self) -> bool:
        """Whether the data file is there."""
        return self.path.exists()

    @cached_property
    def rows(self) -> Rows:
        """All rows of the data file, lazily.

        Raises:
            DataError: the file is missing (the message says how to get it), corrupt or foreign,
                or of another basis than the task.
        """
        if not self.available:
            raise DataError(
                f"the data of task '{self.name}' are not at {self.path}; get them with: "
                f"{self.obtain.format(name=self.name)} "
                "(or say where they are: data=PATH, in Python path=PATH)"
            )
        return self.open(self.path)

    def split(self, name: str) -> Rows:
        """The molecules of a split, lazily.

        Raises:
            RegistryError: no such split (the nearest name is suggested).
            DataError: as `rows` and `splits`, or the file lacks rows of the split.
        """
        if name not in self.spec.splits:
            raise RegistryError(
                f"task '{self.name}' has no split '{name}'.{nearest(name, self.spec.splits)}"
            )
        place = self._place_of_id
        missing = [row for row in self.splits[name] if row not in place]
        if missing:
            raise DataError(
                f"{self.path} lacks {len(missing)} of {len(self.splits[name])} rows of split "
                f"'{name}' (first: '{missing[0]}'); it is not the full data of task '{self.name}', "
                f"get it with: {self.obtain.format(name=self.name)}"
            )
        return Part(self.rows, [place[row] for row in self.splits[name]])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over version, index lists and content of all rows of the splits (reads them).

        Of each row: numbers, positions, and the label arrays as they are stored.
        """
        digest = hashlib.sha256(f"{self.name} {self.version}".encode())
        for name in sorted(self.spec.splits):
            digest.update(f"\n{name}\n".encode())
            for row, molecule in zip(self.splits[name], self.split(name), strict=True):
                self._check(molecule)
                digest.update(row.encode())
                digest.update(content_hash(molecule, ("hamiltonian", "energy", "forces")))
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Everything about the task that needs no data on disk, JSON-able."""
        return {
            **self.spec.model_dump(mode="json", exclude={"splits"}),
            "splits": {name: len(ids) for name, ids in self.splits.items()},
            "path": str(self.path),
            "available": self.available,
            "bytes": self.path.stat().st_size if self.available else None,
            "obtain": self.obtain.format(name=self.name),
        }

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {spec.count}" for name, spec in self.spec.splits.items())
        return f"Task({self.name} v{self.version}: {sizes})"

    def _check(self, molecule: Molecule) -> None:
        """DataError for a row that is not what the description says."""
        problem = None
        foreign = {SYMBOLS[z] for z in molecule.numbers.tolist()} - set(self.spec.elements)
        if foreign:
            problem = f"holds {', '.join(sorted(foreign))}, the task {' '.join(self.spec.elements)}"
        for target in self.spec.targets:
            if getattr(molecule, target.name) is None:
                problem = f"has no {target.name}, which is a target of the task"
        if problem is not None:
            raise DataError(
                f"{self.path}, row '{molecule.id}': {problem}; give the data of '{self.name}'"
            )

    @cached_property
    def _place_of_id(self) -> dict[str, int]:
        return {row: place for place, row in enumerate(self.rows.ids)}

    def _index_list(self, name: str, spec: SplitSpec) -> tuple[str, ...]:
        path = self.folder / spec.file
        mend = "install hambench again, or restore the file"
        if not path.is_file():
            raise DataError(f"task '{self.name}', split '{name}': no index list {path}; {mend}")
        ids = tuple(path.read_text("utf-8").split())
        if sha256_of(path) != spec.sha256 or len(ids) != spec.count:
            raise DataError(
                f"task '{self.name}', split '{name}': {path} ({len(ids)} rows) is not the list "
                f"of {spec.count} rows the task was defined with (sha256 differs); {mend}"
            )
        return ids


class GeneratedTask(Task):
    """A task whose labels the project computes itself and keeps in a `Store`."""

    obtain = "hambench data generate {name}"

    @property
    def level(self) -> Theory:
        """Level of theory as settings that can be computed with."""
        return Theory.from_dict(self.spec.theory)

    @property
    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """How the geometries are made (sampler, seed, ...), JSON-able, for the provenance."""

    @abstractmethod
    def geometries(self, n: int | None = None) -> list[Molecule]:
        """The first ``n`` (None: all) molecules without labels, the same at every call."""

    def open(self, path: Path) -> Rows:
        """The rows of a `Store`; DataError if it is corrupt, foreign or of another theory."""
        store = Store(path)
        wanted = self.level.to_dict() | {"basis": self.spec.basis}
        found = store.theory | {"basis": store.basis.name}
        for key, value in wanted.items():
            if found.get(key) != value:
                raise DataError(
                    f"the labels in {path} have {key}={found.get(key)}, those of task "
                    f"'{self.name}' {key}={value}; give the file that belongs to the task"
                )
        return store


def data_folder() -> Path:
    """Where data files are looked for and made, if nothing else was said; see `DATA_VARIABLE`."""
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else Path.home() / ".cache" / "hambench"


def content_hash(molecule: Molecule, labels: Iterable[str]) -> bytes:
    """sha256 digest of numbers, positions, charge, multiplicity and the labels that exist."""
    digest = hashlib.sha256(f"{molecule.charge} {molecule.multiplicity}".encode())
    for name in ("numbers", "positions", *labels):
        value = getattr(molecule, name)
        if value is not None:
            array = np.asarray(value)
            digest.update(f"{name} {array.shape} ".encode())
            digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()
