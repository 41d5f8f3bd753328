"""The file that the tests of downloads fetch."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import numpy as np

NAME: Final = "data.db"
DATE: Final = "Wed, 01 Oct 2025 10:00:00 GMT"
CONTENT: Final = np.random.default_rng(7).bytes(3_000_000)
OTHER: Final = np.random.default_rng(8).bytes(3_000_000)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def left(folder: Path) -> set[str]:
    """Files in a folder, without the marks of the name."""
    return {path.name.removeprefix(NAME) for path in folder.iterdir()}
