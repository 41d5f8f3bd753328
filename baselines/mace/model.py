"""`Mace`: the direct interatomic potential to compare with, trained by its own code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.errors import ConfigError, DataError
from hambench.external import (
    ENERGY,
    FORCES,
    ExternalModel,
    FitResult,
    Recipe,
    Reporter,
    write_molecules,
)
from hambench.settings import Count, Degree, Positive

_NEVER: Final = 10**9  # epochs

_FIXED: Final[Mapping[str, Any]] = {
    "optimizer.betas.1": 0.999,
    "optimizer.eps": 1e-8,
    "optimizer.amsgrad": True,
    "schedule.warmup_steps": 0,
    "schedule.monitor": "loss",
    "schedule.threshold": 1e-4,
    "schedule.min_lr": 0.0,
    "schedule.stop_lr": 0.0,
    "max_edges": None,
    "pad": False,
    "accumulate": 1,
    "ema_start_epoch": 0,
    "ema_ramp": True,
    "validate_every_minutes": None,
}
"""What MACE's trainer does not let one choose, by the recipe's key."""


class Mace(ExternalModel):
    """MACE (Batatia et al., NeurIPS 2022, arXiv 2206.07697), from scratch, on energies.

    ``mace-torch`` trains it in the environment ``mace``: its loss (mean square of the energy error
    per atom), energies of the elements by least squares on the training set (``E0s=average``),
    scale of the interaction energy from their scatter. The weights kept are those of the epoch with
    the lowest validation ``|dE|``. It knows neither total charge nor spin.

    After a stop it goes on from the last validated epoch with the moving average as weights and
    the data order from its beginning, as MACE's own restart does: not the same bits as a run
    without a stop.

    Args:
        basis: of the task; its elements are those of the model.
        channels, degree: of the messages: ``channels x 0e + ... + channels x degree``.
        cutoff: Angstrom.
        layers: interactions.
        correlation: order of the products of messages.
        harmonics: highest degree of the spherical harmonics of edges.
        radial: Bessel functions.
        forces: train on forces too, with MACE's default weights, and scaled by them. Other models
            of this suite get energies alone.
        forces_weight: of the mean square of a force component (eV/Angstrom), beside 1 for energies.
    """

    environment = "mace"
    worker = Path(__file__).with_name("worker.py")

    def __init__(
        self,
        basis: OrbitalBasis,
        *,
        channels: Count = 128,
        degree: Degree = 1,
        cutoff: Positive = 5.0,
        layers: Count = 2,
        correlation: Count = 3,
        harmonics: Degree = 3,
        radial: Count = 8,
        forces: bool = False,
        forces_weight: Positive = 100.0,
    ) -> None:
        super().__init__(basis)
        self.forces = forces
        labels: dict[str, Any] = {"scaling": "std_scaling", "compute_forces": False}
        if forces:
            labels = {"scaling": "rms_forces_scaling", "forces_weight": forces_weight}
        self.arguments = {
            "num_channels": channels,
            "max_L": degree,
            "r_max": cutoff,
            "num_interactions": layers,
            "correlation": correlation,
            "max_ell": harmonics,
            "num_radial_basis": radial,
            "atomic_numbers": str(list(basis.elements)),
            "E0s": "average",
            "energy_key": ENERGY,
            "forces_key": FORCES,
            "error_table": "TotalMAE",
            **labels,
        }

    def check(self, recipe: Recipe, rows: int) -> None:
        """Besides the environment: MACE must be able to follow the recipe, on so many rows."""
        super().check(recipe, rows)
        arguments(recipe)
        _course(recipe, rows)

    def fit(
        self,
        train: Sequence[Molecule],
        validation: Sequence[Molecule],
        recipe: Recipe,
        folder: Path,
        *,
        seed: int,
        device: str,
        progress: bool,
        reporters: Sequence[Reporter],
    ) -> FitResult:
        """Train by whole epochs: as many as fit into the budget of steps, at least one."""
        files = {"train": folder / "train.extxyz", "validation": folder / "validation.extxyz"}
        for name, molecules in (("train", train), ("validation", validation)):
            write_molecules(files[name], molecules, energies=True, forces=self.forces)
        course = _course(recipe, len(train))
        job = {
            "folder": str(folder),
            **{name: str(path) for name, path in files.items()},
            "seed": seed,
            "device": device,
            "epochs": course.epochs,
            "max_minutes": recipe.max_minutes,
            "patience_epochs": recipe.patience and recipe.patience * course.every,
            "forces": self.forces,
            "arguments": self.arguments | arguments(recipe) | course.arguments,
        }
        return self.train(
            job,
            folder,
            recipe=recipe,
            max_steps=course.max_steps,
            progress=progress,
            reporters=reporters,
        )

    def prediction_job(self, folder: Path) -> dict[str, Any]:
        """The model of the best epoch."""
        model = folder / "mace.model"
        if not model.is_file():
            raise DataError(f"there is no trained MACE in {folder}; run the cell (anew)")
        return {"model": str(model), "batch_size": 32}


def arguments(recipe: Recipe) -> dict[str, Any]:
    """What MACE's command line calls the settings of a recipe, but those counted in epochs.

    Raises:
        ConfigError: the recipe asks for something MACE's trainer does not do.
    """
    optimizer, schedule = recipe.optimizer, recipe.schedule
    if optimizer.name not in ("adam", "adamw"):
        raise _refusal("optimizer.name", optimizer.name, "adam or adamw")
    if schedule.name not in ("plateau", "constant"):
        raise _refusal("schedule.name", schedule.name, "plateau or constant")
    if recipe.precision == "tf32":
        raise _refusal("precision", recipe.precision, "float64 or float32")
    content = recipe.model_dump()
    for key, only in _FIXED.items():
        value = _at(content, key, only)
        if value != only:
            raise _refusal(key, value, only)
    average = {} if recipe.ema_decay is None else {"ema": True, "ema_decay": recipe.ema_decay}
    return {
        "optimizer": optimizer.name,
        "lr": optimizer.lr,
        "beta": optimizer.betas[0],
        "weight_decay": optimizer.weight_decay,
        "scheduler": "ReduceLROnPlateau",
        "lr_factor": content["schedule"].get("factor", 0.5),
        "batch_size": recipe.batch_size,
        "valid_batch_size": recipe.batch_size,
        "clip_grad": recipe.clip_norm,
        "default_dtype": recipe.precision,
        **average,
    }


def _at(content: Any, key: str, default: Any) -> Any:
    """The value at a dotted key; the default where that optimiser or schedule has none."""
    for part in key.split("."):
        if isinstance(content, Mapping):
            content = content.get(part, default)
        elif isinstance(content, Sequence) and part.isdecimal():
            content = content[int(part)]
    return content


class _Course(NamedTuple):
    """A budget in epochs, which is how MACE counts.

    Attributes:
        epochs: to train; the last one ends with a validation.
        every: epochs between validations.
        max_steps: what it comes to; None where only time is limited.
        arguments: of MACE's command line.
    """

    epochs: int
    every: int
    max_steps: int | None
    arguments: dict[str, Any]


def _course(recipe: Recipe, rows: int) -> _Course:
    """What a recipe comes to on so many rows; MACE leaves out the last batch if it is not full.

    Raises:
        ConfigError: there is no full batch.
    """
    assert recipe.batch_size is not None and recipe.validate_every is not None
    steps = rows // recipe.batch_size
    if steps == 0:
        raise ConfigError(
            f"recipe.batch_size={recipe.batch_size} is more than the {rows} molecules there are to "
            f"train on, of which MACE would train on none; set recipe.batch_size={rows} or less"
        )
    every = max(1, round(recipe.validate_every / steps))
    epochs = _NEVER if recipe.max_steps is None else max(1, recipe.max_steps // steps)
    epochs -= (epochs - 1) % every
    schedule = recipe.schedule
    patience = schedule.patience * every if schedule.name == "plateau" else _NEVER
    arguments = {"eval_interval": every, "scheduler_patience": patience}
    return _Course(epochs, every, recipe.max_steps and epochs * steps, arguments)


def _refusal(key: str, value: object, expected: object) -> ConfigError:
    return ConfigError(
        f"recipe.{key} is {value!r}, and MACE's trainer can only do {expected!r}; set "
        f"recipe.{key}={expected} or take the recipe of a MACE preset"
    )
