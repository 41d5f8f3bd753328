"""`TaskSpec`: what a task's YAML file says, checked. Reading it needs no data on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from hambench.chem.molecule import SYMBOLS
from hambench.errors import ConfigError, RegistryError, nearest

Count = Annotated[int, Field(gt=0)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
Bound = int | Fraction
"""A place in a list: a whole number (from the end if negative), or a fraction of its length."""


_ROLES: Final = ("training_split", "validation_split", "test_split")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileSpec(_Section):
    """A data file.

    Attributes:
        name: in the folder of data files.
        rows: numbers of rows that releases of it are known to have; empty where unknown.
    """

    name: str
    rows: tuple[Count, ...] = ()


class Known(_Section):
    """What a rule has to give for a file of a known number of rows.

    Attributes:
        count: rows of the split.
        sha256: of their places in the file (from 0), one a line.
    """

    count: Count
    sha256: Sha256 | None = None


class SplitSpec(_Section):
    """The rows of a split: an index list beside the task's code, or a rule.

    Attributes:
        of: which of the task's files it is taken from.
        list: text file of row ids, one a line; with its ``count`` and ``sha256``.
        rule: name of a rule, see `hambench.data.splits.RULES` and the class of the task.
        seed: of the rule.
        start, stop: which part of what the rule orders.
        known: what the rule gives, by the number of rows of the file.
        within: the split that this one is a part of, e.g. of a nested training set; all others
            are disjoint.
        unseen: "molecules" where no molecule of it may be in the training set, not even in
            another conformation.
    """

    of: str = "main"
    list: str | None = None
    count: Count | None = None
    sha256: Sha256 | None = None
    rule: str | None = None
    seed: int | None = None
    start: Bound = 0
    stop: Bound | None = None
    known: dict[int, Known] = {}
    within: str | None = None
    unseen: Literal["rows", "molecules"] = "rows"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.list is None) == (self.rule is None):
            raise ValueError("a split is a list or a rule: give exactly one of the two")
        if self.list is not None and (self.count is None or self.sha256 is None):
            raise ValueError("a list needs its count and sha256")
        return self

    @property
    def size(self) -> int | None:
        """Rows, as far as they are known without the data: those of the first known release."""
        return next((known.count for known in self.known.values()), self.count)

    def __str__(self) -> str:
        """Where its rows come from, in words."""
        if self.rule is None:
            return f"list {self.list}"
        seed = "" if self.seed is None else f", seed {self.seed}"
        part = "all" if (self.start, self.stop) == (0, None) else f"{self.start} to {self.stop}"
        return f"{self.rule}{seed}: {part.replace('None', 'the end')}, of file '{self.of}'"


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
    """What a run has to keep to, for its result to be comparable.

    Attributes:
        training_sizes: molecules of the training sets it is asked about.
        seeds: of the runs that make an entry.
        max_steps: budget.
        pretraining: of a task of energies, the task of Hamiltonians to pretrain on.
    """

    training_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    training_sizes: tuple[int, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    max_steps: Count | None = None
    pretraining: str | None = None


class TaskSpec(_Section):
    """A task's YAML file. A change that can change a number raises ``version``.

    Attributes:
        files: data files by what they are for; the first is the main one.
        generated: file of labels computed by `hambench data generate`, which serve where the
            published files are not there.
        variant: name of ``splits``; ``variants`` are other published splits of the same data.
            The one called "generated" is for labels of our own, of any number of rows.
        labels: who computed the labels, and how, as far as it is known.
        theory: settings of PySCF for labels of our own at that level; verification uses them too.
        energies: whether the files have them; "joined": from a file of the user's.
        notes: what is to be known of the data: where sources disagree, what was decided.
    """

    name: Annotated[str, Field(pattern="^[a-z0-9_]+$")]
    version: Count
    title: str
    citation: str
    license: str
    family: str
    source: Literal["generated", "published"]
    files: Annotated[dict[str, FileSpec], Field(min_length=1)]
    generated: str
    basis: str
    elements: tuple[str, ...]
    labels: str
    theory: dict[str, Any]
    unit: Literal["Eh", "meV"] = "Eh"
    variant: str = "default"
    splits: Annotated[dict[str, SplitSpec], Field(min_length=1)]
    variants: dict[str, dict[str, SplitSpec]] = {}
    energies: Literal["in_file", "none", "joined"] = "in_file"
    targets: Annotated[tuple[TargetSpec, ...], Field(min_length=1)]
    metrics: Annotated[tuple[MetricSpec, ...], Field(min_length=1)]
    protocol: Protocol = Protocol()
    notes: str = ""
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

    def with_variant(self, name: str) -> TaskSpec:
        """The same task with other splits; RegistryError where there are none of that name."""
        if name == self.variant:
            return self
        if name not in self.variants:
            known = [self.variant, *self.variants]
            raise RegistryError(f"task '{self.name}' has no split={name}.{nearest(name, known)}")
        others = {self.variant: self.splits, **self.variants}
        return self.model_copy(
            update={"variant": name, "splits": others.pop(name), "variants": others}
        )

    @property
    def roles(self) -> tuple[str, ...]:
        """Splits that every run needs: training, validation, test."""
        return tuple(getattr(self.protocol, key) for key in _ROLES)

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
    def _known_names(self) -> Self:
        for variant, splits in {self.variant: self.splits, **self.variants}.items():
            for key in _ROLES:
                name = getattr(self.protocol, key)
                if name not in splits:
                    raise ValueError(
                        f"protocol.{key} '{name}' is not in splits {sorted(splits)} ({variant})"
                    )
            for name, split in splits.items():
                if split.within is not None and split.within not in splits:
                    raise ValueError(
                        f"split '{name}' is within '{split.within}', which is no split"
                    )
                if split.of not in self.files:
                    raise ValueError(
                        f"split '{name}' is of file '{split.of}', which is not in "
                        f"{sorted(self.files)}"
                    )
        return self
