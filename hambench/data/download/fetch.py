"""One file of a catalogue onto this machine: transfer, verification, unpacking, final name."""

from __future__ import annotations

import logging
import os
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hambench.data import sidecar
from hambench.data.download.archives import extract
from hambench.data.download.catalogue import MIRRORS, FileEntry
from hambench.data.download.digests import MIB, Digest, digest
from hambench.data.download.part import Part, amount
from hambench.data.download.transfer import Patience, Unavailable, bar, transfer
from hambench.errors import DataError, HambenchError, VerificationError
from hambench.files import alone

logger = logging.getLogger(__name__)

SUFFIX: Final = ".download.json"
"""Of the file beside a download that says where it came from and what was verified."""


@dataclass(frozen=True)
class Outcome:
    """A file that is here.

    Attributes:
        path: of it.
        fetched: whether it was fetched now, or was here before.
        checked: what its bytes were verified against, in words.
    """

    path: Path
    fetched: bool
    checked: str


def fetch(
    entry: FileEntry,
    folder: str | os.PathLike[str],
    *,
    offline: bool = False,
    patience: Patience | None = None,
    progress: bool = True,
) -> Outcome:
    """Make a file of a catalogue be in ``folder``; a stopped or killed call is gone on with.

    The transfer goes to ``<name>.part``; only a complete and verified file gets its name. Where it
    came from and what was verified is kept beside it, as ``<name>.download.json``.

    Args:
        entry: the file.
        folder: made if it is missing.
        offline: use the network for nothing; a complete part is still finished.
        patience: how often and how long each URL is tried.
        progress: show bars with rate and remaining time.

    Raises:
        DataError: no URL serves the file (each is named with the reason), it can only be got by
            hand, ``offline`` and it is not here, or a file of another size has its name.
        VerificationError: what came is not what was published; it is put aside.
        RunError: no space, or another process is fetching it.
        KeyboardInterrupt: Ctrl-C, with a message that says how to go on.
    """
    target = Path(folder) / entry.name
    if os.path.lexists(target):
        return _here(target, entry, progress)
    if not Part(target).complete:
        _check_reachable(target, entry, offline)
    with _only_one(target):
        if os.path.lexists(target):  # another process has just finished
            return _here(target, entry, progress)
        part = Part(target)
        try:
            return _obtain(part, target, entry, patience or Patience(), progress)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{entry.name}: stopped; {part.kept()}") from None


def _here(target: Path, entry: FileEntry, progress: bool) -> Outcome:
    """What is known of a file of that name; where no record fits it, it is verified."""
    size = target.stat().st_size if target.is_file() else None
    if size is None:
        raise DataError(f"{target} is no file; remove it, or choose another folder with --to")
    if entry.archive is None and entry.bytes not in (None, size):
        raise DataError(
            f"{target} has {size} bytes, {entry.bytes} were published; remove it to download it"
        )
    part = Part(target)
    if part.response is not None:  # left by a kill between the renaming and the tidying
        part.remove()
    known = sidecar.find(target, SUFFIX)
    if known:
        return Outcome(target, False, str(known["checked"]))
    if entry.archive is not None or not (entry.sha256 or entry.etag):
        return Outcome(
            target, False, "nothing to verify it by; if it does not serve, remove it and call again"
        )
    try:
        found = _verified(target, entry, progress)
    except VerificationError as error:
        raise VerificationError(f"{target}: {error}; remove it to download it again") from error
    return Outcome(target, False, _checked(entry, found))


def _check_reachable(target: Path, entry: FileEntry, offline: bool) -> None:
    """DataError where there is no URL, or none may be asked."""
    if not entry.sources:
        raise DataError(
            f"{entry.name} cannot be downloaded: {entry.manual}; it belongs at {target}"
        )
    if offline:
        raise DataError(
            f"{target} is not here, and --offline forbids to download it; copy it there, or call "
            "without --offline"
        )


def _obtain(
    part: Part, target: Path, entry: FileEntry, patience: Patience, progress: bool
) -> Outcome:
    """Transfer, verify and finish from one URL after the other, until one serves the file."""
    begun = part.response.url if part.response is not None else None
    kind: type[HambenchError] = DataError
    problems: list[str] = []
    urls = sorted(entry.sources, key=lambda url: url != begun) or [str(begun)]
    for url in urls:
        try:
            transfer(url, part, entry, patience, progress=progress)
            found = _verified(part.path, entry, progress)
            return _finish(part, target, entry, found, progress)
        except Unavailable as error:
            problems.append(f"{url}: {error}")
        except (VerificationError, DataError) as error:
            kind = type(error)
            problems.append(f"{url}: {error} (put aside as {part.reject()})")
        if len(problems) < len(urls):
            logger.info("%s; the next URL is tried", problems[-1])
    kept = f" ({part.kept()})" if part.size else ""
    raise kind(
        f"cannot get {entry.name}: {'; '.join(problems)}; try again later, or name another URL in "
        f"{MIRRORS} of the data folder or with --mirrors{kept}"
    )


def _verified(path: Path, entry: FileEntry, progress: bool) -> Digest:
    """Digests of a complete file; VerificationError unless they are the published ones."""
    with bar(f"verifying {entry.name}", path.stat().st_size, 0, progress) as shown:
        found = digest(path, entry.etag, shown.update)
    if entry.bytes not in (None, found.bytes):
        raise VerificationError(f"{found.bytes} bytes came, {entry.bytes} were published")
    if entry.sha256 not in (None, found.sha256):
        raise VerificationError(f"the sha256 of what came is {found.sha256}, not {entry.sha256}")
    if entry.etag != found.etag:
        raise VerificationError(
            f"what came has not the published etag {entry.etag}, with any part size"
        )
    return found


def _finish(part: Part, target: Path, entry: FileEntry, found: Digest, progress: bool) -> Outcome:
    """Give the verified part, or the file in it, its name and keep the record."""
    assert part.response is not None
    record: dict[str, Any] = {
        "url": part.response.url,
        "bytes": found.bytes,
        "etag": found.etag or part.response.etag,
        "sha256": found.sha256,
        "checked": _checked(entry, found),
    }
    if entry.archive is None:
        part.become(target)
    else:
        record["member"] = entry.archive
        with bar(f"unpacking {entry.name}", part.size, 0, progress) as shown:
            record["member_sha256"] = extract(
                part.path, entry.archive, target,
                title="it", check_room=part.check_room, seen=shown.update,
            )  # fmt: skip
        part.remove()
    sidecar.write(target, SUFFIX, record)
    return Outcome(target, True, record["checked"])


def _checked(entry: FileEntry, found: Digest) -> str:
    """What the bytes were verified against, in words."""
    parts = f" (parts of {found.part // MIB} MiB)" if found.part else ""
    said = [
        *(["sha256"] if entry.sha256 else []),
        *([f"etag{parts}"] if found.etag else []),
    ]
    if said:
        return f"{' and '.join(said)} as published"
    size = f"{amount(found.bytes)}, " + ("as published; " if entry.bytes else "")
    return f"{size}no checksum is published, sha256 {found.sha256} recorded"


def _only_one(target: Path) -> AbstractContextManager[None]:
    """Hold ``target`` as the only process that fetches it; its folder is made.

    Raises:
        RunError: another process does, or the folder cannot be written or locked.
    """
    return alone(
        target.with_name(f".{target.name}.lock"),
        f"{target} is being downloaded by another process; wait for it, or stop it",
    )
