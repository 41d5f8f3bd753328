"""What is measured: a model with its recipe, and molecules to train it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from hambench import cell
from hambench.bench.molecules import Case
from hambench.chem.molecule import Molecule
from hambench.chem.orbitals import OrbitalBasis
from hambench.chem.theory import Theory, is_known
from hambench.compose import compose, parse_override
from hambench.data.loader import Loaded, Loader
from hambench.data.rows import Part
from hambench.errors import ConfigError
from hambench.learn import Recipe
from hambench.learn.device import memory_kept, open_fabric
from hambench.learn.frozen import frozen_embeddings
from hambench.learn.recipe import Precision
from hambench.learn.training import Training
from hambench.learn.validation import matmul_precision
from hambench.learn.weights import cast
from hambench.model import Model, silent
from hambench.models import build_model
from hambench.registry import MODELS, RECIPES

_SECTION: Final = "model.hyperparameters."
_SEED: Final = 0


@dataclass(frozen=True)
class Setting:
    """Under what is measured.

    Attributes:
        device: as `open_fabric` takes it.
        precision: of parameters and products, whatever the recipe has.
        threads: of a CPU.
    """

    device: str = "auto"
    precision: Precision = "float32"
    threads: int = 1

    @contextmanager
    def applied(self, training: bool = True) -> Iterator[torch.device]:
        """Threads and precision of products in the block, which gets the device.

        Args:
            training: whether memory is kept, as `hambench.learn.fit` does it.

        Raises:
            ConfigError: the device is not there, or is a CPU, which has no TF32.
        """
        device = open_fabric(self.device).device
        if self.precision == "tf32" and device.type == "cpu":
            raise ConfigError(
                "precision=tf32 is for products on a GPU, and a CPU has none such; give "
                "precision=float32, or device=cuda"
            )
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with (
                matmul_precision("high" if self.precision == "tf32" else "highest"),
                memory_kept() if training else nullcontext(),
            ):
                yield device
        finally:
            torch.set_num_threads(before)


@dataclass(frozen=True)
class Subject:
    """A model that is going to be trained, and molecules, as a rule of one batch.

    Attributes:
        name: of the molecules, for tables.
        model: prepared, in its final precision.
        recipe: how it is trained, batches of the size asked for.
        molecules: read by place.
    """

    name: str
    model: Model
    recipe: Recipe
    molecules: Sequence[Molecule]

    def builder(self, training: Training, cache_bytes: int) -> Callable[[], Loaded]:
        """Builds the batch of all molecules on the device, as `hambench.learn` does it ahead.

        Args:
            training: of the model.
            cache_bytes: for graphs that are kept, see `Loader`.
        """
        spec, device = training.graph, training.fabric.device
        loader = Loader(
            self.molecules, spec, batch_size=self.recipe.batch_size,
            max_edges=self.recipe.max_edges, device=device, cache_bytes=cache_bytes,
            pad=self.recipe.pad, guesses=False, rotate=spec.rotate,
            embeddings=frozen_embeddings(self.model, self.molecules, device),
        )  # fmt: skip
        return partial(loader.build, range(len(self.molecules)))


def of_case(
    preset: str,
    case: Case,
    batch_size: int,
    precision: Precision,
    words: Sequence[str] = (),
    batches: int = 1,
) -> Subject:
    """A model and random molecules.

    Initial guesses are left out: of random molecules there are none, and a step needs none.

    Args:
        preset: of a model of Hamiltonians, whose recipe has the same name.
        case: the molecules.
        batch_size: how many are in a batch.
        precision: of parameters and products.
        words: ``model.hyperparameters.KEY=VALUE``.
        batches: how many of these there are.

    Raises:
        ConfigError: a word that is none, a wrong hyperparameter, a model without parameters.
        RegistryError: no such model, or one without a recipe.
    """
    model = for_random(preset, case, hyperparameters(words))
    recipe = Recipe.parse(RECIPES.preset(preset).content)
    molecules = list(case.molecules(batch_size * batches))
    return _prepared(preset, case.name, model, _sized(recipe, batch_size), molecules, precision)


def for_random(preset: str, case: Case, settings: Mapping[str, Any] | None = None) -> Model:
    """A model that can be trained on random molecules.

    These have neither initial guesses nor a level of theory, and a step needs neither: guesses are
    left out, and where a preset leaves the theory to a run, any one serves.

    Args:
        preset: of a model of Hamiltonians.
        case: the molecules.
        settings: hyperparameters of other values.

    Raises:
        ConfigError: a wrong hyperparameter, a model without parameters.
        RegistryError: no such model.
    """
    usual = MODELS.preset(preset).content.get("hyperparameters", {})
    given = dict(settings or {})
    if "theory" in usual and not is_known(usual["theory"]):
        given = {"theory": Theory("hf", case.basis).to_dict()} | given
    basis = OrbitalBasis.load(case.basis, case.numbers.tolist())
    model = build_model(preset, basis, **given)
    if model.graph.guess is not None:
        model = build_model(preset, basis, **given | {"initial_guess": "none"})
    _check_parameters(preset, model)
    return model


def of_task(
    preset: str, task: str, batch_size: int | None, precision: Precision, words: Sequence[str] = ()
) -> Subject:
    """A model and the first batch of a task's training split, of `hambench run` with seed 0.

    Args:
        preset, task: their names.
        batch_size: molecules; None: as the recipe fills batches.
        precision: of parameters and products.
        words: further overrides, as ``hambench run`` takes them.

    Raises:
        ConfigError, RegistryError: what they name is not there, or does not fit together.
        DataError: the data of the task are missing.
    """
    config = compose([f"task={task}", f"model={preset}", *words])
    opened = cell.open_task(config)
    opened.check_given()
    torch.manual_seed(_SEED)
    model, recipe = cell.model_of(config, opened), Recipe.parse(config.training)
    if batch_size is not None:
        recipe = _sized(recipe, batch_size)
    split = cell.training_split(opened, config.train_on)
    rows = opened.split(split)
    plan = Loader(
        rows, model.graph, batch_size=recipe.batch_size, max_edges=recipe.max_edges, seed=_SEED
    ).plan(0)
    molecules = Part(rows, plan[0])
    if (guess := model.graph.guess) is not None:
        guess.complete(molecules)
    return _prepared(preset, f"{task}, {split}", model, recipe, molecules, precision)


def hyperparameters(words: Sequence[str]) -> dict[str, Any]:
    """By name, of ``model.hyperparameters.KEY=VALUE``; ConfigError for any other word."""
    found = {}
    for word in words:
        override = parse_override(word)
        name = override.key_or_group.removeprefix(_SECTION)
        if name == override.key_or_group or override.is_sweep_override():
            raise ConfigError(
                f"'{word}' is no option of random molecules, expected {_SECTION}KEY=VALUE"
            )
        found[name] = override.value()
    return found


def _sized(recipe: Recipe, batch_size: int) -> Recipe:
    return recipe.model_copy(update={"batch_size": batch_size, "max_edges": None})


def _prepared(
    preset: str,
    name: str,
    model: Model,
    recipe: Recipe,
    molecules: Sequence[Molecule],
    precision: Precision,
) -> Subject:
    _check_parameters(preset, model)
    cast(model, torch.float64 if precision == "float64" else torch.float32)
    model.prepare(molecules, silent)
    return Subject(name, model, recipe.model_copy(update={"precision": precision}), molecules)


def _check_parameters(preset: str, model: Model) -> None:
    if model.count_parameters() == 0:
        raise ConfigError(f"{preset} has no parameters to train, so no step to measure")
