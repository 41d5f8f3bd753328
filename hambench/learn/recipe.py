"""`Recipe`: how a model is trained. Checked when read, documented key by key, free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from hambench.errors import ConfigError, nearest
from hambench.settings import Count, Fraction, NonNegative, Positive

Precision = Literal["float32", "float64", "tf32"]
Steps = Annotated[int, Field(ge=0)]


class _Section(BaseModel):
    """Base of the sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AdamOptions(_Section):
    """What Adam and AdamW share."""

    lr: Positive = Field(description="learning rate before the schedule")
    betas: tuple[Fraction, Fraction] = Field(
        (0.9, 0.999), description="decay rates of the first and second moments"
    )
    eps: Positive = Field(1e-8, description="added to the root of the second moment")
    amsgrad: bool = Field(False, description="use the largest second moment seen")


class Adam(AdamOptions):
    """Adam; its weight decay is an L2 term of the gradient."""

    name: Literal["adam"] = Field(description="the optimiser")
    weight_decay: NonNegative = Field(0.0, description="L2 term added to the gradient")


class AdamW(AdamOptions):
    """Adam with decoupled weight decay, on every parameter."""

    name: Literal["adamw"] = Field(description="the optimiser")
    weight_decay: NonNegative = Field(
        0.01, description="share of lr * parameter taken off every parameter at each step"
    )


class Muon(_Section):
    """Muon for weight matrices, AdamW for everything else; see `hambench.learn.optim`."""

    name: Literal["muon"] = Field(description="the optimiser")
    lr: Positive = Field(0.02, description="learning rate of the matrices, before the schedule")
    momentum: Fraction = Field(0.95, description="decay rate of the matrices' momentum")
    nesterov: bool = Field(True, description="look ahead by one momentum step")
    adamw_lr: Positive = Field(5e-4, description="learning rate of all other parameters")
    weight_decay: NonNegative = Field(0.0, description="decoupled decay of every parameter")
    betas: tuple[Fraction, Fraction] = Field((0.9, 0.999), description="of AdamW")
    eps: Positive = Field(1e-8, description="of AdamW")
    variant: Literal["matrices", "published"] = Field(
        "matrices",
        description="matrices: 2-D weights and each matrix of 3-D stacks, embeddings stay with "
        "AdamW; published: all of two or more dimensions, flattened to (first, rest)",
    )


class ScheduleOptions(_Section):
    """What all schedules share."""

    warmup_steps: Steps = Field(0, description="steps over which lr rises linearly from 0")


class Constant(ScheduleOptions):
    """The same learning rate throughout, after the warm-up."""

    name: Literal["constant"] = Field(description="the schedule")


class Plateau(ScheduleOptions):
    """Lower the learning rate when validation stops improving."""

    name: Literal["plateau"] = Field(description="the schedule")
    monitor: Literal["metric", "loss"] = Field(
        "metric", description="what has to improve: the validation metric, or the validation loss"
    )
    factor: Annotated[FiniteFloat, Field(gt=0, lt=1)] = Field(
        0.5, description="lr is multiplied by this"
    )
    patience: Steps = Field(10, description="validations without improvement that are tolerated")
    threshold: NonNegative = Field(1e-4, description="relative change that counts as improvement")
    min_lr: NonNegative = Field(0.0, description="lr never falls below this")
    stop_lr: NonNegative = Field(0.0, description="training stops once lr falls below this")


class Cosine(ScheduleOptions):
    """Half a cosine from the full learning rate to ``end_lr`` at the end of the budget."""

    name: Literal["cosine"] = Field(description="the schedule")
    end_lr: NonNegative = Field(0.0, description="lr at the end of the budget")


class Linear(ScheduleOptions):
    """A straight line from the full learning rate to ``end_lr`` at the end of the budget."""

    name: Literal["linear"] = Field(description="the schedule")
    end_lr: NonNegative = Field(0.0, description="lr at the end of the budget")


class Polynomial(ScheduleOptions):
    """``end_lr + (lr - end_lr) (1 - progress)^power``."""

    name: Literal["polynomial"] = Field(description="the schedule")
    end_lr: NonNegative = Field(0.0, description="lr at the end of the budget")
    power: Positive = Field(1.0, description="exponent of the remaining budget")


class Alignment(_Section):
    """Wavefunction alignment (WALoss, arXiv 2502.19227), `hambench.losses.alignment`.

    The paper weighs occupied orbitals much more than others; its numbers are not known, so those
    here are ours.
    """

    weight: Positive = Field(description="factor of this loss (Eh^2) beside the model's own")
    occupied: NonNegative = Field(
        1.0, description="of the errors of occupied orbitals and the lowest empty one"
    )
    virtual: NonNegative = Field(0.1, description="of the errors of all other orbitals")
    off_diagonal: NonNegative = Field(
        0.0, description="of the mean squared error between different orbitals"
    )


Optimizer = Annotated[Adam | AdamW | Muon, Field(discriminator="name")]
Schedule = Annotated[Constant | Plateau | Cosine | Linear | Polynomial, Field(discriminator="name")]
_SECTIONS: dict[str, dict[str, type[_Section]]] = {
    "optimizer": {"adam": Adam, "adamw": AdamW, "muon": Muon},
    "schedule": {
        "constant": Constant,
        "plateau": Plateau,
        "cosine": Cosine,
        "linear": Linear,
        "polynomial": Polynomial,
    },
}


