"""What can be downloaded: files by the name tasks know them by, their URLs, sizes and checksums.

A data set's catalogue is a YAML file in the folder ``download/`` of the package that brings it;
`with_mirrors` adds the user's own file::

    title: what it is
    source: where these URLs and checksums were published
    license: MIT
    base: https://example.org/data/          # URLs below may be relative to it
    files:
      water.db: {urls: [water.db], bytes: 1234, etag: 0123456789abcdef0123456789abcdef-7}
      ethanol.db: {urls: [ethanol.tgz], archive: ethanol.db}
      locked.db: {manual: "ask the authors for it"}
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urljoin

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hambench.data.location import data_folder
from hambench.errors import ConfigError, DataError

MIRRORS: Final = "mirrors.yaml"
"""The user's own catalogue, in the folder of data files."""


def _like(pattern: str, expected: str) -> AfterValidator:
    """Refuses what does not match, in words that say what would."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


Etag = Annotated[
    str,
    _like(
        r"[0-9a-f]{32}(-[1-9][0-9]*)?", "32 hexadecimal digits, and -N after an upload in N parts"
    ),
]
Sha256 = Annotated[str, _like(r"[0-9a-f]{64}", "64 hexadecimal digits")]
Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+/?\S*$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(_Section):
    """One file and where it comes from.

    Attributes:
        name: of the finished file, as tasks know it.
        urls: where it was published, in the order in which they are tried.
        mirrors: other places with the same bytes, which are tried before.
        bytes: size of what the URLs serve; None where it is not published.
        etag: of ``urls``: the md5 of the content, or, with ``-N``, of the md5s of its N parts.
        sha256: of what the URLs serve.
        archive: the member of the tar archive at the URLs that is the file; None: they serve it.
        manual: how to get it, where plain HTTP does not.
    """

    name: FileName
    urls: tuple[Url, ...] = ()
    mirrors: tuple[Url, ...] = ()
    bytes: Annotated[int, Field(gt=0)] | None = None
    etag: Etag | None = None
    sha256: Sha256 | None = None
    archive: str | None = None
    manual: str | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """All URLs, in the order in which they are tried."""
        return tuple(dict.fromkeys(self.mirrors + self.urls))

    @model_validator(mode="after")
    def _comes_from_somewhere(self) -> Self:
        if not (self.sources or self.manual):
            raise ValueError("urls expected, or manual: how to get it")
        return self


class Catalogue(_Section):
    """The files of one data set, or those that a user adds."""

    name: str = ""
    title: str = ""
    source: str = ""
    license: str = ""
    base: Url | None = None
    files: dict[FileName, FileEntry]

    @staticmethod
    def from_dict(content: Mapping[str, Any], path: Path) -> Catalogue:
        """The catalogue in a mapping read from the YAML file at ``path``.

        Raises:
            ConfigError: it is none; the first wrong key is named.
        """
        try:
            return Catalogue.model_validate(dict(content))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "catalogue"
            problem = first["msg"].removeprefix("Value error, ")
            raise ConfigError(
                f"{path}, {where}: {problem} (got {first['input']!r:.80}); mend it, the keys are "
                "those of the catalogues in tasks/download"
            ) from None

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, content: Any) -> Any:
        """Give every entry its name, and its URLs their base."""
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict):
            return content
        base = str(content.get("base") or "")
        return {**content, "files": {key: _completed(key, e, base) for key, e in files.items()}}


def merged(catalogues: Mapping[Path, Mapping[str, Any]]) -> dict[str, FileEntry]:
    """All files of some catalogues by name.

    Args:
        catalogues: path and content of YAML files.

    Raises:
        ConfigError: one is wrong, or two describe a file of the same name.
    """
    found: dict[str, FileEntry] = {}
    home: dict[str, Path] = {}
    for path, content in catalogues.items():
        for name, entry in Catalogue.from_dict(content, path).files.items():
            if name in found:
                raise ConfigError(
                    f"file '{name}' is described in {home[name]} and in {path}; uninstall one of "
                    "the packages"
                )
            found[name], home[name] = entry, path
    return found


def with_mirrors(
    known: Mapping[str, FileEntry], path: str | os.PathLike[str] | None = None
) -> dict[str, FileEntry]:
    """``known`` and what the user's own catalogue adds: URLs to be tried first, or whole files.

    Of a known file it may also state what the catalogue leaves open (a checksum), but nothing else.

    Args:
        path: the user's file; None: `MIRRORS` in the folder of data files, if there is one.

    Raises:
        ConfigError: it is wrong, or contradicts what is known.
        DataError: the file named by ``path`` cannot be read.
    """
    place = data_folder() / MIRRORS if path is None else Path(path)
    if path is None and not place.exists():
        return dict(known)
    own = Catalogue.from_dict(_read(place), place).files
    return {
        **known,
        **{n: _joined(known[n], e, place) if n in known else e for n, e in own.items()},
    }


def _completed(name: Any, entry: Any, base: str) -> Any:
    if not isinstance(entry, dict):
        return entry
    full: dict[str, Any] = {**entry, "name": name}
    for key in ("urls", "mirrors"):
        if isinstance(entry.get(key), list):
            full[key] = [urljoin(base, url) if isinstance(url, str) else url for url in entry[key]]
    return full


def _joined(known: FileEntry, own: FileEntry, path: Path) -> FileEntry:
    """A known file with the user's URLs before its own."""
    added: dict[str, Any] = {"mirrors": own.sources + known.mirrors}
    for key in ("bytes", "etag", "sha256", "archive"):
        mine, theirs = getattr(own, key), getattr(known, key)
        if None not in (mine, theirs) and mine != theirs:
            raise ConfigError(
                f"{path}, files.{known.name}.{key}: {mine} contradicts {theirs}, which was "
                "published; a mirror serves the same bytes, give another file another name"
            )
        added[key] = theirs if mine is None else mine
    return known.model_copy(update=added)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; give a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is no readable YAML: {reason}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no mapping; expected `files:` and the files below it")
    return content
