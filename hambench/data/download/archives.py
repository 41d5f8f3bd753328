"""One file out of a tar archive that others made: nothing else of it reaches the disk."""

from __future__ import annotations

import hashlib
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from hambench.errors import DataError
from hambench.files import atomic_path

LARGEST_RATIO: Final = 50
"""Unpacked to packed bytes above which an archive is taken for a bomb; float matrices have < 5."""

_PIECE: Final = 1 << 20
_DAMAGES: Final = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


def extract(
    archive: Path,
    member: str,
    target: Path,
    *,
    title: str,
    check_room: Callable[[int], object],
    seen: Callable[[int], object] = lambda n: None,
) -> str:
    """Write one member of a tar archive (also gzip, bzip2 or xz) to ``target``, atomically.

    Only its bytes are taken from the archive; name, owner, mode and links of its own play no part.
    The archive is read to its end, so that its own checksum is verified too.

    Args:
        archive: the tar file.
        member: path in the archive, or the last components of one.
        target: the file to write.
        title: of the archive in messages.
        check_room: called with the bytes to be written, to raise if there is no space.
        seen: called with the number of bytes of the archive just read, for a progress bar.

    Returns:
        sha256 of what was written.

    Raises:
        DataError: no archive, or a damaged one; no such member or several; or one that is no plain
            file inside the archive's own folder, or is improbably large.
        RunError: the disk is full.
    """
    digest = hashlib.sha256()
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        for piece in _pieces(archive, member, title, check_room, seen):
            file.write(piece)
            digest.update(piece)
    return digest.hexdigest()


def _pieces(
    archive: Path,
    member: str,
    title: str,
    check_room: Callable[[int], object],
    seen: Callable[[int], object],
) -> Iterator[bytes]:
    """Content of the member, in one pass over the whole archive."""
    largest = LARGEST_RATIO * archive.stat().st_size
    names: list[str] = []
    try:
        with open(archive, "rb") as raw, tarfile.open(fileobj=raw, mode="r:*") as tar:
            read = 0
            for info in tar:
                names.append(info.name)
                if not _is(info.name, member):
                    continue
                _check(info, [name for name in names if _is(name, member)], largest, title)
                check_room(info.size)
                content = tar.extractfile(info)
                assert content is not None  # it is a plain file
                while piece := content.read(_PIECE):
                    yield piece
                    seen(raw.tell() - read)
                    read = raw.tell()
            assert tar.fileobj is not None
            while tar.fileobj.read(_PIECE):
                pass
    except (OSError, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise DataError(f"{title} is no tar archive, or a damaged one: {error}") from error
    if not any(_is(name, member) for name in names):
        raise DataError(f"{title} has no member '{member}' (it holds {', '.join(names[:5])})")


def _is(name: str, member: str) -> bool:
    """Whether a path in an archive is, or ends with, the member asked for."""
    wanted = PurePosixPath(member).parts
    return PurePosixPath(name).parts[-len(wanted) :] == wanted


def _check(info: tarfile.TarInfo, same: list[str], largest: int, title: str) -> None:
    """DataError for a member that is suspicious in any way, or not the only one of its name."""
    path = PurePosixPath(info.name)
    problem = None
    if path.is_absolute() or ".." in path.parts:
        problem = "would lie outside the folder"
    elif not info.isreg() or info.issparse():
        problem = "is a link or of another special kind"
    elif info.size > largest:
        problem = f"has {info.size} bytes, more than {LARGEST_RATIO} times the archive"
    elif len(same) > 1:
        problem = f"is one of several of that name ({', '.join(same)})"
    if problem is not None:
        raise DataError(f"{title}: member '{info.name}' {problem}; it is not unpacked")
