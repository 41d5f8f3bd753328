"""A folder that `hambench export` made: which files it has, and that nobody changed them."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hambench.errors import DataError
from hambench.files import sha256_of
from hambench.results import RESULT
from hambench.rundir import CONFIG

MANIFEST: Final = "manifest.json"
WEIGHTS: Final = "model.safetensors"
BASIS: Final = "basis.json"
CARD: Final = "README.md"
FILES: Final = (WEIGHTS, CONFIG, RESULT, BASIS, CARD)
"""Of every export, beside its manifest."""

FORMAT: Final = "hambench-export"
VERSION: Final = 1
_LARGEST: Final = 2**24  # bytes of a file that is no weights

logger = logging.getLogger(__name__)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class File(_Record):
    """A file as it was when the folder was made."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @staticmethod
    def of(path: Path) -> File:
        """What there is to say of a file."""
        return File(bytes=path.stat().st_size, sha256=sha256_of(path))


class Manifest(_Record):
    """The content of ``manifest.json``.

    Checksums find what was damaged or changed by mistake; they prove nothing of who made a folder.

    Attributes:
        format, version: of the folder.
        hambench: version of the package that made it.
        run_id: of the run.
        files: all files but this one.
    """

    format: Literal["hambench-export"] = FORMAT
    version: Literal[1] = VERSION
    hambench: str
    run_id: str
    files: dict[str, File]


def is_export(folder: Path) -> bool:
    """Whether a folder says it is one."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder.

    Raises:
        DataError: it cannot be read, is of another version, or does not name the files.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
            raise DataError(
                f"{path} is of version {content['version']!r:.20}, this hambench reads {VERSION}; "
                "update hambench, or export the run again"
            )
        manifest = Manifest.model_validate(content)
        if set(manifest.files) != set(FILES):
            raise ValueError(f"expected the files {', '.join(FILES)}")
    except (OSError, ValueError, RecursionError) as error:  # pydantic's are ValueErrors
        reason = " ".join(_first(error).split())
        raise DataError(
            f"{path} is no manifest of an export ({reason:.200}); get the folder again"
        ) from error
    return manifest


def verify(folder: Path) -> Manifest:
    """The manifest of a folder whose files are those it was made with.

    A model card that was edited is warned of: it is for people, and nothing is read from it.

    Raises:
        DataError: a file is missing or was changed, or as `read_manifest`.
    """
    manifest = read_manifest(folder)
    for name, made in manifest.files.items():
        path = folder / name
        try:
            same = File.of(path) == made
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}); get the folder again"
            ) from error
        if same:
            continue
        if name == CARD:
            logger.warning("%s was changed since the export", path)
            continue
        raise DataError(
            f"{path} is not the file that was exported ({path.stat().st_size} bytes, expected "
            f"{made.bytes} with sha256 {made.sha256[:12]}...); get the folder again"
        )
    _check_plain(folder / CONFIG)
    return manifest


def _check_plain(path: Path) -> None:
    """DataError for YAML that grows when it is read: aliases, which no export has."""
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"{path} is larger than any configuration; do not use the folder")
        tokens = yaml.scan(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        aliased = any(isinstance(token, yaml.AliasToken) for token in tokens)
    except (UnicodeDecodeError, yaml.YAMLError):
        return  # whoever reads it says so
    if aliased:
        raise DataError(f"{path} has YAML aliases, which no export has; do not use the folder")


def _first(error: Exception) -> str:
    """The first thing that is wrong, for people."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, found['loc']))}: {found['msg']}"
    return str(error)
