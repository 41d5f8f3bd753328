"""Checksums of a finished download against those that were published, in one pass.

The etag of an object store is the md5 of the content or, where it was uploaded in N parts, the md5
of the concatenated md5s of the parts followed by ``-N``. It does not say how large the parts were:
the sizes in use that give N parts are tried, all of them at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MIB: Final = 1 << 20

PART_SIZES: Final = (5, 8, 10, 15, 16, 20, 25, 32, 50, 64, 100, 128, 250, 256, 500, 512, 1024)
"""Sizes of parts in MiB that programs upload with by default, or that are commonly chosen."""

_PIECE: Final = 4 * MIB


@dataclass(frozen=True)
class Digest:
    """What a file's bytes amount to.

    Attributes:
        bytes: number of them.
        sha256: of the whole.
        etag: the published etag if the bytes have it, else None.
        part: bytes of the parts with which they do; None for an etag that is a plain md5.
    """

    bytes: int
    sha256: str
    etag: str | None = None
    part: int | None = None


def digest(
    path: Path, etag: str | None = None, seen: Callable[[int], object] = lambda n: None
) -> Digest:
    """Read a file once and compute its digests.

    Args:
        path: the file.
        etag: the published one, to be compared with.
        seen: called with the number of bytes just read, for a progress bar.
    """
    size = path.stat().st_size
    whole = hashlib.sha256()
    etags = _etags(etag, size)
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            whole.update(piece)
            for candidate in etags:
                candidate.update(piece)
            seen(len(piece))
    for candidate in etags:
        if candidate.value() == etag:
            return Digest(size, whole.hexdigest(), etag, candidate.part)
    return Digest(size, whole.hexdigest())


def part_sizes(size: int, parts: int) -> list[int]:
    """Part sizes in bytes to be tried for a file of ``size`` bytes uploaded in ``parts``.

    Those of `PART_SIZES` that give this number of parts, and the smallest whole MiB that does.

    >>> [size // MIB for size in part_sizes(8_203_349_480, 978)]
    [8]
    >>> [size // MIB for size in part_sizes(30 * MIB, 2)]
    [15, 16, 20, 25]
    """
    implied = -(-size // (parts * MIB))
    tried = sorted({implied, *PART_SIZES})
    return [part * MIB for part in tried if part > 0 and -(-size // (part * MIB)) == parts]


class _Etag:
    """An etag as it grows with the bytes; parts of ``part`` bytes, None: a plain md5."""

    def __init__(self, part: int | None) -> None:
        self.part = part
        self._md5 = _md5()
        self._room = part
        self._finished: list[bytes] = []

    def update(self, piece: bytes) -> None:
        if self._room is None:
            self._md5.update(piece)
            return
        rest = memoryview(piece)
        while rest:
            now, rest = rest[: self._room], rest[self._room :]
            self._md5.update(now)
            self._room -= len(now)
            if not self._room:
                self._next_part()

    def value(self) -> str:
        if self.part is None:
            return self._md5.hexdigest()
        if self._room != self.part:
            self._next_part()
        return f"{_md5(b''.join(self._finished)).hexdigest()}-{len(self._finished)}"

    def _next_part(self) -> None:
        self._finished.append(self._md5.digest())
        self._md5 = _md5()
        self._room = self.part


def _etags(etag: str | None, size: int) -> list[_Etag]:
    if etag is None:
        return []
    _, dash, parts = etag.partition("-")
    return [_Etag(part) for part in part_sizes(size, int(parts))] if dash else [_Etag(None)]


def _md5(data: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
