"""One file out of a tar archive that others made: nothing else of it reaches the disk."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Final

from hambench.errors import DataError
from hambench.files import atomic_path

LARGEST_RATIO: Final = 50
"""Unpacked to packed bytes above which an archive is taken for a bomb; float matrices have < 5."""

_PIECE: Final = 1 << 20


def extract(
    archive: Path,
    member: str,
    target: Path,
    check_room: Callable[[int], None],
    title: str | None = None,
) -> str:
    """Write one member of a tar archive (also gzip, bzip2 or xz) to ``target``, atomically.

    Only its bytes are taken from the archive; name, owner, mode and links of its own play no part.

    Args:
        archive: the tar file.
        member: path in the archive, or the last component of one.
        target: the file to write.
        check_room: called with the bytes to be written, to raise if there is no space.
        title: of the archive in messages, in place of its path.

    Returns:
        sha256 of what was written.

    Raises:
        DataError: no archive, or a damaged one; no such member or several; or one that is no plain
            file inside the archive's own folder, or is improbably large.
        RunError: the disk is full.
    """
    name = title or str(archive)
    try:
        with tarfile.open(archive, "r:*") as tar:
            found = _find(tar, member, name, LARGEST_RATIO * archive.stat().st_size)
            check_room(found.size)
            content = tar.extractfile(found)
            assert content is not None  # it is a plain file
            with atomic_path(target) as temporary, open(temporary, "wb") as file:
                return _copy(content, file, found.size)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{name} is no tar archive, or a damaged one: {error}") from error


def _find(tar: tarfile.TarFile, member: str, name: str, largest: int) -> tarfile.TarInfo:
    """The member, after all that is suspicious about it was refused."""
    members = tar.getmembers()
    exact = [m for m in members if m.name == member]
    found = exact or [m for m in members if PurePosixPath(m.name).name == member]
    if len(found) != 1:
        names = ", ".join(m.name for m in (found or members)[:5])
        many = "several members" if found else "no member"
        raise DataError(f"{name} has {many} '{member}' (it holds {names}); expected one")
    path = PurePosixPath(found[0].name)
    problem = None
    if path.is_absolute() or ".." in path.parts:
        problem = "would lie outside the folder"
    elif not found[0].isreg() or found[0].issparse():
        problem = "is a link or of another special kind"
    elif found[0].size > largest:
        problem = f"has {found[0].size} bytes, more than {LARGEST_RATIO} times the archive"
    if problem is not None:
        raise DataError(f"{name}: member '{found[0].name}' {problem}; it is not unpacked")
    return found[0]


def _copy(content: IO[bytes], file: IO[bytes], size: int) -> str:
    digest = hashlib.sha256()
    done = 0
    while piece := content.read(_PIECE):
        file.write(piece)
        digest.update(piece)
        done += len(piece)
    if done != size:
        raise tarfile.ReadError(f"its member ends after {done} of {size} bytes")
    return digest.hexdigest()
