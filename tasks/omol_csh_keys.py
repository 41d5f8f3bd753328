"""The list of molecules in a file of OMol_CSH: collected once by a walk, then kept.

The public code keeps ``<file>.keys.json`` beside the file, a JSON list of the groups' paths. It is
taken over, with its order, where it agrees with the file; it is never written, since it may be
another program's. Our own list is a sidecar (`hambench.data.sidecar`) and falls with a change of
the file.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from tqdm import tqdm

from hambench.data import sidecar
from hambench.errors import DataError, HambenchError

LEAF: Final = "fock"
"""A group with a dataset of this name is a molecule."""

_PUBLIC: Final = ".keys.json"
_OWN: Final = ".hambench-keys.json"
_SAMPLE: Final = 64  # keys of a public list that are looked up in the file
_DEEPEST: Final = 32  # levels of groups; more is damage

logger = logging.getLogger(__name__)


def keys_of(path: Path, file: h5py.File, progress: bool) -> tuple[str, ...]:
    """Paths of all molecules in an open file, from a kept list or by a walk.

    Raises:
        DataError: groups nested deeper than any file of this kind.
    """
    kept = sidecar.find(path, _OWN)
    if kept is not None and _is_list(kept.get("keys")):
        return tuple(kept["keys"])
    public = sidecar.load_json(path.with_name(path.name + _PUBLIC))
    if public is not None:
        if _is_list(public) and _agrees(public, file):
            return tuple(public)
        logger.warning(
            "%s%s does not agree with its file and is left aside; the groups are listed anew",
            path, _PUBLIC,
        )  # fmt: skip
    keys = _walk(path, file, progress)
    try:
        sidecar.write(path, _OWN, {"keys": keys})
    except HambenchError as error:
        logger.warning("the list of groups is not kept: %s", error)
    return tuple(keys)


def is_leaf(group: h5py.Group) -> bool:
    """Whether a group is a molecule."""
    return LEAF in group and group.get(LEAF, getclass=True) is h5py.Dataset


def _walk(path: Path, file: h5py.File, progress: bool) -> list[str]:
    """All leaves below the root, sorted level by level; every group once, whatever links to it."""
    keys = []
    seen = set()
    waiting: list[tuple[str, int]] = [("/", 0)]
    with tqdm(
        desc=f"molecules in {path.name}", unit="", disable=not progress, delay=2, dynamic_ncols=True
    ) as bar:
        while waiting:
            name, depth = waiting.pop()
            group = file[name]
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:
                continue
            seen.add(address)
            if is_leaf(group):
                keys.append(name.strip("/") or "/")
                bar.update()
                continue
            if depth > _DEEPEST:
                raise DataError(f"group '{name}' lies deeper than {_DEEPEST} levels")
            inner = [child for child in sorted(group) if _is_group(group, child)]
            waiting += [(f"{name.rstrip('/')}/{child}", depth + 1) for child in reversed(inner)]
    return keys


def _is_group(group: h5py.Group, name: str) -> bool:
    """Whether a name is a group in this very file (no soft or external link)."""
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return False
    return bool(group.get(name, getclass=True) is h5py.Group)


def _is_list(keys: Any) -> bool:
    """Whether something read from JSON is a list of different, non-empty names."""
    return (
        isinstance(keys, list)
        and len(keys) > 0
        and all(isinstance(key, str) and key for key in keys)
        and len(set(keys)) == len(keys)
    )


def _agrees(keys: list[str], file: h5py.File) -> bool:
    """Whether a sample of the keys are molecules, and their parents have no more members."""
    members: dict[str, set[str]] = {}
    for key in keys:
        parts = ["", *key.strip("/").split("/")]
        for depth in range(1, len(parts)):
            members.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    for place in np.unique(np.linspace(0, len(keys) - 1, _SAMPLE).astype(int)):
        group = file.get(keys[place])
        if not isinstance(group, h5py.Group) or not is_leaf(group):
            return False
        parent = keys[place].strip("/")
        while parent:
            parent = parent.rpartition("/")[0]
            if len(file[parent or "/"]) != len(members[f"/{parent}" if parent else ""]):
                return False
    return True
