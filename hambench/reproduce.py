"""The shortest command line that composes a configuration again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hambench.compose import compose, in_grammar
from hambench.config import RunConfig
from hambench.errors import ConfigError

_CHOSEN: Final = ("split", "train_on", "strategy")
_BUDGETS: Final = ("precision", "max_steps", "max_minutes")
_SECTIONS: Final = ("hyperparameters", "energy")  # of a model, that may be changed
_WORDS: Final = ("name", "title", "source")  # of a recipe, which change no number


def command_of(config: RunConfig) -> str:
    """A command line that runs the cell of ``config`` again and scores it alike.

    It does not say where data and folders are, on what device, and what else is kept.

    Raises:
        ConfigError: the presets it was composed from are not here.
    """
    return shlex.join(["hambench", "run", *words_of(config)])


def parse_command(line: str) -> list[str]:
    """The overrides in a command line of `command_of`; ConfigError for any other."""
    try:
        program, command, *words = shlex.split(line)
    except ValueError:
        program = command = ""
    if (program, command) != ("hambench", "run"):
        raise ConfigError(f"'{line:.60}' is no command line of hambench run")
    return words


def words_of(config: RunConfig) -> list[str]:
    """Overrides from which `compose` makes a configuration of the same run id.

    Raises:
        ConfigError: the presets it was composed from are not here.
    """
    words = _names(config)
    base = compose(words)
    words += _changed(base, config)
    if config.pretraining is not None:
        words += [f"pretraining.{word}" for word in words_of(config.pretraining)]
    return words


def _names(config: RunConfig) -> list[str]:
    """Words for what has a name of its own."""
    words = {key: getattr(config, key)["name"] for key in ("task", "model")}
    words |= {key: getattr(config, key) for key in _CHOSEN if getattr(config, key) is not None}
    words["seed"] = config.seed
    named = [f"{key}={in_grammar(value)}" for key, value in words.items()]
    recipe = config.recipe["name"]
    return named if compose(named).recipe["name"] == recipe else [*named, f"recipe={recipe}"]


def _changed(base: RunConfig, config: RunConfig) -> Iterator[str]:
    """Words for the settings in which a configuration differs from that of its names."""
    trained, usual = config.training, base.training
    for key in _BUDGETS:
        if trained[key] != usual[key]:
            where = key if trained[key] is not None else f"recipe.{key}"
            yield f"{where}={in_grammar(trained[key])}"
    rest = (*_WORDS, *_BUDGETS)
    pairs = [("recipe", _without(usual, rest), _without(trained, rest))]
    pairs += [(f"model.{s}", base.model.get(s, {}), config.model.get(s, {})) for s in _SECTIONS]
    pairs.append(("score", base.score.model_dump(), config.score.model_dump()))
    for section, old, new in pairs:
        for key, value in _differences(old, new):
            yield f"{section}.{key}={in_grammar(value)}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of what is new or other in the second of two trees."""
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from ((f"{key}.{rest}", one) for rest, one in _differences(before, value))
        elif key not in old or before != value:
            yield key, value


def _without(tree: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}
