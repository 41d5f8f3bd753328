"""What a run leaves behind: the schema of ``result.json`` and ``status.json``.

Both files are written atomically and are the truth about a run; an exit code or the state a
scheduler reports is not.
"""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from hambench.errors import DataError
from hambench.files import atomic_write
from hambench.migrations import migrated

SCHEMA_VERSION: Final = 2
"""Version of ``result.json``; raised whenever a reader would have to know, see `migrations`."""

RESULT = "result.json"
STATUS = "status.json"

LARGEST: Final = 1 << 24
"""Bytes of a ``result.json``, at most: one of a thousand hyperparameters has a hundredth."""

Seconds = Annotated[FiniteFloat, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0, le=10**15)]
Name = Annotated[str, Field(max_length=200)]
"""Of a model, a task, a split: what tables show."""
Value = Annotated[FiniteFloat, Field(ge=-1e60, le=1e60)]
"""A measured number: a diverged model reaches 1e30, sums and units must not overflow."""


class Record(BaseModel):
    """Base of the records below: unknown and missing fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def _ordered(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    if interval is not None and interval[0] > interval[1]:
        raise ValueError(f"the interval's lower end {interval[0]} is above its upper {interval[1]}")
    return interval


class Metric(Record):
    """One number of a result: its value and unit, 95 % interval, and how many went into it."""

    value: Value
    unit: str
    ci95: Annotated[tuple[Value, Value] | None, AfterValidator(_ordered)]
    n: Annotated[Count, Field(ge=1)]
    std: Annotated[Value, Field(ge=0)] | None = None


class Inference(Record):
    """What predicting molecules of the scored split takes, on the device of the run.

    Attributes:
        molecules: how many it was measured on, drawn from the split.
        batch_size, max_edges: what limited a batch, as in the recipe.
        threads: of a CPU; None on a GPU.
        molecules_per_s: in the whole loop: rows are read, graphs built, outputs brought to memory.
        model_molecules_per_s: in the model alone, from a batch on the device to its output there.
        guess_s: seconds per molecule of the initial guess that the model learns beyond, by one
            process; not in either rate. None where it has none, or PySCF is missing.
        peak_memory: most bytes of tensors at a time in a forward pass of the largest batch, beyond
            the batch and the parameters.
        flops: of a forward pass per molecule, in matrix products: multiplications and additions.
    """

    molecules: Annotated[Count, Field(ge=1)]
    batch_size: Count | None
    max_edges: Count | None
    threads: Count | None
    molecules_per_s: Annotated[Value, Field(ge=1e-12)]
    model_molecules_per_s: Annotated[Value, Field(gt=0)]
    guess_s: Seconds | None
    peak_memory: Count
    flops: Annotated[Value, Field(ge=0)]

    @property
    def molecule_s(self) -> float:
        """Seconds per molecule, with its initial guess where that is known."""
        return 1 / self.molecules_per_s + (self.guess_s or 0.0)


class Cost(Record):
    """What the run took; times in seconds, memory in bytes, over all restarts.

    ``inference`` is what predicting takes; None in results from before it was measured, and of
    models in environments of their own.
    """

    device: Name
    wall_s: Seconds
    steps: Count
    epochs: Annotated[Value, Field(ge=0)]
    steps_per_s: Annotated[Value, Field(ge=0)] | None
    molecules_per_s: Annotated[Value, Field(ge=0)] | None
    peak_memory: Count | None = None
    stopped_by: str
    inference: Inference | None = None


class Provenance(Record):
    """Where a result comes from: code, libraries, machine, command.

    Attributes:
        package: version of hambench.
        commit: git commit of the source tree, None where there is none (an installed wheel).
        dirty: whether tracked files differed from that commit.
        python: version of the interpreter.
        libraries: distribution name -> version, see `hambench.provenance.LIBRARIES`.
        plugins: distribution and version of every package that provides models or tasks.
        cuda: CUDA version torch was built for, None for a CPU build.
        gpu, cpu, cores, os: the machine; ``gpu`` is None where torch sees none.
        command: the command line.
        restarts: how often the run was started again before it finished.
        started, finished: ISO 8601, UTC.
    """

    package: str
    commit: str | None
    dirty: bool | None
    python: str
    libraries: dict[str, str]
    plugins: dict[str, str]
    cuda: str | None
    gpu: str | None
    cpu: str
    cores: int
    os: str
    command: str
    restarts: int = Field(ge=0)
    started: datetime
    finished: datetime


class DataFile(Record):
    """A data file that was used, and what its verification found; see `hambench.data.manifest`.

    Attributes:
        file: its name; ``bytes`` its size.
        verified: whether a manifest vouches for it; labels of our own need none.
        rows: molecules in it.
        unit, order: of positions and orbitals in the file, where the format does not say them.
        sha256_of_sample: over the content of the rows that were checked.
        residuals: worst value of every check, None where it did not apply.
    """

    file: str
    bytes: int
    verified: bool | None = None
    rows: int | None = None
    unit: str | None = None
    order: str | None = None
    sha256_of_sample: str | None = None
    residuals: dict[str, float | None] = {}


class Audit(Record):
    """What the data of a pretraining and the molecules an energy run is scored on have in common.

    Attributes:
        unseen: what the protocol says of the scored split: "molecules" or "rows" no training saw.
        rows: of the pretraining, those it trained on and chose its weights with.
        scored: rows of the scored split.
        same_molecules: of these, rows whose molecule is in the pretraining in any geometry.
        same_geometries: of these, rows that are in the pretraining themselves.
    """

    unseen: Literal["molecules", "rows"]
    rows: int
    scored: int
    same_molecules: int
    same_geometries: int


class Pretraining(Record):
    """The run on Hamiltonians an energy run began with.

    Attributes: as `Result` and `Cost`, of that run, and
        metric, value: its primary metric and what it reached.
        fresh: parts of the energy model that run did not have.
        left_out: parts of that run's model energies have no use for.
        audit: what its data share with the scored molecules.
    """

    run_id: str
    task: str
    task_version: int
    fingerprint: str
    source: Literal["generated", "published"]
    training_split: str
    preset: str
    seed: int
    steps: int
    wall_s: Seconds
    metric: str
    value: FiniteFloat
    fresh: tuple[str, ...]
    left_out: tuple[str, ...]
    audit: Audit


class Domain(Record):
    """What a training set is made of; beyond it a model extrapolates.

    Attributes:
        elements: symbols, by atomic number.
        charges: of its molecules, ascending.
        atoms: of its largest molecule.
        nearest: by the symbols of an atom and of its nearest neighbour (``H-O``), their shortest
            and longest distance, Angstrom; empty in results of earlier versions.
    """

    elements: tuple[str, ...]
    charges: tuple[int, ...]
    atoms: int = Field(ge=1)
    nearest: dict[str, tuple[float, float]] = {}


class Result(Record):
    """One finished cell, task x model x seed: the content of ``result.json``.

    Attributes:
        task, task_version: name and version of the task; versions are never mixed in a ranking.
        fingerprint: hash over the rows of the splits actually used.
        source: "generated" (labels made by the project's generator) or "published".
        data: the data files that were there.
        variant: name of the splits, where the task has several kinds.
        split: which split the metrics were computed on.
        training_split: which split it was trained on; ``domain`` what that is made of.
        training_rows, training_molecules: size of that split; conformers of a molecule count once
            in the second. Energy runs have it, and
        training_metrics: the metrics on the training split itself.
        strategy: how an energy run began, see `hambench.config`; ``pretraining`` the run before it.
        model: the adapter ("helm"); ``preset`` the named setting of it ("helm_small").
        hyperparameters: all of the model's; ``parameters`` counts the trainable numbers.
        recipe: the resolved training recipe; ``seed`` fixes initialisation and data order.
        run_id: hash of the resolved specification (see `hambench.experiment`).
        metrics: by name; ``primary`` names the one the task ranks by.
        step_budget: steps that the protocol of the task allows; None where it has no limit.
        reproduce: a command line that runs this very cell again, data and folders left to whoever
            runs it; empty in results of schema version 1.
        scoring: for each kind of metrics that is computed on a sample of the split (``energy``,
            ``scf``): size ``n`` and ``seed`` of the draw, and what else its numbers depend on.
    """

    schema_version: Literal[2] = SCHEMA_VERSION
    run_id: Name
    task: Name
    task_version: int
    fingerprint: Name
    source: Literal["generated", "published"]
    data: tuple[DataFile, ...] = ()
    variant: Name = "default"
    split: Name
    training_split: Name = "train"
    domain: Domain | None = None
    model: Name
    preset: Name
    hyperparameters: dict[str, Any]
    parameters: Count
    recipe: dict[str, Any]
    seed: Count
    metrics: dict[str, Metric] = Field(min_length=1)
    primary: str
    step_budget: Count | None = None
    reproduce: str = ""
    scoring: dict[str, dict[str, Any]] = {}
    strategy: Literal["direct", "frozen", "finetuned"] | None = None
    training_rows: int | None = Field(default=None, ge=1)
    training_molecules: int | None = Field(default=None, ge=1)
    training_metrics: dict[str, Metric] = {}
    pretraining: Pretraining | None = None
    cost: Cost
    provenance: Provenance

    @model_validator(mode="after")
    def _has_primary(self) -> Self:
        if self.primary not in self.metrics:
            raise ValueError(f"the primary metric '{self.primary:.60}' is not among its metrics")
        return self

    @property
    def energy_steps(self) -> int:
        """Steps of training on energies, of this run's one strategy; 0 for Hamiltonians."""
        return 0 if self.strategy is None else self.cost.steps


class Status(Record):
    """Where a run stands: the content of ``status.json``.

    Attributes:
        state: queued, running, done, failed or interrupted.
        step: last training step known.
        fingerprint: of the data the run was begun with; empty in a run that has not begun.
        restarts: how often the run was started again.
        reason: why it failed or was interrupted, one sentence; empty otherwise.
        started, updated: ISO 8601, UTC; ``started`` is the first start.
        node: machine, or node of a cluster, of the newest start.
        job: SLURM job of that start, ``12`` or ``12_3``; empty without SLURM.
        metric, value: what was validated last, in Eh; None before.
        elapsed_s: seconds of training, over all starts.
        stalls: how many starts in a row a scheduler ended before they got a step further.
    """

    state: Literal["queued", "running", "done", "failed", "interrupted"]
    step: int = Field(default=0, ge=0)
    restarts: int = Field(default=0, ge=0)
    fingerprint: str = ""
    reason: str = ""
    started: datetime
    updated: datetime
    node: str = ""
    job: str = ""
    metric: str | None = None
    value: float | None = None
    elapsed_s: float = Field(default=0.0, ge=0)
    stalls: int = Field(default=0, ge=0)


R = TypeVar("R", Result, Status)


def write_result(folder: str | os.PathLike[str], result: Result) -> Path:
    """Write ``result.json`` in ``folder``, whole or not at all; returns its path."""
    return _write(Path(folder) / RESULT, result)


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a ``result.json``, given it or its run directory.

    Raises:
        DataError: it is missing, not JSON, or does not follow the schema (the field is named).
    """
    return _read(_inside(path, RESULT), Result)


def write_status(folder: str | os.PathLike[str], status: Status) -> Path:
    """Write ``status.json`` in ``folder``, whole or not at all; returns its path."""
    return _write(Path(folder) / STATUS, status)


def read_status(path: str | os.PathLike[str]) -> Status:
    """Read a ``status.json``, given it or its run directory; raises like `read_result`."""
    return _read(_inside(path, STATUS), Status)


def now() -> datetime:
    """The present moment in UTC, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def _inside(path: str | os.PathLike[str], name: str) -> Path:
    path = Path(path)
    return path / name if path.is_dir() else path


def _write(path: Path, record: BaseModel) -> Path:
    with atomic_write(path) as file:
        file.write(record.model_dump_json(indent=2) + "\n")
    return path


def _read(path: Path, schema: type[R]) -> R:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise DataError(f"{path} is no regular file; give the {path.name} that a run wrote")
        if about.st_size > LARGEST:
            raise DataError(f"{path} has more than {LARGEST >> 20} MiB: it is no {path.name}")
        content = from_json(path.read_bytes(), allow_inf_nan=False)
        if schema is Result:
            content = migrated(content, SCHEMA_VERSION)
        return schema.model_validate(content)
    except FileNotFoundError:
        raise DataError(
            f"there is no {path}; give the directory of a run that was started (has it finished?)"
        ) from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {error}; check the file") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file as a whole"
        raise _invalid(path, schema, f"{where:.200}: {first['msg']}") from error
    except ValueError as error:
        raise _invalid(path, schema, str(error)) from error


def _invalid(path: Path, schema: type[Record], why: str) -> DataError:
    said = f" of schema {SCHEMA_VERSION}" if schema is Result else ""
    return DataError(
        f"{path} is no valid {schema.__name__.lower()}{said}: {why}; restore it, update hambench, "
        "or replace the run with overwrite=true"
    )
