"""Kinds of numbers that settings are made of, and the check of settings against a signature.

A class states its settings once, as typed keyword arguments; whoever builds it from a user's words
asks `checked` first.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_type_hints

from pydantic import ConfigDict, Field, FiniteFloat, ValidationError, create_model

from hambench.errors import ConfigError, RegistryError, nearest

Count = Annotated[int, Field(ge=1)]
Degree = Annotated[int, Field(ge=0)]
Positive = Annotated[FiniteFloat, Field(gt=0)]
NonNegative = Annotated[FiniteFloat, Field(ge=0)]
Fraction = Annotated[FiniteFloat, Field(ge=0, lt=1)]

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())


def checked(
    build: Callable[..., Any],
    values: Mapping[str, Any],
    owner: str,
    section: str = "model.hyperparameters",
) -> dict[str, Any]:
    """Settings for the keyword-only arguments of ``build``, of their types, defaults filled in.

    Types are taken at their word: 3.0 is no integer, "3" no number, 1 no truth value; NaN and
    infinity are no numbers.

    Args:
        build: a class or function whose keyword-only arguments have type hints.
        values: JSON-able.
        owner: whose settings they are, for messages: ``"model 'helm'"``.
        section: where a user sets them.

    Raises:
        ConfigError: an unknown, missing or unfit setting.
        RegistryError: the type hints cannot be read, a mistake of the author.
    """
    known = _arguments(build, owner)
    for key in values:
        if key not in known:
            raise ConfigError(f"{owner} has no hyperparameter '{key}'.{nearest(key, known)}")
    fields: Any = known
    schema = create_model("Settings", __config__=_STRICT, **fields)
    try:
        settings = schema.model_validate_json(json.dumps(dict(values)))
    except TypeError as error:
        raise ConfigError(f"hyperparameters of {owner}: {error}; give plain values") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"][:1]))
        if first["type"] == "missing":
            raise ConfigError(f"{owner} needs a value of its hyperparameter '{key}'") from None
        raise ConfigError(
            f"hyperparameter {key} of {owner} is {values[key]!r:.60}, it "
            f"{first['msg'].removeprefix('Input ')}; set it as {section}.{key}=VALUE"
        ) from None
    return {key: getattr(settings, key) for key in known}


def _arguments(build: Callable[..., Any], owner: str) -> dict[str, tuple[Any, Any]]:
    """Type and default (``...``: none) of every keyword-only argument."""
    function = build.__init__ if inspect.isclass(build) else build
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise RegistryError(
            f"the type hints of {owner} cannot be read ({error}); its module must import them"
        ) from error
    return {
        name: (
            hints.get(name, Any),
            ... if argument.default is argument.empty else argument.default,
        )
        for name, argument in inspect.signature(build).parameters.items()
        if argument.kind is argument.KEYWORD_ONLY
    }