class Recipe(_Section):
    """Everything that decides how a model is trained; made with `Recipe.parse`."""

    name: str = Field("", description="name of the recipe")
    title: str = Field("", description="one line for a listing")
    source: str = Field("", description="where these values come from")

    optimizer: Optimizer = Field(description="optimiser and its options")
    schedule: Schedule = Field(
        Constant(name="constant", warmup_steps=0),
        description="learning-rate schedule and its options",
    )
    batch_size: Count | None = Field(
        None, description="molecules per batch, of all processes together"
    )
    max_edges: Count | None = Field(
        None,
        description="edges per batch of all processes together, instead of batch_size, where "
        "molecules differ in size",
    )
    pad: bool = Field(
        False,
        description="pad batches of molecules of many sizes to few shapes, for cuda_graph=true",
    )
    accumulate: Count = Field(1, description="batches per optimiser step; exact for every loss")
    alignment: Alignment | None = Field(
        None, description="also align the orbitals of Hamiltonians, for any model of these"
    )
    clip_norm: Positive | None = Field(None, description="largest global norm of the gradient")
    ema_decay: Annotated[FiniteFloat, Field(gt=0, lt=1)] | None = Field(
        None, description="moving average of the parameters, used to validate and as the result"
    )
    ema_start_epoch: Steps = Field(
        0, description="the average is a plain copy until this many epochs have passed"
    )
    ema_ramp: bool = Field(True, description="decay rises as (1 + n) / (10 + n) over the updates n")
    precision: Precision = Field(
        "float32", description="parameters and arithmetic; tf32: float32, products in TF32"
    )
    max_steps: Count | None = Field(None, description="budget in optimiser steps")
    max_minutes: Positive | None = Field(
        None, description="budget in minutes, over all restarts; whichever budget ends first counts"
    )
    validate_every: Count | None = Field(None, description="steps between validations")
    validate_every_minutes: Positive | None = Field(
        None, description="minutes between validations, instead of validate_every"
    )
    patience: Count | None = Field(
        None, description="validations without a new best after which training stops early"
    )
    log_every: Count = Field(20, description="steps between rows of the log")
    checkpoint_every_steps: Count | None = Field(None, description="steps between checkpoints")
    checkpoint_every_seconds: Positive | None = Field(
        300.0, description="seconds between checkpoints"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for one, other, example in (
            ("batch_size", "max_edges", "batch_size=8"),
            ("validate_every", "validate_every_minutes", "validate_every=200"),
        ):
            if (getattr(self, one) is None) == (getattr(self, other) is None):
                given = "neither" if getattr(self, one) is None else "both"
                raise ValueError(
                    f"exactly one of {one} and {other} must be set, {given} is; "
                    f"e.g. recipe.{example} recipe.{other}=null"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, serialise: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What came later than the first runs shows only where it is used: ids stay as they are."""
        content: dict[str, Any] = serialise(self)
        return {k: v for k, v in content.items() if k != "alignment" or v is not None}

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Recipe:
        """The recipe of a plain dictionary, as read from YAML.

        Raises:
            ConfigError: the first unknown key (with the nearest name) or unfit value, in a
                sentence with its dotted name.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(_sentence(error)) from None

    def comparable(self) -> dict[str, Any]:
        """What two runs must share for one to go on where the other stopped (JSON-able).

        Budgets may grow, and how often to save is free.
        """
        free = {"name", "title", "source", "max_steps", "max_minutes"}
        free |= {"checkpoint_every_steps", "checkpoint_every_seconds"}
        return self.model_dump(mode="json", exclude=free)


def _sentence(error: ValidationError) -> str:
    """One sentence for the first thing pydantic found wrong, mistyped keys before missing ones."""
    errors = error.errors(include_url=False)
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    # a section's path holds the name that chose its class: optimizer.adam.lr -> optimizer.lr
    path = [str(part) for part in first["loc"]]
    section: type[_Section] = Recipe
    if len(path) > 1 and path[0] == "alignment":
        section = Alignment
    elif len(path) > 1 and path[0] in _SECTIONS:
        section = _SECTIONS[path[0]].get(path.pop(1), section)
    where = ".".join(["recipe", *path])
    match first["type"]:
        case "extra_forbidden":
            owner = where.rpartition(".")[0]
            return f"unknown key '{where}'.{nearest(path[-1], section.model_fields)} (in {owner})"
        case "missing":
            text = section.model_fields[path[-1]].description
            return f"{where} is not set; it is needed ({text})"
        case "union_tag_invalid":
            name = str(first["ctx"]["tag"])
            return f"{where}.name is '{name}'.{nearest(name, _SECTIONS[path[0]])}"
        case "union_tag_not_found":
            names = ", ".join(_SECTIONS[path[0]])
            return f"{where}.name is not set; choose one of {names}"
        case "value_error":
            return f"recipe: {first['ctx']['error']}"
    message = first["msg"].removeprefix("Input ")
    return f"{where} is {first['input']!r}, it {message}; set it as {where}=VALUE"
