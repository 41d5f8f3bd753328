"""A real HTTP server of a few files, with ranges and etags, that can be told to misbehave."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


def md5_etag(content: bytes, part: int | None = None) -> str:
    """The etag of an object store, uploaded in parts of ``part`` bytes or at once."""
    if part is None:
        return hashlib.md5(content).hexdigest()
    parts = [hashlib.md5(content[i : i + part]).digest() for i in range(0, len(content), part)]
    return f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"


@dataclass
class Fault:
    """What happens to one request.

    Attributes:
        status: this and no file, with ``headers``.
        cut: the connection ends after so many bytes of the body.
        silence: seconds without a byte, at the place of ``cut``, before the connection ends.
        drip: bytes at a time, with ``pause`` seconds between.
    """

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    silence: float = 0.0
    drip: int = 1 << 16
    pause: float = 0.0


@dataclass
class Served:
    """A file of the server. ``faults`` befall the first requests, ``always`` all others."""

    content: bytes
    etag: str | None = None
    modified: str | None = None
    ranges: bool = True
    checks_if_range: bool = True
    says_length: bool = True
    chunked: bool = False
    faults: list[Fault] = field(default_factory=list)
    always: Fault = field(default_factory=Fault)


@dataclass
class Asked:
    """A request and what came of it; ``sent`` counts bytes of the body."""

    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class FileServer:
    """Serves `files` by path, notes `asked`."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[Asked] = []
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    def __enter__(self) -> FileServer:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{path}"

    def add(self, path: str, content: bytes, **settings: object) -> str:
        """Serve a file and say its URL."""
        self.files[f"/{path}"] = Served(content, **settings)  # type: ignore[arg-type]
        return self.url(path)

    @property
    def sent(self) -> list[int]:
        return [asked.sent for asked in self.asked]

    @property
    def statuses(self) -> list[int]:
        return [asked.status for asked in self.asked]


class _Handler(BaseHTTPRequestHandler):
    owner: FileServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        asked = Asked(self.path, dict(self.headers))
        self.owner.asked.append(asked)
        served = self.owner.files.get(self.path)
        self.close_connection = True
        if served is None:
            self._answer(asked, 404, {"Content-Length": "0"})
            return
        fault = served.faults.pop(0) if served.faults else served.always
        if fault.status:
            self._answer(asked, fault.status, {"Content-Length": "0", **fault.headers})
            return
        start = self._start(served)
        headers = {"ETag": f'"{served.etag}"'} if served.etag else {}
        if served.modified:
            headers["Last-Modified"] = served.modified
        if start >= len(served.content) > 0:
            self._answer(asked, 416, {"Content-Range": f"bytes */{len(served.content)}"})
            return
        if start:
            last = len(served.content) - 1
            headers["Content-Range"] = f"bytes {start}-{last}/{last + 1}"
        if served.chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif served.says_length:
            headers["Content-Length"] = str(len(served.content) - start)
        self._answer(asked, 206 if start else 200, headers)
        with contextlib.suppress(OSError):  # the client may leave
            self._send(asked, served, fault, served.content[start:])

    def _start(self, served: Served) -> int:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if found is None or not served.ranges:
            return 0
        same = self.headers.get("If-Range") in (f'"{served.etag}"', served.modified)
        return int(found[1]) if same or not served.checks_if_range else 0

    def _answer(self, asked: Asked, status: int, headers: dict[str, str]) -> None:
        asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close")
        self.end_headers()

    def _send(self, asked: Asked, served: Served, fault: Fault, body: bytes) -> None:
        end = len(body) if fault.cut is None else min(fault.cut, len(body))
        for place in range(0, end, fault.drip):
            piece = body[place : min(place + fault.drip, end)]
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if served.chunked else piece
            self.wfile.write(framed)
            asked.sent += len(piece)
            time.sleep(fault.pause)
        time.sleep(fault.silence)
        if served.chunked and end == len(body):
            self.wfile.write(b"0\r\n\r\n")
