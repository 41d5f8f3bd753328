"""The checked, resolved configuration of one cell, and its ``config.yaml``."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
)

from hambench.errors import ConfigError, DataError, nearest
from hambench.registry import MODELS, RECIPES, TASKS

GROUPS = {"task": TASKS, "model": MODELS, "recipe": RECIPES}
_BUDGET = ("precision", "max_steps", "max_minutes")
# Keys of a task, model or recipe that change no trained weight.
_FREE = {
    "title",
    "source",
    "description",
    "citation",
    "license",
    "url",
    "references",
    "notes",
    "labels",
}
_FREE |= {"metrics", "variant", "variants"}
_FREE |= {"checkpoint_every_steps", "checkpoint_every_seconds", "log_every"}


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise ValueError("expected auto, cpu, cuda or cuda:N")
    return name


def _kept(value: object) -> object:
    if value not in (True, False, "float64", "float32"):
        raise ValueError("expected true, false, float64 or float32")
    return value


Tracker = Literal["tensorboard", "wandb"]
"""A program that shows the course of runs, see `hambench.learn.trackers`."""


def _trackers(value: object) -> object:
    names = [] if value is None else [value] if isinstance(value, str) else value
    known = get_args(Tracker)
    if not isinstance(names, list | tuple) or any(name not in known for name in names):
        raise ValueError(f"expected null, {', '.join(known)}, or a list of them")
    return list(dict.fromkeys(names))


class SampleOptions(BaseModel):
    """How many molecules of the split a kind of metrics is computed on, and the seed of the draw.

    ``n`` None: all.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    n: Annotated[int, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0)] = 43


