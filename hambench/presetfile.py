"""Reading the YAML files that stand behind names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hambench.errors import ConfigError


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads ``1e-3`` as a number, as Hydra does (YAML 1.1 makes it a string)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def read_preset(path: Path) -> dict[str, Any]:
    """A preset file as a dictionary, its name checked.

    Raises:
        ConfigError: it cannot be read, holds no mapping, or names itself otherwise than its file.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is no readable YAML: {reason(error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold a mapping, it holds a {type(content).__name__}")
    if content.get("name", path.stem) != path.stem:
        raise ConfigError(f"{path} names itself '{content['name']}', expected '{path.stem}'")
    return content


def reason(error: Exception) -> str:
    """Class and words of an error, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
