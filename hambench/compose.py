"""From the words on the command line to the resolved configuration of one cell, by Hydra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, get_args

from hydra import compose as hydra_compose
from hydra import initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hambench.config import GONE, GROUPS, RunConfig, Strategy, flatten, read_config, validated
from hambench.errors import ConfigError, nearest
from hambench.learn import Recipe
from hambench.registry import MODELS, RECIPES, TASKS, search_path

_PLAIN = re.compile(r"[\w./-]+")  # texts that may need no quotes
_CHANGEABLE = ("hyperparameters", "energy")  # sections of a model
_PRETRAINING = "pretraining."
# What a pretraining cell has of its energy cell, unless it is told otherwise.
_SHARED = (
    "model", "seed", "device", "root", "workers", "nodes", "gpus", "cuda_graph", "data",
    "tracker",
)  # fmt: skip


def compose(overrides: Sequence[str]) -> RunConfig:
    """The configuration that ``hambench run`` gets from these overrides (Hydra's grammar).

    On a task of energies, words ``pretraining.KEY=VALUE`` are overrides of the cell that trains on
    Hamiltonians first.

    Args:
        overrides: ``["task=water_mini", "model=helm_small", "seed=1", "recipe.lr=1e-3"]``.

    Raises:
        ConfigError: an unknown task, model, recipe or key, or a value of the wrong kind; one
            sentence with the nearest name.
    """
    every = parse_single(overrides)
    parsed = [o for o in every if not o.key_or_group.startswith(_PRETRAINING)]
    chosen = _choices(parsed)
    _refuse_redefinition(parsed, chosen)
    # A recipe need not list what it leaves at its default: its schema knows which keys there are.
    words = [f"++{o.input_line}" if _sets_recipe(o) else str(o.input_line) for o in parsed]
    if not any(o.key_or_group == "recipe" for o in parsed):
        words.append(f"recipe={chosen['recipe']}")
    try:
        content = _compose(words)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_explain(error, parsed, chosen)) from error
    for group, name in chosen.items():
        content[group].setdefault("name", name)
    if content["split"] == content["task"].get("variant"):
        content["split"] = None  # the task's own, said or not
    if content["train_on"] == content["task"].get("protocol", {}).get("training_split"):
        content["train_on"] = None
    content["recipe"] = Recipe.parse(content["recipe"]).model_dump(mode="json")
    if content["strategy"] is None and is_energy_task(chosen["task"]):
        content["strategy"] = "direct"
    config = validated(content, "the configuration")
    return _with_pretraining(config, parsed, [o for o in every if o not in parsed])


def is_energy_task(name: str) -> bool:
    """Whether a task is of energies, not of Hamiltonians."""
    targets = TASKS.preset(name).content.get("targets", ())
    return "hamiltonian" not in [target.get("name") for target in targets]


def _with_pretraining(
    config: RunConfig, parsed: Sequence[Override], nested: Sequence[Override]
) -> RunConfig:
    """The configuration with that of the pretraining cell, where its strategy needs one.

    Raises:
        ConfigError: options of pretraining where there is none, or a task without pretraining.
    """
    task, strategy = config.task["name"], config.strategy
    if strategy is not None and not is_energy_task(task):
        raise ConfigError(
            f"strategy={strategy} is for tasks of energies, '{task}' is of Hamiltonians; leave it "
            "out, or choose a task of energies (hambench list tasks)"
        )
    if strategy in (None, "direct"):
        if config.pretrained is not None or nested:
            said = nested[0].input_line if nested else f"pretrained={config.pretrained}"
            raise ConfigError(
                f"'{said}' says something about pretraining, and there is none; add "
                "strategy=frozen or strategy=finetuned on a task of energies"
            )
        return config
    if config.pretrained is not None:
        if nested:
            raise ConfigError(
                f"'{nested[0].input_line}' and pretrained={config.pretrained} exclude each other: "
                "that run has its own settings; give one of the two"
            )
        found = read_config(config.pretrained / "config.yaml")
        before = found.model_copy(update={"run_dir": config.pretrained})
    else:
        words = _pretraining_words(config, parsed, nested)
        try:
            before = compose(words)
        except ConfigError as error:
            raise ConfigError(f"pretraining ({' '.join(words)}): {error}") from error
    if before.strategy is not None:
        raise ConfigError(
            f"pretraining is on Hamiltonians, '{before.task['name']}' is a task of energies; name "
            "a run or a task of Hamiltonians"
        )
    return config.model_copy(update={"pretraining": before})


def _pretraining_words(
    config: RunConfig, parsed: Sequence[Override], nested: Sequence[Override]
) -> list[str]:
    """Overrides of the pretraining cell: those it shares, then its own.

    Its recipe is MODEL_pretraining where there is one, else that of the model.
    """
    task = config.task.get("protocol", {}).get("pretraining")
    words = {} if task is None else {"task": f"task={task}"}
    for override in parsed:
        key = override.key_or_group
        if key in _SHARED or key.startswith("model.hyperparameters."):
            words[key] = str(override.input_line)
    for override in nested:
        key = override.key_or_group.removeprefix(_PRETRAINING)
        words[key] = str(override.input_line).replace(_PRETRAINING, "", 1)
    own = f"{config.model['name']}_pretraining"
    if "recipe" not in words and own in RECIPES.names:
        words["recipe"] = f"recipe={own}"
    if "task" not in words:
        raise ConfigError(
            f"task '{config.task['name']}' names no task of Hamiltonians to pretrain on; add "
            "pretraining.task=NAME, or pretrained=RUN_DIR"
        )
    return list(words.values())


def parse_override(word: str) -> Override:
    """One override in Hydra's grammar, of one value or of several.

    Raises:
        ConfigError: it is none, takes a key away, or sets an option of Hydra's own.
    """
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise ConfigError(
            f"cannot read '{word}': expected KEY=VALUE in Hydra's grammar, "
            "e.g. seed=1 or recipe.batch_size=8"
        ) from error
    if override.is_delete():
        raise ConfigError(f"'{word}' takes away a key that a run needs; set it: KEY=VALUE")
    if override.key_or_group.partition(".")[0] == "hydra":
        raise ConfigError(f"'{word}' sets an option of Hydra's own, which has no effect here")
    return override


def in_grammar(value: object) -> str:
    """A plain value (of YAML or JSON) as an override has it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case list() | tuple():
            return f"[{','.join(map(in_grammar, value))}]"
        case dict():
            return f"{{{','.join(f'{key}:{in_grammar(one)}' for key, one in value.items())}}}"
        case str():
            plain = _PLAIN.fullmatch(value) and value_of(f"key={value}") == value
            return value if plain else QuotedString(value, Quote.single).with_quotes()
    return repr(value)


@cache
def value_of(word: str) -> object:
    """What an override of one value says."""
    return parse_override(word).value()


def parse_single(
    overrides: Sequence[str], advice: str = ", or run all of them with `hambench sweep`"
) -> list[Override]:
    """Overrides of one value each; ConfigError as `parse_override`, or for one of several."""
    parsed = [parse_override(word) for word in overrides]
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(
                f"'{override.input_line}' names several values, one is needed; write a list as "
                f"[a,b], quote a comma inside a value{advice}"
            )
    return parsed


def _is_plain(override: Override) -> bool:
    """Whether it is ``KEY=VALUE``, without ``+``, ``++`` or ``~``."""
    return not (override.is_add() or override.is_force_add() or override.is_delete())


def _sets_recipe(override: Override) -> bool:
    return _is_plain(override) and override.key_or_group.startswith("recipe.")


def _choices(parsed: Sequence[Override]) -> dict[str, str]:
    """Chosen task, model and recipe, each known to exist."""
    names = (*GROUPS, "strategy")
    given = {o.key_or_group: o.value() for o in parsed if o.key_or_group in names}
    for group in ("task", "model"):
        if not isinstance(given.get(group), str):
            raise ConfigError(
                f"which {group}? Add {group}=NAME, one of: {', '.join(GROUPS[group].names)}"
            )
    given.setdefault("recipe", _own_recipe(given))
    return {group: registry.preset(given[group]).name for group, registry in GROUPS.items()}


def _own_recipe(given: Mapping[str, Any]) -> str:
    """The recipe of a preset's own name; of a body with energy heads, one for every strategy.

    A preset without one for a strategy takes that of the plain preset: ``helm_direct``.
    """
    model = MODELS.preset(given["model"])
    strategy = given.get("strategy") or "direct"
    staged = is_energy_task(given["task"]) and "energy" in model.content
    if not staged or strategy not in get_args(Strategy):
        return model.name
    own = f"{model.name}_{strategy}"
    return own if own in RECIPES.names else f"{model.entry}_{strategy}"


def _refuse_redefinition(parsed: Sequence[Override], chosen: Mapping[str, str]) -> None:
    """A name means the same for everybody: only hyperparameters and recipe may change."""
    for override in parsed:
        group, _, key = override.key_or_group.partition(".")
        free = group == "model" and key.partition(".")[0] in _CHANGEABLE
        if group == "model" and key in _CHANGEABLE and not isinstance(override.value(), dict):
            raise ConfigError(
                f"'{override.input_line}': expected model.{key}.KEY=VALUE, with a key "
                f"of model '{chosen['model']}' (hambench run ... --cfg shows them)"
            )
        if group in ("task", "model") and key and not free:
            raise ConfigError(
                f"'{override.input_line}' would redefine {group} '{chosen[group]}'; "
                + (
                    "say where its data are with data=PATH, or make a task of another name"
                    if group == "task"
                    else "change model.hyperparameters.KEY, or make a preset of another name"
                )
            )


def _compose(overrides: Sequence[str]) -> dict[str, Any]:
    quoted = ["'" + place.replace("'", r"\'") + "'" for place in search_path()]
    path = f"hydra.searchpath=[{','.join(quoted)}]"
    with initialize_config_module("hambench.configs", version_base="1.3"):
        config = hydra_compose("run", overrides=[*overrides, path])
    content = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _explain(error: Exception, parsed: Sequence[Override], chosen: Mapping[str, str]) -> str:
    """One sentence for what Hydra refused: the unknown key if there is one, else its own words."""
    known = [key for key, _ in flatten(_compose([f"{g}={name}" for g, name in chosen.items()]))]
    for override in parsed:
        key = override.key_or_group
        if key not in known and _is_plain(override) and not _sets_recipe(override):
            every = [*known, *(f"{_PRETRAINING}{name}" for name in known)]
            mend = f": {GONE[key]}" if key in GONE else f".{nearest(key, every)}"
            return f"unknown key '{key}' in '{override.input_line}'{mend}"
    return f"cannot compose the configuration: {' '.join(str(error).split())}"
