"""Small JSON files about a large data file, true for one size and time of change of it.

They stand beside the data file or, where that folder cannot be written, under the cache folder.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hambench.data.location import data_folder
from hambench.errors import HambenchError
from hambench.files import atomic_write

_STAMP = "file"


def find(path: str | os.PathLike[str], suffix: str) -> dict[str, Any] | None:
    """What `write` wrote about the data file, or None if there is none or the file has changed."""
    now = _stamp(Path(path))
    for place in places(path, suffix):
        content = load_json(place)
        if isinstance(content, dict) and content.pop(_STAMP, None) == now:
            return content
    return None


def write(path: str | os.PathLike[str], suffix: str, content: Mapping[str, Any]) -> Path:
    """Write ``content`` about the data file ``path`` and say where it went.

    Raises:
        RunError: neither its folder nor the cache folder can be written.
    """
    beside, cached = places(path, suffix)
    stamped = {_STAMP: _stamp(Path(path)), **content}
    try:
        return _write(beside, stamped)
    except HambenchError:
        return _write(cached, stamped)


def places(path: str | os.PathLike[str], suffix: str) -> tuple[Path, Path]:
    """Where the JSON file of that suffix may be: beside the data file, under the cache folder."""
    path = Path(path)
    folder = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]
    name = path.name + suffix
    return path.with_name(name), data_folder() / "sidecars" / folder / name


def load_json(path: Path) -> Any:
    """The content of a JSON file, or None where there is no readable one."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _write(target: Path, content: Mapping[str, Any]) -> Path:
    with atomic_write(target) as file:
        json.dump(content, file, indent=1)
        file.write("\n")
    return target
