"""Reading YAML that people write: sweep files, and profiles of clusters."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from hambench.errors import ConfigError


def read_yaml(path: Path, kind: str) -> Any:
    """The content of a file; None where it is empty.

    Plain words mean what they mean to Hydra and in YAML 1.2: ``1e-3`` is a number; ``no``, ``010``,
    ``2:30:00`` and ``2026-01-01`` are texts. A key twice in one mapping is an error.

    Args:
        path: the file.
        kind: what it is, for messages: ``sweep file``.

    Raises:
        ConfigError: it cannot be read, or is no YAML (the line is named).
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        raise ConfigError(f"{path}{line}: {error.problem}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = error.strerror if isinstance(error, OSError) else " ".join(str(error).split())
        raise ConfigError(f"cannot read the {kind} {path}: {said}") from error


class _Loader(yaml.SafeLoader):
    """See `read_yaml`."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """As of the base class, each key once."""
        names = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in names[:place]:
                raise yaml.MarkedYAMLError(
                    problem=f"'{key.value}' stands here twice", problem_mark=key.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern, _first in (
    ("null", r"null|~|", "n~"),
    ("bool", r"true|false", "tf"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\d+\.\d*|\.\d+|\d+(?=[eE]))([eE][-+]?\d+)?", "-+.0123456789"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_kind}",
        re.compile(f"(?:{_pattern})$"),
        [*_first, *[""] * (_kind == "null")],
    )