class ScoreOptions(BaseModel):
    """How a run is scored; see ``configs/run.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    split: str = "test"
    metrics: Annotated[list[str], Field(min_length=1)] | None = None
    cutoff: Annotated[FiniteFloat, Field(gt=0)] | None = None
    energy: SampleOptions = SampleOptions()
    scf: SampleOptions = SampleOptions(n=50)


def _named(section: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(section.get("name"), str):
        raise ValueError("expected a mapping with a name")
    plain: dict[str, Any] = json.loads(json.dumps(section))  # keys as config.yaml gives them back
    return plain


Section = Annotated[dict[str, Any], AfterValidator(_named)]
"""A preset as it was composed."""


def _path(value: object) -> object:
    if value == "":
        raise ValueError("expected a path; give one, or leave the key out")
    return value


GivenPath = Annotated[Path, BeforeValidator(_path)]
"""A path; the empty one would be the current folder."""


OF_PRETRAINING = "of the pretraining: its settings are pretraining.KEY=VALUE"
"""Said of failures of a pretraining, which name the keys of a run of its own."""

Strategy = Literal["direct", "frozen", "finetuned"]
"""How a model of energies begins: at random; or with a body trained on Hamiltonians, which stays
as it is, or is trained on."""


GONE = {"tensorboard": "tensorboard=true is now tracker=tensorboard, and false is left out"}
"""Keys that there were, and what to say of them."""


class RunConfig(BaseModel):
    """The resolved configuration of one cell; ``configs/run.yaml`` says what each key means."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    task: Section
    model: Section
    recipe: Section
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    device: Annotated[str, AfterValidator(_device)] = "auto"
    precision: Literal["float32", "float64", "tf32"] | None = None
    max_steps: Annotated[int, Field(gt=0)] | None = None
    max_minutes: Annotated[FiniteFloat, Field(gt=0)] | None = None
    root: GivenPath = Path("runs")
    run_dir: GivenPath | None = None
    overwrite: bool = False
    save_predictions: Annotated[bool | Literal["float64", "float32"], BeforeValidator(_kept)] = (
        False
    )
    tracker: Annotated[tuple[Tracker, ...], BeforeValidator(_trackers)] = ()
    workers: Annotated[int, Field(ge=0)] = 0
    nodes: Annotated[int, Field(gt=0)] = 1
    gpus: Annotated[int, Field(gt=0)] = 1
    cuda_graph: bool = False
    data: GivenPath | None = None
    split: str | None = None
    train_on: str | None = None
    energies: GivenPath | None = None
    strategy: Strategy | None = None
    pretrained: GivenPath | None = None
    pretraining: RunConfig | None = None
    score: ScoreOptions = ScoreOptions()

    @property
    def training(self) -> dict[str, Any]:
        """The recipe, with precision and budgets replaced where they were given by themselves."""
        given = {key: getattr(self, key) for key in _BUDGET}
        return self.recipe | {key: value for key, value in given.items() if value is not None}

    @property
    def predictions_dtype(self) -> Literal["float64", "float32"]:
        """In which type predictions are kept, if they are; plain ``true`` means float64."""
        return "float32" if self.save_predictions == "float32" else "float64"

    @property
    def spec(self) -> dict[str, Any]:
        """What decides the trained weights: no paths, device, score options, descriptive text.

        Nor the number of processes, which changes them by rounding alone.
        """
        sections = {"task": self.task, "model": self.model, "recipe": self.training}
        spec: dict[str, Any] = {
            name: {key: value for key, value in section.items() if key not in _FREE}
            for name, section in sections.items()
        }
        del spec["recipe"]["name"]
        spec["seed"] = self.seed
        if self.strategy is None:
            spec["model"].pop("energy", None)
        before = None if self.pretraining is None else self.pretraining.run_id
        chosen = {
            "split": self.split,
            "train_on": self.train_on,
            "strategy": self.strategy,
            "pretraining": before,
        }
        return spec | {key: value for key, value in chosen.items() if value is not None}

    @property
    def run_id(self) -> str:
        """sha256 of the canonical JSON of `spec`."""
        text = json.dumps(self.spec, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The run directory: ``run_dir``, or ``root/task/model/seedN-<8 digits of run_id>``.

        On a task of energies the strategy comes first: ``finetuned-seedN-...``.
        """
        return self.root / self.title if self.run_dir is None else self.run_dir

    @property
    def title(self) -> str:
        """What people call the run: its place below ``root``, if nothing else was said."""
        strategy = "" if self.strategy is None else f"{self.strategy}-"
        name = f"{strategy}seed{self.seed}-{self.run_id[:8]}"
        return f"{self.task['name']}/{self.model['name']}/{name}"

    def to_yaml(self) -> str:
        """The content of ``config.yaml``."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def score_options(options: ScoreOptions, changes: Mapping[str, Any]) -> ScoreOptions:
    """Options of scoring with some of them changed; ConfigError for a value that makes no sense."""
    try:
        return ScoreOptions.model_validate(options.model_dump() | dict(changes))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{key}={first['input']}: {said(first)}") from error


def read_config(path: Path) -> RunConfig:
    """The ``config.yaml`` of a run directory.

    Raises:
        DataError: it is missing or unreadable.
        ConfigError: it does not follow the schema.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path.parent} is no run directory: it has no {path.name}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(
            f"cannot read {path}: {' '.join(str(error).split())}; restore it, or start the run "
            "anew with overwrite=true"
        ) from error
    if not isinstance(content, dict):
        raise DataError(
            f"{path} is no configuration of a run; restore it, or start the run anew with "
            "overwrite=true"
        )
    return validated(_of_today(content), str(path))


def _of_today(content: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the keys of earlier versions renamed, also that of a pretraining."""
    now = dict(content)
    if now.pop("tensorboard", False):
        now.setdefault("tracker", ["tensorboard"])
    if isinstance(now.get("pretraining"), Mapping):
        now["pretraining"] = _of_today(now["pretraining"])
    return now


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and leaves of nested mappings; sections come before what they hold."""
    for key, value in tree.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")


def validated(content: Mapping[str, Any], where: str) -> RunConfig:
    try:
        return RunConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden" and key in GONE:
            raise ConfigError(f"unknown key '{key}' in {where}: {GONE[key]}") from error
        if first["type"] == "extra_forbidden":
            known = [name for name, _ in flatten(RunConfig.model_construct().model_dump())]
            raise ConfigError(
                f"unknown key '{key}' in {where}.{nearest(key, [*known, *GROUPS, 'seed'])}"
            ) from error
        raise ConfigError(f"{key}={first['input']!s:.60} in {where}: {said(first)}") from error


def said(problem: Mapping[str, Any]) -> str:
    """What pydantic found, in our words where its own are not plain."""
    if problem["type"] == "list_type":
        return "expected a list, e.g. [h_mae,h_max]"
    return plainly(problem)


def plainly(problem: Mapping[str, Any]) -> str:
    """What pydantic found, without its own way of beginning."""
    return str(problem["msg"]).removeprefix("Value error, ").replace("Input should be", "expected")
