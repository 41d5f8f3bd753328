"""The libraries of the extra ``embeddings``; they are imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any, Final

from hambench.errors import ConfigError

LIBRARIES: Final = {"sklearn": "scikit-learn", "umap": "umap-learn", "matplotlib": "matplotlib"}
"""Packages by what is imported."""


def library(module: str) -> Any:
    """A module of one of them; they are untyped, hence Any.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = LIBRARIES[module.partition(".")[0]]
        raise ConfigError(
            f"embeddings are analysed with {package}, which cannot be imported ({error}); install "
            "it with: pip install 'hambench[embeddings]'"
        ) from error


def check_libraries() -> None:
    """ConfigError where one is missing: said before any work is done."""
    for module in LIBRARIES:
        library(module)
