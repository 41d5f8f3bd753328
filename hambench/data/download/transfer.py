"""One URL into one part file, over as many connections as it takes."""

from __future__ import annotations

import email.utils
import http.client
import logging
import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from tqdm import tqdm

import hambench
from hambench.data.download.catalogue import FileEntry
from hambench.data.download.part import Part, Response
from hambench.errors import DataError

logger = logging.getLogger(__name__)

_PIECE: Final = 1 << 20
_LONGEST_WAIT: Final = 60.0
_LONGEST_RETRY_AFTER: Final = 600.0
_BUSY: Final = (408, 425, 429)
"""Client-error statuses that mean "later", as all 5xx do."""


@dataclass(frozen=True)
class Patience:
    """How long to try.

    Attributes:
        attempts: in a row that bring nothing new, before a URL is given up.
        stall: seconds without a byte after which a connection is given up.
        wait: lets seconds pass.
    """

    attempts: int = 8
    stall: float = 60.0
    wait: Callable[[float], object] = time.sleep

    def seconds(self, failures: int, asked: float) -> float:
        """Pause after so many failures in a row; at least what the server asked for, in reason."""
        return max(min(2.0 ** (failures - 1), _LONGEST_WAIT), min(asked, _LONGEST_RETRY_AFTER))


class Unavailable(DataError):  # noqa: N818 (another URL may do)
    """A URL does not serve the file (exit code 3)."""


class _Broken(Exception):  # noqa: N818 (it is tried again)
    """A connection that brought no end of the file; ``after`` seconds it may do better."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


def transfer(
    url: str, part: Part, entry: FileEntry, patience: Patience, *, progress: bool = True
) -> None:
    """Complete ``part`` with the bytes of ``url``, from where it stands if the server agrees.

    Raises:
        Unavailable: the server refuses, serves another file than ``entry`` describes, or cannot
            be reached however often it is tried.
        RunError: the disk is full; what is there is kept.
    """
    failures, most = 0, part.size
    while not part.complete:
        try:
            _receive(url, part, entry, patience.stall, progress)
        except _Broken as broken:
            failures = 1 if part.size > most else failures + 1
            most = max(most, part.size)
            if failures >= patience.attempts:
                raise Unavailable(f"{broken}, {failures} attempts in a row") from broken
            pause = patience.seconds(failures, broken.after)
            logger.info("%s: %s; trying again in %g s", url, broken, pause)
            patience.wait(pause)


def _receive(url: str, part: Part, entry: FileEntry, stall: float, progress: bool) -> None:
    """One connection: all that it brings goes into the part."""
    asked = part.resume_from(url)
    with _opened(url, asked, part, stall) as answer:
        if answer.status == http.client.PARTIAL_CONTENT:
            _check_continues(answer, part)
        else:
            _begin(url, answer, part, entry)
        assert part.response is not None
        total = part.response.bytes
        part.check_room((total or 0) - part.size)
        _copy(answer, part, entry.name, stall, progress)
    if total is None:
        _check_size(part.size, entry)
        part.end_here()
    elif part.size < total:
        raise _Broken(f"the connection ended after {part.size} of {total} bytes")


def _opened(url: str, asked: dict[str, str], part: Part, stall: float) -> http.client.HTTPResponse:
    """The server's answer, redirections followed; errors sorted into passing and lasting ones."""
    agent = {"User-Agent": f"hambench/{hambench.__version__}", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers={**agent, **asked})
    try:
        answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=stall)
    except urllib.error.HTTPError as error:
        error.close()
        said = f"{error.code} {error.reason}"
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and asked:
            part.remove()
            raise _Broken("the file has become shorter, it is fetched anew") from error
        if error.code >= 500 or error.code in _BUSY:
            raise _Broken(said, _retry_after(error.headers.get("Retry-After"))) from error
        raise Unavailable(said) from error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(_reason(error, stall)) from error
    return answer


def _check_continues(answer: http.client.HTTPResponse, part: Part) -> None:
    """Make sure that a partial answer is the rest of the part; if not, it is fetched anew."""
    begun = part.response
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
    etag = _strong_etag(answer)
    if (
        begun is None
        or found is None
        or (int(found[1]), int(found[2])) != (part.size, begun.bytes)
        or (begun.etag is not None and etag is not None and etag != begun.etag)
    ):
        part.remove()
        raise _Broken("the server continues another file, it is fetched anew")


def _begin(url: str, answer: http.client.HTTPResponse, part: Part, entry: FileEntry) -> None:
    """Start the part with a full answer, unless it is not the file that was published."""
    length = answer.headers.get("Content-Length", "")
    response = Response(
        url=url,
        etag=_strong_etag(answer),
        modified=answer.headers.get("Last-Modified"),
        bytes=int(length) if length.isdecimal() else None,
    )
    if response.bytes is not None:
        _check_size(response.bytes, entry)
    if url in entry.urls and entry.etag is not None and _contradicts(response.etag, entry.etag):
        raise Unavailable(
            f"its etag is {response.etag}, {entry.etag} was published: it has changed"
        )
    if part.size:
        begun = part.response
        changed = begun is not None and begun.url == url and begun.etag != response.etag
        why = "has changed" if changed else "does not go on with what is here"
        logger.info("%s %s; %s is begun anew", url, why, part.path)
    part.begin(response)


def _copy(
    answer: http.client.HTTPResponse, part: Part, title: str, stall: float, progress: bool
) -> None:
    """Append all that the answer brings to the part, as it comes."""
    assert part.response is not None
    shown = bar(title, part.response.bytes, part.size, progress)
    with shown, part.writing() as write:
        while True:
            try:
                piece = answer.read1(_PIECE)
            except (OSError, http.client.HTTPException) as error:
                raise _Broken(_reason(error, stall)) from error
            if not piece:
                return
            write(piece)
            shown.update(len(piece))


def bar(title: str, total: int | None, done: int, progress: bool) -> tqdm[Any]:
    """A progress bar in bytes, with rate and remaining time; rarely renewed in a log file."""
    interval = 0.5 if sys.stderr.isatty() else 30.0
    return tqdm(
        desc=title, total=total, initial=done, unit="B", unit_scale=True, leave=False,
        mininterval=interval, maxinterval=interval, smoothing=0.05, dynamic_ncols=True,
        disable=not progress,
    )  # fmt: skip


def _check_size(size: int, entry: FileEntry) -> None:
    if entry.bytes is not None and size != entry.bytes:
        raise Unavailable(f"it has {size} bytes, {entry.bytes} were published")


def _contradicts(etag: str | None, published: str) -> bool:
    """Whether a server's etag shows other content: it is one of digests too, and differs."""
    return (
        etag is not None
        and re.fullmatch("[0-9a-f]{32}(-[0-9]+)?", etag) is not None
        and etag != published
    )


def _strong_etag(answer: http.client.HTTPResponse) -> str | None:
    """Header ETag without its quotes; None for a weak one, which does not speak of bytes."""
    found = re.fullmatch(r'"([^"]*)"', answer.headers.get("ETag", ""))
    return found[1] if found else None


def _retry_after(header: str | None) -> float:
    """Seconds that a header Retry-After asks for: it holds them, or a date."""
    if header is None:
        return 0.0
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except ValueError:
        return 0.0


def _reason(error: Exception, stall: float) -> str:
    """Why there was no answer, in a few words."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no byte for {stall:g} s"
    return f"{type(cause).__name__}: {cause}" if isinstance(cause, Exception) else str(cause)
