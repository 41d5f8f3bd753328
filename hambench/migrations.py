"""Results of earlier schema versions brought to the present one, a version at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Content = dict[str, Any]


def _name_the_primary_metric(content: Content) -> Content:
    """1 to 2: the primary metric has a field; it was the first, which a JSON object cannot say.

    Commands that repeat a run, and budgets of a protocol, were not kept.
    """
    metrics = content.get("metrics")
    if not isinstance(metrics, dict) or not metrics:
        return content
    return content | {"primary": next(iter(metrics))}


_STEPS: Final[Mapping[int, Callable[[Content], Content]]] = {1: _name_the_primary_metric}
"""What brings a result of a version to the next one."""


def migrated(content: object, version: int) -> object:
    """Content of a ``result.json`` as ``version`` has it.

    What is no result at all is returned as it is: the schema says what is wrong with it.

    Args:
        content: parsed JSON.
        version: of the present schema.

    Raises:
        ValueError: it is of a later version.
    """
    if not isinstance(content, dict):
        return content
    found = content.get("schema_version")
    if isinstance(found, int) and found > version:
        raise ValueError(
            f"it is of schema version {found!s:.20}, this hambench knows versions up to "
            f"{version}; update hambench"
        )
    while type(found) is int and found in _STEPS:
        content = _STEPS[found](content) | {"schema_version": found + 1}
        found += 1
    return content
